//! The disk domain's image: brings the controllers up, and turns the loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::rc::Rc;
use core::convert::Infallible;
use core::time::Duration;

use diskdom::backend::{BlockBackend, turn};
use diskdom::clock::EventClock;
use diskdom::device::Pause;
use unikernel_rt::xenbus::{BackendBus, Statistics};
use unikernel_rt::{Failure, System};

#[cfg(target_os = "none")]
mod controllers;

#[cfg(not(target_os = "none"))]
mod controllers {
    //! The host has no controllers for a driver domain.

    use super::*;
    use diskdom::volume::Disks;

    pub(super) fn bring_up(_: &System, _: &Rc<dyn Pause>) -> (Disks, bool) {
        (Disks::default(), true)
    }
}

unikernel_rt::entry!(run);

/// How often disks that are at work are looked after although no event came: for lost interrupts and devices that hang.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// The same where a controller has no interrupt.
const LOOK_OFTEN: Duration = Duration::from_millis(1);

fn run(system: System) -> Result<Infallible, Failure> {
    let clock: Rc<dyn Pause> = Rc::new(EventClock::new(&system.events, system.domain)?);
    let (disks, interrupts) = controllers::bring_up(&system, &clock);
    if disks.is_empty() {
        log::warn!("no disk was found; every volume is absent");
    }
    let look = if interrupts { LOOK_AFTER } else { LOOK_OFTEN };

    let backend = BlockBackend::new(disks, system.events.clone(), system.grants.clone(), clock)
        .with_keep(&system.keep)
        .refusing(system.option("resume") == Some("no"));
    let store = system.store()?;
    let mut bus = BackendBus::start(store.clone(), backend)?;
    let mut polling = system.polling();
    let mut statistics = Statistics::new("vbd", system.events.now());
    loop {
        let events = bus.handle_events()?;
        let more = turn(&mut bus)?;
        let now = system.events.now();
        let counts = bus.parts().1.map(|(id, connection)| (id, connection.counts()));
        let publish = statistics.publish(&*store, now, counts)?;
        if more || events {
            polling.worked(now);
            continue;
        }
        if polling.look_again(now) {
            continue;
        }
        let look = bus.backend().disks.busy().then_some(now + look);
        system.events.wait(look.into_iter().chain(publish).min());
    }
}
