//! The end: a report on serial and screen, then halt, or reboot if the manifest wants it.
//!
//! The report has the reason, the registers, and a backtrace; the log's last lines stand above it on the screen, and go out to a serial line that
//! has not seen them.

use core::sync::atomic::{AtomicBool, Ordering};

static REBOOT: AtomicBool = AtomicBool::new(false);

/// Says whether the machine reboots after a panic.
pub fn reboot_on_panic(wanted: bool) {
    REBOOT.store(wanted, Ordering::Relaxed);
}

/// Says why the machine cannot go on, on serial and screen, and halts: for what people can mend, not for bugs.
pub fn give_up(reason: &dyn core::fmt::Display) -> ! {
    log::error!("{reason}");
    log::error!("halted");
    super::cpu::halt()
}

#[cfg(target_os = "none")]
pub(super) use machine::exception;

#[cfg(target_os = "none")]
mod machine {
    #![allow(unsafe_code)] // Reads control registers and walks the stack.

    use core::{
        arch::asm,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::REBOOT;
    use crate::{
        boot::layout,
        platform::{
            cpu, descriptors, log, machine_check, power, smp, time,
            traps::{self, Frame},
        },
    };

    /// Lines of the log before the report.
    const LAST_LINES: usize = 40;
    /// Time to read the report before the machine reboots.
    const REBOOT_DELAY: u64 = 5_000_000_000;
    const DEEPEST: usize = 32;

    /// How many reports have begun: the second is about the first, and kept short; a third says nothing.
    static REPORTS: AtomicU32 = AtomicU32::new(0);

    fn begin() {
        if !smp::stop_others() {
            cpu::halt();
        }
        match REPORTS.fetch_add(1, Ordering::Relaxed) {
            0 => {
                log::seize(LAST_LINES);
            }
            1 => {
                log::seize(0);
                ::log::error!("and the report itself failed");
            }
            _ => cpu::halt(),
        }
    }

    fn end() -> ! {
        if REPORTS.load(Ordering::Relaxed) > 1 || !REBOOT.load(Ordering::Relaxed) {
            ::log::error!("halted");
            cpu::halt();
        }
        ::log::error!("rebooting in {} seconds", REBOOT_DELAY / 1_000_000_000);
        time::spin_for(REBOOT_DELAY);
        power::reboot()
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        // SAFETY: ends with the machine.
        unsafe { asm!("cli", options(nomem, nostack)) };
        begin();
        match info.location() {
            Some(place) => ::log::error!("panic at {place}: {}", info.message()),
            None => ::log::error!("panic: {}", info.message()),
        }
        let frame: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
        backtrace(frame);
        end()
    }

    /// Reports an exception in the hypervisor.
    pub(in super::super) fn exception(frame: &Frame) -> ! {
        begin();
        let vector = frame.vector as u8;
        ::log::error!(
            "{} (vector {vector}, error code {:#x}) at {:#018x}",
            traps::name(vector),
            frame.error,
            frame.rip
        );
        if vector == traps::MACHINE_CHECK {
            machine_check::report();
        }
        if matches!(vector, traps::PAGE_FAULT | traps::DOUBLE_FAULT) {
            let address: u64;
            // SAFETY: reads a register.
            unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
            ::log::error!(
                "the last page fault was about address {address:#018x}{}",
                explanation(address)
            );
        }
        let Frame {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            ..
        } = *frame;
        ::log::error!("rax {rax:016x} rbx {rbx:016x} rcx {rcx:016x} rdx {rdx:016x}");
        ::log::error!("rsi {rsi:016x} rdi {rdi:016x} rbp {rbp:016x} rsp {rsp:016x}");
        let Frame {
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            ..
        } = *frame;
        ::log::error!(" r8 {r8:016x}  r9 {r9:016x} r10 {r10:016x} r11 {r11:016x}");
        ::log::error!("r12 {r12:016x} r13 {r13:016x} r14 {r14:016x} r15 {r15:016x}");
        ::log::error!("cs {:#x} ss {:#x} rflags {:#x}", frame.cs, frame.ss, frame.rflags);
        ::log::error!("   0: {:#018x}", frame.rip);
        backtrace(rbp);
        end()
    }

    /// A guess at what an address that faulted has to do with.
    fn explanation(address: u64) -> &'static str {
        let guard = layout::image().stack_guard;
        if (guard..guard + 4096).contains(&address) || descriptors::is_guard(address) {
            ": the stack has overflowed"
        } else if address < 1 << 47 {
            ": nothing of the hypervisor is there"
        } else if (layout::DIRECT_MAP..layout::DEVICES).contains(&address) {
            ": machine memory that is no RAM, or is read-only"
        } else {
            ""
        }
    }

    /// Return addresses by the chain of frame pointers, as far as it stays in stacks of ours; `addr2line` names them.
    fn backtrace(mut frame: u64) {
        let data = layout::image().writable();
        let own = descriptors::main_stack(cpu::try_current().map_or(0, cpu::PerCpu::place_of_stacks));
        let is_stack = |at: u64| {
            let within =
                |start: u64, end: u64| at >= start && at.saturating_add(16) <= end && at.is_multiple_of(8);
            data.iter().any(|part| within(part.start, part.end)) || within(own.start, own.end)
        };
        for depth in 1..=DEEPEST {
            if !is_stack(frame) {
                return;
            }
            // SAFETY: `is_stack` says that these 16 bytes are mapped data of the image.
            let (next, address) =
                unsafe { ((frame as *const u64).read(), (frame as *const u64).add(1).read()) };
            if address == 0 {
                return;
            }
            ::log::error!("{depth:4}: {address:#018x}");
            if next <= frame {
                return;
            }
            frame = next;
        }
    }
}
