//! Scenarios that make checks one after the other, of which the first that fails is the verdict.

use std::future::Future;

use kernels::FailureKind;

use super::Error;
use crate::verdict::Verdict;

/// Why a scenario ends before its last check.
#[derive(Debug)]
pub enum Halt {
    /// The kernel does not keep the contract.
    Failed(Verdict),
    /// There is no verdict.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Halt {
        Halt::Error(error.into())
    }
}

/// The verdict of a scenario that makes checks one after the other: it passes if all hold.
///
/// # Errors
/// The scenario's.
pub async fn judged(checks: impl Future<Output = Result<(), Halt>>) -> Result<Verdict, Error> {
    match checks.await {
        Ok(()) => Ok(Verdict::Pass),
        Err(Halt::Failed(verdict)) => Ok(verdict),
        Err(Halt::Error(error)) => Err(error),
    }
}

/// A check. `at` is the attribute or the call, and `otherwise` says what was done, what came, and what must come.
///
/// # Errors
/// [`Halt::Failed`] if it does not hold.
pub fn must(holds: bool, at: &str, otherwise: impl FnOnce() -> String) -> Result<(), Halt> {
    match holds {
        true => Ok(()),
        false => Err(Halt::Failed(Verdict::fail(FailureKind::WrongState, at, otherwise()))),
    }
}
