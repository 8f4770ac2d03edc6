use kernels::archive::{policy, sources, targets};

use super::*;

const QEMU_7: &str = "1:7.2+dfsg-7+deb12u18";
const QEMU_10: &str = "1:10.0.2+ds-2~bpo12+1";
const KERNEL: &str = "linux-source-6.12";

fn os(id: &str, codename: &str) -> OsRelease {
    OsRelease {
        id: id.to_owned(),
        codename: Some(codename.to_owned()).filter(|codename| !codename.is_empty()),
        pretty_name: format!("{id} {codename}").trim().to_owned(),
        ..OsRelease::default()
    }
}

/// What apt prints about packages, each of which comes from one suite.
fn policy(offers: &[(&str, &str, &str)]) -> String {
    offers
        .iter()
        .map(|(name, version, suite)| {
            format!(
                "{name}:\n  Installed: (none)\n  Candidate: {version}\n  Version table:\n     {version} 500\n        \
                 500 http://mirror.example.org/debian {suite}/main amd64 Packages\n"
            )
        })
        .collect()
}

const OWN: &str = "Codename: bookworm\nLabel: Debian\nOrigin: Debian\nSuite: oldstable\nRelease: bookworm\n\
                   Repo-URI: http://mirror.example.org/debian/\nSourcesentry: /etc/apt/sources.list.d/debian.sources:1\n";
const VENDOR: &str = "Codename: bookworm\nLabel: Vendor\nOrigin: Vendor\nSuite: bookworm\nRelease: bookworm\n\
                      Repo-URI: http://vendor.example.org/\nSourcesentry: /etc/apt/sources.list.d/vendor.list:1\n";
const OWN_SOURCE: &str = "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm bookworm-updates\n\
                          Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
const BACKPORTS_SOURCE: &str = "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm-backports\n\
                                Components: main\n";

/// A Debian 12 whose lists are fresh, with gcc and QEMU missing.
fn bookworm() -> Facts {
    let mut entries =
        sources::parse("/etc/apt/sources.list.d/vendor.list".as_ref(), "deb http://vendor.example.org/ bookworm main");
    entries.extend(sources::parse("/etc/apt/sources.list.d/debian.sources".as_ref(), OWN_SOURCE));
    Facts {
        os: os("debian", "bookworm"),
        packages: vec![QEMU_PACKAGE.to_owned(), "make".to_owned(), "gcc".to_owned(), "gcc".to_owned()],
        to_know: vec![KERNEL.to_owned()],
        apt: Some(Apt {
            offers: policy::parse(&policy(&[
                (QEMU_PACKAGE, QEMU_7, "bookworm"),
                ("gcc", "4:12.2.0-3", "bookworm"),
                ("make", "4.3-4.1", "bookworm"),
                (KERNEL, "6.12.117-1~deb12u1", "bookworm-security"),
            ])),
            targets: targets::parse(&format!("{VENDOR}\n{OWN}")).unwrap(),
            entries,
            lists_age: Some(Duration::from_secs(60)),
        }),
        updated: false,
    }
}

fn with_backports(mut facts: Facts) -> Facts {
    let apt = facts.apt.as_mut().unwrap();
    apt.entries
        .extend(sources::parse("/etc/apt/sources.list.d/iov-regress-backports.sources".as_ref(), BACKPORTS_SOURCE));
    facts
}

/// The state after an update that fetched the backports.
fn with_backported_qemu(facts: Facts) -> Facts {
    let mut facts = with_backports(facts);
    let text = policy(&[(QEMU_PACKAGE, QEMU_10, "bookworm-backports")])
        .replace(&format!("Candidate: {QEMU_10}"), &format!("Candidate: {QEMU_7}"));
    facts.apt.as_mut().unwrap().offers.extend(policy::parse(&text));
    facts.updated = true;
    facts
}

/// A release whose own QEMU is new enough.
fn newer(id: &str, codename: &str, with_kernel: bool) -> Facts {
    let mut facts = bookworm();
    facts.os = os(id, codename);
    let apt = facts.apt.as_mut().unwrap();
    apt.offers.extend(policy::parse(&policy(&[(QEMU_PACKAGE, "1:10.0.2+ds-2", codename)])));
    if !with_kernel {
        apt.offers.remove(KERNEL);
    }
    facts
}

