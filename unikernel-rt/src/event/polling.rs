//! Whether to look for work once more, or to sleep: adaptive polling.
//!
//! Going to sleep and being woken cost a backend and its peer an exit each, and a processor that was put to sleep some time to come back. If work comes
//! soon, looking for it a little longer is cheaper; if it does not, looking is time that others could have had. So the window in which a backend looks
//! grows while work comes soon after it ran out, and shrinks to nothing while it does not, and never exceeds what the manifest allows.

use core::time::Duration;

use crate::time::Instant;

/// The window that looking begins with.
const FIRST: Duration = Duration::from_micros(4);

/// How one event loop waits. Tell it of every turn of the loop that [found work](Self::worked), and [ask](Self::look_again) it when a turn found none.
#[derive(Clone, Debug)]
pub struct Polling {
    most: Duration,
    window: Duration,
    /// When work ran out.
    since: Option<Instant>,
}

impl Polling {
    /// Looks for at most so long; zero is never.
    pub fn new(most: Duration) -> Self {
        Self {
            most,
            window: Duration::ZERO,
            since: None,
        }
    }

    /// A turn found work.
    pub fn worked(&mut self, now: Instant) {
        let Some(since) = self.since.take() else { return };
        if now.since(since) <= self.most {
            self.window = (self.window * 2).max(FIRST).min(self.most);
        } else {
            // It came so late that looking for it was, or would have been, in vain.
            self.window /= 2;
            if self.window < FIRST {
                self.window = Duration::ZERO;
            }
        }
    }

    /// A turn found nothing. True: look once more; false: sleep.
    pub fn look_again(&mut self, now: Instant) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.since(since) < self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: Duration = Duration::from_micros(50);

    fn at(microseconds: u64) -> Instant {
        Instant::from_nanos(microseconds * 1000)
    }

    /// Work that comes so many microseconds after the last ran out; how long it is looked for. The loop turns once a microsecond while it looks.
    fn wait(polling: &mut Polling, now: &mut u64, gap: u64) -> u64 {
        let begin = *now;
        let end = begin + gap;
        let mut looked = begin;
        while looked < end && polling.look_again(at(looked)) {
            looked += 1;
        }
        *now = end;
        polling.worked(at(end));
        looked - begin
    }

    #[test]
    fn looks_longer_while_work_comes_soon_and_not_at_all_while_it_does_not() {
        let (mut polling, mut now) = (Polling::new(MOST), 0);
        let soon: Vec<u64> = (0..6).map(|_| wait(&mut polling, &mut now, 20)).collect();
        assert_eq!(soon, [0, 4, 8, 16, 20, 20]);
        let late: Vec<u64> = (0..7).map(|_| wait(&mut polling, &mut now, 2000)).collect();
        assert_eq!(late, [50, 25, 13, 7, 0, 0, 0]);
    }

    #[test]
    fn without_leave_nobody_looks() {
        let (mut polling, mut now) = (Polling::new(Duration::ZERO), 0);
        assert!((0..10).all(|_| wait(&mut polling, &mut now, 1) == 0));
    }

    #[test]
    fn turns_that_find_work_one_after_the_other_say_nothing_of_waiting() {
        let (mut polling, mut now) = (Polling::new(MOST), 0);
        wait(&mut polling, &mut now, 5);
        let window = polling.window;
        (0..100).for_each(|turn| polling.worked(at(now + turn * 1000)));
        assert_eq!(polling.window, window);
    }

    proptest! {
        #[test]
        fn nobody_looks_longer_than_is_allowed(gaps in prop::collection::vec(0u64..200, 1..300)) {
            let (mut polling, mut now) = (Polling::new(MOST), 0);
            for gap in gaps {
                prop_assert!(wait(&mut polling, &mut now, gap) <= 50);
            }
        }
    }
}
