//! The backend of Xen's block protocol (`io/blkif.h`): serves volumes to the frontends of other domains, several at once.
//!
//! A [`Connection`] is one frontend's ring with everything that is under way on it. Each turn of the event loop
//! ([`turn`]) hands completions to their connections and lets every connection work for a bounded while. A request is copied out of the ring
//! once, checked, its pages are mapped (or found among those that stay mapped), and the pages' bus addresses go to the
//! disk. Responses follow in the order of the requests; a page that does not stay mapped is unmapped before its response
//! can be seen.
//!
//! # Restart
//! Because responses are in order, a rebuilt backend finds in the ring exactly the requests that have no response yet, and issues them
//! again; a request that was executed before and is executed again leaves the same content, for its frontend has heard of nothing that came after it. What was
//! being written over requests when the predecessor died is in the keep region (`answers`).

mod answers;
mod connect;
mod connection;
mod features;
mod grants;
mod pending;
pub mod persistent;
pub mod request;
#[cfg(test)]
mod tests;

pub use connection::Connection;

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use unikernel_rt::event::Events;
use unikernel_rt::grant::Grants;
use unikernel_rt::keep::Keep;
use unikernel_rt::xenbus::{Attach, Backend, BackendBus, Device, DeviceError};
use unikernel_rt::xenstore::StoreError;

use self::answers::AnswersPool;
use crate::device::{Completion, Pause};
use crate::volume::{Disks, Volume};

/// How long to wait between two looks while a connection is drained.
const DRAIN_PAUSE: Duration = Duration::from_micros(100);

/// What all connections share.
pub struct BlockBackend {
    /// The disks.
    pub disks: Disks,
    events: Events,
    grants: Rc<dyn Grants>,
    clock: Rc<dyn Pause>,
    /// The number of the next connection: the upper half of its requests' tags.
    next_number: u32,
    /// Counts the turns: who works first changes from one to the next, so that nobody has every free place of a disk.
    turns: usize,
    /// Completions that nobody has looked at yet.
    completions: Vec<Completion>,
    /// What predecessors were about to answer, and what we are.
    answers: AnswersPool,
    /// Rings of predecessors are not taken over.
    refuses: bool,
}

impl BlockBackend {
    /// A backend for the disks that were found.
    pub fn new(disks: Disks, events: Events, grants: Rc<dyn Grants>, clock: Rc<dyn Pause>) -> Self {
        Self {
            disks,
            events,
            grants,
            clock,
            next_number: 0,
            turns: 0,
            completions: Vec::new(),
            answers: AnswersPool::default(),
            refuses: false,
        }
    }

    /// The same with a keep region, in which it notes what it is about to answer.
    pub fn with_keep(self, keep: &Keep) -> Self {
        Self {
            answers: AnswersPool::open(keep),
            ..self
        }
    }

    /// The same, but that it takes no rings over: every frontend has to connect anew. For trying that out.
    pub fn refusing(self, refuses: bool) -> Self {
        Self { refuses, ..self }
    }

    /// The volume that the toolstack wants served as a device.
    fn volume(&self, device: &Device) -> Result<Volume, DeviceError> {
        let name = device.read("params")?;
        let mut volume = self.disks.find(&name).map_err(|error| {
            DeviceError::other(format!(
                "the volume {name:?} of {} is not there: {error}",
                device.id
            ))
        })?;
        let writable = device
            .read_optional("mode")?
            .is_some_and(|mode| mode.contains('w'));
        volume.properties.read_only |= !writable;
        Ok(volume)
    }
}

impl Backend for BlockBackend {
    type Connection = Connection;

    fn class(&self) -> &str {
        "vbd"
    }

    fn publish(&mut self, device: &Device) -> Result<(), DeviceError> {
        let volume = self.volume(device)?;
        Ok(features::publish(device, &volume.properties)?)
    }

    fn connect(&mut self, device: &Device, attach: Attach) -> Result<Connection, DeviceError> {
        if attach == Attach::Resume && self.refuses {
            return Err(DeviceError::other("this domain was told to take no rings over"));
        }
        let volume = self.volume(device)?;
        let number = self.next_number;
        // The last number would make a tag that disks use for themselves.
        self.next_number = (number + 1) % (u32::MAX - 1);
        let mut connection = connect::connect(
            device,
            volume,
            number,
            &self.events,
            &self.grants,
            &mut self.answers,
            attach,
        )?;
        if attach == Attach::Resume {
            connection.resume();
        }
        Ok(connection)
    }

    fn disconnect(&mut self, _device: &Device, mut connection: Connection) {
        connection.stop();
        while connection.in_flight() > 0 {
            let now = self.clock.now();
            self.disks.poll(now, &mut self.completions);
            self.completions.retain(|completion| {
                let ours = connection.owns(completion.tag);
                if ours {
                    connection.complete(completion, now);
                }
                !ours
            });
            if connection.in_flight() > 0 {
                self.disks.kick();
                self.clock.pause(DRAIN_PAUSE);
            }
        }
        if let Some(answers) = connection.release() {
            self.answers.give_back(answers);
        }
    }
}

/// One turn: completions to their connections, and a bounded piece of work for each. Answers whether there is more to do at
/// once; otherwise an event will come.
pub fn turn(bus: &mut BackendBus<BlockBackend>) -> Result<bool, StoreError> {
    let (backend, connections) = bus.parts();
    let now = backend.clock.now();
    let mut completions = core::mem::take(&mut backend.completions);
    backend.disks.poll(now, &mut completions);
    let (mut more, mut broken) = (false, Vec::new());
    let mut connections: Vec<_> = connections.collect();
    backend.turns = backend.turns.wrapping_add(1);
    let first = backend.turns % connections.len().max(1);
    connections.rotate_left(first);
    for (id, connection) in connections {
        for completion in &completions {
            if connection.owns(completion.tag) {
                connection.complete(completion, now);
            }
        }
        match connection.run(&mut backend.disks, now) {
            Ok(again) => more |= again,
            Err(error) => broken.push((id.clone(), error)),
        }
    }
    backend.disks.kick();
    completions.clear();
    backend.completions = completions;
    for (id, error) in broken {
        bus.fail(&id, &error)?;
    }
    Ok(more)
}
