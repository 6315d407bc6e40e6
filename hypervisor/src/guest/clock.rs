//! Time as Xen tells it to guests: the scaled time-stamp counter in `vcpu_time_info`, and the wall clock in the shared-info page.
//!
//! Promise: when the nanoseconds of every update are the machine's counter scaled by the same [`Scale`], the time that a guest computes from its
//! time page never goes backwards, neither across updates nor across vCPUs, and is at most 2 ns behind the machine's clock.

use xen_abi::xen::{VcpuTimeInfo, XEN_PVCLOCK_TSC_STABLE_BIT};

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
        let hertz = u128::from(khz.max(1)) * 1000;
        // The greatest multiplier below 2^32 keeps the most precision. At 1 kHz the shift is 20, at 4 THz it is -12.
        let mut shift = 20;
        loop {
            let multiplier = (1_000_000_000u128 << (32 - shift)) / hertz;
            if multiplier >= 1 << 31 {
                // Below 2^32, as the shift before it gave less than 2^31 (the first one: at most 10^6 × 2^12).
                return Self {
                    multiplier: multiplier.min(u128::from(u32::MAX)) as u32,
                    shift: shift as i8,
                };
            }
            shift -= 1;
        }
    }

    /// Nanoseconds in `ticks`, rounded down; what is beyond 64 bits is cut off.
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        let shifted = if self.shift >= 0 {
            u128::from(ticks) << self.shift.min(31)
        } else {
            u128::from(ticks) >> self.shift.unsigned_abs().min(63)
        };
        ((shifted * u128::from(self.multiplier)) >> 32) as u64
    }

    /// The least number of ticks that takes at least `nanoseconds`; the greatest number if there is none.
    pub fn ticks(self, nanoseconds: u64) -> u64 {
        let shifted = (u128::from(nanoseconds) << 32).div_ceil(u128::from(self.multiplier.max(1)));
        let ticks = if self.shift >= 0 {
            shifted.div_ceil(1 << self.shift.min(31))
        } else {
            shifted << self.shift.unsigned_abs().min(31)
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// What to add to the machine's time-stamp counter for a guest to read `guest` while the machine's reads `machine`.
pub const fn tsc_offset(guest: u64, machine: u64) -> u64 {
    guest.wrapping_sub(machine)
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
    /// An update that says: the guest's counter read `guest_tsc` when the domain had run for `nanoseconds`. The version goes on from the last one of
    /// this vCPU, whatever the guest has written into the page.
    pub fn update(&mut self, scale: Scale, guest_tsc: u64, nanoseconds: u64) -> TimeUpdate {
        let (begin, end) = (self.version.wrapping_add(1), self.version.wrapping_add(2));
        self.version = end;
        let body = VcpuTimeInfo {
            version: begin,
            tsc_timestamp: guest_tsc,
            system_time: nanoseconds,
            tsc_to_system_mul: scale.multiplier,
            tsc_shift: scale.shift,
            flags: XEN_PVCLOCK_TSC_STABLE_BIT,
            ..VcpuTimeInfo::default()
        };
        TimeUpdate { begin, body, end }
    }
}

/// The words of the wall clock in the shared-info page: the time of day when the guest's system time was 0. Write `version` into `wc_version`,
/// then the other words, then `version + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// An odd version: readers wait.
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
        let seconds = (nanoseconds / 1_000_000_000) as u64;
        Self {
            version: previous.wrapping_add(1) | 1,
            seconds: seconds as u32,
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
            seconds_high: (seconds >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a guest computes (xen.h, `vcpu_time_info`), with the 64-bit wrap-around that its code has.
    fn guest_time(page: &VcpuTimeInfo, tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(page.tsc_timestamp);
        let delta = if page.tsc_shift >= 0 {
            delta << page.tsc_shift
        } else {
            delta >> -page.tsc_shift
        };
        let scaled = (u128::from(delta) * u128::from(page.tsc_to_system_mul)) >> 32;
        page.system_time + scaled as u64
    }

    #[test]
    fn a_gigahertz_counter_counts_nanoseconds() {
        let scale = Scale::from_khz(1_000_000);
        assert_eq!(
            scale,
            Scale {
                multiplier: 1 << 31,
                shift: 1
            }
        );
        assert_eq!(scale.nanoseconds(123_456_789), 123_456_789);
    }

    #[test]
    fn a_second_is_a_second() {
        for khz in [
            0,
            1,
            32,
            1000,
            999_999,
            1_000_000,
            2_000_001,
            2_999_998,
            5_100_000,
            u32::MAX,
        ] {
            let scale = Scale::from_khz(khz);
            let second = scale.nanoseconds(u64::from(khz.max(1)) * 1000);
            assert!(
                (999_999_990..=1_000_000_000).contains(&second),
                "{khz} kHz: {second}"
            );
            assert!(scale.multiplier >= 1 << 31);
        }
    }

    #[test]
    fn versions_are_odd_while_the_page_changes() {
        let mut clock = VcpuClock {
            version: u32::MAX - 1,
        };
        let update = clock.update(Scale::from_khz(1), 5, 6);
        assert_eq!(
            (update.begin, update.body.version, update.end),
            (u32::MAX, u32::MAX, 0)
        );
        let update = clock.update(Scale::from_khz(1), 5, 6);
        assert_eq!((update.begin, update.end), (1, 2));
    }

    #[test]
    fn the_wall_clock_carries_seconds_beyond_32_bits() {
        let wall = WallClock::new(((5u128 << 32) + 7) * 1_000_000_000 + 9, 2);
        assert_eq!(
            wall,
            WallClock {
                version: 3,
                seconds: 7,
                nanoseconds: 9,
                seconds_high: 5
            }
        );
        assert_eq!(
            WallClock::new(0, 3).version,
            5,
            "the guest left an odd version behind"
        );
    }

    proptest! {
        #[test]
        fn ticks_is_the_inverse(khz in 1u32.., nanoseconds in 0u64..1 << 50) {
            let scale = Scale::from_khz(khz);
            let ticks = scale.ticks(nanoseconds);
            prop_assert!(scale.nanoseconds(ticks) >= nanoseconds);
            if ticks > 0 {
                prop_assert!(scale.nanoseconds(ticks - 1) < nanoseconds);
            }
        }

        #[test]
        fn time_never_goes_backwards(khz in 1000u32..8_000_000, steps in prop::collection::vec((0u64..1 << 40, any::<bool>()), 1..50)) {
            let scale = Scale::from_khz(khz);
            let mut clock = VcpuClock::default();
            let (mut tsc, mut last) = (0u64, 0u64);
            let mut page = clock.update(scale, 0, 0).body;
            for (step, update) in steps {
                tsc += step;
                if update {
                    page = clock.update(scale, tsc, scale.nanoseconds(tsc)).body;
                }
                let now = guest_time(&page, tsc);
                prop_assert!(now >= last);
                prop_assert!(now <= scale.nanoseconds(tsc));
                last = now;
            }
        }

        #[test]
        fn no_input_panics(multiplier: u32, shift: i8, value: u64) {
            let scale = Scale { multiplier, shift };
            scale.nanoseconds(value);
            scale.ticks(value);
        }
    }
}
