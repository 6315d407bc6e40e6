//! When a domain that has failed is started again, as its manifest says: at once at first, for a driver's frontends only pause meanwhile; then
//! later and later; then no more, for a machine that does nothing but restart helps nobody.

use core::time::Duration;

use manifest::Restarts;

/// The failures of one domain in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures(u32);

impl Failures {
    /// So many.
    pub fn of(count: u32) -> Self {
        Self(count)
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0
    }

    /// Counts a failure of a domain that ran for some time. Answers how long to wait; `None` is for ever.
    pub fn after_failure(&mut self, policy: &Restarts, ran: Duration) -> Option<Duration> {
        let delay = self.after_reboot(policy, ran);
        (self.0 < policy.limit).then_some(delay)
    }

    /// Counts a restart that the domain itself asked for: it is slowed down if it comes again and again, and never refused.
    pub fn after_reboot(&mut self, policy: &Restarts, ran: Duration) -> Duration {
        if ran >= Duration::from_nanos(policy.healthy_after) {
            self.0 = 0;
        }
        let before = self.0;
        self.0 = self.0.saturating_add(1);
        let Some(doublings) = before.checked_sub(1) else {
            return Duration::ZERO;
        };
        let rest = policy
            .rest
            .saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX));
        Duration::from_nanos(rest.min(policy.longest_rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Duration = Duration::from_secs(60);

    #[test]
    fn waits_longer_and_gives_up() {
        let policy = Restarts::default();
        let mut failures = Failures::default();
        let delays: Vec<_> = (0..policy.limit)
            .map(|_| failures.after_failure(&policy, Duration::ZERO))
            .map(|rest| rest.map(|rest| rest.as_millis()))
            .collect();
        assert_eq!(delays[..4], [Some(0), Some(100), Some(200), Some(400)]);
        assert_eq!(delays[8..], [Some(10_000), None]);
    }

    #[test]
    fn rests_never_outgrow_the_longest() {
        let policy = Restarts {
            limit: u32::MAX,
            ..Restarts::default()
        };
        let mut failures = Failures::of(200);
        assert_eq!(
            failures.after_failure(&policy, Duration::ZERO),
            Some(Duration::from_secs(10))
        );
        let patient = Restarts { rest: 0, ..policy };
        assert_eq!(
            failures.after_failure(&patient, Duration::ZERO),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn forgives_after_a_healthy_run() {
        let mut failures = Failures::default();
        for _ in 0..100 {
            assert_eq!(
                failures.after_failure(&Restarts::default(), HEALTHY),
                Some(Duration::ZERO)
            );
        }
    }

    #[test]
    fn never_refuses_a_reboot() {
        let policy = Restarts::default();
        let mut failures = Failures::default();
        for _ in 0..100 {
            failures.after_reboot(&policy, Duration::ZERO);
        }
        assert_eq!(
            failures.after_reboot(&policy, Duration::ZERO),
            Duration::from_secs(10)
        );
    }
}
