//! Where the private apt finds Debian's archive, and which keys it must be signed with.

use std::fs;
use std::path::Path;

use super::error::ArchiveError;
use super::sources::{self, Entry};
use super::targets::{self, Target};
use crate::event::CancelToken;

/// The environment variable with the address of a mirror. It is needed where apt's sources name none, as on Ubuntu.
pub(super) const VARIABLE: &str = "IOV_REGRESS_DEBIAN_MIRROR";

/// The keys of Debian's archive, of all its current releases. Newer versions of the package use the first name.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// The package with these keys. Ubuntu has it too, and does not install it by default.
pub const KEYRING_PACKAGE: &str = "debian-archive-keyring";

/// Keyrings of that package begin with this. Some of them have the keys of only one release.
const OF_PACKAGE: &str = "/usr/share/keyrings/debian-archive-";

/// A mirror of Debian's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its address.
    pub uri: String,
    /// The keyring or the keys that it must be signed with, as in the field `Signed-By` of sources.list(5).
    pub signed_by: String,
}

/// Whether this machine has the keys of Debian's archive.
pub fn has_keyring() -> bool {
    keyring().is_some()
}

fn keyring() -> Option<&'static str> {
    KEYRINGS.into_iter().find(|path| fs::exists(path).unwrap_or(false))
}

impl Mirror {
    /// The mirror that `IOV_REGRESS_DEBIAN_MIRROR` names, or else the one that this machine's own apt uses.
    ///
    /// # Errors
    /// apt cannot be asked, no mirror is known, or this machine does not have the keys of the archive.
    pub fn of_this_machine(cancel: &CancelToken) -> Result<Mirror, ArchiveError> {
        if let Some(uri) = std::env::var(VARIABLE).ok().filter(|uri| !uri.is_empty()) {
            let signed_by = keyring().ok_or(ArchiveError::NoKeyring)?.to_owned();
            return Ok(Mirror { uri, signed_by });
        }
        let targets = targets::of_this_machine(cancel)?;
        Mirror::choose(&sources::of_this_machine(), &targets, keyring())
    }

    /// The address comes from the first downloaded index whose archive says that it is Debian's. Without indexes it comes
    /// from the first entry that is signed with Debian's keys.
    fn choose(entries: &[Entry], targets: &[Target], keyring: Option<&str>) -> Result<Mirror, ArchiveError> {
        let is_remote =
            |target: &&Target| !["cdrom:", "file:", "copy:"].iter().any(|kind| target.uri.starts_with(kind));
        let target = targets.iter().filter(|target| target.is_debian()).find(is_remote);
        let entry = target.and_then(|target| entries.iter().find(|entry| entry.is_behind(target)));
        // Debian's own keyring has the keys of all releases. Another one means that the mirror signs the archive itself.
        let own = entry.and_then(Entry::signed_by).map(str::trim_end).filter(|keys| !keys.starts_with(OF_PACKAGE));
        let signed_by = own.or(keyring).ok_or(ArchiveError::NoKeyring)?.to_owned();
        let is_debians = |entry: &&Entry| entry.signed_by().is_some_and(|keys| keys.trim().starts_with(OF_PACKAGE));
        let uri = target.map(|target| target.uri.as_str());
        let uri = uri.or_else(|| entries.iter().filter(is_debians).find_map(Entry::uri));
        Ok(Mirror { uri: uri.ok_or(ArchiveError::NoMirror)?.to_owned(), signed_by })
    }

