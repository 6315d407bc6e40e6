//! One domain's connection: its xenstore ring, the message that is arriving, and what waits to be sent.
//!
//! Promise: a turn does a bounded amount of work whatever the ring holds; a domain that does not read its replies, floods,
//! or writes nonsense into its ring stops only itself.

use alloc::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    string::String,
    vec::Vec,
};
use core::sync::atomic::{Ordering, fence};
use unikernel_rt::ring::{RingError, bytes::ByteChannel};
use xen_abi::io::xs_wire::{
    XENSTORE_CONNECTED, XENSTORE_ERROR_COMM, XENSTORE_ERROR_NONE, XENSTORE_ERROR_PROTO,
    XENSTORE_ERROR_RINGIDX, XENSTORE_RECONNECT, XENSTORE_SERVER_FEATURE_ERROR,
    XENSTORE_SERVER_FEATURE_RECONNECTION, XenstoreDomainInterface as Page,
};

use crate::{
    DomainId,
    journal::{Batch, Entry, Stream},
    store::{EVENT_BYTES_MAX, EVENTS_MAX, Notification, Store},
    wire::{Assembler, HEADER_LENGTH, Oversized, PAYLOAD_MAX, encode_event},
};

/// What reaches a domain: the store's end of its ring, and the event channel beside it.
pub trait Link {
    /// The ring.
    fn ring(&self) -> &ByteChannel;
    /// Tells the domain that the ring has changed.
    fn notify(&self);
}

/// Requests that one connection may have answered in a turn.
pub const REQUESTS_A_TURN: usize = 8;
/// No further request is read while this many bytes wait to be sent.
const BACKLOG_MAX: usize = 2 * (HEADER_LENGTH + PAYLOAD_MAX);
/// Lines of log that one connection may cause.
const LOG_LINES: u8 = 8;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The ring's indices make no sense.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A message is too long.
    #[error(transparent)]
    Protocol(#[from] Oversized),
}

impl Fault {
    fn code(self) -> u32 {
        match self {
            Self::Ring(RingError::Index { .. }) => XENSTORE_ERROR_RINGIDX,
            Self::Ring(_) => XENSTORE_ERROR_COMM,
            Self::Protocol(_) => XENSTORE_ERROR_PROTO,
        }
    }
}

#[derive(Debug)]
struct Outgoing {
    bytes: Rc<[u8]>,
    is_event: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Connection<L> {
    domain: DomainId,
    name: String,
    link: L,
    incoming: Assembler,
    /// Bytes that were read and are not taken off the ring.
    untaken: usize,
    /// What has been queued since the journal was last told.
    queued: Vec<u8>,
    /// The journal knows nothing of it yet.
    fresh: bool,
    /// The journal's stream is behind.
    moved: bool,
    outgoing: VecDeque<Outgoing>,
    /// How much of the first outgoing message is in the ring.
    sent: usize,
    reply_bytes: usize,
    /// The events of which nothing is in the ring yet.
    waiting: BTreeSet<Rc<[u8]>>,
    event_bytes: usize,
    events_lost: bool,
    closed: bool,
    must_notify: bool,
    /// What the log may still be told of this domain's doings, so that it cannot be flooded.
    log_lines_left: u8,
}

impl<L: Link> Connection<L> {
    /// Begins to serve a domain.
    pub fn open(domain: DomainId, name: &str, link: L) -> Self {
        let connection = Self {
            domain,
            name: name.into(),
            link,
            incoming: Assembler::default(),
            untaken: 0,
            queued: Vec::new(),
            fresh: true,
            moved: true,
            outgoing: VecDeque::new(),
            sent: 0,
            reply_bytes: 0,
            waiting: BTreeSet::new(),
            event_bytes: 0,
            events_lost: false,
            closed: false,
            must_notify: true,
            log_lines_left: LOG_LINES,
        };
        let features = XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR;
        connection.publish(Page::SERVER_FEATURES_OFFSET, features);
        connection.publish(Page::ERROR_OFFSET, XENSTORE_ERROR_NONE);
        connection
    }

