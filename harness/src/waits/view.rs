//! One look at a guest's memory, by virtual addresses. All bytes of a page come from one read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::error::LookError;
use super::kernel::Kernel;
use super::memory::Memory;
use super::modules::{self, Module};
use super::orc::Orc;
use super::symbols::KERNEL_MAP;
use super::vmcoreinfo::Names;

const PAGE: u64 = 4096;
/// Where the direct map begins unless `page_offset_base` says otherwise (`Documentation/arch/x86/x86_64/mm.rst`).
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// The largest direct map with four levels of page tables: 64 TiB.
const DIRECT_MAP_SIZE: u64 = 1 << 46;
/// The bits of a page table's entry that are a physical address.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const HUGE: u64 = 1 << 7;
/// Enough for a path's part or the name of a device.
const LONGEST_STRING: usize = 256;

/// Whether a word may be an address in the kernel's half: neither an error pointer nor a user's address.
pub(super) fn is_kernel_address(word: u64) -> bool {
    (0xffff_8000_0000_0000..0xffff_ffff_ffff_0000).contains(&word)
}

/// Whether a word may be the address of a kernel's object.
pub(super) fn is_object(word: u64) -> bool {
    is_kernel_address(word) && word.is_multiple_of(8)
}

/// Memory, kernel, and the pages that were read.
pub(super) struct View<'a> {
    memory: &'a dyn Memory,
    kernel: &'a Kernel,
    image: std::ops::Range<u64>,
    phys_base: u64,
    direct_map: u64,
    page_tables: u64,
    modules: Vec<Module>,
    /// How stacks are unwound, if not by frame pointers.
    orc: Option<Orc>,
    pages: RefCell<HashMap<u64, Rc<[u8]>>>,
    translated: RefCell<HashMap<u64, u64>>,
}

