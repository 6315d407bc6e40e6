//! When the next turn is due.

use core::time::Duration;

use unikernel_rt::time::Instant;

/// Absolute deadlines, one period apart. A turn that comes late does not move those after it.
#[derive(Clone, Debug)]
pub struct Periods {
    period: u64,
    next: u64,
}

impl Periods {
    /// The first deadline is the first multiple of `period` that is at least a period away.
    pub fn starting(now: Instant, period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        let next = (now.as_nanos() / period).saturating_add(2).saturating_mul(period);
        Self { period, next }
    }

    /// The next deadline.
    pub fn deadline(&self) -> Instant {
        Instant::from_nanos(self.next)
    }

    /// The turn for the deadline begins at `now`: how late that is, and how many further deadlines have passed meanwhile, whose turns will
    /// never be.
    pub fn begin(&mut self, now: Instant) -> (Duration, u64) {
        let late = now.as_nanos().saturating_sub(self.next);
        let missed = late / self.period;
        self.next = self
            .next
            .saturating_add(missed.saturating_add(1).saturating_mul(self.period));
        (Duration::from_nanos(late), missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_late_turn_does_not_move_the_next() {
        let mut periods = Periods::starting(Instant::from_nanos(10_400_000), MILLISECOND);
        assert_eq!(periods.deadline().as_nanos(), 12_000_000);
        let late = Duration::from_nanos(999_999);
        assert_eq!(periods.begin(Instant::from_nanos(12_999_999)), (late, 0));
        assert_eq!(periods.deadline().as_nanos(), 13_000_000);
    }

    #[test]
    fn deadlines_that_passed_are_counted_and_left_out() {
        let mut periods = Periods::starting(Instant::from_nanos(0), MILLISECOND);
        let (late, missed) = periods.begin(Instant::from_nanos(5_300_000));
        assert_eq!((late.as_nanos(), missed), (3_300_000, 3));
        assert_eq!(periods.deadline().as_nanos(), 6_000_000);
    }

    proptest! {
        #[test]
        fn turns_and_missed_ones_add_up_to_the_time(delays in prop::collection::vec(0u64..5_000_000, 1..200)) {
            let mut periods = Periods::starting(Instant::from_nanos(0), MILLISECOND);
            let first = periods.deadline().as_nanos();
            let mut count = 0;
            for delay in delays {
                let begin = Instant::from_nanos(periods.deadline().as_nanos() + delay);
                count += 1 + periods.begin(begin).1;
                prop_assert!(periods.deadline() > begin);
                prop_assert_eq!(periods.deadline().as_nanos(), first + count * 1_000_000);
            }
        }
    }
}