    /// Goes on with a connection where a former life has left it.
    pub fn resume(name: &str, link: L, stream: &Stream) -> Self {
        let mut connection = Self::open(DomainId(stream.domain), name, link);
        if let Err(fault) = connection.catch_up(stream) {
            log::warn!("{name}: its xenstore connection begins anew: {fault}");
        }
        connection
    }

    fn catch_up(&mut self, stream: &Stream) -> Result<(), Fault> {
        let ring = self.link.ring();
        // What was read counts as read once the journal says so, even if the ring does not yet.
        let ahead = stream.position.wrapping_sub(ring.position()?) as usize;
        if ahead <= ring.readable()? {
            ring.take(ahead)?;
            self.incoming.feed(&stream.partial)?;
            if stream.partial.len() > HEADER_LENGTH {
                self.incoming.feed(&stream.partial[HEADER_LENGTH..])?;
            }
        }
        let sent = self.link.ring().written()?.wrapping_sub(stream.base) as usize;
        if let Some(rest) = stream.output.get(sent..).filter(|rest| !rest.is_empty()) {
            self.reply_bytes = rest.len();
            self.outgoing.push_back(Outgoing {
                bytes: rest.into(),
                is_event: false,
            });
        }
        Ok(())
    }

    /// Notes what the next life has to know of what has happened since the last time; `whole` if it knows nothing.
    pub fn note(&mut self, batch: &mut Batch, whole: bool) {
        let whole = whole || self.fresh;
        let queued = core::mem::take(&mut self.queued);
        if !core::mem::take(&mut self.moved) && !whole {
            return;
        }
        let ring = self.link.ring();
        let (Ok(position), Ok(base)) = (ring.position(), ring.written()) else {
            return;
        };
        self.fresh = false;
        let output = if whole {
            let bytes = self
                .outgoing
                .iter()
                .flat_map(|message| message.bytes.iter().copied());
            bytes.skip(self.sent).collect()
        } else {
            queued
        };
        let stream = Stream {
            domain: self.domain.0,
            fresh: whole,
            base: if whole { base } else { 0 },
            position: position.wrapping_add(self.untaken as u32),
            partial: self.incoming.partial().into(),
            output,
        };
        batch.note(|| Entry::Stream(stream));
    }

    /// Whether a fault of the domain has closed it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads and answers requests, within a turn's bounds. Answers whether there is more to do at once.
    pub fn serve(&mut self, store: &mut Store) -> bool {
        if self.page(Page::CONNECTION_OFFSET) == Some(XENSTORE_RECONNECT) {
            self.reconnect(store);
        }
        if self.closed {
            return false;
        }
        match self.read_requests(store) {
            Ok(more) => more,
            Err(fault) => {
                self.close(fault, store);
                false
            }
        }
    }

    fn read_requests(&mut self, store: &mut Store) -> Result<bool, Fault> {
        let mut buffer = [0; HEADER_LENGTH + PAYLOAD_MAX];
        let mut answered = 0;
        while answered < REQUESTS_A_TURN && self.reply_bytes < BACKLOG_MAX {
            let wanted = self.incoming.needed().min(buffer.len());
            let read = self.link.ring().peek(self.untaken, &mut buffer[..wanted])?;
            self.untaken += read;
            self.must_notify |= read > 0;
            self.moved |= read > 0;
            self.incoming.feed(&buffer[..read])?;
            if let Some(message) = self.incoming.take() {
                let reply = store.handle(self.domain, &message);
                self.reply_bytes += reply.len();
                self.queued.extend_from_slice(&reply);
                self.outgoing.push_back(Outgoing {
                    bytes: reply.into(),
                    is_event: false,
                });
                answered += 1;
            } else if read < wanted {
                return Ok(false);
            }
        }
        Ok(self.reply_bytes < BACKLOG_MAX && self.link.ring().readable()? > self.untaken)
    }

