//! Why a request to xenstore failed.

use alloc::borrow::ToOwned;
use alloc::string::String;

use thiserror::Error;

use crate::ring::RingError;

/// Why a request to xenstore failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// The server refused.
    #[error("xenstore refused {path:?}: {name}")]
    Refused {
        /// What the request was about.
        path: String,
        /// The error's name as the server gave it, such as `ENOENT`.
        name: String,
    },
    /// The answer, or a value in it, is not of the form that it must have.
    #[error("xenstore holds no {what}, but {text:?}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What was found.
        text: String,
    },
    /// The request is longer than the protocol allows.
    #[error("the xenstore request of {0} bytes is too long")]
    TooLong(usize),
    /// The server did not answer in time.
    #[error("xenstore did not answer the request about {0:?}")]
    NoAnswer(String),
    /// The ring to the server is broken.
    #[error("the ring to xenstore is broken: {0}")]
    Ring(#[from] RingError),
    /// The peer speaks something else.
    #[error(transparent)]
    Wire(#[from] super::wire::WireError),
}

impl StoreError {
    /// A refusal with the server's name for the error.
    pub fn refused(path: &str, name: &str) -> Self {
        Self::Refused {
            path: path.to_owned(),
            name: name.to_owned(),
        }
    }

    /// A value that is not what it should be.
    pub fn malformed(what: &'static str, text: &str) -> Self {
        Self::Malformed {
            what,
            text: text.to_owned(),
        }
    }

    /// The server's name for the error, such as `ENOENT`, if it is the server's.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Refused { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it concerns one request alone: a node that is refused or holds nonsense. Any other error means that xenstore
    /// cannot be spoken to any more.
    pub fn is_of_one_request(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Malformed { .. } | Self::TooLong(_) => true,
            Self::NoAnswer(_) | Self::Ring(_) | Self::Wire(_) => false,
        }
    }

    /// Whether the node does not exist.
    pub fn is_not_found(&self) -> bool {
        self.name() == Some("ENOENT")
    }

    /// Whether a transaction met somebody else's change and should be tried again.
    pub fn is_conflict(&self) -> bool {
        self.name() == Some("EAGAIN")
    }
}
