//! Owners of ports: closed when dropped.

use core::fmt;

use super::{Events, InterruptSource, Port};
use crate::DomainId;
use crate::hypercall::Errno;

/// An event channel that is closed when this is dropped.
pub struct Channel {
    events: Events,
    port: Port,
    close: bool,
}

impl Channel {
    /// A new port that `remote` may bind to.
    pub fn allocate_unbound(events: &Events, remote: DomainId) -> Result<Self, Errno> {
        Ok(Self::own(events, events.allocate_unbound(remote)?))
    }

    /// A new port, bound to one that `remote` allocated for us. Another backend instance's earlier binding does not matter.
    pub fn bind_interdomain(events: &Events, remote: DomainId, remote_port: Port) -> Result<Self, Errno> {
        Ok(Self::own(events, events.bind_interdomain(remote, remote_port)?))
    }

    /// A new port, bound to a virtual interrupt.
    pub fn bind_virq(events: &Events, virq: u32) -> Result<Self, Errno> {
        Ok(Self::own(events, events.bind_virq(virq)?))
    }

    /// A port that the hypervisor allocated for us before we ran (console, xenstore). It stays open.
    pub fn borrow(events: &Events, port: Port) -> Self {
        Self {
            events: events.clone(),
            port,
            close: false,
        }
    }

    fn own(events: &Events, port: Port) -> Self {
        Self {
            events: events.clone(),
            port,
            close: true,
        }
    }

    /// The port's number.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The event channels that this one belongs to.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Notifies the other end. A peer that is gone is no error here: who watches it will hear of it by xenstore.
    pub fn notify(&self) {
        if let Err(error) = self.events.notify(self.port) {
            log::debug!("cannot notify {}: {error}", self.port);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.close
            && let Err(error) = self.events.close(self.port)
        {
            log::warn!("cannot close {}: {error}", self.port);
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Channel({})", self.port.0)
    }
}

/// A device's interrupt that arrives at a port.
#[derive(Debug)]
pub struct Interrupt {
    channel: Channel,
    pirq: u32,
}

impl Interrupt {
    /// Binds an interrupt to a new port.
    pub fn bind(events: &Events, source: InterruptSource) -> Result<Self, Errno> {
        let pirq = events.map_interrupt(source)?;
        Ok(Self {
            channel: Channel::own(events, events.bind_pirq(pirq)?),
            pirq,
        })
    }

    /// The port at which it arrives.
    pub fn port(&self) -> Port {
        self.channel.port()
    }

    /// Says that it was handled. Needed for lines ([`InterruptSource::Gsi`]); costs a hypercall, so leave it out for MSI.
    pub fn acknowledge(&self) {
        if let Err(error) = self.channel.events().end_of_interrupt(self.pirq) {
            log::warn!("cannot end interrupt {}: {error}", self.pirq);
        }
    }
}
