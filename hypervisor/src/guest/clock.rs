//! Time as Xen tells it to guests: the scaled time-stamp counter in `vcpu_time_info`, and the wall clock in the shared-info page.
//!
//! Promise: with one scale for all vCPUs and one machine clock, the time that a guest computes from its time page never goes backwards across
//! updates and vCPUs, and is at most a nanosecond behind the machine's clock.

use xen_abi::xen::VcpuTimeInfo;

/// How counter ticks become nanoseconds: `(ticks shifted left by shift) × multiplier / 2^32` (xen.h, `vcpu_time_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Multiplier, as a fraction of 2^32.
    pub multiplier: u32,
    /// Left shift; a right shift if negative.
    pub shift: i8,
}

impl Scale {
    /// The scale of a counter of `khz` kilohertz (0 is taken for 1).
    pub fn from_khz(khz: u32) -> Self {
        let _ = khz;
        todo!()
    }

    /// Nanoseconds in `ticks`, rounded down.
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        let _ = ticks;
        todo!()
    }

    /// The least number of ticks that takes at least `nanoseconds`.
    pub fn ticks(self, nanoseconds: u64) -> u64 {
        let _ = nanoseconds;
        todo!()
    }
}

/// What a vCPU's time page says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuClock {
    version: u32,
}

/// The three writes of an update of a time page, in order and each with release semantics: `begin` into the version, then `body` (its version is
/// `begin` too), then `end` into the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeUpdate {
    /// An odd version: readers wait.
    pub begin: u32,
    /// The structure.
    pub body: VcpuTimeInfo,
    /// The next even version.
    pub end: u32,
}

impl VcpuClock {
    /// An update that says: the guest's counter read `guest_tsc` when the domain had run for `nanoseconds`.
    pub fn update(&mut self, scale: Scale, guest_tsc: u64, nanoseconds: u64) -> TimeUpdate {
        let _ = (scale, guest_tsc, nanoseconds);
        todo!()
    }
}

/// The words of the wall clock in the shared-info page: the time of day when the guest's system time was 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// `wc_version`, as for [`TimeUpdate`]: odd before the other words are written, the next even number after.
    pub version: u32,
    /// `wc_sec`.
    pub seconds: u32,
    /// `wc_nsec`.
    pub nanoseconds: u32,
    /// `wc_sec_hi`.
    pub seconds_high: u32,
}

impl WallClock {
    /// The wall clock of a domain whose system time was 0 at `nanoseconds` since 1970; `previous` is the version in memory.
    pub fn new(nanoseconds: u128, previous: u32) -> Self {
        let _ = (nanoseconds, previous);
        todo!()
    }
}
