//! When a domain that has failed is started again: at once at first, for a driver's frontends only pause meanwhile; then later and
//! later; then no more, for a machine that does nothing but restart helps nobody.

use core::time::Duration;

/// How long to wait before the first, the second … start in a row of failures; the last goes on.
const DELAYS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
/// As many failures in a row, and it stays down.
pub const FAILURES_MAX: u32 = 10;
/// A domain that has run for so long has recovered: its failures no longer count.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The failures of one domain in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures(u32);

impl Failures {
    /// How many there are.
    pub fn count(self) -> u32 {
        self.0
    }

    /// Counts a failure of a domain that ran for some time. Answers how long to wait; `None` is for ever.
    pub fn after_failure(&mut self, ran: Duration) -> Option<Duration> {
        let delay = self.after_reboot(ran);
        (self.0 < FAILURES_MAX).then_some(delay)
    }

    /// Counts a restart that the domain itself asked for: it is slowed down if it comes again and again, and never refused.
    pub fn after_reboot(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY_AFTER {
            self.0 = 0;
        }
        let delay = DELAYS[(self.0 as usize).min(DELAYS.len() - 1)];
        self.0 = self.0.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_and_gives_up() {
        let mut failures = Failures::default();
        let delays: Vec<_> = (0..FAILURES_MAX)
            .map(|_| failures.after_failure(Duration::ZERO))
            .collect();
        assert_eq!(delays[..3], [Some(DELAYS[0]), Some(DELAYS[1]), Some(DELAYS[2])]);
        assert_eq!(delays[8], Some(DELAYS[5]));
        assert_eq!(delays[9], None);
    }

    #[test]
    fn forgives_after_a_healthy_run() {
        let mut failures = Failures::default();
        for _ in 0..100 {
            assert_eq!(failures.after_failure(HEALTHY_AFTER), Some(Duration::ZERO));
        }
    }

    #[test]
    fn never_refuses_a_reboot() {
        let mut failures = Failures::default();
        for _ in 0..100 {
            failures.after_reboot(Duration::ZERO);
        }
        assert_eq!(failures.after_reboot(Duration::ZERO), DELAYS[5]);
    }
}
