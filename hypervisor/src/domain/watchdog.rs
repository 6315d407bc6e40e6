//! Watchdogs of domains (SCHEDOP_watchdog): they count the time that a domain has lived without feeding one, and only that.
//!
//! A domain that waits for a processor does not live, so a busy machine starves nobody to death. And a machine that stands still for a while (under a
//! debugger, or as somebody's guest) counts for one look at most: what is counted grows by looks, each by no more than the time that it was to come
//! after. So whoever comes to run again has half of its time left to feed the dog. Pure logic.

/// The part of the timeout after which the dog is looked at first; a domain that feeds it sooner costs no look.
const FIRST: u64 = 2;
/// The parts of the timeout in which it is looked at afterwards.
const PARTS: u64 = 8;

/// One watchdog; [`Default`] is a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// Nanoseconds of life after which it bites; 0 is a free one.
    timeout: u64,
    /// Nanoseconds of life that are counted already.
    counted: u64,
    /// How long the domain had lived at the last look.
    life: u64,
    /// When to look next, in nanoseconds of the machine's clock.
    next: u64,
    /// How long that is after the last look.
    step: u64,
}

impl Watchdog {
    /// Nobody uses it.
    pub fn is_free(&self) -> bool {
        self.timeout == 0
    }

    /// It is fed, or started: `timeout` begins anew. `life` is how long the domain has lived, of which only differences count.
    pub fn feed(&mut self, timeout: u64, life: u64, now: u64) {
        let step = (timeout / FIRST).max(1);
        *self = Self {
            timeout: timeout.max(1),
            counted: 0,
            life,
            next: now.saturating_add(step),
            step,
        };
    }

    /// It is fed for as long as it was last time.
    pub fn feed_again(&mut self, life: u64, now: u64) {
        if !self.is_free() {
            self.feed(self.timeout, life, now);
        }
    }

    /// When to look at it.
    pub fn deadline(&self) -> Option<u64> {
        (!self.is_free()).then_some(self.next)
    }

    /// Looks at it if it is time to. True if it has not been fed for too long.
    pub fn look(&mut self, life: u64, now: u64) -> bool {
        if self.is_free() || now < self.next {
            return false;
        }
        self.counted += life.saturating_sub(self.life).min(self.step);
        self.life = life;
        self.step = (self.timeout / PARTS).max(1);
        self.next = now.saturating_add(self.step);
        self.counted >= self.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Looks whenever it is time to, until the dog bites; when that is. `life` is the part of time in which the domain lives, in eighths.
    fn bites_at(mut dog: Watchdog, eighths: u64) -> Option<u64> {
        (0..1000).find_map(|_| {
            let now = dog.deadline()?;
            dog.look(now / 8 * eighths, now).then_some(now)
        })
    }

    fn fed(timeout: u64) -> Watchdog {
        let mut dog = Watchdog::default();
        dog.feed(timeout, 0, 0);
        dog
    }

    #[test]
    fn bites_who_lives_and_does_not_feed_it() {
        assert_eq!(bites_at(fed(4 * SECOND), 8), Some(4 * SECOND));
        assert_eq!(bites_at(Watchdog::default(), 8), None);
    }

    #[test]
    fn is_patient_with_who_waits_for_a_processor() {
        assert_eq!(bites_at(fed(4 * SECOND), 0), None);
        let half = bites_at(fed(4 * SECOND), 4).unwrap();
        assert!((8 * SECOND..=9 * SECOND).contains(&half), "{half}");
    }

    #[test]
    fn counts_a_standstill_of_the_machine_for_one_look() {
        let mut dog = fed(4 * SECOND);
        assert!(!dog.look(100 * SECOND, 100 * SECOND));
        assert_eq!(dog.deadline(), Some(100 * SECOND + SECOND / 2));
        assert!(!dog.look(200 * SECOND, 200 * SECOND));
        dog.feed_again(200 * SECOND, 200 * SECOND);
        assert_eq!(dog.deadline(), Some(202 * SECOND));
        assert!(!dog.look(201 * SECOND, 201 * SECOND), "it was too early to look");
        assert_eq!(dog.deadline(), Some(202 * SECOND));
    }
}
