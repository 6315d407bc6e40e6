//! Physical interrupts: a handler only notes the vector and acknowledges it; what it means is decided outside, with interrupts off.
//!
//! Interrupts are off while the hypervisor runs. They are taken in [`window`], after a guest was left because of one, and in [`wait`], while
//! nobody has anything to do. No lock is held there, so a handler may take the I/O APIC's.
//!
//! A vector means the same on all processors, so that a device's interrupts can be sent to another one without a new vector: 0 … 31 are exceptions, 32 … 47 catch what the legacy controllers may still raise, 48 … 239 are allocated here, the last sixteen are the
//! hypervisor's own.
#![allow(unsafe_code)] // STI, CLI, HLT.

use core::{
    arch::asm,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use spin::Mutex;

use super::{cpu, io_apic, local_apic, port};

/// The local APIC's timer: ends `window`, `wait` and a guest's run, and means nothing else; see [`take_timer_fired`].
pub const TIMER: u8 = 0xf0;
/// Another processor wants this one to look around.
pub const WAKE: u8 = 0xf1;
/// The local APIC reports an error.
pub const ERROR: u8 = 0xfe;
/// The local APIC took an interrupt back.
pub const SPURIOUS: u8 = 0xff;

const FIRST_ALLOCATED: u8 = 48;
const LAST_ALLOCATED: u8 = 0xef;

/// Vectors that have arrived and wait.
#[derive(Debug, Default)]
pub struct Pending([AtomicU64; 4]);

impl Pending {
    /// Notes a vector.
    pub fn set(&self, vector: u8) {
        self.0[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::Relaxed);
    }

    /// Takes one vector out, the highest first.
    pub fn take(&self) -> Option<u8> {
        for (index, word) in self.0.iter().enumerate().rev() {
            let bits = word.load(Ordering::Relaxed);
            if bits != 0 {
                let bit = bits.ilog2();
                word.fetch_and(!(1 << bit), Ordering::Relaxed);
                return Some((index as u32 * 64 + bit) as u8);
            }
        }
        None
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }
}

/// A set of vectors that are given out.
struct Vectors([u64; 4]);

impl Vectors {
    fn allocate(&mut self) -> Option<u8> {
        let free = (FIRST_ALLOCATED..=LAST_ALLOCATED)
            .find(|&vector| self.0[usize::from(vector / 64)] >> (vector % 64) & 1 == 0)?;
        self.0[usize::from(free / 64)] |= 1 << (free % 64);
        Some(free)
    }

    fn free(&mut self, vector: u8) {
        if (FIRST_ALLOCATED..=LAST_ALLOCATED).contains(&vector) {
            self.0[usize::from(vector / 64)] &= !(1 << (vector % 64));
        }
    }
}

static VECTORS: Mutex<Vectors> = Mutex::new(Vectors([0; 4]));

/// For each vector the level-triggered GSI behind it, plus one; 0 where there is none.
static LEVEL: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// A vector that nobody uses.
pub fn allocate_vector() -> Option<u8> {
    VECTORS.lock().allocate()
}

/// Gives a vector back. Its source no longer raises it.
pub fn free_vector(vector: u8) {
    LEVEL[usize::from(vector)].store(0, Ordering::Relaxed);
    VECTORS.lock().free(vector);
}

/// Sends a GSI to a vector of the processor with this local APIC id, with the polarity and trigger mode that ACPI gives it, masked until [`unmask_gsi`]. A
/// level-triggered one is masked again whenever it arrives.
pub fn route_gsi(gsi: u32, vector: u8, apic_id: u32) -> Result<(), io_apic::NoSuchInput> {
    let level = io_apic::route(gsi, vector, apic_id)?;
    LEVEL[usize::from(vector)].store(if level { gsi + 1 } else { 0 }, Ordering::Relaxed);
    Ok(())
}

/// Sends a GSI that has a route to another processor from now on, masked or not as it was.
pub fn retarget_gsi(gsi: u32, apic_id: u32) {
    io_apic::retarget(gsi, apic_id);
}

/// Keeps a GSI from arriving.
pub fn mask_gsi(gsi: u32) {
    io_apic::set_masked(gsi, true);
}

/// Lets a GSI arrive.
pub fn unmask_gsi(gsi: u32) {
    io_apic::set_masked(gsi, false);
}

/// Takes the interrupts that are pending at the processor now.
pub fn window() {
    // SAFETY: handlers only set atomics and write to interrupt controllers. STI takes effect after the next instruction.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Stops the processor until an interrupt arrives, unless one waits already.
pub fn wait() {
    if !cpu::current().pending.is_empty() {
        return;
    }
    sleep();
}

/// Stops the processor until the next interrupt.
pub fn sleep() {
    // SAFETY: as in `window`. Nothing is lost between STI and HLT, since STI takes effect after HLT has begun.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// A vector that has arrived at this processor and was not taken yet, the highest first.
pub fn take_pending() -> Option<u8> {
    cpu::current().pending.take()
}

/// The timer has fired at this processor since the last call: it is set to nothing any more.
pub fn take_timer_fired() -> bool {
    let fired = &cpu::current().timer_fired;
    fired.load(Ordering::Relaxed) && fired.swap(false, Ordering::Relaxed)
}

/// A non-maskable interrupt has arrived since the last call.
pub fn take_non_maskable() -> bool {
    cpu::current().non_maskable.swap(false, Ordering::Relaxed)
}

/// The handler of every interrupt.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(super) fn arrived(vector: u8) {
    cpu::current().interrupts.add();
    match vector {
        SPURIOUS | ..FIRST_ALLOCATED => return,
        TIMER => cpu::current().timer_fired.store(true, Ordering::Relaxed),
        WAKE => {}
        ERROR => local_apic::clear_error(),
        _ => {
            if let Some(gsi) = LEVEL[usize::from(vector)].load(Ordering::Relaxed).checked_sub(1) {
                io_apic::set_masked(gsi, true);
            }
            cpu::current().pending.set(vector);
        }
    }
    local_apic::end_of_interrupt();
}

/// Silences the two legacy controllers for good: moved out of the exceptions' vectors, every input masked.
pub(super) fn silence_legacy_controllers() {
    const COMMANDS: [u16; 2] = [0x20, 0xa0];
    for (controller, command) in COMMANDS.into_iter().enumerate() {
        let data = command + 1;
        port::write_u8(command, 0x11); // initialize, four words
        port::write_u8(data, 32 + 8 * controller as u8); // vectors
        port::write_u8(data, if controller == 0 { 4 } else { 2 }); // cascade
        port::write_u8(data, 1); // 8086 mode
        port::write_u8(data, 0xff); // mask all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_vectors_come_highest_first_and_once() {
        let pending = Pending::default();
        for vector in [48, 200, 64, 255, 48] {
            pending.set(vector);
        }
        let taken: alloc::vec::Vec<u8> = core::iter::from_fn(|| pending.take()).collect();
        assert_eq!(taken, [255, 200, 64, 48]);
        assert!(pending.is_empty());
    }

    #[test]
    fn vectors_are_given_out_once_until_they_come_back() {
        let mut vectors = Vectors([0; 4]);
        let all: alloc::vec::Vec<u8> = core::iter::from_fn(|| vectors.allocate()).collect();
        assert_eq!(all, (48..=0xef).collect::<alloc::vec::Vec<u8>>());
        vectors.free(100);
        vectors.free(TIMER);
        assert_eq!((vectors.allocate(), vectors.allocate()), (Some(100), None));
    }
}
