//! The journal: what the next life of this domain has to know, in the keep region.
//!
//! Everything that changes the tree, a watch, a connection or the plan for a domain is an [`Entry`]. The entries of one turn are a batch, which is kept whole or not at all, and
//! nobody outside sees anything of a turn (a request taken off a ring, an answer, an event) before its batch is kept. So the next life has the same tree and watches, and each
//! request was followed once or not at all: if not, it is still in its ring. A transaction that was under way goes on, too, but its end is a conflict: whoever began it begins again.

mod pages;

use alloc::{boxed::Box, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

pub use pages::{Found, Journal};

/// Permissions: the owner, what others may do, what single domains may; letters as on the wire.
pub type Rights = Vec<(u16, u8)>;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A node is there.
    Node(String, Vec<u8>, Rights),
    /// A domain has written a value.
    Write(u16, String, Vec<u8>),
    /// A domain has made a node.
    Make(u16, String),
    /// A domain has removed a node.
    Remove(u16, String),
    /// A domain has set permissions.
    Permit(u16, String, Rights),
    /// Who may watch an announcement.
    Special(String, Rights),
    /// A domain watches: a path or an announcement, with a token; relative to its home.
    Watch(u16, String, Vec<u8>, bool),
    /// A domain watches no more.
    Unwatch(u16, String, Vec<u8>),
    /// A domain's watches and transactions have ended.
    Reset(u16),
    /// A domain is served.
    Introduced(u16),
    /// A domain is no longer served.
    Released(u16),
    /// A domain has begun a transaction.
    Begun(u16, u32),
    /// It has changed something within it.
    Within(u32, Box<Entry>),
    /// It has ended it.
    Ended(u16, u32),
    /// A domain's connection has moved on.
    Stream(Stream),
    /// What is planned for a domain.
    Member(Member),
    /// What is planned for the machine.
    Machine(Machine),
}

/// How far a connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Whose.
    pub domain: u16,
    /// It begins here; otherwise `output` follows what was there before, and `base` is 0.
    pub fresh: bool,
    /// Where in the ring its output began.
    pub base: u32,
    /// Where in the ring the next byte of its input is.
    pub position: u32,
    /// What is there of a message that is arriving.
    pub partial: Vec<u8>,
    /// What was to be sent, whether it was or not.
    pub output: Vec<u8>,
}

/// What is planned for a domain. Times are nanoseconds of the machine's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub domain: u16,
    /// Its phase, by number.
    pub phase: u8,
    /// Since, or until, when.
    pub time: u64,
    /// What comes after leaving, by number.
    pub next: u8,
    /// The rest before it starts again.
    pub rest: u64,
    /// Failures in a row.
    pub failures: u32,
    /// The hypervisor has unwound it.
    pub destroyed: bool,
    /// When it is rebuilt in any case.
    pub rebuild_by: Option<u64>,
    /// By when it has suspended itself.
    pub suspends_by: Option<u64>,
    /// The operator's request that its start answers.
    pub answers: Option<u64>,
}

/// What is planned for the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Every domain has been started once.
    pub ready: bool,
    /// The operator's last request.
    pub last_request: Option<u64>,
    /// It goes down: whether to come up again, by when, and whether the hypervisor has been asked.
    pub going_down: Option<(bool, u64, bool)>,
}

/// The entries of a turn, in the making.
#[derive(Debug, Default)]
pub struct Batch {
    /// Nobody keeps them, so they are not made.
    off: bool,
    bytes: Vec<u8>,
}

impl Batch {
    /// Nothing is noted from here on.
    pub fn switch_off(&mut self) {
        self.off = true;
        self.bytes = Vec::new();
    }

    /// Whether nothing is noted.
    pub fn is_off(&self) -> bool {
        self.off
    }

    /// Adds an entry.
    pub fn note(&mut self, entry: impl FnOnce() -> Entry) {
        if self.off {
            return;
        }
        match postcard::to_allocvec(&entry()) {
            Ok(bytes) => self.bytes.extend_from_slice(&bytes),
            // It has no cause but a lack of memory.
            Err(error) => log::error!("an entry of the journal is lost: {error}"),
        }
    }

    /// Takes them out.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }
}

/// The entries of a batch; `None` if it is none.
pub fn entries(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = postcard::take_from_bytes(bytes).ok()?;
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_its_entries_in_order() {
        let mut batch = Batch::default();
        let all = [
            Entry::Write(4, "/a".into(), vec![1, 2]),
            Entry::Stream(Stream::default()),
            Entry::Member(Member {
                rebuild_by: Some(5),
                ..Member::default()
            }),
        ];
        all.iter().for_each(|entry| batch.note(|| entry.clone()));
        assert_eq!(entries(&batch.take()), Some(all.to_vec()));
        assert_eq!(entries(&batch.take()), Some(vec![]));
        assert_eq!(entries(&[255, 255]), None);
        batch.switch_off();
        batch.note(|| unreachable!("it is not even made"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_entries_or_not(bytes: Vec<u8>) {
            let _ = entries(&bytes);
        }
    }
}
