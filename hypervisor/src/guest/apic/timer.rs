//! The timer of a local APIC: one-shot, periodic, or at a value of the time-stamp counter (Intel SDM 3A, 11.5.4).
//!
//! It counts nothing: it knows when it fires, and what the count would be. Its clock ticks every 10 ns, as Xen's does.

use super::Time;

/// Nanoseconds a tick of the undivided clock.
const TICK: u64 = 10;
/// A periodic timer fires no more often than this, in nanoseconds, so that a guest cannot keep the hypervisor busy with it.
const MINIMUM_PERIOD: u64 = 50_000;

/// How it fires, bits 17 and 18 of its local vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

impl Mode {
    pub(super) fn of_local_vector(local_vector: u32) -> Self {
        match local_vector >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timer {
    /// When it fires, in nanoseconds of the machine's clock.
    pub(super) deadline: Option<u64>,
    pub(super) initial: u32,
    /// The divide configuration register.
    pub(super) divide: u32,
    /// IA32_TSC_DEADLINE.
    pub(super) tsc_deadline: u64,
}

impl Timer {
    /// Nanoseconds a tick of the divided clock.
    fn tick(&self) -> u64 {
        // 0 divides by 2, 1 by 4 … 6 by 128, 7 by 1.
        let code = self.divide & 3 | self.divide >> 1 & 4;
        TICK << ((code + 1) & 7)
    }

    /// The current count.
    pub(super) fn count(&self, mode: Mode, now: u64) -> u32 {
        match (mode, self.deadline) {
            (Mode::OneShot, Some(deadline)) => deadline
                .saturating_sub(now)
                .div_ceil(self.tick())
                .min(self.initial.into()) as u32,
            (Mode::Periodic, Some(deadline)) if self.initial > 0 => {
                // Periods may have passed whose end nobody has seen yet; a period that was stretched stays at its end.
                let period = u64::from(self.initial) * self.tick();
                let left = if deadline >= now {
                    deadline - now
                } else {
                    period - (now - deadline) % period
                };
                left.div_ceil(self.tick()).min(self.initial.into()) as u32
            }
            _ => 0,
        }
    }

    /// Writes the initial count, which starts or stops the timer.
    pub(super) fn start(&mut self, mode: Mode, initial: u32, now: u64) {
        if matches!(mode, Mode::TscDeadline | Mode::Reserved) {
            return;
        }
        self.initial = initial;
        self.deadline = (initial > 0).then(|| now.saturating_add(u64::from(initial) * self.tick()));
    }

    /// Writes the divide configuration; what is left to count goes on at the new rate.
    pub(super) fn set_divide(&mut self, mode: Mode, divide: u32, now: u64) {
        let count = self.count(mode, now);
        self.divide = divide & 0xb;
        if matches!(mode, Mode::OneShot | Mode::Periodic) && self.deadline.is_some() {
            self.deadline = Some(now.saturating_add(u64::from(count) * self.tick()));
        }
    }

    /// The mode changes. Between counting and the deadline the timer stops.
    pub(super) fn change_mode(&mut self, old: Mode, new: Mode) {
        let counts = |mode| matches!(mode, Mode::OneShot | Mode::Periodic);
        if !(counts(old) && counts(new)) && old != new {
            *self = Self {
                divide: self.divide,
                ..Self::default()
            };
        }
    }

    /// Writes IA32_TSC_DEADLINE.
    pub(super) fn set_tsc_deadline(&mut self, value: u64, time: Time) {
        self.tsc_deadline = value;
        self.deadline = (value != 0).then(|| {
            let ticks = value.saturating_sub(time.guest_tsc);
            let nanoseconds = (u128::from(ticks) * 1_000_000).div_ceil(u128::from(time.tsc_khz.max(1)));
            time.nanoseconds
                .saturating_add(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        });
    }

    /// Whether it fires by `now`; then it stops, or sets out for the end of the period that is under way.
    pub(super) fn expire(&mut self, mode: Mode, now: u64) -> bool {
        let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) else {
            return false;
        };
        self.tsc_deadline = 0;
        self.deadline = None;
        if mode == Mode::Periodic && self.initial > 0 {
            let period = (u64::from(self.initial) * self.tick()).max(MINIMUM_PERIOD);
            let missed = (now - deadline) / period;
            self.deadline = Some(deadline.saturating_add((missed + 1).saturating_mul(period)));
        }
        true
    }
}