    /// A source for apt with suites of this archive.
    pub(super) fn stanza(&self, suites: &[&str]) -> String {
        let fields = [
            ("Types", "deb"),
            ("URIs", &self.uri),
            ("Suites", &suites.join(" ")),
            ("Components", "main"),
            ("Architectures", "amd64"),
            ("Signed-By", &self.signed_by),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        fields.collect::<deb822_fast::Paragraph>().to_string()
    }

    /// The file with the keys. None if the keys themselves are in the machine's sources.
    pub(super) fn keyring(&self) -> Option<&Path> {
        Some(Path::new(&self.signed_by)).filter(|path| path.is_absolute())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

    /// An index of `apt-get indextargets`.
    fn index(file: &str, uri: &str, codename: &str, owner: &str) -> String {
        format!(
            "MetaKey: main/binary-amd64/Packages\nCodename: {codename}\nLabel: {owner}\nOrigin: {owner}\nSuite: \
             {codename}\nRelease: {codename}\nRepo-URI: {uri}\nSourcesentry: {file}:1\n\n"
        )
    }

    /// The source that the private apt gets on a machine with one file of sources and these indexes.
    fn stanza(file: &str, sources: &str, indexes: &str, keyring: Option<&str>) -> Result<String, ArchiveError> {
        let entries = sources::parse(Path::new(file), sources);
        let mirror = Mirror::choose(&entries, &targets::parse(indexes).unwrap(), keyring)?;
        Ok(mirror.stanza(&["trixie-backports"]))
    }

    #[test]
    fn debian_12_has_the_mirror_of_its_sources_file() {
        let file = "/etc/apt/sources.list.d/debian.sources";
        let sources = "Types: deb\nURIs: http://mirror.example.org/debian\nSuites: bookworm bookworm-updates\n\
                       Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let vendor = index("/etc/apt/sources.list.d/v.list", "http://vendor.example.org/debian/", "bookworm", "Vendor");
        let own = index(file, "http://mirror.example.org/debian/", "bookworm", "Debian");
        insta::assert_snapshot!(stanza(file, sources, &(vendor + &own), Some(KEYS)).unwrap(), @r"
        Types: deb
        URIs: http://mirror.example.org/debian/
        Suites: trixie-backports
        Components: main
        Architectures: amd64
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
        ");
    }

    #[test]
    fn debian_12_has_the_mirror_of_its_list_file() {
        let file = "/etc/apt/sources.list";
        let sources = "deb http://ftp.example.org/debian bookworm main non-free-firmware\n";
        let own = index(file, "http://ftp.example.org/debian/", "bookworm", "Debian");
        insta::assert_snapshot!(stanza(file, sources, &own, Some(KEYS)).unwrap(), @r"
        Types: deb
        URIs: http://ftp.example.org/debian/
        Suites: trixie-backports
        Components: main
        Architectures: amd64
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
        ");
    }

    #[test]
    fn debian_13_has_the_mirror_of_its_sources_file_and_the_keys_of_all_releases() {
        let file = "/etc/apt/sources.list.d/debian.sources";
        let sources = "Types: deb\nURIs: https://deb.example.org/debian/\nSuites: trixie trixie-updates\nComponents: \
                       main\nSigned-By: /usr/share/keyrings/debian-archive-trixie-stable.gpg\n";
        let own = index(file, "https://deb.example.org/debian/", "trixie", "Debian");
        let keys = "/usr/share/keyrings/debian-archive-keyring.pgp";
        insta::assert_snapshot!(stanza(file, sources, &own, Some(keys)).unwrap(), @r"
        Types: deb
        URIs: https://deb.example.org/debian/
        Suites: trixie-backports
        Components: main
        Architectures: amd64
        Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp
        ");
    }

    #[test]
    fn ubuntu_has_no_mirror_of_debian() {
        let file = "/etc/apt/sources.list.d/ubuntu.sources";
        let sources = "Types: deb\nURIs: http://mirror.example.org/ubuntu/\nSuites: noble noble-updates\nComponents: \
                       main universe\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n";
        let own = index(file, "http://mirror.example.org/ubuntu/", "noble", "Ubuntu");
        let error = stanza(file, sources, &own, Some(KEYS)).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"none of apt's sources is Debian's archive, so no mirror of it is known: set IOV_REGRESS_DEBIAN_MIRROR to the address of one (https://www.debian.org/mirror/list has all of them)");
        let error = stanza(file, sources, &own, None).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"the keys of Debian's archive are not installed, so nothing of it can be verified: install the package debian-archive-keyring (Debian and Ubuntu have it; `cargo xtask setup` installs it)");
    }

    #[test]
    fn a_mirror_that_signs_the_archive_itself_is_verified_with_its_own_keys() {
        let file = "/etc/apt/sources.list.d/debian.sources";
        let sources = "Types: deb\nURIs: http://m.example.org/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n \
                       -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY865\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let own = index(file, "http://m.example.org/debian/", "bookworm", "Debian");
        let text = stanza(file, sources, &own, Some(KEYS)).unwrap();
        insta::assert_snapshot!(text, @r"
        Types: deb
        URIs: http://m.example.org/debian/
        Suites: trixie-backports
        Components: main
        Architectures: amd64
        Signed-By: 
         -----BEGIN PGP PUBLIC KEY BLOCK-----
         .
         mDMEY865
         -----END PGP PUBLIC KEY BLOCK-----
        ");
        // apt reads a stanza up to an empty line.
        assert_eq!(sources::parse(Path::new("/p.sources"), &text)[0].signed_by().unwrap().lines().count(), 5);
    }

    #[test]
    fn without_indexes_the_mirror_is_that_of_an_entry_with_debians_keys() {
        let vendor = "deb http://download.example.org/linux/debian bookworm stable\n";
        assert!(stanza("/etc/apt/sources.list", vendor, "", Some(KEYS)).unwrap_err().to_string().contains(VARIABLE));
        let own = format!("{vendor}deb [signed-by={KEYS}] http://mirror.example.org/debian bookworm main\n");
        let text = stanza("/etc/apt/sources.list", &own, "", Some(KEYS)).unwrap();
        assert!(text.contains("URIs: http://mirror.example.org/debian\n"), "{text}");
        let stanzas =
            format!("Types: deb\nURIs: http://mirror.example.org/debian\nSuites: trixie\nSigned-By: {KEYS}\n");
        assert_eq!(stanza("/etc/apt/sources.list.d/debian.sources", &stanzas, "", Some(KEYS)).unwrap(), text);
    }
}
