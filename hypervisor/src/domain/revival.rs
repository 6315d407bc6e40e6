//! The control domain's next life. It restarts all others; itself it is restarted by the hypervisor, as its part of the manifest says, and finds what it was about in its
//! keep region. Everybody else runs on meanwhile.

use manifest::{Restart, Restarts};
use xen_abi::sched::{SHUTDOWN_crash as CRASH, SHUTDOWN_watchdog as WATCHDOG};

use super::{DomainId, State, build::Progress};
use crate::Hypervisor;

/// When the control domain is to live again, and what it has been through.
#[derive(Debug, Default)]
pub struct Revival {
    /// Whom, and when, in nanoseconds of the machine's clock.
    due: Option<(DomainId, u64)>,
    failures: u32,
    /// When its life began.
    since: u64,
}

impl Revival {
    /// When there is something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.due.map(|(_, at)| at)
    }

    /// Whether there is something to do.
    pub fn is_due(&self, now: u64) -> bool {
        self.due.is_some_and(|(_, at)| at <= now)
    }

    /// It has failed. Answers whether it will live again.
    fn failed(&mut self, id: DomainId, policy: &Restarts, now: u64) -> bool {
        if now.saturating_sub(self.since) >= policy.healthy_after {
            self.failures = 0;
        }
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        if policy.policy == Restart::Never || self.failures >= policy.limit {
            self.due = None;
            return false;
        }
        let rest = match before.checked_sub(1) {
            None => 0,
            Some(doublings) => policy
                .rest
                .saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX))
                .min(policy.longest_rest),
        };
        self.due = Some((id, now.saturating_add(rest)));
        true
    }
}

/// The control domain has stopped, for a reason of `SHUTDOWN_*`.
pub fn control_stopped(hv: &mut Hypervisor, id: DomainId, reason: u32, now: u64) {
    let Some(domain) = hv.domain(id) else { return };
    let (name, policy) = (domain.spec.name.clone(), domain.spec.restarts);
    let failed = matches!(reason, CRASH | WATCHDOG) || policy.policy == Restart::Always;
    if failed && hv.revival.failed(id, &policy, now) {
        return;
    }
    log::error!(
        "{name} was the control domain: nobody starts, restarts or serves the store of domains any more"
    );
}

/// The next piece of its rebuild, if that is due. Answers whether there was anything to do.
pub fn step(hv: &mut Hypervisor, now: u64) -> bool {
    let Some((id, _)) = hv.revival.due.filter(|(_, at)| *at <= now) else {
        return false;
    };
    if matches!(
        hv.domain(id).map(|domain| domain.state),
        Some(State::Stopped { .. })
    ) {
        hv.destroy_domain(id);
        return true;
    }
    match hv.start_domain(id) {
        Ok(Progress::Again) => {}
        Ok(Progress::Wait(until)) => hv.revival.due = Some((id, until)),
        Ok(Progress::Done) => {
            hv.revival.due = None;
            hv.revival.since = now;
        }
        Err(_) => control_stopped(hv, id, CRASH, now),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hypervisor;

    const CONTROL: DomainId = DomainId(1);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn comes_back_at_once_then_later_and_later_then_no_more() {
        let policy = Restarts {
            limit: 4,
            ..Restarts::default()
        };
        let mut revival = Revival::default();
        let mut delays = Vec::new();
        while revival.failed(CONTROL, &policy, SECOND) {
            delays.push(revival.deadline().unwrap() - SECOND);
        }
        assert_eq!(delays, [0, 100_000_000, 200_000_000]);
        assert_eq!(revival.deadline(), None);
        assert!(
            revival.failed(CONTROL, &policy, 62 * SECOND),
            "it ran for a minute"
        );
        assert!(revival.is_due(62 * SECOND));
        let never = Restarts {
            policy: Restart::Never,
            ..policy
        };
        assert!(!Revival::default().failed(CONTROL, &never, 0));
    }

    #[test]
    fn the_control_domain_is_taken_down_and_built_anew_and_others_are_not() {
        let mut hv = hypervisor();
        hv.stop_domain(DomainId(3), CRASH);
        assert!(!step(&mut hv, u64::MAX));
        hv.stop_domain(CONTROL, CRASH);
        let due = hv.revival.deadline().unwrap();
        assert!(step(&mut hv, due));
        assert_eq!(hv.domain(CONTROL).unwrap().state, State::Absent);
        // There is no image in this test: each attempt fails, until there are no more.
        while let Some(due) = hv.revival.deadline() {
            assert!(step(&mut hv, due));
        }
        assert_eq!(hv.domain(CONTROL).unwrap().state, State::Failed);
    }
}
