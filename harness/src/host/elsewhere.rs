//! What to install where there is no apt, and what Debian's packages are called there.

use super::os::{Installer, OsRelease};

/// What Debian calls a package, and what Fedora, SUSE and Arch Linux call what has the same in it.
#[rustfmt::skip]
const NAMES: &[(&str, [&str; 3])] = &[
    // Debian            Fedora                  SUSE                  Arch
    ("bc",              ["bc",                  "bc",                 "bc"]),
    ("binutils",        ["binutils",            "binutils",           "binutils"]),
    ("bison",           ["bison",               "bison",              "bison"]),
    ("flex",            ["flex",                "flex",               "flex"]),
    ("gcc",             ["gcc",                 "gcc",                "gcc"]),
    ("git",             ["git-core",            "git-core",           "git"]),
    // glibc's static library is the one of its parts that is left out elsewhere.
    ("libc6-dev",       ["glibc-static",        "glibc-devel-static", "glibc"]),
    ("libelf-dev",      ["elfutils-libelf-devel", "libelf-devel",     "libelf"]),
    ("libssl-dev",      ["openssl-devel",       "libopenssl-devel",   "openssl"]),
    ("make",            ["make",                "make",               "make"]),
    ("mawk",            ["gawk",                "gawk",               "gawk"]),
    ("perl",            ["perl",                "perl",               "perl"]),
    ("qemu-system-x86", ["qemu-system-x86-core", "qemu-x86",          "qemu-system-x86"]),
    ("tar",             ["tar",                 "tar",                "tar"]),
    ("util-linux",      ["util-linux",          "util-linux",         "util-linux"]),
    ("xz-utils",        ["xz",                  "xz",                 "xz"]),
];

/// What a package is called by an installer. Names that we do not know are left as Debian has them.
fn name_for(installer: Installer, package: &str) -> &str {
    let column = match installer {
        Installer::Apt | Installer::Unknown => return package,
        Installer::Dnf => 0,
        Installer::Zypper => 1,
        Installer::Pacman => 2,
    };
    NAMES.iter().find(|(debian, _)| *debian == package).map_or(package, |(_, names)| names[column])
}

/// The sentence that tells people how to install packages (given as Debian's).
pub(super) fn how_to_install(os: &OsRelease, packages: &[String]) -> String {
    let installer = os.installer();
    let mut names: Vec<_> = packages.iter().map(|package| name_for(installer, package)).collect();
    names.sort_unstable();
    names.dedup();
    let names = names.join(" ");
    match installer {
        Installer::Apt => format!("run `cargo xtask setup` (installs {names})"),
        Installer::Dnf => format!("run `sudo dnf install {names}`"),
        Installer::Zypper => format!("run `sudo zypper install {names}`"),
        Installer::Pacman => format!("run `sudo pacman -S --needed {names}`"),
        Installer::Unknown => format!("install what Debian calls {names}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::{QEMU_PACKAGE, SETPRIV};
    use super::*;

    fn how(id: &str, packages: &[&str]) -> String {
        let os = OsRelease { id: id.to_owned(), ..OsRelease::default() };
        how_to_install(&os, &packages.iter().map(|&package| package.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_distribution_is_told_in_its_own_words() {
        let packages = ["qemu-system-x86", "libelf-dev", "mawk", "libssl-dev"];
        insta::assert_snapshot!(
            ["debian", "fedora", "suse", "arch", "nixos"].map(|id| how(id, &packages)).join("\n"),
            @"
        run `cargo xtask setup` (installs libelf-dev libssl-dev mawk qemu-system-x86)
        run `sudo dnf install elfutils-libelf-devel gawk openssl-devel qemu-system-x86-core`
        run `sudo zypper install gawk libelf-devel libopenssl-devel qemu-x86`
        run `sudo pacman -S --needed gawk libelf openssl qemu-system-x86`
        install what Debian calls libelf-dev libssl-dev mawk qemu-system-x86
        "
        );
    }

    #[test]
    fn whatever_may_be_asked_for_has_a_name_everywhere() {
        // dpkg and apt are asked for where they are the distribution's own.
        let asked =
            kernels::requirements().iter().map(|r| r.debian_package).chain([QEMU_PACKAGE, SETPRIV.debian_package]);
        for package in asked.filter(|package| !["apt", "dpkg"].contains(package)) {
            assert!(NAMES.iter().any(|(debian, _)| *debian == package), "no names for {package}");
        }
    }
}
