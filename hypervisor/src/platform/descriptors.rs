//! The segment and interrupt descriptor tables. Each processor has its own segments, task state and exception stacks; the interrupt table is one for all.
//!
//! Non-maskable interrupts, double faults and machine checks come on stacks of their own, so that they can be reported whatever the state of the
//! stack they interrupt.
#![allow(unsafe_code)] // Loads descriptor tables.

use core::arch::asm;

use spin::Once;

use super::{
    address_space::{self, Backing},
    paging::MapError,
    traps::{self, VECTORS},
};
use crate::{
    boot::layout::STACKS,
    memory::{MachineAddress, PAGE_SIZE},
};

/// Selector of the code segment.
pub const CODE: u16 = 0x08;
/// Selector of the data segment.
pub const DATA: u16 = 0x10;
/// Selector of the task state.
pub const TASK: u16 = 0x18;

/// Vectors with a stack of their own; the stack's number is the position plus one.
const OWN_STACK: [u8; 3] = [traps::NON_MASKABLE, traps::DOUBLE_FAULT, traps::MACHINE_CHECK];
const STACK_SIZE: u64 = 16 << 10;
/// The boot processor's, which is in the image, is as large.
const MAIN_STACK_SIZE: u64 = crate::boot::layout::BOOT_STACK_SIZE;
/// From stack to stack: so close that the stacks of four processors share a page table, and twice as far as the largest is long.
const DISTANCE: u64 = 2 * MAIN_STACK_SIZE;
/// Those, and the main one, which is the last.
const STACKS_EACH: u64 = OWN_STACK.len() as u64 + 1;
/// Bytes of a processor's stacks. The boot processor has its main one already.
pub const STACK_MEMORY: u64 = OWN_STACK.len() as u64 * STACK_SIZE + MAIN_STACK_SIZE;

/// The 64-bit task state segment (AMD64 volume 2, 12.2.5).
#[repr(C, packed(4))]
struct TaskState {
    reserved_1: u32,
    privilege_stacks: [u64; 3],
    reserved_2: u64,
    interrupt_stacks: [u64; 7],
    reserved_3: u64,
    reserved_4: u16,
    port_map: u16,
}

