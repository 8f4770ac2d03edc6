//! The programs and headers that a host needs to build kernels.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program or header that is needed to build kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Its name: that of the program, or of the header's library.
    pub name: &'static str,
    /// What it is needed for, as the end of a sentence that begins with "needed".
    pub why: &'static str,
    /// How to find out whether it is installed.
    pub probe: Probe,
    /// The Debian package that has it.
    pub debian_package: &'static str,
}

/// How to find out whether a [`Requirement`] is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A program of this name on `PATH`.
    Program(&'static str),
    /// A C header that gcc finds under this name.
    Header(&'static str),
    /// A file that gcc finds when it links, such as `libc.a`.
    Library(&'static str),
}

impl Requirement {
    /// Whether it is installed. Without gcc, all headers count as missing.
    pub fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(program) => on_path(program),
            Probe::Header(header) => compiles_with(header),
            Probe::Library(file) => links_with(file),
        }
    }
}

/// Whether there is a program of this name on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| is_executable(&folder.join(program))))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn compiles_with(header: &str) -> bool {
    Command::new("gcc")
        .args(["-E", "-x", "c", "-include", header, "-o", "/dev/null", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// gcc prints the bare name if it does not find the file.
fn links_with(file: &str) -> bool {
    let output = Command::new("gcc").arg(format!("-print-file-name={file}")).stdin(Stdio::null()).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
}

/// What a host needs beside [`requirements`] to build the kernel's vfio selftests. Without these, only the cells that
/// use them cannot run.
pub fn selftest_requirements() -> &'static [Requirement] {
    const WHY: &str = "to build the kernel's vfio selftests";
    const fn uuid(name: &'static str, probe: Probe) -> Requirement {
        Requirement { name, why: WHY, probe, debian_package: "uuid-dev" }
    }
    const ALL: &[Requirement] =
        &[uuid("libuuid headers", Probe::Header("uuid/uuid.h")), uuid("static libuuid", Probe::Library("libuuid.a"))];
    ALL
}

/// Everything that a host needs to build kernels. gcc comes first, because the probes of headers use it.
pub fn requirements() -> &'static [Requirement] {
    const fn program(name: &'static str, why: &'static str, debian_package: &'static str) -> Requirement {
        Requirement { name, why, probe: Probe::Program(name), debian_package }
    }
    const fn header(
        name: &'static str,
        header: &'static str,
        why: &'static str,
        debian_package: &'static str,
    ) -> Requirement {
        Requirement { name, why, probe: Probe::Header(header), debian_package }
    }
    const ALL: &[Requirement] = &[
        program("gcc", "to compile kernels", "gcc"),
        program("ld", "to link kernels", "binutils"),
        program("make", "to run the kernel's build", "make"),
        program("flex", "to build the kernel's configuration tools", "flex"),
        program("bison", "to build the kernel's configuration tools", "bison"),
        program("bc", "to compute the kernel's time constants", "bc"),
        program("perl", "by the kernel's build scripts", "perl"),
        program("awk", "by the kernel's build scripts", "mawk"),
        header("libc headers", "stdio.h", "to compile the kernel's host tools", "libc6-dev"),
        header("libelf headers", "gelf.h", "to build objtool", "libelf-dev"),
        header("libssl headers", "openssl/opensslv.h", "to build the kernel's signing tools", "libssl-dev"),
        program("git", "to apply patches", "git"),
        program("tar", "to unpack kernel sources", "tar"),
        program("xz", "to unpack kernel sources", "xz-utils"),
        program("dpkg-deb", "to unpack kernel source packages", "dpkg"),
        program("apt-get", "to download kernel source packages", "apt"),
    ];
    ALL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_programs_and_headers_are_found() {
        let with = |probe| Requirement { name: "x", why: "x", probe, debian_package: "x" };
        assert!(with(Probe::Program("sh")).is_met());
        assert!(!with(Probe::Program("no-such-program-here")).is_met());
        assert!(with(Probe::Header("stdio.h")).is_met());
        assert!(!with(Probe::Header("no/such/header.h")).is_met());
        assert!(with(Probe::Library("libc.a")).is_met());
        assert!(!with(Probe::Library("libno-such-library.a")).is_met());
    }

    #[test]
    fn names_are_unique() {
        let all = || requirements().iter().chain(selftest_requirements());
        let mut names: Vec<_> = all().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }
}
