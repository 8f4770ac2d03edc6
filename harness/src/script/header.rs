//! The head of a script: comments of the form `# iov: KEY = VALUE`.

use std::time::Duration;

use kernels::Unknown;

use super::WITHIN;
use crate::trigger::Trigger;
use crate::vm::topology::Topology;

/// How a line of the head begins, after `#` and white space.
const MARK: &str = "iov:";

/// The keys of the head.
const KEYS: [&str; 7] = ["about", "triggers", "topology", "detects", "kernel-args", "files", "within"];

/// The word for all triggers.
const ALL: &str = "all";

/// What the head of a script says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the script does, and what a kernel must do to pass. Empty if it does not say.
    pub about: String,
    /// The triggers that it runs with.
    pub triggers: Vec<Trigger>,
    /// The topologies that it runs on, the default one first. Empty for the usual one.
    pub topologies: Vec<String>,
    /// The bugs that it detects.
    pub detects: Vec<String>,
    /// Words for the kernel's command line.
    pub kernel_args: Vec<String>,
    /// Files for the guest, as `PATH` or `PATH:GUESTPATH`. Their paths begin where the script is.
    pub files: Vec<String>,
    /// How long it may take, in the guest's time.
    pub within: Duration,
}

impl Default for Header {
    fn default() -> Header {
        Header {
            about: String::new(),
            triggers: Vec::new(),
            topologies: Vec::new(),
            detects: Vec::new(),
            kernel_args: Vec::new(),
            files: Vec::new(),
            within: Duration::from_secs(WITHIN.into()),
        }
    }
}

impl Header {
    /// Reads the head of a text: its first lines that are comments or empty.
    ///
    /// # Errors
    /// A sentence about the first line that is wrong.
    pub fn of(text: &[u8]) -> Result<Header, String> {
        let text = String::from_utf8_lossy(text);
        let mut header = Header::default();
        let head = text.lines().take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        for (number, line) in (1..).zip(head) {
            if let Some(setting) = line.trim_start().trim_start_matches('#').trim_start().strip_prefix(MARK) {
                header.set(setting).map_err(|why| format!("line {number}: {why}"))?;
            }
        }
        Ok(header)
    }

    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("`{}` has no `=`: write `# iov: KEY = VALUE`", setting.trim()))?;
        let (key, value) = (key.trim(), value.trim());
        let list = || value.split(',').map(str::trim).filter(|word| !word.is_empty());
        let words = || list().map(str::to_owned);
        match key {
            "about" => self.about = value.to_owned(),
            "triggers" if value == ALL => self.triggers = Trigger::ALL.to_vec(),
            "triggers" => self.triggers = list().map(trigger).collect::<Result<_, _>>()?,
            "topology" => self.topologies = list().map(topology).collect::<Result<_, _>>()?,
            "detects" => self.detects = words().collect(),
            "kernel-args" => self.kernel_args = value.split_whitespace().map(str::to_owned).collect(),
            "files" => self.files = words().collect(),
            "within" => {
                let seconds = value.parse::<u32>().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| format!("`within` takes seconds, from 1 on, not `{value}`"))?;
                self.within = Duration::from_secs(seconds.into());
            }
            other => return Err(Unknown::new("key", other, KEYS).to_string()),
        }
        Ok(())
    }
}

fn trigger(name: &str) -> Result<Trigger, String> {
    let found = Trigger::ALL.iter().find(|trigger| trigger.name() == name).copied();
    found.ok_or_else(|| Unknown::new("trigger", name, Trigger::ALL.iter().map(|one| one.name())).to_string())
}

fn topology(name: &str) -> Result<String, String> {
    let all = Topology::all();
    match all.iter().any(|topology| topology.name == name) {
        true => Ok(name.to_owned()),
        false => Err(Unknown::new("topology", name, all.iter().map(|one| one.name.as_str())).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_head_ends_with_the_first_command() {
        let text = "#!/bin/sh\n# iov: triggers = yank, device-del\n#iov: detects = one, two\n\n# iov: within = 5\n\
                    # iov: topology = nvme\n# iov: kernel-args = a b=c\n# iov: files = x, y:/bin/y\n# A remark.\n\
                    echo\n# iov: about = not read\n";
        let header = Header::of(text.as_bytes()).unwrap();
        assert_eq!(header.triggers, [Trigger::Yank, Trigger::DeviceDel]);
        assert_eq!((header.detects.join(" "), header.topologies.join(" ")), ("one two".to_owned(), "nvme".to_owned()));
        assert_eq!(
            (header.kernel_args.join(" "), header.files.join(" ")),
            ("a b=c".to_owned(), "x y:/bin/y".to_owned())
        );
        assert_eq!((header.within.as_secs(), header.about.as_str()), (5, ""));
        assert_eq!(Header::of(b"# iov: triggers = all").unwrap().triggers, Trigger::ALL);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let why = |line: &str| Header::of(format!("#!/bin/sh\n# iov: {line}\n").as_bytes()).unwrap_err();
        insta::assert_snapshot!(why("triggers = yakn"), @"line 2: there is no trigger `yakn`; did you mean `yank`?");
        insta::assert_snapshot!(why("topology = nvem"), @"line 2: there is no topology `nvem`; did you mean `nvme`?");
        insta::assert_snapshot!(why("trigger = yank"), @"line 2: there is no key `trigger`; did you mean `triggers`?");
        insta::assert_snapshot!(why("within = 0"), @"line 2: `within` takes seconds, from 1 on, not `0`");
        insta::assert_snapshot!(why("yank"), @"line 2: `yank` has no `=`: write `# iov: KEY = VALUE`");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200), rest in "[# iov:=a-z0-9,\n]{0,80}") {
            let _ = (Header::of(&text), Header::of(rest.as_bytes()));
        }
    }
}
