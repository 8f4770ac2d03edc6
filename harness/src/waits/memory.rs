//! What a look needs of a guest: its physical memory.

/// The physical memory of a guest.
pub trait Memory {
    /// Reads `into.len()` bytes at a physical address.
    ///
    /// # Errors
    /// [`Unreadable`]: the guest has no memory there, or its memory cannot be read (any more).
    fn read(&self, physical: u64, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// Memory that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the guest's memory at physical address {physical:#x}: {why}")]
pub struct Unreadable {
    /// The address.
    pub physical: u64,
    /// The reason.
    pub why: String,
}
