//! What a domain says when it dies, and how it dies.
#![allow(unsafe_code)] // A backtrace follows frame pointers.

use core::fmt::{self, Write as _};
use core::panic::PanicInfo;

use super::entry::Image;
use super::log::Line;
use crate::hypercall::call;

/// The end of a domain's own accord (`SHUTDOWN_*` of sched.h).
pub(super) fn shutdown(reason: u32) -> ! {
    // Returns only where there is no hypervisor.
    let _ = call::shutdown(reason);
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// The end after a report.
pub(super) fn crash() -> ! {
    shutdown(xen_abi::sched::SHUTDOWN_crash)
}

/// Writes a report, line by line, without the heap and without locks.
pub(super) struct Report {
    line: Line,
}

impl Report {
    pub fn begin() -> Self {
        Self { line: Line::new() }
    }

    /// Says where the calls came from, as far as the frame pointers lead.
    pub fn backtrace(&mut self, rip: u64, rbp: u64) {
        let image = Image::get();
        let _ = write!(self, "  backtrace: {rip:#x}");
        let mut frame = rbp;
        for _ in 0..32 {
            let inside = frame.is_multiple_of(8)
                && frame >= image.stack_bottom
                && frame.checked_add(16).is_some_and(|end| end <= image.stack_top);
            if !inside {
                break;
            }
            // SAFETY: both words lie in our stack, which is mapped; whatever they hold is only printed or checked again.
            let (next, address) = unsafe {
                (
                    (frame as *const u64).read_volatile(),
                    (frame as *const u64).add(1).read_volatile(),
                )
            };
            let _ = write!(self, " {address:#x}");
            if next <= frame {
                break;
            }
            frame = next;
        }
        let _ = writeln!(self);
    }
}

impl fmt::Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            self.line.write_str(part.trim_end_matches('\n'))?;
            if part.ends_with('\n') {
                self.line.emit();
            }
        }
        Ok(())
    }
}

/// What the program itself finds wrong.
#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let mut report = Report::begin();
    let _ = writeln!(report, "crash: {info}");
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    report.backtrace(x86_64::instructions::read_rip().as_u64(), frame);
    crash()
}
