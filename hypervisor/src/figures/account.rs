//! Where the time of a processor goes. Every tick is in exactly one of four accounts: in a guest, in the hypervisor with its lock, waiting for that lock,
//! idle. So they add up to the time since the hypervisor began, whatever happens; a test holds them to it.
//!
//! The account itself changes under the lock. The one moment that matters and passes without it, when the processor leaves its guest or
//! its sleep and begins to wait for the lock, is noted on a [`Watch`] that others can read.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use xen_abi::atoll::{CAUSE_IDLE, ProcessorFigures};

use crate::{domain::VcpuId, platform::time::Scale};

/// What a processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It runs a guest.
    Guest,
    /// It works with the lock.
    Hypervisor,
    /// It waits for the lock.
    Waiting,
    /// It sleeps.
    Idle,
}

/// Where a processor notes the tick at which it began to ask for the lock.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<AtomicU64>);

impl Watch {
    /// The processor has left its guest or its sleep.
    pub fn left(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

/// A stay in the hypervisor with the lock.
#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    ticks: u64,
    cause: u32,
}

/// The account of one processor. Ticks are those of the time-stamp counter since the hypervisor began.
#[derive(Debug)]
pub struct Account {
    /// In the order of [`Phase`].
    spent: [u64; 4],
    phase: Phase,
    since: u64,
    watch: Watch,
    cause: u32,
    longest: Stay,
    recent: Stay,
    exits: u64,
    /// Times that it went on to another vCPU than before.
    pub switches: u64,
    /// Interrupts that it took.
    pub interrupts: u64,
    /// Interrupts that it sent to other processors.
    pub messages: u64,
    /// Whom it runs, or works for.
    pub current: Option<VcpuId>,
}

impl Account {
    /// At tick 0, before the processor works: the boot processor prepares, the others are idle.
    pub fn new(phase: Phase) -> Self {
        Self {
            spent: [0; 4],
            phase,
            since: 0,
            watch: Watch::default(),
            cause: CAUSE_IDLE,
            longest: Stay::default(),
            recent: Stay::default(),
            exits: 0,
            switches: 0,
            interrupts: 0,
            messages: 0,
            current: None,
        }
    }

    /// Where the processor notes when it leaves.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// The processor, which has the lock, gives it up at `now`, to run a guest or to sleep.
    pub fn depart(&mut self, phase: Phase, now: u64) {
        let stay = now.saturating_sub(self.since);
        if stay > self.recent.ticks {
            let stay = Stay {
                ticks: stay,
                cause: self.cause,
            };
            self.recent = stay;
            if stay.ticks > self.longest.ticks {
                self.longest = stay;
            }
        }
        self.spend(now);
        self.phase = phase;
        self.watch.left(0);
    }

    /// The processor has the lock again, at `now`.
    pub fn arrive(&mut self, now: u64) {
        self.exits += u64::from(self.phase == Phase::Guest);
        if let Some(left) = self.left() {
            self.spend(left.min(now));
            self.phase = Phase::Waiting;
        }
        self.spend(now);
        (self.phase, self.cause) = (Phase::Hypervisor, CAUSE_IDLE);
    }

    /// Why the processor came ([`super::reason`]), if it did not sleep.
    pub fn because(&mut self, reason: usize) {
        self.cause = reason as u32;
    }

    /// When it left what it was doing without the lock, if it did.
    fn left(&self) -> Option<u64> {
        let left = self.watch.0.load(Ordering::Relaxed);
        (left != 0).then_some(left)
    }

    /// The time from `since` to `now` goes to the phase. Clocks of processors may differ by a tick: time does not go back for that.
    fn spend(&mut self, now: u64) {
        let spent = now.saturating_sub(self.since);
        self.spent[self.phase as usize] += spent;
        self.since += spent;
    }

