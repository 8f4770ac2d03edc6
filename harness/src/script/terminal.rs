//! A terminal of the user's, and what it and a guest tell each other.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// A terminal of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// The socket on which it waits for QEMU.
    pub socket: PathBuf,
    /// The socket on which QEMU takes commands of the user.
    pub qmp: PathBuf,
    /// Its size.
    pub size: Size,
    /// When the shell begins.
    pub begins: Begins,
    /// Tells when the user has left it.
    pub left: Signal,
    /// The debugger for which the guest waits, if it waits for one.
    pub debugger: Option<Debugger>,
}

/// A debugger that the user attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debugger {
    /// The socket on which QEMU waits for it.
    pub socket: PathBuf,
    /// Tells when QEMU waits.
    pub awaited: Signal,
}

/// When the shell on a terminal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// At once, in place of the script.
    AtOnce,
    /// When the scenario has failed.
    AfterFailure,
}

/// Tells something once. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Notify>);

impl Signal {
    /// Tells it.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Waits until it is told.
    pub async fn told(&self) {
        self.0.notified().await;
    }
}

impl PartialEq for Signal {
    fn eq(&self, other: &Signal) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Signal {}

/// The rows and columns of a terminal. Clones are of the same terminal.
#[derive(Clone, Debug)]
pub struct Size(watch::Sender<(u16, u16)>);

impl Size {
    /// Rows and columns.
    pub fn new(rows: u16, columns: u16) -> Size {
        Size(watch::Sender::new((rows, columns)))
    }

    /// They have changed.
    pub fn set(&self, rows: u16, columns: u16) {
        self.0.send_if_modified(|size| std::mem::replace(size, (rows, columns)) != (rows, columns));
    }

    /// What they are now and become later.
    pub fn follow(&self) -> watch::Receiver<(u16, u16)> {
        self.0.subscribe()
    }
}

impl PartialEq for Size {
    fn eq(&self, other: &Size) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Size {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_size_is_followed_and_the_same_size_is_no_change() {
        let size = Size::new(24, 80);
        let mut followed = size.clone().follow();
        assert_eq!(*followed.borrow_and_update(), (24, 80));
        size.set(24, 80);
        assert!(!followed.has_changed().unwrap());
        size.set(50, 132);
        followed.changed().await.unwrap();
        assert_eq!(*followed.borrow_and_update(), (50, 132));
    }
}
