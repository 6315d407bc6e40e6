//! xenstore: the tree of names and values through which domains find each other.
//!
//! [`Store`] is what everybody programs against. [`Client`] speaks to the control domain over the ring; the control domain
//! implements `Store` over its tree in memory; tests use `fake::FakeStore`. [`wire`] is the protocol, for both sides.

mod client;
mod error;
mod ext;
#[cfg(test)]
mod tests;
pub mod wire;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

pub use client::Client;
pub use error::StoreError;
pub use ext::StoreExt;

use crate::DomainId;
use crate::event::Port;

/// A transaction's id; [`Transaction::NONE`] stands for acting at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction(pub u32);

impl Transaction {
    /// No transaction.
    pub const NONE: Transaction = Transaction(0);
}

/// Something below a watched path has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed, in the form in which the watch was registered (relative or absolute). A new watch fires once for
    /// its own path.
    pub path: String,
    /// The token that the watch was registered with.
    pub token: String,
}

/// What a domain may do to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Read and write.
    Both,
}

/// One entry of a node's permissions. The first entry names the owner, and what everybody else may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain.
    pub domain: DomainId,
    /// What it may do.
    pub rights: Rights,
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        write!(formatter, "{letter}{}", self.domain.0)
    }
}

impl FromStr for Permission {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let rights = match text.as_bytes().first() {
            Some(b'n') => Rights::None,
            Some(b'r') => Rights::Read,
            Some(b'w') => Rights::Write,
            Some(b'b') => Rights::Both,
            _ => return Err(StoreError::malformed("a permission", text)),
        };
        let domain = text[1..]
            .parse()
            .map_err(|_| StoreError::malformed("a permission", text))?;
        Ok(Self {
            domain: DomainId(domain),
            rights,
        })
    }
}

/// A xenstore. Paths are absolute (`/local/domain/3/name`) or relative to the caller's `/local/domain/N`. Calls return once
/// the answer is there. [`StoreExt`] adds the convenient forms.
pub trait Store {
    /// A node's value.
    fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError>;
    /// Sets a node's value; makes the node and its parents if need be.
    fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError>;
    /// Sets a node's value without waiting for the answer, for who must not wait. Answers `false` and does nothing while there is no room for the
    /// request, or too many answers are outstanding. A refusal is logged when it arrives; answers are taken by every other call, such as
    /// [`take_event`](Self::take_event).
    fn post(&self, path: &str, value: &[u8]) -> Result<bool, StoreError> {
        self.write(Transaction::NONE, path, value).map(|()| true)
    }
    /// Makes an empty node if there is none.
    fn make_directory(&self, transaction: Transaction, path: &str) -> Result<(), StoreError>;
    /// Removes a node and everything below it.
    fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError>;
    /// The names of a node's children.
    fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError>;
    /// A node's permissions.
    fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<Permission>, StoreError>;
    /// Sets a node's permissions.
    fn set_permissions(
        &self,
        transaction: Transaction,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), StoreError>;
    /// Asks for events about a path and what is below it. An event for the path itself comes at once.
    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError>;
    /// Ends a watch.
    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError>;
    /// Begins a transaction.
    fn begin(&self) -> Result<Transaction, StoreError>;
    /// Ends a transaction. A commit that met somebody else's change fails with `EAGAIN` (see
    /// [`StoreError::is_conflict`]); [`StoreExt::transaction`] then tries again.
    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError>;
    /// Where a domain's part of the tree begins.
    fn domain_path(&self, domain: DomainId) -> Result<String, StoreError>;
    /// The next watch event that has arrived, in order. Does not wait.
    fn take_event(&self) -> Result<Option<WatchEvent>, StoreError>;
    /// The port that fires when watch events may have arrived; none if nothing needs to be waited for.
    fn port(&self) -> Option<Port>;
}
