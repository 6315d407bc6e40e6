//! Ticks to nanoseconds in fixed point, as `pvclock_vcpu_time_info` (xen.h) carries it.

/// `nanoseconds = ((ticks << shift) * multiplier) >> 32`; a negative shift goes right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `tsc_to_system_mul`.
    pub multiplier: u32,
    /// `tsc_shift`.
    pub shift: i8,
}

impl Scale {
    /// For a counter of this rate: the shift that leaves the multiplier all its 32 bits.
    pub fn of_khz(khz: u64) -> Self {
        let khz = u128::from(khz.max(1));
        // Nanoseconds a tick are 10^6 / khz = multiplier / 2^32 * 2^shift.
        let mut shift = 0;
        let mut multiplier = (1_000_000_u128 << 32) / khz;
        while multiplier >= 1 << 32 {
            multiplier >>= 1;
            shift += 1;
        }
        while multiplier < 1 << 31 {
            shift -= 1;
            multiplier = ((1_000_000_u128 << 32) << -shift) / khz;
        }
        Self {
            multiplier: multiplier as u32,
            shift: shift as i8,
        }
    }

    /// Nanoseconds of so many ticks.
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        let shifted = match self.shift {
            shift @ 0.. => ticks.wrapping_shl(shift as u32),
            shift => ticks.wrapping_shr(shift.unsigned_abs().into()),
        };
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// Ticks that last at least so many nanoseconds, to the precision of the scale; the most that fit where they do not.
    pub fn ticks(&self, nanoseconds: u64) -> u64 {
        if self.multiplier == 0 {
            return 0;
        }
        let shifted = (u128::from(nanoseconds) << 32).div_ceil(self.multiplier.into());
        let ticks = match self.shift {
            shift @ 0.. => shifted.div_ceil(1 << shift),
            shift => shifted << shift.unsigned_abs(),
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_rates() {
        assert_eq!(
            Scale::of_khz(1_000_000),
            Scale {
                multiplier: 1 << 31,
                shift: 1
            }
        );
        assert_eq!(
            Scale::of_khz(2_000_000),
            Scale {
                multiplier: 1 << 31,
                shift: 0
            }
        );
        assert_eq!(
            Scale::of_khz(4_000_000),
            Scale {
                multiplier: 1 << 31,
                shift: -1
            }
        );
    }

    proptest! {
        #[test]
        fn is_right_to_a_part_in_a_thousand_million(khz in 1_000u64..10_000_000, seconds in 1u64..100_000) {
            let scale = Scale::of_khz(khz);
            prop_assert!(scale.multiplier >= 1 << 31);
            let exact = seconds * 1_000_000_000;
            let found = scale.nanoseconds(seconds * khz * 1000);
            prop_assert!(found <= exact && exact - found <= exact / 1_000_000_000 + 16, "{} for {}", found, exact);
            let back = scale.nanoseconds(scale.ticks(exact));
            prop_assert!(back.abs_diff(exact) <= 2_000_000 / khz + 16);
        }
    }
}
