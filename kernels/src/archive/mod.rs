//! Debian's archive: what this machine's apt knows of it, and any suite of it through an apt with lists and a
//! configuration of its own ([`PrivateApt`]).
//!
//! A suite that the machine's own sources do not name, such as the backports of a newer release, cannot be added to them
//! without root, and adding it would change the machine. The private apt needs neither, and apt verifies its packages in
//! the same way.

mod error;
mod mirror;
mod own;
pub mod policy;
mod private;
pub mod sources;
pub mod targets;

use std::fmt;
use std::time::Duration;

pub use self::error::ArchiveError;
pub use self::mirror::{KEYRING_PACKAGE, Mirror, has_keyring};
pub use self::own::{files_of_this_machine, unpack_from_this_machine};
pub use self::private::{ArchiveFile, Patience, PrivateApt};
use crate::event::CancelToken;
use crate::job::Job;

/// apt reads its lists in half a second. A machine under load may need more.
const DEADLINE: Duration = Duration::from_secs(60);

/// A Debian package with the source of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name, such as `linux-source-6.12`.
    pub name: String,
    /// The suite of Debian's archive that it is in, such as `trixie-backports`. None: the suites of this machine's own
    /// sources have it.
    pub suite: Option<String>,
}

/// The name, and the suite if it has one.
impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.suite.as_ref().map_or(Ok(()), |suite| write!(f, " of {suite}"))
    }
}
