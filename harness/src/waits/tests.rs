//! Looks at the recorded memory of real guests.
//!
//! A fixture is what one look read of a guest that was stuck, deflated: the length of a System.map, the System.map with
//! the symbols near to the addresses in the pages, and the pages, each after its number. `cargo run -p harness --example
//! look` records one.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::layout::Layout;

use super::*;

mod forge;
mod forged;
mod garbled;
mod members;
mod recorded;
mod slabs;

const PAGE: usize = 4096;

/// The kernels of fixtures.
const LINUX_6_1: &str = "6.1.192";
const LINUX_6_12: &str = "6.12.117";
const LINUX_7_3: &str = "7.3.4";
/// Debian's own: with modules, and without frame pointers.
const DEBIAN_6_12: &str = "6.12.117+deb12-amd64";

/// Recorded memory.
#[derive(Clone)]
struct Recorded {
    /// By the number of the page.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Memory for Recorded {
    fn read(&self, physical: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let page = self.pages.get(&(physical / PAGE as u64));
        let page = page.ok_or_else(|| Unreadable { physical, why: "it was not recorded".to_owned() })?;
        let begin = physical as usize % PAGE;
        into.copy_from_slice(&page[begin..begin + into.len()]);
        Ok(())
    }
}

fn file(folder: &str, name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The layouts of a kernel, as `kernels` reads them.
fn layout(release: &str) -> Layout {
    serde_json::from_slice(&file("../kernels/tests/layouts", &format!("{release}.json"))).unwrap()
}

/// The memory and the kernel of a fixture.
fn fixture(release: &str, name: &str) -> (Recorded, Kernel) {
    let bytes =
        miniz_oxide::inflate::decompress_to_vec_zlib(&file("src/waits/fixtures", &format!("{name}.look"))).unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let (map, pages) = bytes[8..].split_at(number(&bytes) as usize);
    let pages = pages.chunks_exact(8 + PAGE).map(|page| (number(page), page[8..].to_vec())).collect();
    let symbols = Symbols::parse(std::str::from_utf8(map).unwrap());
    (Recorded { pages }, Kernel::new(symbols, layout(release)))
}

/// The graph of a fixture.
fn graph(release: &str, name: &str) -> Graph {
    let (memory, kernel) = fixture(release, name);
    look(&memory, &kernel).unwrap_or_else(|error| panic!("{name}: {error}"))
}
