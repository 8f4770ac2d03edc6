//! The slabs of a guest: the pages in which its kernel has its objects, and how many of them are in use (`mm/slub.c`).

use std::collections::{BTreeMap, HashMap};

use super::error::LookError;
use super::kernel::Kernel;
use super::memory::Memory;
use super::view::{View, is_object};

/// Where the array of all pages begins unless `vmemmap_base` says otherwise (`Documentation/arch/x86/x86_64/mm.rst`).
const PAGES: u64 = 0xffff_ea00_0000_0000;
const PAGE: u64 = 4096;
/// The most pages that are looked through, should the guest's own number be damaged: 16 GiB.
const MOST_PAGES: u64 = (16 << 30) / PAGE;
/// The most caches, CPUs, and objects in a slab (15 bits of `counters`).
const MOST_CACHES: usize = 10_000;
const MOST_CPUS: u64 = 256;
const MOST_OBJECTS: u64 = 1 << 15;

/// How many objects of each cache are in use, by the name of the cache.
pub type Census = BTreeMap<String, u64>;

/// Counts the objects of all caches. The guest should be stopped meanwhile.
///
/// Objects that a CPU keeps to hand them out without a lock are free, and so they do not count.
///
/// # Errors
/// As [`look()`](super::look()). [`LookError::Uncounted`] for a kernel whose CPUs keep free objects in a way that is not
/// known here: sheaves (since 6.18), or with pointers that are mixed with a secret (`CONFIG_SLAB_FREELIST_HARDENED`).
pub fn census(memory: &dyn Memory, kernel: &Kernel) -> Result<Census, LookError> {
    for (member, why) in [("cpu_sheaves", "sheaves"), ("random", "hardened lists of free objects")] {
        if kernel.offset_if_any("kmem_cache", member).is_some() {
            return Err(LookError::Uncounted { why });
        }
    }
    let view = View::new(memory, kernel)?;
    let slabs = Slabs::find(&view, |_| true)?;
    let mut counts = HashMap::new();
    for slab in &slabs.slabs {
        *counts.entry(slab.cache).or_insert(0) += slab.in_use;
    }
    let mut census = Census::new();
    for (cache, name) in &slabs.caches {
        let in_use: u64 = counts.get(cache).copied().unwrap_or(0);
        *census.entry(name.clone()).or_insert(0) += in_use.saturating_sub(kept(&view, *cache)?);
    }
    Ok(census)
}

/// Pages with objects of one cache.
pub(super) struct Slab {
    /// Its `kmem_cache`.
    pub cache: u64,
    /// Where its first object is, or what the kernel has before it.
    pub at: u64,
    /// The bytes of all its objects.
    pub size: u64,
    /// How many objects of it are not free. If a CPU allocates from it, all count.
    in_use: u64,
}

/// All slabs, and the names of their caches.
pub(super) struct Slabs {
    pub caches: BTreeMap<u64, String>,
    pub slabs: Vec<Slab>,
}

impl Slabs {
    /// The slabs of the caches with these names.
    pub fn find(view: &View<'_>, is_wanted: impl Fn(&str) -> bool) -> Result<Slabs, LookError> {
        let kernel = view.kernel();
        let mut caches = caches(view)?;
        caches.retain(|_, name| is_wanted(name));
        let sizes = caches.keys().map(|cache| Ok((*cache, size_of(view, *cache)?)));
        // In the order of the caches. There are many pages, so what is done for each is kept short.
        let sizes = sizes.collect::<Result<Vec<(u64, u64)>, LookError>>()?;
        let base = kernel.symbols.address("vmemmap_base").map_or(Ok(PAGES), |variable| view.u64(variable))?;
        let struct_page =
            u64::from(kernel.layout.size("page").ok_or(LookError::NoMember { structure: "page", member: "flags" })?);
        let slab_cache = kernel.offset("slab", "slab_cache")? as usize;
        let counters = kernel.offset("slab", "counters")? as usize;
        let pages = view.u64(kernel.symbol("max_pfn")?)?.min(MOST_PAGES);
        let at_once = (PAGE / struct_page.max(1)).max(1);
        let mut slabs = Vec::new();
        let mut bytes = vec![0; (at_once * struct_page) as usize];
        for first in (0..pages).step_by(at_once as usize) {
            match view.read(base.wrapping_add(first * struct_page), &mut bytes) {
                // The array has holes where there is no memory.
                Err(LookError::Unmapped { .. }) => continue,
                read => read?,
            }
            for (number, page) in (first..pages).zip(bytes.chunks_exact(struct_page as usize)) {
                let cache = word(page, slab_cache);
                let Ok(found) = sizes.binary_search_by_key(&cache, |(cache, _)| *cache) else { continue };
                let counters = word(page, counters);
                let objects = counters >> 16 & (MOST_OBJECTS - 1);
                let at = view.of_physical(number * PAGE);
                slabs.push(Slab { cache, at, size: sizes[found].1 * objects, in_use: counters & 0xffff });
            }
        }
        Ok(Slabs { caches, slabs })
    }
}

/// The word at an offset in a struct; 0 behind its end.
fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

/// All caches with their names.
fn caches(view: &View<'_>) -> Result<BTreeMap<u64, String>, LookError> {
    let kernel = view.kernel();
    let node = kernel.offset("kmem_cache", "list")?;
    let head = kernel.symbol("slab_caches")?;
    let mut caches = BTreeMap::new();
    let mut at = view.u64(head)?;
    while at != head {
        let cache = at.wrapping_sub(node);
        let name = view.string(view.member(cache, "kmem_cache", "name")?).unwrap_or_else(|| "?".to_owned());
        if !is_object(at) || caches.insert(cache, name).is_some() || caches.len() > MOST_CACHES {
            return Err(LookError::Damaged { list: "the list of slab caches" });
        }
        at = view.u64(at)?;
    }
    Ok(caches)
}

/// The distance from an object of a cache to the next.
fn size_of(view: &View<'_>, cache: u64) -> Result<u64, LookError> {
    Ok(view.u32(cache.wrapping_add(view.kernel().offset("kmem_cache", "size")?))?.into())
}

/// How many free objects of a cache the CPUs keep.
fn kept(view: &View<'_>, cache: u64) -> Result<u64, LookError> {
    let kernel = view.kernel();
    let Some(cpu_slab) = kernel.offset_if_any("kmem_cache", "cpu_slab") else { return Ok(0) };
    let cpu_slab = view.u64(cache.wrapping_add(cpu_slab))?;
    let next = view.u32(cache.wrapping_add(kernel.offset("kmem_cache", "offset")?))?;
    let cpus = u64::from(view.u32(kernel.symbol("nr_cpu_ids")?)?).min(MOST_CPUS);
    let mut kept = 0;
    for cpu in 0..cpus {
        let base = view.u64(kernel.symbol("__per_cpu_offset")?.wrapping_add(cpu * 8))?;
        let mut object = view.member(cpu_slab.wrapping_add(base), "kmem_cache_cpu", "freelist")?;
        let mut length = 0;
        while object != 0 {
            length += 1;
            if !is_object(object) || length > MOST_OBJECTS {
                return Err(LookError::Damaged { list: "a list of free objects" });
            }
            object = view.u64(object.wrapping_add(u64::from(next)))?;
        }
        kept += length;
    }
    Ok(kept)
}
