//! The local APIC (AMD64 volume 2, chapter 16): its timer, end of interrupt, and messages to other processors. x2APIC mode where the
//! processor has it, registers in memory otherwise.
#![allow(unsafe_code)] // Model-specific registers.

use spin::Once;

use super::{
    cpu::{self, Features},
    interrupts::{ERROR, SPURIOUS, TIMER},
    mmio::{self, Mmio},
    paging::MapError,
};
use crate::memory::MachineAddress;

const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const ERROR_STATUS: usize = 0x280;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const LOCAL_TIMER: usize = 0x320;
const LOCAL_LINE_0: usize = 0x350;
const LOCAL_LINE_1: usize = 0x360;
const LOCAL_ERROR: usize = 0x370;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const TIMER_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_16: u32 = 3;
const NON_MASKABLE: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const START_UP: u32 = 6 << 8;
const ASSERT: u32 = 1 << 14;
const ALL_OTHERS: u32 = 3 << 18;
/// In xAPIC mode: the last command is still on its way.
const SENDING: u32 = 1 << 12;

#[derive(Clone, Copy, Debug)]
enum Access {
    Memory(Mmio),
    Registers,
}

#[derive(Clone, Copy, Debug)]
struct LocalApic {
    access: Access,
    deadline_mode: bool,
}

/// Interrupts of devices name their processor by eight bits, of which this is none but all.
pub const BROADCAST_8_BIT: u32 = 0xff;

static LOCAL_APIC: Once<LocalApic> = Once::new();
/// Id of the boot processor's.
static BOOT: Once<u32> = Once::new();

impl LocalApic {
    fn read(&self, register: usize) -> u32 {
        match self.access {
            Access::Memory(mmio) => mmio.read(register),
            // SAFETY: the register exists in x2APIC mode: 0x800 + its offset / 16; offsets are the constants above.
            Access::Registers => unsafe { cpu::read_msr(0x800 + register as u32 / 16) as u32 },
        }
    }

    fn write(&self, register: usize, value: u32) {
        match self.access {
            Access::Memory(mmio) => mmio.write(register, value),
            // SAFETY: as in `read`; the values only raise interrupts that have handlers.
            Access::Registers => unsafe { cpu::write_msr(0x800 + register as u32 / 16, value.into()) },
        }
    }

    /// Chooses the timer's mode and lets its interrupt come, once a deadline or a count is written.
    fn prepare_timer(&self) {
        let mode = if self.deadline_mode { TIMER_TSC_DEADLINE } else { 0 };
        self.write(LOCAL_TIMER, u32::from(TIMER) | mode);
        // The mode is in force before a deadline is written: where the one goes to memory and the other to a register, nothing else orders them
        // (Intel SDM volume 3, 11.5.4.1).
        // SAFETY: a fence.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
    }
}

/// Turns on the running processor's local APIC, the boot processor's first. Non-maskable interrupts of the machine go to that one alone.
pub fn initialize(features: &Features) -> Result<(), MapError> {
    // SAFETY: every 64-bit processor has the register; enabling keeps the place of the registers.
    let (base, access) = unsafe {
        let mut base = cpu::read_msr(APIC_BASE) | BASE_ENABLE;
        if features.x2apic {
            base |= BASE_X2APIC;
        }
        cpu::write_msr(APIC_BASE, base);
        (base, base & BASE_X2APIC != 0)
    };
    let access = if access {
        Access::Registers
    } else {
        Access::Memory(mmio::map(MachineAddress(base & 0x000f_ffff_ffff_f000), 0x1000)?)
    };
    let apic = LOCAL_APIC.call_once(|| LocalApic {
        access,
        deadline_mode: features.tsc_deadline,
    });
    apic.write(TASK_PRIORITY, 0);
    apic.write(LOCAL_LINE_0, MASKED);
    let is_first = *BOOT.call_once(id) == id();
    apic.write(LOCAL_LINE_1, if is_first { NON_MASKABLE } else { MASKED });
    apic.write(LOCAL_ERROR, ERROR.into());
    apic.write(TIMER_DIVIDE, DIVIDE_BY_16);
    apic.write(TIMER_INITIAL, 0);
    apic.prepare_timer();
    apic.write(SPURIOUS_VECTOR, ENABLE | u32::from(SPURIOUS));
    clear_error();
    end_of_interrupt();
    Ok(())
}