fn lines(facts: &Facts) -> String {
    match plan(facts) {
        Ok(steps) if steps.is_empty() => "nothing".to_owned(),
        Ok(steps) => steps.iter().map(Step::to_string).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn debian_12_gets_qemu_from_backports_and_other_packages_from_the_release() {
    insta::assert_snapshot!(lines(&bookworm()), @"
    add /etc/apt/sources.list.d/iov-regress-backports.sources (the release's QEMU is 1:7.2+dfsg-7+deb12u18, and 8.0 or newer is needed)
    update apt's lists
    ");
    insta::assert_snapshot!(lines(&with_backports(bookworm())), @"update apt's lists");
    insta::assert_snapshot!(lines(&with_backported_qemu(bookworm())), @"
    install gcc make
    install qemu-system-x86 from bookworm-backports
    ");
}

#[test]
fn backports_come_from_the_archive_of_the_release() {
    let steps = plan(&bookworm()).unwrap();
    let Step::AddSource { source, .. } = &steps[0] else { panic!("{steps:?}") };
    insta::assert_snapshot!(source.content, @"
    # Made by `cargo xtask setup` of iov-regress from /etc/apt/sources.list.d/debian.sources.
    Types: deb
    URIs: http://mirror.example.org/debian/
    Suites: bookworm-backports
    Components: main
    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
    ");
}

#[test]
fn without_debians_own_archive_no_source_is_added() {
    let mut facts = bookworm();
    facts.apt.as_mut().unwrap().targets.remove(1);
    insta::assert_snapshot!(lines(&facts), @"error: the backports of bookworm are needed, but none of apt's sources is Debian's own archive of bookworm: add bookworm-backports by hand, then run this again");
}

#[test]
fn a_release_with_a_new_qemu_needs_no_backports() {
    insta::assert_snapshot!(lines(&newer("debian", "trixie", true)), @"install gcc make qemu-system-x86");
    insta::assert_snapshot!(lines(&newer("ubuntu", "noble", false)), @"install gcc make qemu-system-x86");
}

#[test]
fn the_plan_ends_if_a_distribution_does_not_have_a_kernel_source() {
    let mut facts = newer("ubuntu", "noble", false);
    facts.packages.clear();
    assert_eq!(lines(&facts), "nothing");
}

#[test]
fn a_kernel_source_that_debian_does_not_know_is_looked_for_in_backports() {
    let mut facts = bookworm();
    facts.packages.clear();
    facts.apt.as_mut().unwrap().offers.remove(KERNEL);
    insta::assert_snapshot!(lines(&facts), @"
    add /etc/apt/sources.list.d/iov-regress-backports.sources (the release has no linux-source-6.12)
    update apt's lists
    ");
    let mut facts = with_backports(facts);
    assert_eq!(lines(&facts), "update apt's lists");
    facts.updated = true;
    assert_eq!(lines(&facts), "nothing");
}

#[test]
fn lists_are_updated_when_they_are_missing_or_old_or_do_not_know_a_package() {
    for (age, updated, expected) in [
        (None, false, "update apt's lists"),
        (Some(STALE * 2), false, "update apt's lists"),
        (Some(STALE / 2), false, "install gcc"),
        (Some(STALE * 2), true, "install gcc"),
    ] {
        let mut facts = bookworm();
        facts.packages = vec!["gcc".to_owned()];
        facts.updated = updated;
        facts.apt.as_mut().unwrap().lists_age = age;
        assert_eq!(lines(&facts), expected, "{age:?} {updated}");
    }
    let mut facts = bookworm();
    facts.packages.push("no-such-package".to_owned());
    assert_eq!(lines(&facts), "update apt's lists");
    facts.updated = true;
    insta::assert_snapshot!(lines(&facts), @"error: apt does not know no-such-package: check whether `apt-get update` succeeds, and which sources apt has");
}

#[test]
fn nothing_is_done_when_nothing_is_missing() {
    let mut facts = bookworm();
    facts.packages.clear();
    // Then even old lists are not updated.
    facts.apt.as_mut().unwrap().lists_age = Some(STALE * 9);
    assert_eq!(lines(&facts), "nothing");
    assert_eq!(lines(&Facts { apt: None, os: os("fedora", ""), ..facts }), "nothing");
}

#[test]
fn a_release_whose_backports_are_old_too_is_refused() {
    let mut facts = with_backports(bookworm());
    facts.updated = true;
    insta::assert_snapshot!(lines(&facts), @"error: the newest QEMU that apt offers on debian bookworm is 1:7.2+dfsg-7+deb12u18, and 8.0 or newer is needed: use a newer release of the distribution, or set IOV_REGRESS_QEMU to another QEMU");
    facts.os = os("ubuntu", "jammy");
    insta::assert_snapshot!(lines(&facts), @"error: the newest QEMU that apt offers on ubuntu jammy is 1:7.2+dfsg-7+deb12u18, and 8.0 or newer is needed: use a newer release of the distribution, or set IOV_REGRESS_QEMU to another QEMU");
}

#[test]
fn other_distributions_are_told_what_to_install() {
    for id in ["fedora", "opensuse-tumbleweed", "arch"] {
        let mut other = os(id, "");
        other.id_like = vec![if id.starts_with("opensuse") { "suse" } else { id }.to_owned()];
        let facts = Facts { os: other, apt: None, ..bookworm() };
        let text = lines(&facts);
        assert!(
            text.starts_with(&format!("error: packages are installed through apt only, and this is {id}: run `sudo ")),
            "{text}"
        );
        assert!(text.contains(" gcc make ") || text.contains(" gcc make`"), "{text}");
    }
}

#[test]
fn commands_of_all_steps() {
    let steps = [plan(&bookworm()).unwrap(), plan(&with_backported_qemu(bookworm())).unwrap()].concat();
    let text: Vec<_> = steps
        .iter()
        .map(|step| step.argv(Path::new("/tmp/staged")).join(" ".as_ref()).into_string().unwrap())
        .collect();
    insta::assert_snapshot!(text.join("\n"), @"
    install -m 644 -T /tmp/staged /etc/apt/sources.list.d/iov-regress-backports.sources
    env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
    env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install --no-install-recommends -o Dpkg::Options::=--force-confold gcc make
    env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install --no-install-recommends -o Dpkg::Options::=--force-confold -t bookworm-backports qemu-system-x86
    ");
}
