//! Chooses the next cell: the first in the order whose kernel is built and for which the host has room.

use std::ops::{Add, Sub};

use crate::vm::argv::{CPUS, MEMORY_MIB, Machine};

/// The resources of the host that a guest uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Virtual CPUs.
    pub cpus: usize,
    /// Memory, in MiB.
    pub memory_mib: usize,
}

/// The memory that QEMU uses in addition to the guest's, in MiB: mostly TCG's translated code.
const QEMU_MIB: usize = 256;

/// Virtual CPUs per CPU of the host. A guest waits most of the time: for devices, link changes and checks for stuck
/// tasks. Two guests with two virtual CPUs each, per CPU, keep the host busy and do not make guests miss their
/// deadlines.
const CPUS_PER_CPU: usize = 4;

/// The same while kernels are built. The builds use all CPU time that guests leave.
const CPUS_PER_CPU_IN_BUILDS: usize = 2;

impl Weight {
    /// The weight of most guests.
    const USUAL: Weight = Weight { cpus: CPUS as usize, memory_mib: MEMORY_MIB as usize + QEMU_MIB };

    /// The weight of the guest of a machine.
    pub fn of(machine: &Machine) -> Weight {
        Weight { memory_mib: machine.memory_mib as usize + QEMU_MIB, ..Weight::USUAL }
    }

    fn fits_into(self, room: Weight) -> bool {
        self.cpus <= room.cpus && self.memory_mib <= room.memory_mib
    }
}

impl Add for Weight {
    type Output = Weight;

    fn add(self, other: Weight) -> Weight {
        Weight { cpus: self.cpus + other.cpus, memory_mib: self.memory_mib + other.memory_mib }
    }
}

impl Sub for Weight {
    type Output = Weight;

    fn sub(self, other: Weight) -> Weight {
        Weight {
            cpus: self.cpus.saturating_sub(other.cpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }
}

/// The resources of the host that all guests together may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// While no kernels are built.
    alone: Weight,
    /// While kernels are built.
    beside_builds: Weight,
}

impl Budget {
    /// The budget of this host. If the user asked for a number of guests, the budget of that many usual guests, even if
    /// the host is too small for them.
    pub fn of_host(asked: Option<usize>) -> Budget {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        match asked {
            None => Budget::of(cpus, available_mib()),
            Some(cells) => {
                let alone = Weight { cpus: cells * Weight::USUAL.cpus, memory_mib: usize::MAX };
                let beside_builds = Weight { cpus: alone.cpus.min(cpus * CPUS_PER_CPU_IN_BUILDS), ..alone };
                Budget { alone, beside_builds }
            }
        }
    }

    fn of(cpus: usize, memory_mib: usize) -> Budget {
        let weight = |per_cpu| Weight { cpus: cpus * per_cpu, memory_mib };
        Budget { alone: weight(CPUS_PER_CPU), beside_builds: weight(CPUS_PER_CPU_IN_BUILDS) }
    }

    /// How many usual guests may run together while nothing is built.
    pub fn cells(&self) -> usize {
        let Weight { cpus, memory_mib } = Weight::USUAL;
        (self.alone.cpus / cpus).min(self.alone.memory_mib / memory_mib).max(1)
    }

    /// Whether another guest may begin. A guest that is too large for the budget runs alone.
    fn has_room(&self, taken: Weight, building: bool, another: Weight) -> bool {
        let all = if building { self.beside_builds } else { self.alone };
        taken == Weight::default() || another.fits_into(all - taken)
    }
}

/// Cells that have not begun, and the weight of those that run.
pub struct Schedule<T> {
    budget: Budget,
    waiting: Vec<T>,
    taken: Weight,
}

impl<T> Schedule<T> {
    /// `waiting` has the cells in the order in which they should begin.
    pub fn new(budget: Budget, waiting: Vec<T>) -> Schedule<T> {
        Schedule { budget, waiting, taken: Weight::default() }
    }

    /// The first cell that is ready and has room, with its weight. `weigh` gives the weight of a ready cell, and none
    /// for the others. While a heavy cell waits for room, lighter cells behind it begin first.
    pub fn next(&mut self, building: bool, weigh: impl Fn(&T) -> Option<Weight>) -> Option<(T, Weight)> {
        let fits = |cell: &T| weigh(cell).filter(|weight| self.budget.has_room(self.taken, building, *weight));
        let (place, weight) = self.waiting.iter().enumerate().find_map(|(place, cell)| Some((place, fits(cell)?)))?;
        self.taken = self.taken + weight;
        Some((self.waiting.remove(place), weight))
    }

    /// A cell of this weight has ended.
    pub fn over(&mut self, weight: Weight) {
        self.taken = self.taken - weight;
    }

    /// Whether all cells have begun.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// `MemAvailable` in `/proc/meminfo` (proc_meminfo(5)), in MiB.
fn available_mib() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.map_or(usize::MAX, |kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: Weight = Weight { cpus: 8, memory_mib: 4096 };

    /// Which of these cells begin at once, in their order, on a host with two CPUs.
    fn begin(memory_mib: usize, building: bool, cells: &[(&'static str, Option<Weight>)]) -> Vec<&'static str> {
        let mut schedule = Schedule::new(Budget::of(2, memory_mib), cells.to_vec());
        let next = || schedule.next(building, |(_, weight)| *weight).map(|((name, _), _)| name);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn cells_begin_in_order_if_there_is_room_and_their_kernel_is_built() {
        let usual = Some(Weight::USUAL);
        let cells = [("a", usual), ("b", None), ("c", usual), ("d", usual), ("e", usual), ("f", usual)];
        assert_eq!(begin(100_000, false, &cells), ["a", "c", "d", "e"]);
        assert_eq!(begin(100_000, true, &cells), ["a", "c"]);
        assert_eq!(begin(2000, false, &cells), ["a", "c"]);
        assert_eq!(begin(100, false, &cells), ["a"], "a host with too little memory still runs one cell");
    }

    #[test]
    fn heavy_cells_run_with_fewer_others() {
        let usual = Some(Weight::USUAL);
        assert_eq!(begin(100_000, false, &[("big", Some(BIG)), ("a", usual), ("b", usual)]), ["big"]);
        assert_eq!(begin(100_000, false, &[("a", usual), ("big", Some(BIG)), ("b", usual)]), ["a", "b"]);
        // A cell without a guest (its kernel does not build) needs no room.
        assert_eq!(begin(100_000, false, &[("big", Some(BIG)), ("none", Some(Weight::default()))]), ["big", "none"]);
    }

    #[test]
    fn the_room_of_an_ended_cell_is_free_again() {
        let mut schedule = Schedule::new(Budget::of(1, 100_000), vec![1, 2, 3]);
        let next = |schedule: &mut Schedule<i32>| schedule.next(false, |_| Some(Weight::USUAL));
        let (_, weight) = next(&mut schedule).unwrap();
        assert_eq!(next(&mut schedule).unwrap().0, 2);
        assert_eq!(next(&mut schedule), None);
        schedule.over(weight);
        assert_eq!(next(&mut schedule).unwrap().0, 3);
        assert!(schedule.is_empty());
    }

    #[test]
    fn the_users_number_of_jobs_is_limited_only_during_builds() {
        let budget = Budget::of_host(Some(1000));
        assert_eq!(budget.cells(), 1000);
        assert!(budget.beside_builds.cpus < budget.alone.cpus);
        assert_eq!(Budget::of_host(Some(1)).beside_builds, Budget::of_host(Some(1)).alone);
    }
}
