//! Two limits on how long somebody runs: the budget of a realtime vCPU, and the cap of a domain.
//!
//! A [`Budget`] is a deferrable server. A period begins when the vCPU first runs after the one before is over; what it has not used of its budget stays at
//! its disposal until the period ends, so an event that arrives at any moment is answered at once. The price is known: two budgets may be used
//! back to back around the end of a period, so in any time of length `t` a vCPU runs for at most `budget × (t / period + 2)`, and in the long run for
//! `budget / period` of it. What it runs too long (an alarm is late by an exit) is taken from the next budget.
//!
//! A [`Cap`] is a credit that is filled up every [`CAP_PERIOD`]. The vCPUs that run take it in pieces and bring back what they did not use, so nobody has to
//! interrupt one because another has begun to run.

/// How often the credit of a capped domain is filled up, in nanoseconds.
pub const CAP_PERIOD: u64 = 10_000_000;
/// A hundredth of a processor for one period.
const HUNDREDTH: u64 = CAP_PERIOD / 100;
/// Less credit than this is not worth an entry; it is kept for later.
const LEAST_PIECE: i64 = 20_000;

/// What a realtime vCPU may still run in its period.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    budget: i64,
    period: u64,
    /// Negative: it ran too long.
    left: i64,
    ends: u64,
}

impl Budget {
    /// `None` where the budget is the whole period, and no limit.
    pub(super) fn new(budget: u64, period: u64) -> Option<Self> {
        (budget < period).then(|| Self {
            budget: budget.min(i64::MAX as u64) as i64,
            period,
            left: 0,
            ends: 0,
        })
    }

    /// How long it may run from now on; or when its period ends if it may not.
    pub(super) fn available(&mut self, now: u64) -> Result<u64, u64> {
        if now >= self.ends {
            let late = now - self.ends;
            let whole = i64::try_from(late / self.period).unwrap_or(i64::MAX);
            let added = self.budget.saturating_mul(whole.saturating_add(1));
            self.left = self.left.min(0).saturating_add(added).min(self.budget);
            // One that waits for its next period has it at its time; one that slept, from now on.
            let begins = if late < self.period { self.ends } else { now };
            self.ends = begins + self.period;
        }
        u64::try_from(self.left)
            .ok()
            .filter(|left| *left > 0)
            .ok_or(self.ends)
    }

    /// It ran, from a moment at which [`Self::available`] let it.
    pub(super) fn spend(&mut self, from: u64, to: u64) {
        let length = |from: u64, to: u64| i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX);
        let mut from = from;
        if to >= self.ends {
            self.left = self.left.saturating_sub(length(from, self.ends)).min(0) + self.budget;
            // Whole periods that it ran through, for want of an alarm.
            let through = (to - self.ends) / self.period;
            let excess = self.period as i64 - self.budget;
            self.left = self
                .left
                .saturating_sub(excess.saturating_mul(i64::try_from(through).unwrap_or(i64::MAX)));
            from = self.ends + through * self.period;
            self.ends = from + self.period;
        }
        self.left = self.left.saturating_sub(length(from, to));
    }
}

/// The credit of a domain.
#[derive(Clone, Debug)]
pub(super) struct Cap {
    /// Nanoseconds a period.
    quota: i64,
    piece: i64,
    /// Negative: they ran too long.
    left: i64,
    ends: u64,
}

impl Cap {
    /// A cap in hundredths of one processor, for so many vCPUs.
    pub(super) fn new(hundredths: u32, vcpus: u32) -> Self {
        let quota = (u64::from(hundredths.max(1)) * HUNDREDTH) as i64;
        Self {
            quota,
            piece: (quota / (2 * i64::from(vcpus.max(1)))).max(HUNDREDTH as i64),
            left: 0,
            ends: 0,
        }
    }

    fn fill_up(&mut self, now: u64) {
        if now >= self.ends {
            let periods = (now - self.ends) / CAP_PERIOD + 1;
            let added = self
                .quota
                .saturating_mul(i64::try_from(periods).unwrap_or(i64::MAX));
            self.left = self.left.saturating_add(added).min(self.quota + LEAST_PIECE);
            self.ends += periods * CAP_PERIOD;
        }
    }

