//! The cells of a run: scenarios, on variants, with triggers, repeated as requested.

use globset::{Glob, GlobMatcher};
use guest_protocol::PROCESS_PREFIX;
use kernels::{Bug, Chance, Manifest, Unknown, Variant, split_profile};

use crate::cell::{CellId, PlannedCell};
use crate::scenario::{Comparison, Scenario};
use crate::trigger::Trigger;
use crate::verdict::Expected;

/// Which cells to run. Each list holds globs. An empty list means all scenarios, all triggers, and the relevant
/// kernels: see [`plan`].
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of kernels.
    pub kernels: Vec<String>,
    /// The base whose kernels run, if no kernels are named. None means the first base.
    pub base: Option<String>,
    /// Names of scenarios: whole names, or the part after the last `::`.
    pub scenarios: Vec<String>,
    /// Names of triggers; `none` for scenarios without any.
    pub triggers: Vec<String>,
    /// Names of topologies. An empty list means each scenario's default topology.
    pub topologies: Vec<String>,
    /// If no kernels are named, every kernel (of every base, or of the one that is named) with every scenario. If no topologies are named, every topology.
    pub all: bool,
    /// A table that a run must fill. If no kernels are named, its kernels run the scenarios of its rows, whatever bugs
    /// they have.
    pub compared: Option<Comparison>,
}

/// A selection that is wrong or selects nothing.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A glob with a syntax error.
    #[error("{0}")]
    Glob(#[from] globset::Error),
    /// A glob that matches nothing.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// Each glob matches something, but all of them together nothing.
    #[error(
        "no cell has this combination of scenario, topology, trigger and kernel; `cargo xtask list cells --all` shows all cells"
    )]
    Nothing,
}

/// The name of the kernel that should have none of the bugs. If the manifest has it, each scenario runs on it.
pub const CANDIDATE: &str = "candidate";

/// The cells that a selection names, scenario by scenario, trigger by trigger, in the order of the manifest.
///
/// Kernels that are named run with every scenario. If none are named, a scenario runs on kernels of one base, the first
/// or the one that is named: on the plain base, on `candidate`, on those whose patches fix or add a bug that it detects,
/// and on those that are compared by it. Other kernels would only repeat the result of their base. Cells that reproduce only randomly are skipped too: a miss says nothing, and
/// after a hit the state of the memory is undefined.
///
/// Scenarios that take long run only if scenarios are named.
///
/// The user's own kernel runs with every scenario too. Two kinds of scenarios run on it only if they are named: those
/// that only detect what every kernel has by design, and those that reproduce only randomly.
///
/// # Errors
/// [`PlanError`]. For an unknown name it has a similar known one.
pub fn plan(
    manifest: &Manifest,
    scenarios: &[Scenario],
    selection: &Selection,
    repeats: u32,
) -> Result<Vec<PlannedCell>, PlanError> {
    let kernels = Globs::new("kernel", &selection.kernels, manifest.variants.iter().map(|v| split_profile(&v.name).0))?;
    let names = Globs::new("scenario", &selection.scenarios, scenarios.iter().map(|scenario| scenario.name))?;
    let known = Trigger::ALL.iter().map(|trigger| trigger.name()).chain([Trigger::NONE]);
    let base = selection.base.as_deref();
    if let Some(name) = base.filter(|name| manifest.bases.iter().all(|base| base.name != **name)) {
        return Err(Unknown::new("base", name, manifest.bases.iter().map(|base| base.name.as_str())).into());
    }
    let triggers = Globs::new("trigger", &selection.triggers, known)?;
    let known: Vec<_> = scenarios.iter().flat_map(Scenario::topologies).collect();
    let topologies = Globs::new("topology", &selection.topologies, known.iter().copied())?;
    let further = selection.all || !selection.topologies.is_empty();
    let every = selection.all || !selection.kernels.is_empty();
    let mut cells = Vec::new();
    let is_wanted = |scenario: &&Scenario| {
        let named = selection.all || !selection.scenarios.is_empty();
        names.select(scenario.name) && (named || !scenario.needs.to_be_named)
    };
    for scenario in scenarios.iter().filter(is_wanted) {
        let wanted = |name: &&str| topologies.select(name) && (further || *name == scenario.topology);
        let topologies: Vec<_> = scenario.topologies().filter(wanted).collect();
        let triggers = scenario.each_trigger().into_iter().filter(|t| triggers.select(Trigger::name_of(*t)));
        for (trigger, topology) in triggers.flat_map(|trigger| topologies.iter().map(move |t| (trigger, t))) {
            let wanted = |variant: &&Variant| {
                kernels.select(split_profile(&variant.name).0)
                    && base.is_none_or(|base| variant.base == base)
                    && (every || is_relevant(manifest, selection, variant, scenario))
                    && (variant.known
                        || selection.all
                        || !selection.scenarios.is_empty()
                        || distinguishes(manifest, scenario))
            };
            for variant in manifest.variants.iter().filter(wanted) {
                let expected = expected(manifest, variant, scenario);
                if expected.surely(scenario.needs.places.show).is_only_random() && !every {
                    continue;
                }
                cells.extend((1..=repeats).map(|repeat| PlannedCell {
                    id: CellId {
                        scenario: scenario.name.to_owned(),
                        topology: (*topology).to_owned(),
                        trigger,
                        variant: variant.name.clone(),
                        repeat,
                    },
                    expected: expected.clone(),
                }));
            }
        }
    }
    if cells.is_empty() { Err(PlanError::Nothing) } else { Ok(cells) }
}