impl<'a> View<'a> {
    pub fn new(memory: &'a dyn Memory, kernel: &'a Kernel) -> Result<View<'a>, LookError> {
        let symbols = &kernel.symbols;
        let image = kernel.symbol("_text")?..kernel.symbol("_end")?;
        let page_tables = kernel.symbol("init_top_pgt")?;
        let pages = RefCell::default();
        let translated = RefCell::default();
        let mut view = View {
            memory,
            kernel,
            image,
            phys_base: 0,
            direct_map: DIRECT_MAP,
            page_tables,
            modules: Vec::new(),
            orc: None,
            pages,
            translated,
        };
        // The kernel is not moved: it is entered at its PVH note, which comes before any randomization.
        if let Some(variable) = symbols.address("phys_base") {
            view.phys_base = view.u64(variable)?;
        }
        if let Some(variable) = symbols.address("page_offset_base") {
            view.direct_map = view.u64(variable)?;
        }
        if let Some(variable) = symbols.address("__pgtable_l5_enabled")
            && view.u32(variable)? != 0
        {
            return Err(LookError::FiveLevels);
        }
        // The kernels that are built here have neither.
        if symbols.address("__start_orc_unwind_ip").is_some() {
            view.modules = modules::all(&view)?;
            view.orc = Orc::of(&view, &view.modules, &Names::read(&view)?.release);
        }
        Ok(view)
    }

    /// How stacks are unwound, if not by frame pointers.
    pub fn orc(&self) -> Option<&Orc> {
        self.orc.as_ref()
    }

    /// The function that contains an address, without the suffix of a copy that the compiler made.
    pub fn function(&self, address: u64) -> Option<String> {
        if self.image.contains(&address) || self.modules.is_empty() {
            return self.kernel.symbols.function(address).map(str::to_owned);
        }
        self.modules.iter().find_map(|module| module.at(self, address))
    }

    /// The address of a symbol of the kernel or of a module.
    pub fn address(&self, name: &str) -> Option<u64> {
        let of_module = || self.modules.iter().find_map(|module| module.address(self, name));
        self.kernel.symbols.address(name).or_else(of_module)
    }

    pub fn kernel(&self) -> &'a Kernel {
        self.kernel
    }

    /// How far the kernel was moved in physical memory.
    pub fn phys_base(&self) -> u64 {
        self.phys_base
    }

    /// Reads memory at a virtual address.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), LookError> {
        let mut done = 0;
        while done < into.len() {
            let at = address.wrapping_add(done as u64);
            let physical = self.physical(at)?;
            let page = self.page(physical / PAGE)?;
            let begin = (physical % PAGE) as usize;
            let length = (into.len() - done).min(page.len() - begin);
            into[done..done + length].copy_from_slice(&page[begin..begin + length]);
            done += length;
        }
        Ok(())
    }

    fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], LookError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    pub fn u8(&self, address: u64) -> Result<u8, LookError> {
        Ok(u8::from_le_bytes(self.array(address)?))
    }

    pub fn u16(&self, address: u64) -> Result<u16, LookError> {
        Ok(u16::from_le_bytes(self.array(address)?))
    }

    pub fn u32(&self, address: u64) -> Result<u32, LookError> {
        Ok(u32::from_le_bytes(self.array(address)?))
    }

    pub fn i32(&self, address: u64) -> Result<i32, LookError> {
        Ok(i32::from_le_bytes(self.array(address)?))
    }

    pub fn u64(&self, address: u64) -> Result<u64, LookError> {
        Ok(u64::from_le_bytes(self.array(address)?))
    }

    /// The member of a structure that is a pointer or a long.
    pub fn member(&self, at: u64, structure: &'static str, member: &'static str) -> Result<u64, LookError> {
        self.u64(at.wrapping_add(self.kernel.offset(structure, member)?))
    }

    /// A string of printable ASCII. `None` if there is none.
    pub fn string(&self, address: u64) -> Option<String> {
        if !is_kernel_address(address) {
            return None;
        }
        let mut bytes = [0; LONGEST_STRING];
        if self.read(address, &mut bytes).is_err() {
            // It may end before the next page, which is another's.
            let length = LONGEST_STRING.min((PAGE - address % PAGE) as usize);
            self.read(address, &mut bytes[..length]).ok()?;
        }
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let printable = !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        printable.then(|| text.to_owned())
    }

    /// The address of physical memory in the direct map.
    pub fn of_physical(&self, physical: u64) -> u64 {
        self.direct_map.wrapping_add(physical)
    }

    fn physical(&self, address: u64) -> Result<u64, LookError> {
        if self.image.contains(&address) {
            return Ok(address.wrapping_sub(KERNEL_MAP).wrapping_add(self.phys_base));
        }
        if (self.direct_map..self.direct_map.saturating_add(DIRECT_MAP_SIZE)).contains(&address) {
            return Ok(address - self.direct_map);
        }
        let known = self.translated.borrow().get(&(address / PAGE)).copied();
        let page = match known {
            Some(page) => page,
            None => self.walk(address)? & !(PAGE - 1),
        };
        self.translated.borrow_mut().insert(address / PAGE, page);
        Ok(page | (address % PAGE))
    }

    /// Walks the kernel's own page tables: four levels, with pages of 4 KiB, 2 MiB and 1 GiB.
    fn walk(&self, address: u64) -> Result<u64, LookError> {
        let mut table = self.page_tables.wrapping_sub(KERNEL_MAP).wrapping_add(self.phys_base);
        for shift in [39, 30, 21, 12] {
            let entry = self.entry(table, (address >> shift) & 511)?;
            if entry & PRESENT == 0 {
                return Err(LookError::Unmapped { address });
            }
            if shift == 12 || (shift < 39 && entry & HUGE != 0) {
                let within = (1 << shift) - 1;
                return Ok((entry & FRAME & !within) | (address & within));
            }
            table = entry & FRAME;
        }
        Err(LookError::Unmapped { address })
    }

    fn entry(&self, table: u64, index: u64) -> Result<u64, LookError> {
        let page = self.page(table / PAGE)?;
        let begin = index as usize * 8;
        let bytes = page[begin..begin + 8].try_into().expect("eight bytes");
        Ok(u64::from_le_bytes(bytes))
    }

    fn page(&self, number: u64) -> Result<Rc<[u8]>, LookError> {
        if let Some(page) = self.pages.borrow().get(&number) {
            return Ok(page.clone());
        }
        let mut bytes = vec![0; PAGE as usize];
        self.memory.read(number.wrapping_mul(PAGE), &mut bytes)?;
        let page: Rc<[u8]> = bytes.into();
        self.pages.borrow_mut().insert(number, page.clone());
        Ok(page)
    }
}
