//! Time as Xen tells it to guests: the scaled time-stamp counter in `vcpu_time_info`, and the wall clock in the shared-info page.
//!
//! Promise: when the nanoseconds of every update are the machine's counter scaled by the same [`Scale`], the time that a guest computes from its
//! time page never goes backwards, neither across updates nor across vCPUs, and is at most 2 ns behind the machine's clock.

use xen_abi::xen::{VcpuTimeInfo, XEN_PVCLOCK_TSC_STABLE_BIT};

use crate::platform::time::Scale;

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
    /// this vCPU, whatever the guest has written into the page. `stable`: what any vCPU of the domain computes from this page, with its own counter, is the
    /// time; without it guests take care themselves that time does not go back from vCPU to vCPU.
    pub fn update(&mut self, scale: Scale, guest_tsc: u64, nanoseconds: u64, stable: bool) -> TimeUpdate {
        let (begin, end) = (self.version.wrapping_add(1), self.version.wrapping_add(2));
        self.version = end;
        let body = VcpuTimeInfo {
            version: begin,
            tsc_timestamp: guest_tsc,
            system_time: nanoseconds,
            tsc_to_system_mul: scale.multiplier,
            tsc_shift: scale.shift,
            flags: if stable { XEN_PVCLOCK_TSC_STABLE_BIT } else { 0 },
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
    fn versions_are_odd_while_the_page_changes() {
        let mut clock = VcpuClock {
            version: u32::MAX - 1,
        };
        let update = clock.update(Scale::of_khz(1), 5, 6, true);
        assert_eq!(
            (update.begin, update.body.version, update.end),
            (u32::MAX, u32::MAX, 0)
        );
        let update = clock.update(Scale::of_khz(1), 5, 6, true);
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

    #[test]
    fn time_is_called_stable_only_if_it_is() {
        let mut clock = VcpuClock::default();
        for (stable, flags) in [(true, XEN_PVCLOCK_TSC_STABLE_BIT), (false, 0)] {
            assert_eq!(clock.update(Scale::of_khz(1), 5, 6, stable).body.flags, flags);
        }
    }

    proptest! {
        /// Each processor's counter is off by less than `skew` ticks, and news of a reading takes at least that long to reach another processor. Guests
        /// have counters of their own, and pages that are written anew now and then. Whoever has heard of a time never reads an earlier one.
        #[test]
        fn time_never_goes_back_from_processor_to_processor(
            khz in 1000u64..8_000_000,
            skew in 0u64..1000,
            off in proptest::array::uniform4(0.0f64..1.0),
            offsets in proptest::array::uniform4(any::<u64>()),
            steps in proptest::collection::vec((0usize..4, 0usize..4, 0u64..1 << 34, any::<bool>()), 1..100),
        ) {
            let scale = Scale::of_khz(khz);
            let off = off.map(|part| (part * skew as f64) as u64);
            let start = 1u64 << 40;
            let mut clocks = [VcpuClock::default(); 4];
            let mut publish = |vcpu: usize| clocks[vcpu].update(scale, start.wrapping_add(offsets[vcpu]), 0, true).body;
            let mut pages = [0, 1, 2, 3].map(&mut publish);
            let (mut counter, mut last, mut before) = (start, 0, usize::MAX);
            for (processor, vcpu, step, anew) in steps {
                counter += step + if processor == before { 0 } else { skew };
                before = processor;
                if anew {
                    pages[vcpu] = publish(vcpu);
                }
                let tsc = (counter + off[processor]).wrapping_add(offsets[vcpu]);
                let now = guest_time(&pages[vcpu], tsc);
                prop_assert!(now >= last);
                prop_assert_eq!(now, scale.nanoseconds(counter + off[processor] - start));
                last = now;
            }
        }

        #[test]
        fn time_never_goes_backwards(khz in 1000u64..8_000_000, steps in prop::collection::vec((0u64..1 << 40, any::<bool>()), 1..50)) {
            let scale = Scale::of_khz(khz);
            let mut clock = VcpuClock::default();
            let (mut tsc, mut last) = (0u64, 0u64);
            let mut page = clock.update(scale, 0, 0, true).body;
            for (step, update) in steps {
                tsc += step;
                if update {
                    page = clock.update(scale, tsc, scale.nanoseconds(tsc), true).body;
                }
                let now = guest_time(&page, tsc);
                prop_assert!(now >= last);
                prop_assert!(now <= scale.nanoseconds(tsc));
                last = now;
            }
        }
    }
}