/// The expected result of a variant in a scenario.
fn expected(manifest: &Manifest, variant: &Variant, scenario: &Scenario) -> Expected {
    let profile = manifest.profile.as_ref().map(|profile| profile.name.as_str());
    let of = || Expected::of(&variant.bugs, scenario.detects, &manifest.bugs, profile);
    match scenario.needs.script {
        _ if !variant.known => Expected::None,
        None => of(),
        // Nobody knows what a script finds that does not say what it detects.
        Some(_) if scenario.detects.is_empty() => Expected::None,
        Some(_) => of().by_any_process(PROCESS_PREFIX),
    }
}

/// These cells, and before each row the same cells on the reference, with which all others are compared. Other planned
/// cells of the reference are dropped.
pub fn with_reference(
    manifest: &Manifest,
    scenarios: &[Scenario],
    cells: &[PlannedCell],
    reference: &Variant,
) -> Vec<PlannedCell> {
    let mut all: Vec<PlannedCell> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.id.variant != reference.name) {
        let id = CellId { variant: reference.name.clone(), ..cell.id.clone() };
        let scenario = scenarios.iter().find(|scenario| scenario.name == id.scenario);
        let expected = scenario.map_or(Expected::None, |scenario| expected(manifest, reference, scenario));
        if !all.iter().any(|planned| planned.id == id) {
            all.push(PlannedCell { id, expected });
        }
        all.push(cell.clone());
    }
    all
}

/// Whether a scenario is relevant for a variant: it may give another result than on the variant's base, or a table
/// compares the variant by it.
fn is_relevant(manifest: &Manifest, selection: &Selection, variant: &Variant, scenario: &Scenario) -> bool {
    let concerned = || variant.concerns.iter().any(|bug| scenario.detects.contains(&bug.as_str()));
    let name = name_on_first_base(variant);
    let compared = || selection.compared.is_some_and(|table| table.has(name, scenario.name));
    let base = selection.base.as_deref().or(manifest.bases.first().map(|first| first.name.as_str()));
    base.is_some_and(|base| base == variant.base)
        && (variant.is_plain() || name == CANDIDATE || concerned() || compared())
}

/// The name of a variant, without the profile, and without the name of its base if that is not the first.
fn name_on_first_base(variant: &Variant) -> &str {
    let name = split_profile(&variant.name).0;
    let short = name.strip_suffix(variant.base.as_str()).and_then(|rest| rest.strip_suffix('-'));
    short.unwrap_or(name)
}

/// Whether a scenario can distinguish a good kernel from a bad one.
fn distinguishes(manifest: &Manifest, scenario: &Scenario) -> bool {
    let says_nothing = |bug: &Bug| bug.by_design || bug.chance == Chance::Random;
    let detected = scenario.detects.iter().filter_map(|id| manifest.bug(id).ok());
    scenario.detects.is_empty() || !detected.into_iter().all(says_nothing)
}

/// Globs over names, and over what comes after the last `::` in them.
struct Globs(Vec<GlobMatcher>);

impl Globs {
    fn new<'a>(
        kind: &'static str,
        globs: &[String],
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Globs, PlanError> {
        let mut matchers = Vec::new();
        for glob in globs {
            let one = Globs(vec![Glob::new(glob)?.compile_matcher()]);
            if !known.clone().any(|name| one.select(name)) {
                let short = known.clone().filter_map(|name| Some(name.rsplit_once("::")?.1));
                let near = kernels::near(glob, known.clone().chain(short)).map(str::to_owned);
                let known = known.map(str::to_owned).collect();
                return Err(Unknown { kind, name: glob.clone(), near, known }.into());
            }
            matchers.extend(one.0);
        }
        Ok(Globs(matchers))
    }

