//! How many operations there were, and what came of them.

use chaosdom::{Plan, Random};

/// Reports of a whole run.
const REPORTS: u64 = 16;

/// Counts, and says so now and then.
pub(super) struct Tally {
    seed: u64,
    wanted: u64,
    done: u64,
    accepted: u64,
    refused: u64,
    violations: u64,
    next_report: u64,
}

impl Tally {
    /// Begins a life: its seed follows from the plan's and from how many lives there were.
    pub(super) fn begin(plan: &Plan, generation: u32) -> (Self, Random) {
        let seed = plan.seed.wrapping_add(u64::from(generation) << 32);
        log::info!("begins seed={seed} generation={generation} count={}", plan.count);
        let tally = Self {
            seed,
            wanted: plan.count,
            done: 0,
            accepted: 0,
            refused: 0,
            violations: 0,
            next_report: plan.count / REPORTS,
        };
        (tally, Random::new(seed))
    }

    /// Whether there is more to do.
    pub(super) fn goes_on(&self) -> bool {
        self.done < self.wanted
    }

    /// Counts an operation by its answer.
    pub(super) fn answer(&mut self, answer: i64) {
        if answer < 0 {
            self.refused += 1;
        } else {
            self.accepted += 1;
        }
        self.count();
    }

    /// Counts an operation that has no answer.
    pub(super) fn count(&mut self) {
        self.done += 1;
        if self.done >= self.next_report {
            self.next_report += (self.wanted / REPORTS).max(1);
            self.report("progress");
        }
    }

    /// Something was possible that must not be.
    pub(super) fn violation(&mut self, what: core::fmt::Arguments<'_>) {
        self.violations += 1;
        if self.violations <= 8 {
            log::error!("violation: {what}");
        }
    }

    /// The last report.
    pub(super) fn finish(&self) {
        self.report("finished");
    }

    fn report(&self, what: &str) {
        let Self {
            seed,
            done,
            accepted,
            refused,
            violations,
            ..
        } = self;
        // What an operation began of a line ends before.
        log::info!("");
        log::info!(
            "{what} done={done} accepted={accepted} refused={refused} violations={violations} seed={seed}"
        );
    }
}
