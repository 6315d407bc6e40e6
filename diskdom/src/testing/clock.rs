//! A clock that moves when it is looked at, and jumps when somebody waits.

use core::cell::Cell;
use core::time::Duration;

use unikernel_rt::time::{Clock, Instant};

use crate::device::Pause;

/// The clock.
#[derive(Debug, Default)]
pub struct TestClock(Cell<u64>);

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, length: Duration) {
        self.0.set(self.0.get() + length.as_nanos() as u64);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.advance(Duration::from_nanos(100));
        Instant::from_nanos(self.0.get())
    }

    fn wall(&self) -> Duration {
        Duration::from_nanos(self.0.get())
    }
}

impl Pause for TestClock {
    fn pause(&self, length: Duration) {
        self.advance(length);
    }
}
