//! The places of a kernel at which the guest of a cell can be stopped.

use std::fs;
use std::path::Path;

use crate::cell::PlannedCell;
use crate::scenario::Scenario;
use crate::vm::argv::Machine;
use crate::vm::clock::Place;

/// The cell with what is expected of it if its guest can be stopped at all places of its scenario. A further repeat stands
/// at a later execution of the same functions: nobody knows what it shows.
pub(super) fn surer(cell: &PlannedCell, prepared: Option<&(&Scenario, Machine)>) -> PlannedCell {
    let surely = |(scenario, machine): &(&Scenario, Machine)| {
        let places = scenario.needs.places;
        let all = machine.is_held()
            && places.functions.iter().all(|name| machine.places().iter().any(|place| place.symbol == *name));
        if all && cell.id.repeat == 1 { cell.expected.surely(places.show) } else { cell.expected.clone() }
    };
    PlannedCell { expected: prepared.map_or_else(|| cell.expected.clone(), surely), ..cell.clone() }
}

/// The functions of a kernel at which a guest can be stopped. Those that the kernel does not have are missing, and all
/// of them if there is no list of its symbols.
pub(super) fn of(symbols: &[&str], system_map: &Path) -> Vec<Place> {
    let text = if symbols.is_empty() { String::new() } else { fs::read_to_string(system_map).unwrap_or_default() };
    let place = |line: &str| {
        let (address, symbol) =
            line.split_once(' ').and_then(|(address, rest)| Some((address, rest.split_once(' ')?.1)))?;
        let wanted = symbols.contains(&symbol);
        let address = wanted.then(|| u64::from_str_radix(address, 16).ok())??;
        Some(Place { symbol: symbol.to_owned(), address })
    };
    text.lines().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_in_the_list_of_symbols() {
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("System.map");
        let symbols = "ffffffff81000000 T _text\nffffffff814c0a30 t pci_iov_update_resource\nxyz t pcie_flr\n\n";
        fs::write(&map, symbols).unwrap();
        let found = |names: &[&str]| -> Vec<_> { of(names, &map).iter().map(ToString::to_string).collect() };
        assert_eq!(found(&["pci_iov_update_resource", "_text"]), ["0xffffffff81000000", "0xffffffff814c0a30"]);
        assert_eq!(found(&["pcie_flr", "pci_iov", "t"]), Vec::<String>::new());
        assert_eq!(of(&["_text"], &folder.path().join("none")), []);
    }
}
