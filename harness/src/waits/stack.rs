//! The stack of a task that is on no CPU: its frames, by frame pointers, and its words.

use std::ops::Range;

use super::error::LookError;
use super::orc::{Orc, SavedBp};
use super::view::{View, is_kernel_address};

/// The most frames that a look takes of a stack.
const MOST: usize = 64;
/// Where the saved registers of a task that was switched out are, from `thread.sp` on: r15 r14 r13 r12 rbx rbp and the
/// return address (`struct inactive_task_frame`, `arch/x86/include/asm/switch_to.h`).
const SAVED_RBP: u64 = 5 * 8;
const SAVED_RETURN: u64 = 6 * 8;
/// Members of `struct pt_regs`. An interrupt's entry marks it by a frame pointer with bit 0 set
/// (`ENCODE_FRAME_POINTER`, `arch/x86/include/asm/frame.h`).
const REGS_RBP: u64 = 4 * 8;
const REGS_RIP: u64 = 16 * 8;
const REGS_CS: u64 = 17 * 8;

/// A function on a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The function, without the suffix of a copy that the compiler made.
    pub function: String,
    /// The address in it to which its callee returns.
    pub returns_to: u64,
    /// Its frame pointer: its saved words are below, as the stack grows down. 0 if unknown.
    pointer: u64,
}

/// The live part of a stack. Empty for a task on a CPU.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// The address of the first word.
    from: u64,
    words: Vec<u64>,
    /// The innermost first.
    pub frames: Vec<Frame>,
}

/// The stack that begins at an address, of a task that was switched out with this stack pointer.
pub(super) fn of(view: &View<'_>, begin: u64, pointer: u64) -> Result<Stack, LookError> {
    let top = begin.wrapping_add(view.kernel().stack_size());
    if !(begin..top).contains(&pointer) || !pointer.is_multiple_of(8) {
        return Ok(Stack::default());
    }
    let mut bytes = vec![0; (top - pointer) as usize];
    view.read(pointer, &mut bytes)?;
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let mut stack = Stack { from: pointer, words, frames: Vec::new() };
    stack.unwind(view);
    Ok(stack)
}

impl Stack {
    /// Whether an address is in the live part.
    pub fn contains(&self, address: u64) -> bool {
        self.addresses().contains(&address)
    }

    fn addresses(&self) -> Range<u64> {
        self.from..self.from.wrapping_add(8 * self.words.len() as u64)
    }

    fn word(&self, address: u64) -> Option<u64> {
        let within = self.contains(address) && address.is_multiple_of(8);
        within.then(|| self.words[((address - self.from) / 8) as usize])
    }

    /// All words with their addresses.
    pub fn words(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).map(|index| self.from.wrapping_add(8 * index)).zip(self.words.iter().copied())
    }

    /// The words from the top to the end of the outermost of these functions' own frames. Empty if none is there.
    pub fn words_up_to(&self, functions: &[&str]) -> impl Iterator<Item = u64> + '_ {
        let outermost = self.frames.iter().rev().find(|frame| functions.contains(&frame.function.as_str()));
        let end = outermost.map_or(0, |frame| frame.pointer);
        self.words().take_while(move |(address, _)| *address < end).map(|(_, word)| word)
    }

    fn unwind(&mut self, view: &View<'_>) {
        let (Some(mut pointer), Some(mut returns_to)) =
            (self.word(self.from.wrapping_add(SAVED_RBP)), self.word(self.from.wrapping_add(SAVED_RETURN)))
        else {
            return;
        };
        if let Some(orc) = view.orc() {
            return self.unwind_by(orc, view, pointer, returns_to);
        }
        while self.frames.len() < MOST && is_kernel_address(returns_to) {
            // The call may be the last instruction of its function, so the function is that of the byte before.
            let Some(function) = view.function(returns_to - 1) else { return };
            self.frames.push(Frame { function, returns_to, pointer });
            let Some((outer, outer_return)) = self.caller(pointer) else { return };
            // The stack grows down: an outer frame is above. All else is damage, or the end.
            if outer & !1 <= pointer & !1 && outer != 0 {
                return;
            }
            (pointer, returns_to) = (outer, outer_return);
        }
    }

    /// The frames of a kernel without frame pointers. Those before an interrupt are not found.
    fn unwind_by(&mut self, orc: &Orc, view: &View<'_>, mut bp: u64, mut returns_to: u64) {
        let mut sp = self.from.wrapping_add(SAVED_RETURN + 8);
        while self.frames.len() < MOST && is_kernel_address(returns_to) {
            let Some(function) = view.function(returns_to - 1) else { return };
            let rule = orc.rule(view, returns_to - 1).ok().flatten().filter(|rule| rule.is_call);
            let caller = rule.and_then(|rule| {
                let caller_sp = rule.caller_sp(sp, bp).filter(|caller_sp| *caller_sp > sp)?;
                Some((caller_sp, rule.caller_bp(caller_sp, bp)?))
            });
            let Some((caller_sp, saved)) = caller else {
                self.frames.push(Frame { function, returns_to, pointer: sp });
                return;
            };
            // Where a frame pointer would be.
            self.frames.push(Frame { function, returns_to, pointer: caller_sp.wrapping_sub(16) });
            if let SavedBp::At(at) = saved {
                let Some(word) = self.word(at) else { return };
                bp = word;
            }
            let Some(word) = self.word(caller_sp.wrapping_sub(8)) else { return };
            (sp, returns_to) = (caller_sp, word);
        }
    }

    /// Frame pointer and return address of the caller of the function with this frame pointer.
    fn caller(&self, pointer: u64) -> Option<(u64, u64)> {
        if pointer & 1 == 0 {
            return Some((self.word(pointer)?, self.word(pointer.wrapping_add(8))?));
        }
        let regs = pointer & !1;
        let user_mode = self.word(regs.wrapping_add(REGS_CS))? & 3 != 0;
        // The interrupted function has made no call: the address is that of its next instruction.
        let interrupted = self.word(regs.wrapping_add(REGS_RIP))?.wrapping_add(1);
        (!user_mode).then_some((self.word(regs.wrapping_add(REGS_RBP))?, interrupted))
    }
}
