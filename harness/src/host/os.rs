//! The distribution of this machine (os-release(5)).

use std::fs;

/// The fields of os-release that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// Its name for programs, such as `debian`.
    pub id: String,
    /// The distributions that it derives from, nearest first.
    pub id_like: Vec<String>,
    /// The release's codename, such as `bookworm`. Rolling releases have none.
    pub codename: Option<String>,
    /// Its name and version for people.
    pub pretty_name: String,
}

/// The package manager of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installer {
    /// Debian, Ubuntu and their derivatives.
    Apt,
    /// Fedora, RHEL and their derivatives.
    Dnf,
    /// SUSE.
    Zypper,
    /// Arch Linux.
    Pacman,
    /// Any other one.
    Unknown,
}

impl OsRelease {
    /// Reads `/etc/os-release`, or `/usr/lib/os-release` if that does not exist, as os-release(5) specifies.
    pub fn of_this_machine() -> OsRelease {
        ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map(|text| OsRelease::parse(&text))
            .unwrap_or_default()
    }

    fn parse(text: &str) -> OsRelease {
        let mut os = OsRelease::default();
        let assignments = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        for (key, value) in assignments.filter_map(|line| line.split_once('=')) {
            let value = unquote(value);
            match key {
                "ID" => os.id = value,
                "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_owned).collect(),
                "VERSION_CODENAME" if !value.is_empty() => os.codename = Some(value),
                "PRETTY_NAME" => os.pretty_name = value,
                _ => {}
            }
        }
        os
    }

    /// Whether this is Debian itself. Debian's releases have backports with newer versions of QEMU.
    pub fn is_debian(&self) -> bool {
        self.id == "debian"
    }

    /// Its name for people. There is always one.
    pub fn name(&self) -> &str {
        [&self.pretty_name, &self.id].into_iter().find(|name| !name.is_empty()).map_or("this system", String::as_str)
    }

    /// Its package manager.
    pub fn installer(&self) -> Installer {
        std::iter::once(&self.id)
            .chain(&self.id_like)
            .find_map(|id| match id.as_str() {
                "debian" | "ubuntu" => Some(Installer::Apt),
                "fedora" | "rhel" | "centos" => Some(Installer::Dnf),
                "suse" | "opensuse" | "sles" => Some(Installer::Zypper),
                "arch" => Some(Installer::Pacman),
                _ => None,
            })
            .unwrap_or(Installer::Unknown)
    }
}

/// A value as a shell reads it: without quotes, and with the escapes of characters removed.
fn unquote(value: &str) -> String {
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(verbatim) = quoted('\'') {
        return verbatim.to_owned();
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = quoted('"').unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distributions_are_told_apart() {
        for (text, id, codename, installer) in [
            (
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n",
                "debian",
                Some("bookworm"),
                Installer::Apt,
            ),
            (
                "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n",
                "ubuntu",
                Some("noble"),
                Installer::Apt,
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=wilma\n",
                "linuxmint",
                Some("wilma"),
                Installer::Apt,
            ),
            ("# a comment\nID=fedora\nVERSION_CODENAME=\"\"\n", "fedora", None, Installer::Dnf),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "rocky", None, Installer::Dnf),
            ("ID='opensuse-tumbleweed'\nID_LIKE='opensuse suse'\n", "opensuse-tumbleweed", None, Installer::Zypper),
            ("ID=arch\n", "arch", None, Installer::Pacman),
            ("ID=nixos\n", "nixos", None, Installer::Unknown),
            ("", "", None, Installer::Unknown),
        ] {
            let os = OsRelease::parse(text);
            assert_eq!((os.id.as_str(), os.codename.as_deref(), os.installer()), (id, codename, installer), "{text}");
        }
    }

    #[test]
    fn there_is_always_a_name_for_people() {
        assert_eq!(OsRelease::parse("ID=x\nPRETTY_NAME=\"X \\\"one\\\"\"").name(), "X \"one\"");
        assert_eq!(OsRelease::parse("ID=x").name(), "x");
        assert_eq!(OsRelease::default().name(), "this system");
    }

    proptest! {
        #[test]
        fn quoted_values_survive(value in "[^\n]*") {
            let escaped: String = value.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(unquote(&format!("\"{escaped}\"")), value);
        }

        #[test]
        fn anything_parses(text in "(?s).*") {
            OsRelease::parse(&text);
        }
    }
}
