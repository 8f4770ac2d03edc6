//! What is done to a kernel, one file per family of bugs.
