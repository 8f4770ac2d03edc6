//! The initramfs that guests boot: the agent and nothing else.