    /// A piece to run for, in nanoseconds; or when there is credit again.
    pub(super) fn take(&mut self, now: u64) -> Result<u64, u64> {
        self.fill_up(now);
        if self.left < LEAST_PIECE {
            return Err(self.ends);
        }
        let piece = self.piece.min(self.left);
        self.left -= piece;
        Ok(piece as u64)
    }

    /// What is left of a piece; negative if more was used.
    pub(super) fn bring_back(&mut self, rest: i64) {
        self.left = self.left.saturating_add(rest).min(self.quota + LEAST_PIECE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: u64 = 1_000_000;

    #[test]
    fn a_budget_lasts_for_its_period_and_comes_back_with_the_next() {
        let mut budget = Budget::new(200_000, PERIOD).unwrap();
        assert_eq!(budget.available(5_000_000), Ok(200_000));
        budget.spend(5_000_000, 5_150_000);
        // It is kept while the vCPU sleeps.
        assert_eq!(budget.available(5_900_000), Ok(50_000));
        budget.spend(5_900_000, 5_960_000);
        assert_eq!(budget.available(5_960_000), Err(6_000_000));
        // It ran 10 µs too long.
        assert_eq!(budget.available(6_000_000), Ok(190_000));
        // A period that nobody waits for begins with the first use.
        assert_eq!(budget.available(9_500_000), Ok(200_000));
        budget.spend(9_500_000, 9_700_000);
        assert_eq!(budget.available(10_400_000), Err(10_500_000));
    }

    #[test]
    fn one_that_runs_into_the_next_period_spends_of_both() {
        let mut budget = Budget::new(200_000, PERIOD).unwrap();
        assert_eq!(budget.available(0), Ok(200_000));
        assert_eq!(budget.available(900_000), Ok(200_000));
        budget.spend(900_000, 1_100_000);
        assert_eq!(budget.available(1_100_000), Ok(100_000));
        assert_eq!(budget.available(1_999_999), Ok(100_000));
    }

    #[test]
    fn a_whole_period_is_no_limit() {
        assert!(Budget::new(PERIOD, PERIOD).is_none());
        assert!(Budget::new(PERIOD - 1, PERIOD).is_some());
    }

    #[test]
    fn a_cap_fills_up_and_is_not_saved_for_later() {
        let mut cap = Cap::new(50, 1);
        assert_eq!(cap.take(1_000), Ok(2_500_000));
        assert_eq!(cap.take(1_000), Ok(2_500_000));
        assert_eq!(cap.take(1_000), Err(CAP_PERIOD));
        cap.bring_back(1_000_000);
        assert_eq!(cap.take(2_000), Ok(1_000_000));
        cap.bring_back(-500_000);
        let taken = |cap: &mut Cap, now| core::iter::from_fn(|| cap.take(now).ok()).sum::<u64>();
        assert_eq!(taken(&mut cap, CAP_PERIOD), 4_500_000);
        assert_eq!(taken(&mut cap, 100 * CAP_PERIOD), 5_020_000);
        let mut smallest = Cap::new(1, 4);
        assert_eq!(taken(&mut smallest, 0), 100_000);
    }

    proptest! {
        #[test]
        fn a_budget_is_held_over_any_run(steps in prop::collection::vec((1u64..3_000_000, 1u64..3_000_000), 1..200)) {
            let (budget, period) = (300_000u64, PERIOD);
            let mut server = Budget::new(budget, period).unwrap();
            let (mut now, mut ran) = (0u64, 0u64);
            for (work, pause) in steps {
                match server.available(now) {
                    Ok(left) => {
                        prop_assert!(left <= budget);
                        let end = now + left.min(work);
                        server.spend(now, end);
                        ran += end - now;
                        now = end;
                    }
                    Err(until) => {
                        prop_assert!(until > now && until <= now + period);
                        now = until;
                        continue;
                    }
                }
                prop_assert!(ran <= budget * (now / period + 2), "{ran} in {now}");
                now += pause;
            }
        }

        #[test]
        fn spending_in_one_piece_or_in_many_is_the_same(cuts in prop::collection::vec(1u64..900_000, 1..20)) {
            let mut whole = Budget::new(400_000, PERIOD).unwrap();
            whole.available(0).unwrap();
            let mut parts = whole.clone();
            let mut now = 0;
            for cut in cuts {
                parts.spend(now, now + cut);
                now += cut;
            }
            whole.spend(0, now);
            prop_assert_eq!((whole.left, whole.ends), (parts.left, parts.ends));
        }
    }
}
