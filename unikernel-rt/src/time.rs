//! Time: instants on the machine's monotonic clock.
//!
//! The clock counts nanoseconds of Xen's system time; every domain of the machine sees the same one. Lengths of time are
//! [`core::time::Duration`].

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment, in nanoseconds of system time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment at which system time had this value.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the beginning of system time.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, length: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, length: Duration) {
        *self = *self + length;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}.{:06}",
            self.0 / 1_000_000_000,
            self.0 / 1000 % 1_000_000
        )
    }
}

/// Something that knows the time.
pub trait Clock {
    /// The monotonic time.
    fn now(&self) -> Instant;

    /// The time since the beginning of 1970 (UTC), as the machine's real-time clock has it.
    fn wall(&self) -> Duration;
}

/// The scaling of a time-stamp counter, as pvclock describes it: `((ticks << shift) * multiplier) >> 32`.
pub fn scale_ticks(ticks: u64, multiplier: u32, shift: i8) -> u64 {
    let shifted = if shift >= 0 {
        ticks.checked_shl(shift as u32).unwrap_or(0)
    } else {
        ticks.checked_shr(u32::from(shift.unsigned_abs())).unwrap_or(0)
    };
    ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_scale_as_pvclock_says() {
        // A counter of 2 GHz: multiplier 2^31 for half a nanosecond a tick.
        assert_eq!(scale_ticks(2_000_000_000, 1 << 31, 0), 1_000_000_000);
        // A counter of 250 MHz: 4 ns a tick, by a shift to the left.
        assert_eq!(scale_ticks(250, 1 << 31, 3), 1000);
        // A counter of 4 GHz by a shift to the right.
        assert_eq!(scale_ticks(4000, 1 << 31, -1), 1000);
        assert_eq!(scale_ticks(u64::MAX, u32::MAX, 127), 0);
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::from_nanos(5) - Instant::from_nanos(9), Duration::ZERO);
        assert_eq!((Instant::from_nanos(5) + Duration::MAX).as_nanos(), u64::MAX);
    }
}
