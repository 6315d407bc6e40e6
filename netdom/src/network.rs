//! Everything that frames go to besides the cards: the interfaces of all domains, and netdom's own stack.

use alloc::{rc::Rc, string::ToString, vec, vec::Vec};

use unikernel_rt::{
    grant::Grants,
    xenbus::{BackendBus, DeviceError, DeviceId},
    xenstore::StoreError,
};

use crate::{
    fabric::{Endpoints, Fabric},
    frame::{Frame, MOST_PIECES, Piece},
    interface::{Departed, Interface, Interfaces, packet},
    nic::Offloads,
    pool::Pool,
    stack::Stack,
    switch::Port,
};
use unikernel_rt::memory::PAGE_SIZE;

/// The endpoints of the switch.
pub struct Network {
    /// The interfaces of all domains.
    pub bus: BackendBus<Interfaces>,
    /// netdom's own place on the network.
    pub stack: Option<(Port, Stack)>,
    grants: Rc<dyn Grants>,
}

impl Network {
    /// Joins them.
    pub fn new(bus: BackendBus<Interfaces>, stack: Option<(Port, Stack)>, grants: Rc<dyn Grants>) -> Self {
        Self { bus, stack, grants }
    }

    /// Takes what the domains and the stack send, and forwards it. Answers whether there was anything.
    pub fn collect(&mut self, fabric: &mut Fabric, now: u64) -> Result<bool, StoreError> {
        let mut sent: Vec<(Port, Frame)> = Vec::new();
        self.each(|interface, grants| {
            let port = interface.port();
            interface.collect(grants, &mut fabric.pool, |frame| sent.push((port, frame)))
        })?;
        if let Some((port, stack)) = &mut self.stack {
            stack.poll(now, |bytes| {
                sent.extend(frame(&bytes, &mut fabric.pool).map(|frame| (*port, frame)))
            });
        }
        let any = !sent.is_empty();
        for (port, frame) in sent {
            fabric.forward(port, frame, self, now);
        }
        Ok(any)
    }

    /// Hands the domains what waits for them, and notifies those that are to look at their rings. Answers whether anything went.
    pub fn flush(&mut self, pool: &mut Pool) -> Result<bool, StoreError> {
        self.each(|interface, grants| {
            let any = interface.flush(grants, pool);
            interface.notify();
            any
        })
    }

    /// Before a wait: whether a domain has given work meanwhile.
    pub fn final_check(&mut self, pool: &Pool) -> Result<bool, StoreError> {
        self.each(|interface, _| interface.final_check(pool))
    }

    /// Lets go of the interfaces whose frontends left.
    pub fn bury(&mut self, fabric: &mut Fabric) {
        for Departed { port, frames, place } in core::mem::take(&mut self.bus.backend().gone) {
            self.bus.backend().places.give_back(place);
            fabric.remove(port);
            for frame in frames {
                frame.release(&mut fabric.pool);
            }
        }
    }

    /// Does something with every interface; one whose frontend broke the protocol is disconnected.
    fn each(
        &mut self,
        mut action: impl FnMut(&mut Interface, &dyn Grants) -> Result<bool, packet::Error>,
    ) -> Result<bool, StoreError> {
        let mut any = false;
        let mut broken: Vec<(DeviceId, packet::Error)> = Vec::new();
        for (id, interface) in self.bus.parts().1 {
            match action(interface, &*self.grants) {
                Ok(done) => any |= done,
                Err(error) => broken.push((id.clone(), error)),
            }
        }
        for (id, error) in broken {
            self.bus.fail(&id, &DeviceError::other(error.to_string()))?;
        }
        Ok(any)
    }

    fn interface(&mut self, port: Port) -> Option<&mut Interface> {
        self.bus
            .parts()
            .1
            .map(|(_, interface)| interface)
            .find(|interface| interface.port() == port)
    }
}

impl Endpoints for Network {
    fn ports(&mut self) -> Vec<Port> {
        let mut ports: Vec<Port> = self
            .bus
            .parts()
            .1
            .map(|(_, interface)| interface.port())
            .collect();
        ports.extend(self.stack.as_ref().map(|&(port, _)| port));
        ports
    }

    fn offloads(&mut self, port: Port) -> Option<Offloads> {
        if self.stack.as_ref().is_some_and(|&(own, _)| own == port) {
            // A checksum between two domains of one machine may stay blank: smoltcp must not check it, but it does.
            return Some(Offloads::default());
        }
        self.interface(port).map(|interface| {
            let features = interface.features();
            // An uncut frame needs several slots.
            let Offloads {
                checksum,
                segment_ipv4,
                segment_ipv6,
                ..
            } = features.offloads;
            Offloads {
                longest: if features.scatter {
                    MOST_PIECES * PAGE_SIZE
                } else {
                    PAGE_SIZE
                },
                checksum,
                segment_ipv4: segment_ipv4 && features.scatter,
                segment_ipv6: segment_ipv6 && features.scatter,
            }
        })
    }

    fn deliver(&mut self, port: Port, frame: Frame, pool: &mut Pool) {
        match &mut self.stack {
            Some((own, stack)) if *own == port => {
                let mut bytes = vec![0; frame.length()];
                frame.copy_out(pool, &mut bytes);
                frame.release(pool);
                stack.deliver(bytes);
            }
            _ => match self.interface(port) {
                Some(interface) => interface.deliver(frame, pool),
                None => frame.release(pool),
            },
        }
    }
}

/// A frame of these bytes; `None` when the pool is empty.
fn frame(bytes: &[u8], pool: &mut Pool) -> Option<Frame> {
    let mut frame = Frame::default();
    for chunk in bytes.chunks(PAGE_SIZE) {
        let pushed = pool.allocate().map(|page| {
            pool.write(&page, 0, chunk);
            frame.pieces.push(Piece {
                page,
                offset: 0,
                length: chunk.len() as u16,
            })
        });
        if !matches!(pushed, Some(Ok(()))) {
            frame.release(pool);
            return None;
        }
    }
    Some(frame)
}