/// What one processor has.
pub struct Descriptors {
    segments: [u64; 5],
    task: TaskState,
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

impl Descriptors {
    /// Those of the processor whose stacks are in this place; they are mapped before an exception needs them.
    pub fn new(place: usize) -> Self {
        let mut interrupt_stacks = [0; 7];
        for (number, stack) in (0..).zip(interrupt_stacks.iter_mut().take(OWN_STACK.len())) {
            *stack = bottom(place, number) + STACK_SIZE;
        }
        Self {
            segments: [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0],
            task: TaskState {
                reserved_1: 0,
                privilege_stacks: [0; 3],
                reserved_2: 0,
                interrupt_stacks,
                reserved_3: 0,
                reserved_4: 0,
                port_map: size_of::<TaskState>() as u16,
            },
        }
    }
}

/// Maps the stacks of the boot processor beside its main one, which is in the image.
pub fn map_boot_stacks() -> Result<(), MapError> {
    (0..STACKS_EACH - 1)
        .try_for_each(|number| address_space::map_stack(bottom(0, number), Backing::Heap, STACK_SIZE))
}

/// Maps the stacks in this place, which is not the boot processor's: [`STACK_MEMORY`] bytes of memory that nobody else uses.
pub fn map_stacks(place: usize, memory: MachineAddress) -> Result<(), MapError> {
    (0..STACKS_EACH).try_for_each(|number| {
        let size = if number == STACKS_EACH - 1 {
            MAIN_STACK_SIZE
        } else {
            STACK_SIZE
        };
        let from = MachineAddress(memory.0 + number * STACK_SIZE);
        address_space::map_stack(bottom(place, number), Backing::Memory(from), size)
    })
}

/// From one processor's main stack to the next one's, and the end of the one in place 0, which is never mapped.
pub const MAIN_STACKS: (u64, u64) = (
    STACKS_EACH * DISTANCE,
    bottom(0, STACKS_EACH - 1) + MAIN_STACK_SIZE,
);

/// Where the main stack in a place is; nowhere for the boot processor, whose stack is in the image.
#[cfg_attr(not(any(test, target_os = "none")), expect(dead_code))]
pub fn main_stack(place: usize) -> core::ops::Range<u64> {
    let bottom = bottom(place, STACKS_EACH - 1);
    bottom..bottom + if place == 0 { 0 } else { MAIN_STACK_SIZE }
}

/// Whether an address is one of a page below a stack.
#[cfg_attr(not(any(test, target_os = "none")), expect(dead_code))]
pub fn is_guard(address: u64) -> bool {
    (STACKS..STACKS + (1 << 39)).contains(&address) && address % DISTANCE < PAGE_SIZE
}

/// The bottom of a stack, above the page that is not mapped.
const fn bottom(place: usize, number: u64) -> u64 {
    STACKS + DISTANCE * (place as u64 * STACKS_EACH + number) + PAGE_SIZE
}

/// Loads a processor's tables and the interrupt table. `descriptors` stays where it is for good.
pub fn load(descriptors: &'static mut Descriptors) {
    let task = &raw const descriptors.task as u64;
    descriptors.segments[3] = (size_of::<TaskState>() as u64 - 1)
        | (task & 0xff_ffff) << 16
        | 0x89 << 40 // present, available 64-bit task state
        | (task >> 24 & 0xff) << 56;
    descriptors.segments[4] = task >> 32;
    let segments = Pointer {
        limit: size_of_val(&descriptors.segments) as u16 - 1,
        base: descriptors.segments.as_ptr() as u64,
    };
    let gates = gates();
    let interrupts = Pointer {
        limit: size_of_val(gates) as u16 - 1,
        base: gates.as_ptr() as u64,
    };
    // SAFETY: the tables are valid and stay; the selectors fit them; the far return continues at the next instruction in the same flat code segment.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "lidt [{interrupts}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:x}",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov fs, {zero:x}",
            "mov gs, {zero:x}",
            "ltr {task:x}",
            segments = in(reg) &raw const segments,
            interrupts = in(reg) &raw const interrupts,
            code = in(reg) u64::from(CODE),
            data = in(reg) u64::from(DATA),
            zero = in(reg) 0_u64,
            task = in(reg) u64::from(TASK),
            scratch = out(reg) _,
        );
    }
}

/// The interrupt table: every vector leads to its stub, with interrupts off.
fn gates() -> &'static [[u64; 2]; VECTORS] {
    static GATES: Once<[[u64; 2]; VECTORS]> = Once::new();
    GATES.call_once(|| {
        core::array::from_fn(|vector| {
            let stack = OWN_STACK
                .iter()
                .position(|&own| usize::from(own) == vector)
                .map_or(0, |at| at as u64 + 1);
            gate(traps::stub(vector), stack)
        })
    })
}

/// A 64-bit interrupt gate (AMD64 volume 2, 4.8.4).
const fn gate(handler: u64, stack: u64) -> [u64; 2] {
    let low = handler & 0xffff
        | (CODE as u64) << 16
        | stack << 32
        | 0x8e << 40 // present, interrupt gate
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_lie_apart_with_a_page_below_each() {
        let stacks = (0..3).flat_map(|place| (0..STACKS_EACH).map(move |number| bottom(place, number)));
        let stacks: std::vec::Vec<u64> = stacks.collect();
        for pair in stacks.windows(2) {
            assert!(pair[0] + MAIN_STACK_SIZE < pair[1] - PAGE_SIZE);
        }
        for stack in stacks {
            assert!(is_guard(stack - 1) && is_guard(stack - PAGE_SIZE));
            assert!(!is_guard(stack) && !is_guard(stack + MAIN_STACK_SIZE - 1));
        }
        let (distance, end) = MAIN_STACKS;
        assert_eq!(main_stack(2).end, end + 2 * distance);
        assert!(bottom(256, 0) < STACKS + (1 << 39));
    }

    #[test]
    fn a_gate_holds_its_handler_in_three_pieces() {
        assert_eq!(
            gate(0x1122_3344_5566_7788, 2),
            [0x5566_8e02_0008_7788, 0x1122_3344]
        );
        assert_eq!(size_of::<TaskState>(), 104);
    }
}