    /// Queues a watch event. One that waits already is not queued twice, for it says no more.
    pub fn deliver(&mut self, notification: &Notification) {
        let Some(bytes) = encode_event(&notification.path, &notification.token) else {
            return;
        };
        let bytes: Rc<[u8]> = bytes.into();
        if self.closed || self.waiting.contains(&bytes) {
            return;
        }
        if self.waiting.len() >= EVENTS_MAX || self.event_bytes + bytes.len() > EVENT_BYTES_MAX {
            if !core::mem::replace(&mut self.events_lost, true) && self.may_log() {
                log::warn!(
                    "{} does not read its xenstore ring: it loses watch events",
                    self.name
                );
            }
            return;
        }
        self.waiting.insert(bytes.clone());
        self.queued.extend_from_slice(&bytes);
        self.moved = true;
        self.event_bytes += bytes.len();
        self.outgoing.push_back(Outgoing {
            bytes,
            is_event: true,
        });
    }

    /// Takes what was read off the ring, puts as much as there is room for into it, and tells the domain if anything has changed. By now the journal knows. Answers whether
    /// there is more to read at once: a domain that puts a request behind one that is not taken yet says nothing of it, for it will be seen (Linux does so).
    pub fn flush(&mut self, store: &mut Store) -> bool {
        let untaken = core::mem::take(&mut self.untaken);
        if untaken > 0
            && let Err(fault) = self.link.ring().take(untaken)
        {
            self.close(fault.into(), store);
        }
        if !self.closed
            && let Err(fault) = self.write_outgoing()
        {
            self.close(fault, store);
        }
        if core::mem::take(&mut self.must_notify) {
            self.link.notify();
        }
        // What we took has to be visible before we look, as what the domain put is before it looks whether we took all.
        fence(Ordering::SeqCst);
        !self.closed
            && self.reply_bytes < BACKLOG_MAX
            && self.link.ring().readable().is_ok_and(|bytes| bytes > 0)
    }

    fn write_outgoing(&mut self) -> Result<(), Fault> {
        while let Some(message) = self.outgoing.front() {
            let written = self.link.ring().write(&message.bytes[self.sent..])?;
            if written > 0 && message.is_event {
                self.waiting.remove(&message.bytes);
            }
            self.must_notify |= written > 0;
            self.sent += written;
            if self.sent < message.bytes.len() {
                return Ok(());
            }
            if message.is_event {
                self.event_bytes -= message.bytes.len();
            } else {
                self.reply_bytes -= message.bytes.len();
            }
            self.outgoing.pop_front();
            self.sent = 0;
        }
        self.events_lost = false;
        Ok(())
    }

    fn close(&mut self, fault: Fault, store: &mut Store) {
        if self.may_log() {
            log::error!(
                "{} broke its xenstore connection, which is closed: {fault}",
                self.name
            );
        }
        self.discard(store);
        self.publish(Page::ERROR_OFFSET, fault.code());
        (self.closed, self.must_notify) = (true, true);
    }

    /// The domain asks for a fresh start, as a kernel does that replaced another one in place.
    fn reconnect(&mut self, store: &mut Store) {
        if self.may_log() {
            log::info!("{} connects to xenstore anew", self.name);
        }
        self.discard(store);
        for index in [
            Page::REQ_CONS_OFFSET,
            Page::REQ_PROD_OFFSET,
            Page::RSP_CONS_OFFSET,
            Page::RSP_PROD_OFFSET,
        ] {
            self.publish(index, 0);
        }
        self.publish(Page::ERROR_OFFSET, XENSTORE_ERROR_NONE);
        self.publish(Page::CONNECTION_OFFSET, XENSTORE_CONNECTED);
        (self.closed, self.must_notify) = (false, true);
    }

    fn discard(&mut self, store: &mut Store) {
        store.reset(self.domain);
        self.incoming.reset();
        self.outgoing.clear();
        self.queued.clear();
        self.untaken = 0;
        (self.fresh, self.moved) = (true, true);
        self.waiting.clear();
        (self.sent, self.reply_bytes, self.event_bytes) = (0, 0, 0);
    }

    fn may_log(&mut self) -> bool {
        let may = self.log_lines_left > 0;
        self.log_lines_left = self.log_lines_left.saturating_sub(1);
        may
    }

    fn page(&self, offset: usize) -> Option<u32> {
        self.link.ring().memory().load(offset).ok()
    }

    fn publish(&self, offset: usize, value: u32) {
        if let Err(error) = self.link.ring().memory().store(offset, value) {
            log::error!("{}: its xenstore page cannot be written: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests;
