//! Connects network interfaces through xenstore: the features that are offered, and what a frontend answers.

use alloc::{rc::Rc, vec::Vec};

use unikernel_rt::{
    System,
    event::{Channel, Events},
    grant::{Access, Grants, MapRequest},
    memory::SharedMemory,
    ring::BackRing,
    xenbus::{Attach, Backend, Device, DeviceError},
};

use super::{Departed, Features, Interface, Places};
use crate::{nic::Offloads, switch::Port};

/// Hands out the switch's ports.
#[derive(Default)]
pub struct PortNumbers {
    next: u64,
}

impl PortNumbers {
    /// A number that was not handed out before.
    pub fn take(&mut self) -> Port {
        self.next += 1;
        Port(self.next)
    }
}

/// The class `vif`.
pub struct Interfaces {
    events: Events,
    grants: Rc<dyn Grants>,
    /// Numbers for the interfaces to come.
    pub ports: PortNumbers,
    /// Where answers are kept.
    pub places: Places,
    /// Interfaces whose frontend left: their ports and frames are to be let go.
    pub gone: Vec<Departed>,
}

impl Interfaces {
    /// Serves none yet.
    pub fn new(system: &System, ports: PortNumbers) -> Self {
        Self {
            events: system.events.clone(),
            grants: system.grants.clone(),
            ports,
            places: Places::open(&system.keep),
            gone: Vec::new(),
        }
    }

    fn map_ring(&self, device: &Device, key: &str) -> Result<SharedMemory, DeviceError> {
        let request = MapRequest {
            domain: device.id.peer,
            reference: device.peer_grant(key)?,
            access: Access::ReadWrite,
            device: false,
        };
        Ok(self.grants.map(&[request])?.memory().clone())
    }
}

impl Backend for Interfaces {
    type Connection = Interface;

    fn class(&self) -> &str {
        "vif"
    }

    fn publish(&mut self, device: &Device) -> Result<(), DeviceError> {
        for feature in [
            "feature-rx-copy",
            "feature-sg",
            "feature-gso-tcpv4",
            "feature-gso-tcpv6",
            "feature-ipv6-csum-offload",
        ] {
            device.write(feature, 1)?;
        }
        device.write("feature-rx-flip", 0)?;
        device.write("multi-queue-max-queues", 1)?;
        Ok(())
    }

    fn connect(&mut self, device: &Device, attach: Attach) -> Result<Interface, DeviceError> {
        if !device.peer_has("request-rx-copy")? {
            return Err(DeviceError::other(
                "the frontend wants received pages flipped; only copying (request-rx-copy) is supported",
            ));
        }
        let mut transmit = BackRing::attach(self.map_ring(device, "tx-ring-ref")?)?;
        let mut receive = BackRing::attach(self.map_ring(device, "rx-ring-ref")?)?;
        let channel =
            Channel::bind_interdomain(&self.events, device.id.peer, device.peer_port("event-channel")?)?;
        let features = Features {
            scatter: device.peer_has("feature-sg")?,
            offloads: Offloads {
                checksum: !device.peer_has("feature-no-csum-offload")?,
                segment_ipv4: device.peer_has("feature-gso-tcpv4")?,
                segment_ipv6: device.peer_has("feature-gso-tcpv6")?,
                ..Offloads::default()
            },
        };
        let mut place = self.places.take(&device.id, attach == Attach::Resume);
        if attach == Attach::Resume {
            let shown = place.transmit.resume(&mut transmit)? + place.receive.resume(&mut receive)?;
            log::debug!("{}: {shown} answers of the predecessor", device.id);
            // The predecessor may have died between an answer and its announcement.
            channel.notify();
        }
        log::info!("{}: connected", device.id);
        Ok(Interface {
            port: self.ports.take(),
            domain: device.id.peer,
            channel,
            transmit,
            receive,
            place,
            features,
            waiting: Default::default(),
            held: 0,
            must_notify: false,
            counts: Default::default(),
        })
    }

    fn disconnect(&mut self, device: &Device, connection: Interface) {
        log::info!("{}: disconnected", device.id);
        self.gone.push(connection.end());
    }
}
