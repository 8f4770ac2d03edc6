//! Prints who waits for whom in a running guest, and records what the look read as a fixture for tests.
//!
//!     cargo run -p harness --example look -- PID SYSTEM_MAP LAYOUT [FIXTURE]
//!
//! PID is a QEMU that the harness runs. SYSTEM_MAP is that of its kernel, LAYOUT the JSON form of the kernel's layout.
//! FIXTURE gets the pages that the look read, and the symbols near to the addresses in them. The guest goes on meanwhile,
//! so look at one that is stuck.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::time::Instant;

use harness::vm::memory::GuestMemory;
use harness::waits::{Kernel, Memory, Symbols, Unreadable, look, words};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A page of memory, by the number of the page.
type Pages = BTreeMap<u64, Vec<u8>>;

const PAGE: usize = 4096;

/// Symbols that a look asks for by name.
const NAMES: &[&str] = &[
    "_text",
    "_end",
    "init_task",
    "init_top_pgt",
    "phys_base",
    "page_offset_base",
    "__pgtable_l5_enabled",
    "__start_init_stack",
    "__end_init_stack",
    "__start_init_task",
    "__end_init_task",
    "linux_banner",
    "modules",
    "__start_orc_unwind_ip",
    "__stop_orc_unwind_ip",
    "__start_orc_unwind",
    "device_ktype",
    "pci_bus_type",
    "vfio_device_fops",
];

/// Memory that remembers what was read of it.
struct Recording {
    memory: GuestMemory,
    pages: RefCell<Pages>,
}

impl Memory for Recording {
    fn read(&self, physical: u64, into: &mut [u8]) -> std::result::Result<(), Unreadable> {
        self.memory.read(physical, into)?;
        self.pages.borrow_mut().insert(physical / PAGE as u64, into.to_vec());
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid, system_map, layout, fixture @ ..] = arguments.as_slice() else {
        return Err("usage: look PID SYSTEM_MAP LAYOUT [FIXTURE]".into());
    };
    let system_map = fs::read_to_string(system_map)?;
    let kernel = Kernel::new(Symbols::parse(&system_map), serde_json::from_slice(&fs::read(layout)?)?);
    let memory = Recording { memory: memory_of(pid.parse()?)?, pages: RefCell::default() };
    let began = Instant::now();
    let graph = look(&memory, &kernel)?;
    let took = began.elapsed();
    let pages = memory.pages.into_inner();
    print!("{}", words::text(&graph));
    println!("{} tasks, {} pages, {took:?}", graph.tasks.len(), pages.len());
    if let [fixture] = fixture {
        let symbols = symbols_in(&system_map, &pages);
        let mut bytes = (symbols.len() as u64).to_le_bytes().to_vec();
        bytes.extend(symbols.into_bytes());
        pages.iter().for_each(|(number, page)| bytes.extend([&number.to_le_bytes(), page.as_slice()].concat()));
        fs::write(fixture, miniz_oxide::deflate::compress_to_vec_zlib(&bytes, 10))?;
    }
    Ok(())
}

/// The memory of a QEMU that has it in a file that is mapped.
fn memory_of(pid: u32) -> Result<GuestMemory> {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let words: Vec<&str> = command.split('\0').collect();
    let after = |option| words.iter().position(|word| *word == option).and_then(|index| words.get(index + 1));
    let mib: u32 = after("-m").ok_or("QEMU has no -m")?.trim_end_matches('M').parse()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let is_memory = |(from, to): &(u64, u64)| to - from == u64::from(mib) << 20;
    let (base, _) = maps.lines().filter_map(range).find(is_memory).ok_or("QEMU maps no memory of that size")?;
    Ok(GuestMemory::at(pid, base, mib)?)
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// The lines of a System.map that are near to an address in one of these pages, or asked for by name.
fn symbols_in(system_map: &str, pages: &Pages) -> String {
    let lines: BTreeMap<u64, Vec<&str>> = system_map.lines().fold(BTreeMap::new(), |mut lines, line| {
        let address = line.split(' ').next().and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or_default();
        lines.entry(address).or_insert_with(Vec::new).push(line);
        lines
    });
    let mut kept = BTreeSet::new();
    let words =
        pages.values().flat_map(|page| page.chunks_exact(8)).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    for word in words.filter(|word| *word >= 0xffff_ffff_8100_0000 && *word < 0xffff_ffff_ff00_0000) {
        let near = [lines.range(..word).next_back(), lines.range(word..).next(), lines.range(word + 1..).next()];
        kept.extend(near.into_iter().flatten().map(|(address, _)| *address));
    }
    let named = |line: &str| {
        let name = line.split(' ').nth(2).unwrap_or_default();
        NAMES.contains(&name) || name.starts_with("down_")
    };
    let keep = |address: &u64, lines: &[&str]| kept.contains(address) || lines.iter().any(|line| named(line));
    let all = lines.iter().filter(|(address, lines)| keep(address, lines)).flat_map(|(_, lines)| lines);
    all.map(|line| format!("{line}\n")).collect()
}
