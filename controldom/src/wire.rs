//! The wire protocol of xenstore: messages on a byte stream.
//!
//! Promise: an [`Assembler`] fed with any bytes, cut in any places, yields the same messages, never panics, and never
//! holds more than one message of the largest permitted size.

use alloc::vec::Vec;
use xen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XS_ERROR, XS_WATCH_EVENT};

use crate::store::StoreError;

/// Length of a message's header.
pub const HEADER_LENGTH: usize = 16;
/// The longest payload, in either direction.
pub const PAYLOAD_MAX: usize = XENSTORE_PAYLOAD_MAX;

/// A message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// One of the `XS_*` numbers, unchecked.
    pub kind: u32,
    /// The client's number for it, echoed in the reply.
    pub request: u32,
    /// The transaction that it belongs to; 0 is none.
    pub transaction: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// A header announced more than the protocol permits; where the next message would begin is unknown from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message announces {length} bytes of payload, {PAYLOAD_MAX} are the limit")]
pub struct Oversized {
    /// The announced length.
    pub length: u32,
}

/// Puts messages together from pieces of a stream.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    /// How many more bytes the current message needs, as far as is known: first its header, then its payload. It is 0
    /// when a message is complete.
    pub fn needed(&self) -> usize {
        match self.announced() {
            None => HEADER_LENGTH - self.bytes.len(),
            Some(length) => {
                (HEADER_LENGTH + (length as usize).min(PAYLOAD_MAX)).saturating_sub(self.bytes.len())
            }
        }
    }

    /// Takes bytes up to the end of the current header or payload, and says how many it took.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Oversized> {
        let taken = self.needed().min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        match self.announced() {
            Some(length) if length as usize > PAYLOAD_MAX => Err(Oversized { length }),
            _ => Ok(taken),
        }
    }

    /// The message, once it is complete.
    pub fn take(&mut self) -> Option<Message> {
        if self.announced().is_none() || self.needed() > 0 {
            return None;
        }
        let message = Message {
            kind: self.field(0)?,
            request: self.field(4)?,
            transaction: self.field(8)?,
            payload: self.bytes.split_off(HEADER_LENGTH),
        };
        self.bytes.clear();
        Some(message)
    }

    /// What is there of a message that is under way.
    pub fn partial(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets a message that is under way.
    pub fn reset(&mut self) {
        self.bytes.clear();
    }

    fn announced(&self) -> Option<u32> {
        self.field(12)
    }

    fn field(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Encodes a message of any kind.
pub fn encode(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + payload.len());
    for field in [kind, request, transaction, payload.len() as u32] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Encodes the answer to a message.
pub fn encode_reply(to: &Message, answer: Result<Vec<u8>, StoreError>) -> Vec<u8> {
    // A reply that the protocol cannot carry is an error that it can.
    let answer = answer.and_then(|payload| {
        if payload.len() > PAYLOAD_MAX {
            Err(StoreError::TooBig)
        } else {
            Ok(payload)
        }
    });
    match answer {
        Ok(payload) => encode(to.kind, to.request, to.transaction, &payload),
        Err(error) => encode(
            XS_ERROR,
            to.request,
            to.transaction,
            &strings([error.name().as_bytes()]),
        ),
    }
}

/// Encodes a watch event; one that the protocol cannot carry is `None`.
pub fn encode_event(path: &str, token: &[u8]) -> Option<Vec<u8>> {
    let payload = strings([path.as_bytes(), token]);
    (payload.len() <= PAYLOAD_MAX).then(|| encode(XS_WATCH_EVENT, 0, 0, &payload))
}

/// Strings as the wire has them, each ended by a NUL.
pub fn strings<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(stream: &[u8], cuts: &[usize]) -> (Vec<Message>, Option<Oversized>) {
        let (mut assembler, mut messages, mut at, mut cut) = (Assembler::default(), Vec::new(), 0, 0);
        while at < stream.len() {
            let piece = cuts
                .get(cut % cuts.len().max(1))
                .copied()
                .unwrap_or(usize::MAX)
                .max(1);
            cut += 1;
            let mut piece = &stream[at..stream.len().min(at.saturating_add(piece))];
            at += piece.len();
            while !piece.is_empty() {
                match assembler.feed(piece) {
                    Ok(taken) => piece = &piece[taken..],
                    Err(error) => return (messages, Some(error)),
                }
                messages.extend(assembler.take());
            }
        }
        (messages, None)
    }

    #[test]
    fn reads_a_message_without_payload() {
        let bytes = encode(6, 7, 0, b"");
        let (messages, error) = assemble(&bytes, &[1]);
        assert_eq!((messages.len(), error), (1, None));
        assert_eq!((messages[0].kind, messages[0].request), (6, 7));
    }

    #[test]
    fn refuses_an_oversized_message_at_its_header() {
        let mut bytes = encode(2, 1, 0, b"");
        bytes[12..].copy_from_slice(&4097u32.to_le_bytes());
        assert_eq!(assemble(&bytes, &[]).1, Some(Oversized { length: 4097 }));
        bytes[12..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(assemble(&bytes, &[5]).1, Some(Oversized { length: u32::MAX }));
    }

    #[test]
    fn an_answer_that_does_not_fit_becomes_an_error() {
        let to = Message {
            kind: 1,
            request: 2,
            transaction: 3,
            payload: Vec::new(),
        };
        let bytes = encode_reply(&to, Ok(vec![0; PAYLOAD_MAX + 1]));
        assert_eq!(bytes, encode(XS_ERROR, 2, 3, b"E2BIG\0"));
        assert_eq!(encode_event(&"p".repeat(PAYLOAD_MAX), b"t"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_and_never_panic(
            stream in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(1usize..40, 1..8),
        ) {
            prop_assert_eq!(assemble(&stream, &cuts), assemble(&stream, &[]));
        }

        #[test]
        fn every_message_arrives_whole_however_it_is_cut(
            sent in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..6),
            cuts in prop::collection::vec(1usize..60, 1..8),
        ) {
            let stream: Vec<u8> = sent.iter().flat_map(|(kind, request, transaction, payload)| encode(*kind, *request, *transaction, payload)).collect();
            let (received, error) = assemble(&stream, &cuts);
            prop_assert_eq!(error, None);
            let received: Vec<_> = received.into_iter().map(|message| (message.kind, message.request, message.transaction, message.payload)).collect();
            prop_assert_eq!(received, sent);
        }
    }
}
