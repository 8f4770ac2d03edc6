//! What a scenario is: a few lines of metadata and an async function over a [`Guest`].

use std::future::Future;
use std::pin::Pin;

use crate::guest::{Error, Guest};
use crate::trigger::Trigger;
use crate::verdict::Verdict;

/// What a scenario's function returns. Not `Send`: all cells of a run live on one thread, as all that they do is wait.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Verdict, Error>> + 'a>>;

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// `family::name`.
    pub name: &'static str,
    /// One line for people: what is done, and what a kernel must do to pass.
    pub about: &'static str,
    /// Ids of the bugs in `kernels.toml` that it detects. What is expected of a cell follows from these.
    pub detects: &'static [&'static str],
    /// Name of the topology that it needs.
    pub topology: &'static str,
    /// Names of further topologies on which it runs if it is asked to.
    pub also: &'static [&'static str],
    /// The triggers that it runs with; none if it removes nothing.
    pub triggers: &'static [Trigger],
    /// Words that it adds to the kernel's command line.
    pub append: &'static [&'static str],
    /// The scenario.
    ///
    /// It returns a verdict on the kernel, [`Verdict::Pass`] or [`Verdict::Fail`], or an error, which says nothing about
    /// the kernel unless it is [`Error::Refused`], or the kernel's own log says more.
    pub run: for<'a> fn(&'a Guest) -> Running<'a>,
}

impl Scenario {
    /// All its topologies, its own first.
    pub fn topologies(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.topology).chain(self.also.iter().copied())
    }

    /// Its triggers; the absence of any counts as one.
    pub fn each_trigger(&self) -> Vec<Option<Trigger>> {
        match self.triggers {
            [] => vec![None],
            triggers => triggers.iter().copied().map(Some).collect(),
        }
    }
}
