//! `iov pf`, `iov vf`, `iov slot`: the devices of the topology.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use guest_protocol::{Answer, Function, SlotName, Word};
use serde_json::{Map, Value, json};

use super::{Ended, Next, Words, number};
use crate::error::{AgentError, doing};
use crate::words;

/// The options of a device that print a part of it.
const PARTS: [&str; 7] = ["sysfs", "interface", "slot", "port", "number", "json", "of"];

/// What the arguments of such a word say.
struct Asked {
    number: usize,
    part: Option<String>,
    of: Option<String>,
}

fn asked(word: &str, what: &str, mut words: Words) -> Result<Asked, AgentError> {
    let mut asked = Asked { number: 0, part: None, of: None };
    while let Some(next) = words.next()? {
        match next {
            Next::Word(text) => asked.number = number(&text, what)?,
            Next::Option(name) if name == "of" => asked.of = Some(words.value(&name)?),
            Next::Option(name) if PARTS.contains(&name.as_str()) => asked.part = Some(name),
            other => return Err(other.unknown(word)),
        }
    }
    Ok(asked)
}

/// `iov pf`.
pub fn pf(words: Words) -> Ended {
    let Asked { number, part, .. } = asked("pf", "the number of a PF", words)?;
    let Function { bdf, sysfs, slot } = function(number)?;
    let mut all = of_function(&bdf, &sysfs);
    all.insert("slot".to_owned(), slot.id.into());
    all.insert("port".to_owned(), slot.port.into());
    show("bdf", part, all)
}

/// `iov vf`.
pub fn vf(words: Words) -> Ended {
    let Asked { number, part, of } = asked("vf", "the number of a VF", words)?;
    let pf = match of {
        Some(bdf) => format!("/sys/bus/pci/devices/{bdf}"),
        None => function(0)?.sysfs,
    };
    let link = format!("{pf}/virtfn{number}");
    let target =
        doing(&format!("find VF {number}, which may not be enabled: read {link}"), || fs::canonicalize(&link))?;
    let bdf = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    show("bdf", part, of_function(&bdf, &target.to_string_lossy()))
}

/// `iov slot`.
pub fn slot(words: Words) -> Ended {
    let Asked { number, part, .. } = asked("slot", "the number of a slot", words)?;
    let Answer::Slot(SlotName { id, number, port }) = words::say(&Word::Slot { number })? else {
        return Err(AgentError::Refused("the harness did not answer with a slot".to_owned()));
    };
    let all = json!({ "id": id, "number": number, "port": port });
    show("id", part, all.as_object().cloned().unwrap_or_default())
}

fn function(number: usize) -> Result<Function, AgentError> {
    match words::say(&Word::Pf { number })? {
        Answer::Function(function) => Ok(function),
        _ => Err(AgentError::Refused("the harness did not answer with a PF".to_owned())),
    }
}

fn of_function(bdf: &str, sysfs: &str) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("bdf".to_owned(), bdf.into());
    all.insert("sysfs".to_owned(), sysfs.into());
    if let Some(name) = interface(Path::new(sysfs)) {
        all.insert("interface".to_owned(), name.into());
    }
    all
}

/// The network interface of a function, if it has one. That of a virtio device is a folder below.
fn interface(sysfs: &Path) -> Option<String> {
    let first = |folder: &Path| Some(fs::read_dir(folder).ok()?.flatten().next()?.file_name().to_str()?.to_owned());
    let below = || fs::read_dir(sysfs).ok()?.flatten().find_map(|entry| first(&entry.path().join("net")));
    first(&sysfs.join("net")).or_else(below)
}

/// Prints one part of a device, or all of them.
fn show(usual: &str, part: Option<String>, all: Map<String, Value>) -> Ended {
    let part = part.unwrap_or_else(|| usual.to_owned());
    if part == "json" {
        println!("{}", Value::Object(all));
        return Ok(ExitCode::SUCCESS);
    }
    match all.get(&part) {
        Some(Value::String(text)) => println!("{text}"),
        Some(other) => println!("{other}"),
        None => return Err(AgentError::Refused(format!("this device has no {part}"))),
    }
    Ok(ExitCode::SUCCESS)
}
