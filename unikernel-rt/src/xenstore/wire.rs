//! The wire protocol of xenstore (xs_wire.h): headers, message assembly, and the payloads' lists of strings.
//!
//! Pure: bytes in, messages out. Both the [`Client`](super::Client) and the control domain's server use it.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest payload.
pub const PAYLOAD_MAX: usize = 4096;
/// The length of a message's head.
pub const HEADER_LENGTH: usize = size_of::<Header>();

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// The head claims more than the protocol allows. The stream cannot be trusted any more.
    #[error("a xenstore message claims a payload of {0} bytes")]
    PayloadTooLong(u32),
    /// The payload lacks a part, or is not text.
    #[error("the payload of a xenstore message is not what its type asks for")]
    BadPayload,
}

/// A message's head (`xsd_sockmsg`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Header {
    /// `XS_*`.
    pub kind: u32,
    /// The request's number, repeated in its answer.
    pub request: u32,
    /// The transaction, or 0.
    pub transaction: u32,
    /// The payload's length.
    pub length: u32,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The head; its length is that of the payload.
    pub header: Header,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Message {
    /// Makes a message; the length is filled in.
    pub fn new(kind: u32, request: u32, transaction: u32, payload: Vec<u8>) -> Self {
        let header = Header {
            kind,
            request,
            transaction,
            length: payload.len() as u32,
        };
        Self { header, payload }
    }

    /// The message as bytes for the ring.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + self.payload.len());
        bytes.extend_from_slice(self.header.as_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The payload's strings, each of which ends with NUL (the last one's may be missing).
    pub fn strings(&self) -> Result<Vec<String>, WireError> {
        strings(&self.payload)
    }
}

/// Splits a list of NUL-terminated strings. The last NUL may be missing.
pub fn strings(payload: &[u8]) -> Result<Vec<String>, WireError> {
    let list = payload.strip_suffix(&[0]).unwrap_or(payload);
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    list.split(|&byte| byte == 0)
        .map(|part| String::from_utf8(part.to_vec()).map_err(|_| WireError::BadPayload))
        .collect()
}

/// Puts strings in a row, each with its NUL.
pub fn join(parts: &[&str]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts {
        payload.extend_from_slice(part.as_bytes());
        payload.push(0);
    }
    payload
}

/// Makes messages of a stream of bytes, however it is cut.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    /// Takes bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes the message that has begun still lacks (its head, if that is not there yet): a server reads no more
    /// than this, so that what a client has queued stays in the ring.
    pub fn wanted(&self) -> Result<usize, WireError> {
        Ok(match self.header()? {
            None => HEADER_LENGTH - self.bytes.len(),
            Some(header) => (HEADER_LENGTH + header.length as usize).saturating_sub(self.bytes.len()),
        })
    }

    /// The next whole message, if it is there.
    pub fn message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let end = HEADER_LENGTH + header.length as usize;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload = self.bytes[HEADER_LENGTH..end].to_vec();
        self.bytes.drain(..end);
        Ok(Some(Message { header, payload }))
    }

    /// Whether there is not even the beginning of a message.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets a message that has begun.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    fn header(&self) -> Result<Option<Header>, WireError> {
        let Ok((header, _)) = Header::read_from_prefix(&self.bytes) else {
            return Ok(None);
        };
        if header.length as usize > PAYLOAD_MAX {
            return Err(WireError::PayloadTooLong(header.length));
        }
        Ok(Some(header))
    }
}
