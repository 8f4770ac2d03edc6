//! Which packages to install on distributions without apt: Debian's package names and their equivalents.

use super::os::{Installer, OsRelease};

/// Names of packages in Debian, and of the packages with the same content in Fedora, SUSE and Arch Linux.
#[rustfmt::skip]
const NAMES: &[(&str, [&str; 3])] = &[
    // Debian            Fedora                  SUSE                  Arch
    ("bc",              ["bc",                  "bc",                 "bc"]),
    ("binutils",        ["binutils",            "binutils",           "binutils"]),
    ("bison",           ["bison",               "bison",              "bison"]),
    ("flex",            ["flex",                "flex",               "flex"]),
    ("gcc",             ["gcc",                 "gcc",                "gcc"]),
    ("git",             ["git-core",            "git-core",           "git"]),
    // Debian's package includes the static library of glibc. Other distributions have a package of its own for it.
    ("libc6-dev",       ["glibc-static",        "glibc-devel-static", "glibc"]),
    ("libelf-dev",      ["elfutils-libelf-devel", "libelf-devel",     "libelf"]),
    ("libssl-dev",      ["openssl-devel",       "libopenssl-devel",   "openssl"]),
    ("make",            ["make",                "make",               "make"]),
    ("mawk",            ["gawk",                "gawk",               "gawk"]),
    ("perl",            ["perl",                "perl",               "perl"]),
    ("qemu-system-x86", ["qemu-system-x86-core", "qemu-x86",          "qemu-system-x86"]),
    ("tar",             ["tar",                 "tar",                "tar"]),
    ("uuid-dev",        ["libuuid-devel",       "libuuid-devel-static", "util-linux-libs"]),
    ("util-linux",      ["util-linux",          "util-linux",         "util-linux"]),
    ("xz-utils",        ["xz",                  "xz",                 "xz"]),
];

/// The name that an installer has for a package. A name that is not in the table stays Debian's.
fn name_for(installer: Installer, package: &str) -> &str {
    let column = match installer {
        Installer::Apt | Installer::Unknown => return package,
        Installer::Dnf => 0,
        Installer::Zypper => 1,
        Installer::Pacman => 2,
    };
    NAMES.iter().find(|(debian, _)| *debian == package).map_or(package, |(_, names)| names[column])
}

/// The sentence that tells people how to install packages, which are given by their Debian names.
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
        Installer::Unknown => format!("install the packages that Debian calls {names}"),
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
    fn every_distribution_gets_its_own_command() {
        let packages = ["qemu-system-x86", "libelf-dev", "mawk", "libssl-dev"];
        insta::assert_snapshot!(
            ["debian", "fedora", "suse", "arch", "nixos"].map(|id| how(id, &packages)).join("\n"),
            @"
        run `cargo xtask setup` (installs libelf-dev libssl-dev mawk qemu-system-x86)
        run `sudo dnf install elfutils-libelf-devel gawk openssl-devel qemu-system-x86-core`
        run `sudo zypper install gawk libelf-devel libopenssl-devel qemu-x86`
        run `sudo pacman -S --needed gawk libelf openssl qemu-system-x86`
        install the packages that Debian calls libelf-dev libssl-dev mawk qemu-system-x86
        "
        );
    }

    #[test]
    fn every_required_package_has_a_name_in_every_distribution() {
        // dpkg and apt are required only on distributions that use them.
        let asked = kernels::requirements()
            .iter()
            .chain(kernels::selftest_requirements())
            .map(|r| r.debian_package)
            .chain([QEMU_PACKAGE, SETPRIV.debian_package]);
        for package in asked.filter(|package| !["apt", "dpkg"].contains(package)) {
            assert!(NAMES.iter().any(|(debian, _)| *debian == package), "no names for {package}");
        }
    }
}
