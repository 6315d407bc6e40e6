//! xenbus: how a backend and a frontend find each other and agree on a connection, over nodes of xenstore.
//!
//! A domain that serves devices implements [`Backend`] and lets a [`BackendBus`] drive it; one that uses devices implements
//! [`Frontend`] and has a [`FrontendDevice`] each. Both are pure over [`Store`](crate::xenstore::Store): they
//! react to watch events, never wait, and are tested with a fake.

mod backend;
mod device;
mod frontend;
mod statistics;

use core::fmt;

pub use backend::{Attach, Backend, BackendBus, RECONNECT};
pub use device::{Device, DeviceError, DeviceId};
pub use frontend::{Frontend, FrontendDevice};
pub use statistics::{Numbers, Statistics};

/// A side's state, as its node `state` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no node, or it holds something else.
    Unknown,
    /// Nothing has happened yet.
    Initialising,
    /// The backend has published its features and waits for the frontend.
    InitWait,
    /// The frontend has published its rings and waits for the backend.
    Initialised,
    /// At work.
    Connected,
    /// About to leave.
    Closing,
    /// Gone; may come back.
    Closed,
    /// Being reconfigured.
    Reconfiguring,
    /// Reconfigured.
    Reconfigured,
}

impl State {
    /// The state of a node's text.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "1" => Self::Initialising,
            "2" => Self::InitWait,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            "7" => Self::Reconfiguring,
            "8" => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }

    /// The number that stands in the node.
    pub fn number(self) -> u32 {
        match self {
            Self::Unknown => 0,
            Self::Initialising => 1,
            Self::InitWait => 2,
            Self::Initialised => 3,
            Self::Connected => 4,
            Self::Closing => 5,
            Self::Closed => 6,
            Self::Reconfiguring => 7,
            Self::Reconfigured => 8,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.number())
    }
}

#[cfg(test)]
mod tests;
