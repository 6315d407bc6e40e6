//! The clock of the machine, with a way to wait that takes nothing from the event loop.

use core::time::Duration;

use unikernel_rt::DomainId;
use unikernel_rt::event::{Channel, Events};
use unikernel_rt::hypercall::Errno;
use unikernel_rt::time::{Clock, Instant};

use crate::device::Pause;

/// Waits for a port that nobody notifies: what else fires meanwhile is kept for the event loop.
#[derive(Debug)]
pub struct EventClock {
    silent: Channel,
}

impl EventClock {
    /// A clock over this domain's event channels.
    pub fn new(events: &Events, domain: DomainId) -> Result<Self, Errno> {
        Ok(Self {
            silent: Channel::allocate_unbound(events, domain)?,
        })
    }
}

impl Clock for EventClock {
    fn now(&self) -> Instant {
        self.silent.events().now()
    }

    fn wall(&self) -> Duration {
        self.silent.events().wall()
    }
}

impl Pause for EventClock {
    fn pause(&self, length: Duration) {
        let deadline = self.now() + length;
        self.silent.events().wait_for(self.silent.port(), Some(deadline));
    }
}

#[cfg(test)]
mod tests {
    use alloc::rc::Rc;

    use unikernel_rt::fake::FakeEvents;

    use super::*;

    #[test]
    fn a_pause_passes_time_and_keeps_events() {
        let fake = FakeEvents::new(DomainId(3));
        let events: Events = Rc::new(fake.clone());
        let clock = EventClock::new(&events, DomainId(3)).unwrap();
        let other = events.bind_virq(1).unwrap();
        fake.fire_virq(1);
        let before = clock.now();
        clock.pause(Duration::from_millis(3));
        assert_eq!(clock.now() - before, Duration::from_millis(3));
        assert!(events.poll().contains(other));
    }
}