    fn select(&self, name: &str) -> bool {
        let short = name.rsplit_once("::").map_or(name, |(_, short)| short);
        self.0.is_empty() || self.0.iter().any(|glob| glob.is_match(name) || glob.is_match(short))
    }
}

#[cfg(test)]
mod tests {
    use kernels::{Base, Fails, FailureKind, Package, Profile, Source};

    use super::*;
    use crate::scenario::Needs;

    fn manifest() -> Manifest {
        let variant = |name: &str, bugs: &[&str], concerns: &[&str]| Variant {
            name: name.to_owned(),
            about: String::new(),
            base: if name.ends_with("-old") { "old" } else { "new" }.to_owned(),
            patches: if name.starts_with("stock") { Vec::new() } else { vec!["fix.patch".into()] },
            config: Vec::new(),
            bugs: globs(bugs),
            concerns: globs(concerns),
            known: true,
        };
        let base = |name: &str| Base {
            name: name.to_owned(),
            source: Source::Package(Package::default()),
            config: Vec::new(),
            asked: Vec::new(),
            bugs: globs(&["bug", "other"]),
            immune: Vec::new(),
        };
        let fails = vec![Fails { kind: FailureKind::Deadlock, function: "f".to_owned() }];
        Manifest {
            bases: vec![base("new"), base("old")],
            variants: vec![
                variant("stock", &["bug", "other"], &[]),
                variant("fixed", &["other"], &["bug"]),
                variant("aside", &["bug"], &["other"]),
                variant("stock-old", &["bug", "other"], &[]),
            ],
            bugs: vec![Bug { id: "bug".to_owned(), fails, ..Bug::default() }],
            profiles: Vec::new(),
            profile: None,
            own: None,
            selftests: None,
        }
    }

    fn scenario(name: &'static str, triggers: &'static [Trigger]) -> Scenario {
        Scenario {
            name,
            about: "",
            detects: &["bug"],
            topology: "igb",
            also: &["other"],
            triggers,
            append: &[],
            needs: Needs::NOTHING,
            run: |_| Box::pin(async { Ok(crate::verdict::Verdict::Pass) }),
        }
    }

    fn planned(selection: Selection, repeats: u32) -> Result<Vec<String>, String> {
        let scenarios =
            [scenario("read::owner", &[Trigger::Yank, Trigger::DeviceDel]), scenario("events::uevent", &[])];
        let cells = plan(&manifest(), &scenarios, &selection, repeats).map_err(|error| error.to_string())?;
        Ok(cells.iter().map(|cell| format!("{} {}", cell.id, cell.expected.word())).collect())
    }

