//! What is known of a kernel without its guest.

use kernels::layout::Layout;

use super::error::LookError;
use super::symbols::Symbols;

/// A kernel: its symbols, and the layout of its structures.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) symbols: Symbols,
    pub(super) layout: Layout,
}

impl Kernel {
    /// A kernel with these symbols and layouts.
    pub fn new(symbols: Symbols, layout: Layout) -> Kernel {
        Kernel { symbols, layout }
    }

    /// The offset of a member that the kernel must have.
    pub(super) fn offset(&self, structure: &'static str, member: &'static str) -> Result<u64, LookError> {
        self.offset_if_any(structure, member).ok_or(LookError::NoMember { structure, member })
    }

    /// The offset of a member that some kernels lack.
    pub(super) fn offset_if_any(&self, structure: &str, member: &str) -> Option<u64> {
        self.layout.offset(structure, member).map(u64::from)
    }

    /// The address of a symbol that the kernel must have.
    pub(super) fn symbol(&self, name: &'static str) -> Result<u64, LookError> {
        self.symbols.address(name).ok_or(LookError::NoSymbol { name })
    }

    /// The size of a task's stack (`THREAD_SIZE`): that of the first task's, which the linker places between two
    /// symbols (`INIT_TASK_DATA` in `include/asm-generic/vmlinux.lds.h`).
    pub(super) fn stack_size(&self) -> u64 {
        let of = |begin, end| Some(self.symbols.address(end)?.saturating_sub(self.symbols.address(begin)?));
        let size = of("__start_init_stack", "__end_init_stack").or_else(|| of("__start_init_task", "__end_init_task"));
        size.filter(|size| (4096..=65536).contains(size)).unwrap_or(16384)
    }
}
