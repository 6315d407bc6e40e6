//! The client: requests over the ring, one at a time; watch events are kept in order until somebody takes them.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use xen_abi::io::xs_wire::{
    XS_DIRECTORY, XS_DIRECTORY_PART, XS_ERROR, XS_GET_DOMAIN_PATH, XS_GET_PERMS, XS_MKDIR, XS_READ, XS_RM,
    XS_SET_PERMS, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH, XS_WATCH_EVENT, XS_WRITE,
};

use super::wire::{self, Assembler, Message, WireError};
use super::{Permission, Store, StoreError, Transaction, WatchEvent};
use crate::DomainId;
use crate::event::{Channel, Port};
use crate::ring::bytes::ByteChannel;

/// How long the server may take to answer. The control domain answers in microseconds; one that is being rebuilt needs
/// some milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that wait for an answer at most while their sender does not.
const MOST_POSTED: usize = 8;

/// A xenstore that is reached over its ring.
pub struct Client {
    ring: ByteChannel,
    channel: Channel,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    assembler: Assembler,
    events: VecDeque<WatchEvent>,
    last_request: u32,
    /// Requests whose sender does not wait for the answer, and their paths.
    posted: Vec<(u32, String)>,
}

impl State {
    fn next_number(&mut self) -> u32 {
        self.last_request = self.last_request.wrapping_add(1);
        self.last_request
    }

    /// Takes note of the answer to a request that nobody waits for; whether it was one.
    fn settle(&mut self, message: &Message) -> bool {
        let number = message.header.request;
        let Some(at) = self.posted.iter().position(|(posted, _)| *posted == number) else {
            return false;
        };
        let (_, path) = self.posted.swap_remove(at);
        if message.header.kind == XS_ERROR {
            let name = message.strings().ok().and_then(|names| names.into_iter().next());
            log::warn!("{}", StoreError::refused(&path, &name.unwrap_or_default()));
        }
        true
    }
}

impl Client {
    /// Speaks to the server behind a ring (its page, mapped) and an event channel.
    pub fn new(ring: ByteChannel, channel: Channel) -> Self {
        Self {
            ring,
            channel,
            state: RefCell::default(),
        }
    }

    /// Sends a request and waits for its answer. `path` is for error messages.
    fn request(
        &self,
        kind: u32,
        transaction: Transaction,
        path: &str,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        if payload.len() > wire::PAYLOAD_MAX {
            return Err(StoreError::TooLong(payload.len()));
        }
        let number = self.state.borrow_mut().next_number();
        self.send(&Message::new(kind, number, transaction.0, payload).encode(), path)?;
        let answer = self.answer(number, path)?;
        if self.has_more()? {
            // It came while we waited, and took the port's firing with it.
            self.channel.events().remember(self.channel.port());
        }
        if answer.header.kind == XS_ERROR {
            let name = answer.strings()?.into_iter().next().unwrap_or_default();
            return Err(StoreError::refused(path, &name));
        }
        if answer.header.kind != kind {
            return Err(WireError::BadPayload.into());
        }
        Ok(answer.payload)
    }

    fn send(&self, mut bytes: &[u8], path: &str) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let written = self.ring.write(bytes)?;
            bytes = &bytes[written..];
            if written > 0 {
                self.channel.notify();
            } else {
                // The server may itself be waiting for room for events.
                self.receive()?;
                self.wait(path)?;
            }
        }
        Ok(())
    }

    /// Waits for the answer to a request. Answers to others (which a failed call gave up) are dropped.
    fn answer(&self, number: u32, path: &str) -> Result<Message, StoreError> {
        loop {
            if let Some(message) = self.next_message()? {
                if message.header.request == number {
                    return Ok(message);
                }
                log::warn!("xenstore answered request {} late", message.header.request);
            } else if self.receive()? == 0 {
                self.wait(path)?;
            }
        }
    }

    /// Whether there is something behind the last answer: events, or what has not been looked at yet.
    fn has_more(&self) -> Result<bool, StoreError> {
        let state = self.state.borrow();
        Ok(!state.events.is_empty() || !state.assembler.is_empty() || self.ring.readable()? > 0)
    }

    /// The next message that is not an event; events are put in their queue.
    fn next_message(&self) -> Result<Option<Message>, StoreError> {
        let state = &mut *self.state.borrow_mut();
        while let Some(message) = state.assembler.message()? {
            if message.header.kind != XS_WATCH_EVENT && state.settle(&message) {
                continue;
            }
            if message.header.kind != XS_WATCH_EVENT {
                return Ok(Some(message));
            }
            let mut parts = message.strings()?.into_iter();
            let (Some(path), Some(token)) = (parts.next(), parts.next()) else {
                return Err(WireError::BadPayload.into());
            };
            // One that waits already says all that this one does; so whoever fires a watch again and again costs us no memory.
            let event = WatchEvent { path, token };
            if !state.events.contains(&event) {
                state.events.push_back(event);
            }
        }
        Ok(None)
    }

    /// Takes what is in the ring; answers how many bytes.
    fn receive(&self) -> Result<usize, StoreError> {
        let mut buffer = [0; 1024];
        let length = self.ring.read(&mut buffer)?;
        if length > 0 {
            self.channel.notify();
            self.state.borrow_mut().assembler.feed(&buffer[..length]);
        }
        Ok(length)
    }

    fn wait(&self, path: &str) -> Result<(), StoreError> {
        let events = self.channel.events();
        let deadline = events.now() + PATIENCE;
        if events.wait_for(self.channel.port(), Some(deadline)) {
            Ok(())
        } else {
            Err(StoreError::NoAnswer(path.to_string()))
        }
    }

    fn request_text(&self, kind: u32, path: &str, payload: Vec<u8>) -> Result<String, StoreError> {
        let payload = self.request(kind, Transaction::NONE, path, payload)?;
        Ok(wire::strings(&payload)?.into_iter().next().unwrap_or_default())
    }

    /// A directory that is too long for one message, in parts; again from the beginning when it changes meanwhile.
    fn directory_in_parts(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        let (mut list, mut generation) = (Vec::new(), String::new());
        loop {
            let offset = list.len().to_string();
            let part = self.request(XS_DIRECTORY_PART, transaction, path, wire::join(&[path, &offset]))?;
            let end = part
                .iter()
                .position(|&byte| byte == 0)
                .ok_or(WireError::BadPayload)?;
            let now = core::str::from_utf8(&part[..end]).map_err(|_| WireError::BadPayload)?;
            if now != generation {
                generation = now.to_string();
                if !list.is_empty() {
                    list.clear();
                    continue;
                }
            }
            let names = &part[end + 1..];
            // An empty name ends the list.
            if let Some(names) = names
                .strip_suffix(&[0, 0])
                .or((names == [0] || names.is_empty()).then_some(&[]))
            {
                list.extend_from_slice(names);
                return Ok(wire::strings(&list)?);
            }
            list.extend_from_slice(names);
        }
    }
}