    fn globs(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|&glob| glob.to_owned()).collect()
    }

    #[test]
    fn a_scenario_that_takes_long_runs_only_if_it_is_named() {
        let needs = Needs { to_be_named: true, ..Needs::NOTHING };
        let scenarios = [Scenario { needs, ..scenario("read::long", &[]) }, scenario("read::short", &[])];
        let names = |selection: &Selection| {
            let cells = plan(&manifest(), &scenarios, selection, 1).unwrap();
            let mut names: Vec<_> = cells.into_iter().map(|cell| cell.id.scenario).collect();
            names.dedup();
            names
        };
        assert_eq!(names(&Selection::default()), ["read::short"]);
        assert_eq!(names(&Selection { all: true, ..Selection::default() }).len(), 2);
        let named = Selection { scenarios: globs(&["read::*"]), ..Selection::default() };
        assert_eq!(names(&named).len(), 2);
    }

    #[test]
    fn nothing_is_expected_of_a_kernel_that_is_not_in_the_manifest() {
        let mut manifest = manifest();
        manifest.variants.push(Variant::unknown("mine", "", "new", Vec::new()));
        let selection = Selection { kernels: globs(&["mine"]), ..Selection::default() };
        let cells = plan(&manifest, &[scenario("events::uevent", &[])], &selection, 1).unwrap();
        assert_eq!(cells.iter().map(|cell| &cell.expected).collect::<Vec<_>>(), [&Expected::None]);
    }

    #[test]
    fn the_users_own_kernel_runs_with_all_relevant_scenarios() {
        let planned = |change: fn(&mut Bug), named: &[&str], all| {
            let mut manifest = manifest();
            manifest.variants.push(Variant::unknown("mine", "", "new", Vec::new()));
            change(&mut manifest.bugs[0]);
            let selection =
                Selection { kernels: globs(&["mine"]), scenarios: globs(named), all, ..Selection::default() };
            plan(&manifest, &[scenario("events::uevent", &[])], &selection, 1).is_ok()
        };
        let by_design = |bug: &mut Bug| bug.by_design = true;
        assert!(planned(|_| {}, &[], false));
        assert!(!planned(|bug| bug.chance = Chance::Random, &[], false));
        assert!(planned(|bug| bug.chance = Chance::Rare, &[], false));
        assert!(!planned(by_design, &[], false));
        assert!(planned(by_design, &["uevent"], false));
        assert!(planned(by_design, &[], true));
    }

    #[test]
    fn a_reference_runs_the_cells_of_the_others_and_no_more() {
        let mut manifest = manifest();
        manifest.variants.push(Variant::unknown("mine", "", "new", Vec::new()));
        let scenarios = [scenario("read::owner", &[Trigger::Yank]), scenario("events::uevent", &[])];
        let planned = |kernels: &[&str], scenario: &str, reference: &str| {
            let selection =
                Selection { kernels: globs(kernels), scenarios: globs(&[scenario]), ..Selection::default() };
            let cells = plan(&manifest, &scenarios, &selection, 2).unwrap();
            let cells = with_reference(&manifest, &scenarios, &cells, manifest.variant(reference).unwrap());
            cells.iter().map(|cell| format!("{} {}", cell.id, cell.expected.word())).collect::<Vec<_>>()
        };
        insta::assert_snapshot!(planned(&["mine"], "uevent", "stock").join("\n"), @r"
        events::uevent::igb::none::stock fail
        events::uevent::igb::none::mine none
        events::uevent::igb::none::stock#2 fail
        events::uevent::igb::none::mine#2 none
        ");
        assert_eq!(planned(&["mine", "stock"], "uevent", "stock"), planned(&["mine"], "uevent", "stock"));
        assert_eq!(planned(&["mine", "fixed"], "*", "stock").len(), 2 * 2 * 3);
        assert!(planned(&["stock"], "uevent", "stock").is_empty());
    }

    #[test]
    fn by_default_only_relevant_cells_run() {
        insta::assert_snapshot!(planned(Selection::default(), 1).unwrap().join("\n"), @r"
        read::owner::igb::yank::stock fail
        read::owner::igb::yank::fixed pass
        read::owner::igb::device-del::stock fail
        read::owner::igb::device-del::fixed pass
        events::uevent::igb::none::stock fail
        events::uevent::igb::none::fixed pass
        ");
    }

    #[test]
    fn all_selects_everything_and_named_kernels_run_every_scenario() {
        let all = planned(Selection { all: true, ..Selection::default() }, 1).unwrap();
        assert_eq!(all.len(), 2 * 3 * 4);
        assert!(all.contains(&"events::uevent::igb::none::aside fail".to_owned()), "{all:?}");
        assert!(all.contains(&"events::uevent::other::none::aside fail".to_owned()), "{all:?}");
        let named = planned(Selection { kernels: globs(&["aside", "*-old"]), ..Selection::default() }, 1).unwrap();
        assert_eq!(named.len(), 3 * 2);
    }

    #[test]
    fn the_candidate_runs_with_every_scenario() {
        let mut manifest = manifest();
        manifest.variants[2].name = CANDIDATE.to_owned();
        let cells = plan(&manifest, &[scenario("events::uevent", &[])], &Selection::default(), 1).unwrap();
        let kernels: Vec<_> = cells.iter().map(|cell| cell.id.variant.as_str()).collect();
        assert_eq!(kernels, ["stock", "fixed", CANDIDATE]);
    }

    #[test]
    fn a_table_has_its_cells() {
        const TABLE: Comparison =
            Comparison { title: "", kernels: &["stock", "aside"], rows: &[("events", &["events::uevent"])] };
        let selection = |base: Option<&str>, kernels: &[&str]| Selection {
            base: base.map(str::to_owned),
            kernels: globs(kernels),
            scenarios: globs(&["uevent", "owner"]),
            triggers: globs(&["none", "yank"]),
            compared: Some(TABLE),
            ..Selection::default()
        };
        insta::assert_snapshot!(planned(selection(None, &[]), 1).unwrap().join("\n"), @r"
        read::owner::igb::yank::stock fail
        read::owner::igb::yank::fixed pass
        events::uevent::igb::none::stock fail
        events::uevent::igb::none::fixed pass
        events::uevent::igb::none::aside fail
        ");
        assert_eq!(planned(selection(None, &["fixed"]), 1).unwrap().len(), 2, "kernels that are named run alone");
        assert_eq!(planned(selection(Some("old"), &[]), 1).unwrap().len(), 2, "only stock is there on that base");
    }

    #[test]
    fn a_profile_has_the_same_cells() {
        let profile = Profile {
            name: "debug".to_owned(),
            about: String::new(),
            config: Vec::new(),
            memory_mib: None,
            slower: 2,
            known: Vec::new(),
        };
        let under = Manifest { profiles: vec![profile], ..manifest() }.under("debug").unwrap();
        let planned = |manifest: &Manifest, kernels: &[&str]| {
            let selection = Selection { kernels: globs(kernels), ..Selection::default() };
            let cells = plan(manifest, &[scenario("events::uevent", &[])], &selection, 1).unwrap();
            cells.into_iter().map(|cell| cell.id.variant).collect::<Vec<_>>()
        };
        assert_eq!(planned(&under, &[]), ["stock+debug", "fixed+debug"]);
        assert_eq!(planned(&under, &["aside"]), ["aside+debug"]);
    }

    #[test]
    fn globs_select() {
        let selection = Selection {
            kernels: globs(&["sto*"]),
            scenarios: globs(&["own*"]),
            triggers: globs(&["device-del", "none"]),
            ..Selection::default()
        };
        assert_eq!(
            planned(selection, 2).unwrap(),
            [
                "read::owner::igb::device-del::stock fail",
                "read::owner::igb::device-del::stock#2 fail",
                "read::owner::igb::device-del::stock-old fail",
                "read::owner::igb::device-del::stock-old#2 fail"
            ]
        );
        let whole = Selection { scenarios: globs(&["events::*"]), ..Selection::default() };
        assert_eq!(planned(whole, 1).unwrap().len(), 2, "stock and fixed");
    }

    #[test]
    fn another_base_has_a_default_selection_of_its_own() {
        let old = |all| Selection { base: Some("old".to_owned()), all, ..Selection::default() };
        let kernels = |selection: Selection| -> Vec<String> {
            let mut manifest = manifest();
            let also = |name: &str| Variant { name: name.to_owned(), ..manifest.variants[2].clone() };
            let others = ["candidate-old", "unrelated-old"].map(also);
            let others = others.map(|variant| Variant { base: "old".to_owned(), concerns: Vec::new(), ..variant });
            manifest.variants.extend(others);
            let cells = plan(&manifest, &[scenario("events::uevent", &[])], &selection, 1).unwrap();
            cells.into_iter().map(|cell| cell.id.variant).collect()
        };
        assert_eq!(kernels(old(false)), ["stock-old", "candidate-old"]);
        assert_eq!(kernels(old(true)), ["stock-old", "candidate-old", "unrelated-old"].repeat(2));
        let wrong = planned(Selection { base: Some("odl".to_owned()), ..Selection::default() }, 1).unwrap_err();
        assert_eq!(wrong, "there is no base `odl`; known: new, old");
    }

    #[test]
    fn further_topologies_run_if_they_are_selected() {
        let on = |topologies| Selection {
            scenarios: globs(&["uevent"]),
            topologies: globs(topologies),
            ..Selection::default()
        };
        let names = |topologies| planned(on(topologies), 1).unwrap();
        assert_eq!(
            names(&["oth*"]),
            ["events::uevent::other::none::stock fail", "events::uevent::other::none::fixed pass"]
        );
        assert_eq!(names(&["*"]).len(), 4);
        assert_eq!(names(&[]), names(&["igb"]));
        let wrong = planned(on(&["nvem"]), 1).unwrap_err();
        assert!(wrong.starts_with("there is no topology `nvem`"), "{wrong}");
    }

    #[test]
    fn an_unknown_name_is_reported_with_a_similar_one() {
        let error = |selection| planned(selection, 1).unwrap_err();
        let kernel = error(Selection { kernels: globs(&["stokc"]), ..Selection::default() });
        assert_eq!(kernel, "there is no kernel `stokc`; did you mean `stock`?");
        let scenario = error(Selection { scenarios: globs(&["read::ower"]), ..Selection::default() });
        assert_eq!(scenario, "there is no scenario `read::ower`; did you mean `read::owner`?");
        let trigger = error(Selection { triggers: globs(&["yak"]), ..Selection::default() });
        assert_eq!(trigger, "there is no trigger `yak`; did you mean `yank`?");
        let glob = error(Selection { kernels: globs(&["[a"]), ..Selection::default() });
        assert!(glob.contains("[a"), "{glob}");
        let apart = Selection { scenarios: globs(&["uevent"]), triggers: globs(&["yank"]), ..Selection::default() };
        assert!(error(apart).starts_with("no cell has"));
    }
}
