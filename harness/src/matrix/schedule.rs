//! Which cell begins next: of those whose kernel is there, the longest that the host has room for.

use std::ops::{Add, Sub};

use crate::vm::argv::{CPUS, MEMORY_MIB, Machine};

/// What a guest takes of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Virtual CPUs.
    pub cpus: usize,
    /// Memory, in MiB.
    pub memory_mib: usize,
}

/// What QEMU needs of memory beside the guest's, in MiB: mostly TCG's translations.
const QEMU_MIB: usize = 256;

/// Virtual CPUs for each of the host's. A guest waits most of the time: for devices, for link changes, for looks at stuck
/// tasks. Two guests of two CPUs for each CPU keep the host busy without keeping guests from their deadlines.
const CPUS_PER_CPU: usize = 4;

/// The same while kernels are built, which takes all the CPUs that guests leave.
const CPUS_PER_CPU_IN_BUILDS: usize = 2;

impl Weight {
    /// Of most guests.
    const USUAL: Weight = Weight { cpus: CPUS as usize, memory_mib: MEMORY_MIB as usize + QEMU_MIB };

    /// Of a machine's guest.
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

/// What guests may take of the host together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    alone: Weight,
    /// While kernels are built.
    beside_builds: Weight,
}

impl Budget {
    /// This host's, or as much as this many guests of the usual weight take: who says how many takes the blame.
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

    /// How many guests of the usual weight it is good for, when nothing is built.
    pub fn cells(&self) -> usize {
        let Weight { cpus, memory_mib } = Weight::USUAL;
        (self.alone.cpus / cpus).min(self.alone.memory_mib / memory_mib).max(1)
    }

    /// Whether another guest may begin. One that is too heavy for the host runs when no other does.
    fn has_room(&self, taken: Weight, building: bool, another: Weight) -> bool {
        let all = if building { self.beside_builds } else { self.alone };
        taken == Weight::default() || another.fits_into(all - taken)
    }
}

/// Cells that have not begun, and what the others take.
pub struct Schedule<T> {
    budget: Budget,
    waiting: Vec<T>,
    taken: Weight,
}

impl<T> Schedule<T> {
    /// For cells in the order in which they are to begin, as far as they can.
    pub fn new(budget: Budget, waiting: Vec<T>) -> Schedule<T> {
        Schedule { budget, waiting, taken: Weight::default() }
    }

    /// The first that is ready and that there is room for, with its weight. `weigh` tells the weight of those that are
    /// ready. While a heavy one waits for room, lighter ones behind it go first.
    pub fn next(&mut self, building: bool, weigh: impl Fn(&T) -> Option<Weight>) -> Option<(T, Weight)> {
        let fits = |cell: &T| weigh(cell).filter(|weight| self.budget.has_room(self.taken, building, *weight));
        let (place, weight) = self.waiting.iter().enumerate().find_map(|(place, cell)| Some((place, fits(cell)?)))?;
        self.taken = self.taken + weight;
        Some((self.waiting.remove(place), weight))
    }

    /// A cell of this weight is over.
    pub fn over(&mut self, weight: Weight) {
        self.taken = self.taken - weight;
    }

    /// Whether all have begun.
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

    /// Which of these begin at once, in their order, on a host with two CPUs.
    fn begin(memory_mib: usize, building: bool, cells: &[(&'static str, Option<Weight>)]) -> Vec<&'static str> {
        let mut schedule = Schedule::new(Budget::of(2, memory_mib), cells.to_vec());
        let next = || schedule.next(building, |(_, weight)| *weight).map(|((name, _), _)| name);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn cells_begin_in_order_as_far_as_there_is_room_and_their_kernels_are_there() {
        let usual = Some(Weight::USUAL);
        let cells = [("a", usual), ("b", None), ("c", usual), ("d", usual), ("e", usual), ("f", usual)];
        assert_eq!(begin(100_000, false, &cells), ["a", "c", "d", "e"]);
        assert_eq!(begin(100_000, true, &cells), ["a", "c"]);
        assert_eq!(begin(2000, false, &cells), ["a", "c"]);
        assert_eq!(begin(100, false, &cells), ["a"], "a host without memory runs one, come what may");
    }

    #[test]
    fn heavy_cells_run_with_fewer_others() {
        let usual = Some(Weight::USUAL);
        assert_eq!(begin(100_000, false, &[("big", Some(BIG)), ("a", usual), ("b", usual)]), ["big"]);
        assert_eq!(begin(100_000, false, &[("a", usual), ("big", Some(BIG)), ("b", usual)]), ["a", "b"]);
        // What needs no guest (its kernel does not build) needs no room.
        assert_eq!(begin(100_000, false, &[("big", Some(BIG)), ("none", Some(Weight::default()))]), ["big", "none"]);
    }

    #[test]
    fn room_comes_back() {
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
    fn who_says_how_many_gets_as_many_except_beside_builds() {
        let budget = Budget::of_host(Some(1000));
        assert_eq!(budget.cells(), 1000);
        assert!(budget.beside_builds.cpus < budget.alone.cpus);
        assert_eq!(Budget::of_host(Some(1)).beside_builds, Budget::of_host(Some(1)).alone);
    }
}