fn apic() -> Option<&'static LocalApic> {
    LOCAL_APIC.get()
}

/// This processor's id.
pub fn id() -> u32 {
    match apic() {
        Some(
            apic @ LocalApic {
                access: Access::Registers,
                ..
            },
        ) => apic.read(ID),
        Some(apic) => apic.read(ID) >> 24,
        None => 0,
    }
}

/// Whether the APIC is in x2APIC mode.
pub fn is_x2apic() -> bool {
    apic().is_some_and(|apic| matches!(apic.access, Access::Registers))
}

/// Acknowledges the interrupt being handled.
pub(super) fn end_of_interrupt() {
    if let Some(apic) = apic() {
        apic.write(END_OF_INTERRUPT, 0);
    }
}

/// Forgets the errors that were reported.
pub(super) fn clear_error() {
    if let Some(apic) = apic() {
        apic.write(ERROR_STATUS, 0);
    }
}

/// The boot processor's id.
pub fn boot_id() -> u32 {
    BOOT.get().copied().unwrap_or(0)
}

/// Sends an interrupt to another processor by its local APIC id.
pub fn send(apic_id: u32, vector: u8) {
    if apic().is_some() {
        cpu::current().messages.add();
    }
    #[cfg(test)]
    crate::testing::models::processors::called(apic_id as usize);
    command(apic_id, vector.into());
}

/// Resets another processor, which then waits for [`send_start_up`].
pub(super) fn send_init(apic_id: u32) {
    command(apic_id, INIT | ASSERT);
}

/// Starts a processor that was reset, in real mode at `page` << 12.
pub(super) fn send_start_up(apic_id: u32, page: u8) {
    command(apic_id, START_UP | ASSERT | u32::from(page));
}

/// Sends every other processor a non-maskable interrupt.
pub(super) fn send_non_maskable_to_others() {
    command(0, ALL_OTHERS | NON_MASKABLE | ASSERT);
}

fn command(apic_id: u32, command: u32) {
    let Some(apic) = apic() else { return };
    match apic.access {
        // Writes to these registers wait for nothing (Intel SDM volume 3, 11.12.3): the fences let the receiver see what was written before.
        // SAFETY: the command register in x2APIC mode; vectors have handlers, and who sends more than those means what it does.
        Access::Registers => unsafe {
            core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
            cpu::write_msr(0x830, u64::from(apic_id) << 32 | u64::from(command));
        },
        Access::Memory(_) => {
            while apic.read(COMMAND_LOW) & SENDING != 0 {
                core::hint::spin_loop();
            }
            apic.write(COMMAND_HIGH, apic_id << 24);
            apic.write(COMMAND_LOW, command);
        }
    }
}

/// How the timer is told when to fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    /// By a value of the time-stamp counter.
    Deadline,
    /// By a count of its own clock, divided.
    Count,
}

pub(super) fn timer_mode() -> TimerMode {
    if apic().is_some_and(|apic| apic.deadline_mode) {
        TimerMode::Deadline
    } else {
        TimerMode::Count
    }
}

/// Lets the timer run once through all that it can count, without an interrupt: for calibration, which ends with [`end_calibration`].
pub(super) fn start_calibration() {
    let Some(apic) = apic() else { return };
    apic.write(LOCAL_TIMER, u32::from(TIMER) | MASKED);
    apic.write(TIMER_INITIAL, u32::MAX);
}

/// Stops the timer, and makes it ready for deadlines again.
pub(super) fn end_calibration() {
    let Some(apic) = apic() else { return };
    apic.write(TIMER_INITIAL, 0);
    apic.prepare_timer();
}

/// Fires when `count` has gone; 0 stops the timer. Only in [`TimerMode::Count`].
pub(super) fn set_timer_count(count: u32) {
    if let Some(apic) = apic() {
        apic.write(TIMER_INITIAL, count);
    }
}

/// What is left of the count.
pub(super) fn timer_count() -> u32 {
    apic().map_or(0, |apic| apic.read(TIMER_CURRENT))
}

/// Fires when the time-stamp counter reaches `deadline`; 0 stops the timer. Only in [`TimerMode::Deadline`].
pub(super) fn set_timer_deadline(deadline: u64) {
    // SAFETY: CPUID announced the mode, so the register exists.
    unsafe { cpu::write_msr(TSC_DEADLINE, deadline) };
}
