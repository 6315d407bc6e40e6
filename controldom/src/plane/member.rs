//! One domain as the control plane sees it: its plan, its phase, its connection.

use core::time::Duration;

use super::restarts::Failures;
use crate::{connection::Connection, layout::DomainPlan};

/// How long the backends of a domain that is gone may take to close its devices.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(2);

/// Where a domain is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its turn to start has not come.
    Waiting,
    /// It runs, as far as is known.
    Running {
        /// Since when.
        since: Duration,
    },
    /// It is gone, and its backends are about to close its devices.
    Leaving {
        /// When the backends' time is over.
        until: Duration,
        /// What comes then.
        next: AfterLeaving,
    },
    /// It is to be started again.
    Resting {
        /// When.
        until: Duration,
    },
    /// It stays down until the operator wants it.
    Down,
}

/// What comes once a domain's devices are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLeaving {
    /// It starts again, after a rest.
    Restart {
        /// How long.
        rest: Duration,
    },
    /// It has suspended itself and goes on, with its devices to be connected anew.
    Resume,
    /// It stays down, and its memory is freed.
    Remove,
    /// It stays down as it is, for inspection.
    Keep,
}

/// A domain.
pub(super) struct Member<L> {
    pub plan: DomainPlan,
    pub phase: Phase,
    pub connection: Option<Connection<L>>,
    pub failures: Failures,
    /// Whether the hypervisor has unwound it.
    pub destroyed: bool,
    /// The operator wants it to be rebuilt: by then it is, even if the guest does not follow.
    pub rebuild_by: Option<Duration>,
    /// It is asked to suspend itself, and goes on when it has; until then.
    pub suspends_by: Option<Duration>,
    /// The operator's request that its next start answers.
    pub answers: Option<u64>,
}

impl<L> Member<L> {
    pub fn new(plan: DomainPlan) -> Self {
        Self {
            plan,
            phase: Phase::Waiting,
            connection: None,
            failures: Failures::default(),
            destroyed: false,
            rebuild_by: None,
            suspends_by: None,
            answers: None,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// How long it has run.
    pub fn ran(&self, now: Duration) -> Duration {
        match self.phase {
            Phase::Running { since } => now.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    /// When it needs attention by itself.
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Leaving { until, .. } | Phase::Resting { until } => Some(until),
            _ => None,
        };
        phase
            .into_iter()
            .chain(self.rebuild_by)
            .chain(self.suspends_by)
            .min()
    }
}