    /// The figures at `now`, read by whoever has the lock; `restart` begins anew with the longest of recent stays.
    pub fn figures(&mut self, now: u64, scale: Scale, restart: bool) -> ProcessorFigures {
        let mut open = Self {
            watch: Watch::default(),
            ..*self
        };
        if let Some(left) = self.left().filter(|_| self.phase != Phase::Hypervisor) {
            open.spend(left.min(now));
            open.phase = Phase::Waiting;
        }
        open.spend(now);
        // The time of the reading is the sum of the parts, not the clock's, which rounding puts a few nanoseconds beside it: so they add up, and none goes
        // back.
        let parts = open.spent.map(|ticks| scale.nanoseconds(ticks));
        let [guest, hypervisor, waiting, idle] = parts;
        let figures = ProcessorFigures {
            now: parts.iter().sum(),
            guest,
            hypervisor,
            waiting,
            idle,
            exits: self.exits,
            switches: self.switches,
            interrupts: self.interrupts,
            ipis: self.messages,
            longest_stay: scale.nanoseconds(self.longest.ticks),
            longest_cause: self.longest.cause,
            recent_stay: scale.nanoseconds(self.recent.ticks),
            recent_cause: self.recent.cause,
            domain: self.current.map_or(0, |id| id.domain.0),
            vcpu: self.current.map_or(0, |id| id.index as u16),
            ..ProcessorFigures::default()
        };
        if restart {
            self.recent = Stay::default();
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xen_abi::atoll::{EXIT_HYPERCALL, EXIT_PORT};

    /// A tick is a nanosecond.
    fn scale() -> Scale {
        Scale::of_khz(1_000_000)
    }

    fn parts(figures: &ProcessorFigures) -> [u64; 4] {
        [figures.guest, figures.hypervisor, figures.waiting, figures.idle]
    }

    #[test]
    fn every_tick_goes_where_it_was_spent() {
        let mut account = Account::new(Phase::Hypervisor);
        let watch = account.watch();
        account.arrive(100);
        account.depart(Phase::Guest, 110);
        assert_eq!(parts(&account.figures(150, scale(), false)), [40, 110, 0, 0]);
        watch.left(160);
        // Another processor has the lock and looks.
        assert_eq!(parts(&account.figures(165, scale(), false)), [50, 110, 5, 0]);
        account.arrive(170);
        account.because(EXIT_HYPERCALL);
        account.depart(Phase::Idle, 190);
        watch.left(290);
        account.arrive(291);
        account.depart(Phase::Guest, 300);
        let figures = account.figures(300, scale(), false);
        assert_eq!(parts(&figures), [50, 139, 11, 100]);
        assert_eq!((figures.now, figures.exits), (300, 1));
        // What came before the first arrival is nobody's stay.
        assert_eq!(
            (figures.longest_stay, figures.longest_cause),
            (20, EXIT_HYPERCALL as u32)
        );
    }

    #[test]
    fn recent_stays_begin_anew() {
        let mut account = Account::new(Phase::Idle);
        let stay = |account: &mut Account, from: u64, length, reason| {
            account.arrive(from);
            account.because(reason);
            account.depart(Phase::Idle, from + length);
        };
        stay(&mut account, 100, 50, EXIT_PORT);
        assert_eq!(account.figures(200, scale(), true).recent_stay, 50);
        stay(&mut account, 200, 7, EXIT_HYPERCALL);
        let figures = account.figures(300, scale(), false);
        assert_eq!((figures.longest_stay, figures.recent_stay), (50, 7));
        assert_eq!(
            (figures.longest_cause, figures.recent_cause),
            (EXIT_PORT as u32, EXIT_HYPERCALL as u32)
        );
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(
            steps in prop::collection::vec(
                (0_u64..5000, 0_u64..5000, 0_u64..5000, any::<bool>(), -2_i64..3),
                1..50,
            ),
            khz in 100_000_u64..6_000_000,
        ) {
            let scale = Scale::of_khz(khz);
            let mut account = Account::new(Phase::Idle);
            let watch = account.watch();
            let mut now = 10_u64;
            let mut last = [0; 4];
            account.arrive(now);
            for (work, away, wait, guest, skew) in steps {
                now += work;
                account.depart(if guest { Phase::Guest } else { Phase::Idle }, now);
                now += away;
                watch.left(now);
                // A reader whose clock is a little off.
                let seen = now.saturating_add_signed(skew);
                let figures = account.figures(seen, scale, false);
                prop_assert_eq!(parts(&figures).iter().sum::<u64>(), figures.now);
                prop_assert!(figures.now.abs_diff(scale.nanoseconds(seen)) <= 80);
                now += wait;
                account.arrive(now);
                let figures = account.figures(now, scale, false);
                prop_assert_eq!(parts(&figures).iter().sum::<u64>(), figures.now);
                prop_assert!(figures.now.abs_diff(scale.nanoseconds(now)) <= 4 * 10);
                let now_parts = parts(&figures);
                for (before, after) in last.iter().zip(now_parts) {
                    prop_assert!(after >= *before);
                }
                last = now_parts;
            }
        }
    }
}
