//! What hypercalls ask of the machine below; in tests a clock that stands still and a log that can be looked at.

#[cfg(test)]
pub(crate) use fake::{log_line, now, power_off, read_log, reboot, scale, ticks, tsc_khz};
#[cfg(not(test))]
pub(crate) use real::{log_line, now, power_off, read_log, reboot, scale, ticks, tsc_khz};

#[cfg(not(test))]
mod real {
    use crate::platform::{log, power, time};

    /// Nanoseconds since the hypervisor began.
    pub(crate) fn now() -> u64 {
        time::now()
    }

    /// Ticks since the hypervisor began.
    pub(crate) fn ticks() -> u64 {
        time::ticks()
    }

    /// What makes nanoseconds of ticks.
    pub(crate) fn scale() -> time::Scale {
        time::scale()
    }

    /// Logs a line of a domain.
    pub(crate) fn log_line(domain: &str, line: &str) {
        log::domain_line(domain, line);
    }

    /// Copies a part of the log out: the position behind it, and its length.
    pub(crate) fn read_log(position: u64, into: &mut [u8]) -> (u64, usize) {
        log::read(position, into)
    }

    /// Powers the machine off.
    pub(crate) fn power_off() {
        power::power_off()
    }

    /// Restarts the machine.
    pub(crate) fn reboot() {
        power::reboot()
    }

    /// Rate of the time-stamp counter in kHz.
    pub(crate) fn tsc_khz() -> u32 {
        time::tsc_khz() as u32
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use core::cell::{Cell, RefCell};
    use std::{string::String, vec::Vec};

    std::thread_local! {
        /// The time.
        pub(crate) static NOW: Cell<u64> = const { Cell::new(1_000_000) };
        /// The lines that were logged.
        pub(crate) static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        /// What was done to the machine.
        pub(crate) static POWER: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> u64 {
        NOW.get()
    }

    /// A tick is a nanosecond.
    pub(crate) fn ticks() -> u64 {
        NOW.get()
    }

    pub(crate) fn scale() -> crate::platform::time::Scale {
        crate::platform::time::Scale::of_khz(1_000_000)
    }

    pub(crate) fn log_line(domain: &str, line: &str) {
        LOG.with_borrow_mut(|log| log.push(std::format!("{domain}: {line}")));
    }

    pub(crate) fn read_log(position: u64, into: &mut [u8]) -> (u64, usize) {
        let text = LOG.with_borrow(|log| log.join("\n"));
        let rest = text.as_bytes().get(position as usize..).unwrap_or(&[]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        (position + length as u64, length)
    }

    pub(crate) fn power_off() {
        POWER.set(Some("off"));
    }

    pub(crate) fn reboot() {
        POWER.set(Some("reboot"));
    }

    pub(crate) fn tsc_khz() -> u32 {
        1_000_000
    }
}
