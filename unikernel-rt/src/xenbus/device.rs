//! One device's nodes, seen from either side.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::fmt::{self, Display};
use core::str::FromStr;

use thiserror::Error;

use super::State;
use crate::DomainId;
use crate::event::Port;
use crate::grant::{GrantError, GrantRef};
use crate::hypercall::Errno;
use crate::ring::RingError;
use crate::xenstore::{Store, StoreError, StoreExt};

/// Bytes of a sentence in the node `error`.
const SENTENCE_MAX: usize = 1024;

/// Why a device cannot be served or used: a sentence, which goes to the node `error` as well.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DeviceError {
    /// A request to xenstore failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A grant cannot be used.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// A ring is broken.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// An event channel cannot be bound.
    #[error("the event channel cannot be bound: {0}")]
    Event(#[from] Errno),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl DeviceError {
    /// An error in words.
    pub fn other(sentence: impl Display) -> Self {
        Self::Other(format!("{sentence}"))
    }
}

/// Which device: the other side's domain and the device's number there (`51712`, `0`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The domain at the other side.
    pub peer: DomainId,
    /// The device's number among those of its class.
    pub index: u32,
}

impl Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}'s device {}", self.peer, self.index)
    }
}

/// One device: its own nodes, and the peer's.
#[derive(Clone)]
pub struct Device {
    /// Which one.
    pub id: DeviceId,
    /// Our own directory of it.
    pub path: String,
    /// The peer's directory of it.
    pub peer_path: String,
    pub(super) store: Rc<dyn Store>,
}

impl Device {
    /// Where the nodes are.
    pub fn store(&self) -> &Rc<dyn Store> {
        &self.store
    }

    /// The path of one of our own nodes.
    pub fn own(&self, key: &str) -> String {
        format!("{}/{key}", self.path)
    }

    /// The path of one of the peer's nodes. Keys may go deeper: `queue-0/tx-ring-ref`.
    pub fn peer(&self, key: &str) -> String {
        format!("{}/{key}", self.peer_path)
    }

    /// Writes one of our own nodes.
    pub fn write(&self, key: &str, value: impl Display) -> Result<(), StoreError> {
        self.store.write_display(&self.own(key), value)
    }

    /// Reads one of our own nodes (the toolstack's settings).
    pub fn read(&self, key: &str) -> Result<String, StoreError> {
        self.store.read_string(&self.own(key))
    }

    /// Reads one of our own nodes if there is one.
    pub fn read_optional(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.store.read_optional(&self.own(key))
    }

    /// Reads one of the peer's nodes.
    pub fn read_peer<T: FromStr>(&self, key: &str) -> Result<T, StoreError> {
        self.store.read_parsed(&self.peer(key))
    }

    /// Reads one of the peer's nodes if there is one: features, and what older peers do not say.
    pub fn read_peer_optional<T: FromStr>(&self, key: &str) -> Result<Option<T>, StoreError> {
        self.store.read_parsed_optional(&self.peer(key))
    }

    /// Whether the peer has a feature: its node holds a number that is not 0.
    pub fn peer_has(&self, feature: &str) -> Result<bool, StoreError> {
        Ok(self
            .read_peer_optional::<u32>(feature)?
            .is_some_and(|value| value != 0))
    }

    /// A grant reference that the peer published.
    pub fn peer_grant(&self, key: &str) -> Result<GrantRef, StoreError> {
        self.read_peer(key).map(GrantRef)
    }

    /// An event channel that the peer published.
    pub fn peer_port(&self, key: &str) -> Result<Port, StoreError> {
        self.read_peer(key).map(Port)
    }

    /// Our state.
    pub fn state(&self) -> Result<State, StoreError> {
        self.state_at(&self.own("state"))
    }

    /// The peer's state.
    pub fn peer_state(&self) -> Result<State, StoreError> {
        self.state_at(&self.peer("state"))
    }

    /// Sets our state.
    pub fn set_state(&self, state: State) -> Result<(), StoreError> {
        self.write("state", state)
    }

    /// Puts a sentence into our node `error`, for people.
    pub(super) fn report(&self, error: &DeviceError) {
        log::error!("{}: {error}", self.path);
        // It may repeat what the peer wrote, or list what a disk holds, and must fit into a message.
        let mut sentence = format!("{error}");
        sentence.truncate(sentence.floor_char_boundary(SENTENCE_MAX));
        if let Err(second) = self.write("error", sentence) {
            log::warn!("{}: the error could not be written: {second}", self.path);
        }
    }

    fn state_at(&self, path: &str) -> Result<State, StoreError> {
        match self.store.read_optional(path) {
            Ok(text) => Ok(text.map_or(State::Unknown, |text| State::parse(&text))),
            // A node that was taken from us is as good as gone, and so is one that holds no text.
            Err(error) if error.name() == Some("EACCES") => Ok(State::Unknown),
            Err(StoreError::Malformed { .. }) => Ok(State::Unknown),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.path)
    }
}