impl Store for Client {
    fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.request(XS_READ, transaction, path, wire::join(&[path]))
    }

    fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut payload = wire::join(&[path]);
        payload.extend_from_slice(value);
        self.request(XS_WRITE, transaction, path, payload).map(drop)
    }

    fn post(&self, path: &str, value: &[u8]) -> Result<bool, StoreError> {
        let mut payload = wire::join(&[path]);
        payload.extend_from_slice(value);
        if payload.len() > wire::PAYLOAD_MAX {
            return Err(StoreError::TooLong(payload.len()));
        }
        let mut state = self.state.borrow_mut();
        if state.posted.len() >= MOST_POSTED {
            return Ok(false);
        }
        let number = state.next_number();
        let request = Message::new(XS_WRITE, number, 0, payload).encode();
        if self.ring.writable()? < request.len() {
            return Ok(false);
        }
        self.ring.write(&request)?;
        self.channel.notify();
        state.posted.push((number, path.to_string()));
        Ok(true)
    }

    fn make_directory(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.request(XS_MKDIR, transaction, path, wire::join(&[path]))
            .map(drop)
    }

    fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.request(XS_RM, transaction, path, wire::join(&[path]))
            .map(drop)
    }

    fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        match self.request(XS_DIRECTORY, transaction, path, wire::join(&[path])) {
            Ok(payload) => Ok(wire::strings(&payload)?),
            Err(error) if error.name() == Some("E2BIG") => self.directory_in_parts(transaction, path),
            Err(error) => Err(error),
        }
    }

    fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<Permission>, StoreError> {
        let payload = self.request(XS_GET_PERMS, transaction, path, wire::join(&[path]))?;
        wire::strings(&payload)?.iter().map(|text| text.parse()).collect()
    }

    fn set_permissions(
        &self,
        transaction: Transaction,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), StoreError> {
        let mut payload = wire::join(&[path]);
        for permission in permissions {
            payload.extend_from_slice(format!("{permission}\0").as_bytes());
        }
        self.request(XS_SET_PERMS, transaction, path, payload).map(drop)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.request(XS_WATCH, Transaction::NONE, path, wire::join(&[path, token]))
            .map(drop)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.request(XS_UNWATCH, Transaction::NONE, path, wire::join(&[path, token]))
            .map(drop)
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        // The protocol asks for one empty string.
        let text = self.request_text(XS_TRANSACTION_START, "", wire::join(&[""]))?;
        text.parse()
            .map(Transaction)
            .map_err(|_| StoreError::malformed("a transaction's number", &text))
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let payload = wire::join(&[if commit { "T" } else { "F" }]);
        self.request(XS_TRANSACTION_END, transaction, "", payload)
            .map(drop)
    }

    fn domain_path(&self, domain: DomainId) -> Result<String, StoreError> {
        self.request_text(XS_GET_DOMAIN_PATH, "", wire::join(&[&domain.0.to_string()]))
    }

    fn take_event(&self) -> Result<Option<WatchEvent>, StoreError> {
        loop {
            if let Some(event) = self.state.borrow_mut().events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(message) = self.next_message()? {
                log::warn!("xenstore answered request {} late", message.header.request);
            } else if self.state.borrow().events.is_empty() && self.receive()? == 0 {
                return Ok(None);
            }
        }
    }

    fn port(&self) -> Option<Port> {
        Some(self.channel.port())
    }
}
