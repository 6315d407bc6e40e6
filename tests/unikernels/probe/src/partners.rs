//! What two probes do with each other.

use core::time::Duration;

use unikernel_rt::event::{Channel, Port};
use unikernel_rt::hypercall::call;
use unikernel_rt::time::Instant;
use unikernel_rt::xenstore::{Permission, Rights, Store, StoreExt, Transaction};
use unikernel_rt::{DomainId, Failure, System};

use crate::measure::{self, Pause};

/// Where a probe publishes its port, below the home that every domain has.
const NODE: &str = "data/probe";
/// Between two looks for a partner that is not there yet.
const PATIENCE: Duration = Duration::from_millis(5);

/// Measures round trips of events.
pub(super) fn ping(system: &System, start: Instant, peer: DomainId, count: u64) -> Result<(), Failure> {
    let store = system.store()?;
    let port = find(system, &*store, peer)?;
    let channel = Channel::bind_interdomain(&system.events, peer, port)?;
    Pause::new(system)?.until(start);
    measure::each(system, "ping", count, || {
        channel.notify();
        system.events.wait_for(channel.port(), None);
    });
    Ok(())
}

/// Sends every event back.
pub(super) fn pong(system: &System, peer: DomainId) -> Result<(), Failure> {
    let store = system.store()?;
    let channel = Channel::allocate_unbound(&system.events, peer)?;
    publish(system, &*store, peer, channel.port())?;
    loop {
        // A new channel fires once when the other end is bound.
        system.events.wait_for(channel.port(), None);
        channel.notify();
    }
}

/// Lets its partner run, which does the same.
pub(super) fn give_way(system: &System, start: Instant, count: u64) -> Result<(), Failure> {
    Pause::new(system)?.until(start);
    measure::each(system, "yield", count, call::give_way);
    Ok(())
}

fn publish(system: &System, store: &dyn Store, peer: DomainId, port: Port) -> Result<(), Failure> {
    store.write_display(NODE, port.0)?;
    let permissions = [
        Permission {
            domain: system.domain,
            rights: Rights::None,
        },
        Permission {
            domain: peer,
            rights: Rights::Read,
        },
    ];
    Ok(store.set_permissions(Transaction::NONE, NODE, &permissions)?)
}

/// Waits until the partner has published its port.
fn find(system: &System, store: &dyn Store, peer: DomainId) -> Result<Port, Failure> {
    let pause = Pause::new(system)?;
    let node = alloc::format!("/local/domain/{}/{NODE}", peer.0);
    loop {
        // Before it has, there is no node, or one that we may not read.
        if let Ok(port) = store.read_parsed(&node) {
            return Ok(Port(port));
        }
        pause.until(system.events.now() + PATIENCE);
    }
}
