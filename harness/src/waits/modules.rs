//! The modules of a kernel that has any: their symbols and their tables for stacks. What [`Symbols`](super::Symbols) has is
//! only the kernel itself.

use super::error::LookError;
use super::symbols::plain;
use super::view::View;

/// The most modules of a kernel.
const MOST: usize = 1000;
/// The most symbols of a module.
const MOST_SYMBOLS: u64 = 100_000;
/// `Elf64_Sym`: name, kind, visibility, section, value, size.
const SYMBOL: u64 = 24;

/// A module.
pub(super) struct Module {
    symbols: u64,
    count: u64,
    names: u64,
    /// Its table for stacks: the addresses, the entries, and how many there are.
    pub orc: (u64, u64, u64),
}

/// A symbol of a module.
struct Symbol {
    name: u64,
    value: u64,
    size: u64,
}

/// All modules. None if the kernel has no modules at all.
pub(super) fn all(view: &View<'_>) -> Result<Vec<Module>, LookError> {
    let kernel = view.kernel();
    let (Some(head), Some(node)) = (kernel.symbols.address("modules"), kernel.offset_if_any("module", "list")) else {
        return Ok(Vec::new());
    };
    let mut modules = Vec::new();
    let mut next = view.u64(head)?;
    while next != head {
        if modules.len() == MOST {
            return Err(LookError::Damaged { list: "the list of modules" });
        }
        modules.push(Module::read(view, next.wrapping_sub(node))?);
        next = view.u64(next)?;
    }
    Ok(modules)
}

impl Module {
    fn read(view: &View<'_>, module: u64) -> Result<Module, LookError> {
        let symbols = view.member(module, "module", "kallsyms")?;
        let count_at = |at: u64, structure, member| {
            Ok::<_, LookError>(u64::from(view.u32(at.wrapping_add(view.kernel().offset(structure, member)?))?))
        };
        let orc = match view.kernel().offset_if_any("module", "arch.num_orcs") {
            None => (0, 0, 0),
            Some(_) => (
                view.member(module, "module", "arch.orc_unwind_ip")?,
                view.member(module, "module", "arch.orc_unwind")?,
                count_at(module, "module", "arch.num_orcs")?,
            ),
        };
        Ok(Module {
            symbols: view.member(symbols, "mod_kallsyms", "symtab")?,
            count: count_at(symbols, "mod_kallsyms", "num_symtab")?.min(MOST_SYMBOLS),
            names: view.member(symbols, "mod_kallsyms", "strtab")?,
            orc,
        })
    }

    /// Its defined symbols.
    fn symbols<'a>(&'a self, view: &'a View<'_>) -> impl Iterator<Item = Symbol> + 'a {
        (1..self.count).map_while(move |number| {
            let at = self.symbols.wrapping_add(SYMBOL * number);
            let word = |within: u64| view.u64(at.wrapping_add(within));
            Some(Symbol { name: word(0).ok()? & 0xffff_ffff, value: word(8).ok()?, size: word(16).ok()? })
        })
    }

    fn name(&self, view: &View<'_>, symbol: &Symbol) -> Option<String> {
        view.string(self.names.wrapping_add(symbol.name))
    }

    /// The function or variable that contains an address.
    pub fn at(&self, view: &View<'_>, address: u64) -> Option<String> {
        let contains = |symbol: &Symbol| symbol.value <= address && address - symbol.value < symbol.size;
        let found = self.symbols(view).find(contains)?;
        self.name(view, &found).map(|name| plain(&name).to_owned())
    }

    /// The address of a symbol.
    pub fn address(&self, view: &View<'_>, name: &str) -> Option<u64> {
        let is = |symbol: &Symbol| symbol.value != 0 && self.name(view, symbol).is_some_and(|known| known == name);
        self.symbols(view).find(is).map(|symbol| symbol.value)
    }
}
