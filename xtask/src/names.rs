//! The values of options: names of triggers, topologies, scenarios, kernels, profiles and failures. Each comes from
//! where it is defined. Help texts list them, and shells complete them.

use std::ffi::OsStr;
use std::sync::LazyLock;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};
use harness::trigger::Trigger;
use harness::vm::topology::Topology;
use kernels::{FailureKind, Manifest};

/// Accepts any text, and offers names for completion. The text may be a glob over the names, a part of one, or a name
/// that is known only when the command runs. The command itself reports an unknown name, with the nearest known one.
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

/// The manifest; `None` if it cannot be read. The command reads the manifest too, and reports the error.
static MANIFEST: LazyLock<Option<Manifest>> = LazyLock::new(|| Manifest::of_project().ok());

static TOPOLOGIES: LazyLock<Vec<Topology>> = LazyLock::new(Topology::all);

fn named(name: &'static str, about: &'static str) -> PossibleValue {
    PossibleValue::new(name).help(about)
}

/// All triggers, and the name for no trigger.
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

/// Kernels of the manifest, globs over them, or the user's own kernels.
pub fn kernels() -> Offers {
    let variants = MANIFEST.iter().flat_map(|manifest| &manifest.variants);
    Offers(variants.map(|variant| named(&variant.name, &variant.about)).collect())
}

/// Bases of the manifest.
pub fn bases() -> Offers {
    let bases = MANIFEST.iter().flat_map(|manifest| &manifest.bases);
    Offers(bases.map(|base| PossibleValue::new(base.name.as_str())).collect())
}

/// Profiles of the manifest.
pub fn profiles() -> Offers {
    let profiles = MANIFEST.iter().flat_map(|manifest| &manifest.profiles);
    Offers(profiles.map(|profile| named(&profile.name, &profile.about)).collect())
}

/// The kinds of failures, separated by commas.
pub fn failures() -> String {
    FailureKind::ALL.map(FailureKind::name).join(", ")
}
