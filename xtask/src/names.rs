//! What options take: names of triggers, topologies, scenarios, kernels, profiles and failures, from where each is
//! defined. Help texts list them, and shells complete them.

use std::ffi::OsStr;
use std::sync::LazyLock;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};
use harness::trigger::Trigger;
use harness::vm::topology::Topology;
use kernels::{FailureKind, Manifest};

/// Takes any text, and offers names. The text may be a glob over them, a part of one, or a name that is not known before
/// the command runs; whoever takes it says what is near if there is no such name.
#[derive(Clone)]
pub struct Offers(Vec<PossibleValue>);

impl TypedValueParser for Offers {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().cloned()))
    }
}

/// The manifest; nothing if it cannot be read. The command says why, as it reads the manifest too.
static MANIFEST: LazyLock<Option<Manifest>> = LazyLock::new(|| Manifest::of_project().ok());

static TOPOLOGIES: LazyLock<Vec<Topology>> = LazyLock::new(Topology::all);

fn named(name: &'static str, about: &'static str) -> PossibleValue {
    PossibleValue::new(name).help(about)
}

/// All triggers, and what stands for none.
pub fn triggers() -> Vec<PossibleValue> {
    let trigger = |trigger: &Trigger| named(trigger.name(), trigger.about());
    Trigger::ALL.iter().map(trigger).chain([named(Trigger::NONE, Trigger::ABOUT_NONE)]).collect()
}

/// Globs over triggers.
pub fn trigger_globs() -> Offers {
    Offers(triggers())
}

/// All topologies.
pub fn topologies() -> Vec<PossibleValue> {
    TOPOLOGIES.iter().map(|topology| PossibleValue::new(topology.name.as_str())).collect()
}

/// Globs over topologies.
pub fn topology_globs() -> Offers {
    Offers(topologies())
}

/// Scenarios, or globs over them.
pub fn scenarios() -> Offers {
    Offers(scenarios::all().iter().map(|scenario| named(scenario.name, scenario.about)).collect())
}

/// Kernels of the manifest, or globs over them, or kernels of the user's own.
pub fn kernels() -> Offers {
    let variants = MANIFEST.iter().flat_map(|manifest| &manifest.variants);
    Offers(variants.map(|variant| named(&variant.name, &variant.about)).collect())
}

/// Profiles of the manifest.
pub fn profiles() -> Offers {
    let profiles = MANIFEST.iter().flat_map(|manifest| &manifest.profiles);
    Offers(profiles.map(|profile| named(&profile.name, &profile.about)).collect())
}

/// The kinds of failures, one after the other.
pub fn failures() -> String {
    FailureKind::ALL.map(FailureKind::name).join(", ")
}
