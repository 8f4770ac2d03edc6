//! A forged guest: tasks with stacks and objects, for waits of which no real guest was recorded.

use std::collections::BTreeMap;

use super::*;

/// Where objects begin: in the direct map.
const OBJECTS: u64 = 0xffff_8880_0010_0000;
const STACK: u64 = 0x4000;
const FUNCTIONS: u64 = 0xffff_ffff_8100_0000;
const VARIABLES: u64 = 0xffff_ffff_8180_0000;
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// Room for the local variables of a frame.
const LOCALS: u64 = 0x100;

/// A guest that grows.
pub struct Forge {
    layout: Layout,
    pages: BTreeMap<u64, Vec<u8>>,
    symbols: Vec<(String, u64)>,
    next_object: u64,
    tasks: Vec<u64>,
}

/// A forged task.
#[derive(Clone, Copy)]
pub struct Forged {
    pub address: u64,
    stack: u64,
}

impl Forged {
    /// The lowest local variable of the frame with this number. The innermost is 0.
    pub fn local(self, frame: u64) -> u64 {
        self.stack + STACK / 2 + 7 * 8 + frame * (LOCALS + 16)
    }
}

impl Forge {
    pub fn new(layout: Layout) -> Forge {
        let mut forge =
            Forge { layout, pages: BTreeMap::new(), symbols: Vec::new(), next_object: OBJECTS, tasks: Vec::new() };
        for (name, address) in [
            ("_text", FUNCTIONS),
            ("_end", VARIABLES + 0x80_0000),
            ("__start_init_stack", VARIABLES + 0x70_0000),
            ("__end_init_stack", VARIABLES + 0x70_0000 + STACK),
        ] {
            forge.symbols.push((name.to_owned(), address));
        }
        forge.variable("init_top_pgt");
        let idle = forge.variable("init_task");
        forge.tasks.push(idle);
        forge
    }

    /// The address of a function or variable; made if it is new.
    fn symbol(&mut self, name: &str, base: u64) -> u64 {
        if let Some((_, address)) = self.symbols.iter().find(|(known, _)| known == name) {
            return *address;
        }
        let address = base + 0x4000 * self.symbols.len() as u64;
        self.symbols.push((name.to_owned(), address));
        address
    }

    pub fn function(&mut self, name: &str) -> u64 {
        self.symbol(name, FUNCTIONS)
    }

    pub fn variable(&mut self, name: &str) -> u64 {
        self.symbol(name, VARIABLES)
    }

    /// A new object of zeros.
    pub fn object(&mut self) -> u64 {
        self.next_object += 0x4000;
        self.next_object - 0x4000
    }

    pub fn offset(&self, structure: &str, member: &str) -> u64 {
        u64::from(self.layout.offset(structure, member).unwrap_or_else(|| panic!("{structure}.{member}")))
    }

    /// Writes bytes at an address.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let base = if address >= KERNEL_MAP { KERNEL_MAP } else { DIRECT_MAP };
        for (index, byte) in bytes.iter().enumerate() {
            let physical = (address - base) as usize + index;
            let page = self.pages.entry((physical / PAGE) as u64).or_insert_with(|| vec![0; PAGE]);
            page[physical % PAGE] = *byte;
        }
    }

    pub fn word(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    /// Writes a member that is a pointer or a long.
    pub fn set(&mut self, object: u64, structure: &str, member: &str, value: u64) {
        let address = object + self.offset(structure, member);
        self.word(address, value);
    }

    /// Writes a member that is an int.
    pub fn set_int(&mut self, object: u64, structure: &str, member: &str, value: u32) {
        let address = object + self.offset(structure, member);
        self.write(address, &value.to_le_bytes());
    }

    /// A task in a state, with these functions on its stack, the innermost first.
    pub fn task(&mut self, pid: u32, comm: &str, state: u32, functions: &[&str]) -> Forged {
        let (address, signal) = (self.object(), self.object());
        let (stack, _) = (self.object(), self.object());
        let task = Forged { address, stack };
        self.set_int(address, "task_struct", "pid", pid);
        self.set_int(address, "task_struct", "tgid", pid);
        self.set_int(address, "task_struct", "__state", state);
        let name = address + self.offset("task_struct", "comm");
        self.write(name, comm.as_bytes());
        self.set(address, "task_struct", "stack", stack);
        self.set(address, "task_struct", "signal", signal);
        let (head, node) =
            (signal + self.offset("signal_struct", "thread_head"), address + self.offset("task_struct", "thread_node"));
        self.word(head, node);
        self.word(node, head);
        self.stack(task, functions);
        self.tasks.push(address);
        task
    }

    fn stack(&mut self, task: Forged, functions: &[&str]) {
        let pointer = task.stack + STACK / 2;
        self.set(task.address, "task_struct", "thread.sp", pointer);
        // The whole stack is recorded, of a task without functions, too.
        self.word(task.stack + STACK - 8, 0);
        (0..STACK / PAGE as u64).for_each(|page| self.write(task.stack + page * PAGE as u64, &[0]));
        let mut at = pointer + 40;
        for (index, function) in functions.iter().enumerate() {
            let frame = task.local(index as u64) + LOCALS;
            let returns_to = self.function(function) + 0x10;
            self.word(at, frame);
            self.word(at + 8, returns_to);
            at = frame;
        }
    }

    /// Links nodes of lists into a ring.
    pub fn link(&mut self, nodes: &[u64]) {
        for (index, node) in nodes.iter().enumerate() {
            self.word(*node, nodes[(index + 1) % nodes.len()]);
            self.word(*node + 8, nodes[(index + nodes.len() - 1) % nodes.len()]);
        }
    }

    /// A waiter on a task's stack, in the frame with this number. Gives its node.
    pub fn waiter(&mut self, task: Forged, frame: u64, structure: &str, node: &str, owner: &str) -> u64 {
        let waiter = task.local(frame);
        self.set(waiter, structure, owner, task.address);
        waiter + self.offset(structure, node)
    }

    /// The guest.
    pub fn done(mut self) -> (Recorded, Kernel) {
        let next = self.offset("task_struct", "tasks");
        let nodes: Vec<u64> = self.tasks.iter().map(|task| task + next).collect();
        self.link(&nodes);
        // All code is there, so that it can be searched.
        let functions: Vec<u64> = self.symbols.iter().map(|(_, address)| *address).collect();
        for address in functions {
            (0..4).for_each(|page| self.word(address + page * PAGE as u64 + 0xff8, 0));
        }
        let map: String = self.symbols.iter().map(|(name, address)| format!("{address:016x} T {name}\n")).collect();
        (Recorded { pages: self.pages }, Kernel::new(Symbols::parse(&map), self.layout))
    }

    /// The graph of the guest.
    pub fn graph(self) -> Graph {
        let (memory, kernel) = self.done();
        look(&memory, &kernel).unwrap()
    }
}
