//! Slabs with objects, in a forged guest.

use super::forge::Forge;
use super::*;

const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
const PAGES: u64 = 512;
const STRUCT_PAGE: u64 = 64;
const SIZE: u64 = 4096;
/// How many objects the forged slab has.
const OBJECTS: u64 = 4;
/// Where the `struct device` is in an object.
const DEVICE: u64 = 200;

/// A guest with one cache, which has one slab.
struct Slabs {
    forge: Forge,
    slab: u64,
    cache: u64,
    names: u64,
}

impl Slabs {
    fn new(cache_name: &str, in_use: u64) -> Slabs {
        let mut forge = Forge::new(layout(LINUX_6_12));
        // Two objects are next to each other: room for the array of all pages.
        let (array, _) = (forge.object(), forge.object());
        forge.write(array, &vec![0; (PAGES * STRUCT_PAGE) as usize]);
        let (slab, cache, names) = (forge.object(), forge.object(), forge.object());
        for (variable, value) in
            [("vmemmap_base", array), ("max_pfn", PAGES), ("nr_cpu_ids", 1), ("__per_cpu_offset", 0)]
        {
            let at = forge.variable(variable);
            forge.word(at, value);
        }
        let head = forge.variable("slab_caches");
        let node = cache + forge.offset("kmem_cache", "list");
        forge.link(&[head, node]);
        forge.write(names, cache_name.as_bytes());
        forge.set(cache, "kmem_cache", "name", names);
        forge.set_int(cache, "kmem_cache", "size", SIZE as u32);
        let page = array + (slab - DIRECT_MAP) / SIZE * STRUCT_PAGE;
        forge.set(page, "slab", "slab_cache", cache);
        forge.set(page, "slab", "counters", in_use | OBJECTS << 16);
        forge.write(slab, &vec![0; (OBJECTS * SIZE) as usize]);
        let cpu = forge.object();
        forge.set(cpu, "kmem_cache_cpu", "freelist", 0);
        forge.set(cache, "kmem_cache", "cpu_slab", cpu);
        Slabs { forge, slab, cache, names }
    }

    /// A device on a bus, in the object with this number.
    fn device(&mut self, number: u64, bus: &str, references: u32, is_in_sysfs: bool) {
        let at = self.slab + number * SIZE + DEVICE;
        let (ktype, bus) = (self.forge.variable("device_ktype"), self.forge.variable(bus));
        let name = self.names + 0x100 * (number + 1);
        self.forge.write(name, format!("0000:0{number}:00.0").as_bytes());
        self.forge.set(at, "device", "kobj.ktype", ktype);
        self.forge.set(at, "device", "bus", bus);
        self.forge.set_int(at, "device", "kobj.kref", references);
        self.forge.set(at, "device", "kobj.sd", if is_in_sysfs { self.cache } else { 0 });
        let kobject = at + self.forge.offset("device", "kobj");
        self.forge.set(kobject, "kobject", "name", name);
    }
}

/// What is left, in words.
fn said(forge: Forge) -> Vec<String> {
    let (memory, kernel) = forge.done();
    let word = |left: Left| match left {
        Left::Held(Held { lock, holder }) => format!("{lock} is held by {holder}"),
        Left::Unfreed(Unfreed { name, references, .. }) => format!("{name} has {references} references"),
    };
    left(&memory, &kernel).unwrap().into_iter().map(word).collect()
}

#[test]
fn a_removed_device_with_references_is_found_and_no_other() {
    let mut slabs = Slabs::new("kmalloc-4k", OBJECTS);
    slabs.device(0, "pci_bus_type", 1, true);
    slabs.device(1, "pci_bus_type", 2, false);
    slabs.device(2, "pci_bus_type", 0, false);
    slabs.device(3, "platform_bus_type", 1, false);
    assert_eq!(said(slabs.forge), ["0000:01:00.0 has 2 references"]);
}

#[test]
fn locks_that_are_held_are_found_with_their_holders() {
    let mut slabs = Slabs::new("kmalloc-4k", OBJECTS);
    for number in 0..3 {
        slabs.device(number, "pci_bus_type", 1, true);
    }
    let holder = slabs.forge.task(7, "sh", 1, &["__schedule", "schedule", "pipe_read"]);
    let gone = slabs.forge.object();
    for (number, owner) in [(0, holder.address | 1), (1, 0), (2, gone)] {
        slabs.forge.set(slabs.slab + number * SIZE + DEVICE, "device", "mutex", owner);
    }
    let sem = slabs.forge.variable("pci_bus_sem");
    slabs.forge.set(sem, "rw_semaphore", "count", 2 << 8);
    let lock = slabs.forge.variable("pci_rescan_remove_lock");
    slabs.forge.set(lock, "mutex", "owner", 0);
    assert_eq!(
        said(slabs.forge),
        [
            "pci_bus_sem is held by 2 readers",
            "device_lock of 0000:00:00.0 is held by sh (pid 7)",
            "device_lock of 0000:02:00.0 is held by a task that has ended",
        ]
    );
}

#[test]
fn objects_that_a_cpu_keeps_do_not_count() {
    for (kept, counted) in [(0, 3), (2, 1)] {
        let mut slabs = Slabs::new("a_cache", 3);
        let mut next = 0;
        for number in 0..kept {
            let object = slabs.slab + number * SIZE;
            slabs.forge.word(object, next);
            next = object;
        }
        let cpu = slabs.forge.object();
        slabs.forge.set(cpu, "kmem_cache_cpu", "freelist", next);
        slabs.forge.set(slabs.cache, "kmem_cache", "cpu_slab", cpu);
        let (memory, kernel) = slabs.forge.done();
        assert_eq!(census(&memory, &kernel), Ok(Census::from([("a_cache".to_owned(), counted)])));
    }
}

#[test]
fn damaged_lists_are_an_error() {
    let mut slabs = Slabs::new("a_cache", 3);
    let cpu = slabs.forge.object();
    slabs.forge.set(cpu, "kmem_cache_cpu", "freelist", slabs.slab);
    slabs.forge.set(slabs.cache, "kmem_cache", "cpu_slab", cpu);
    slabs.forge.word(slabs.slab, slabs.slab);
    let (memory, kernel) = slabs.forge.done();
    assert_eq!(census(&memory, &kernel), Err(LookError::Damaged { list: "a list of free objects" }));
}

#[test]
fn what_sheaves_hold_cannot_be_counted() {
    let kernel = Kernel::new(Symbols::parse(""), layout(LINUX_7_3));
    let memory = Recorded { pages: BTreeMap::new() };
    assert_eq!(census(&memory, &kernel), Err(LookError::Uncounted { why: "sheaves" }));
}
