//! Descriptors of the 82574L: legacy ones for receiving (datasheet section 7.1.4), context and data ones for sending (section 7.2.10).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::Frame;

/// Bytes of a descriptor of any kind.
pub const SIZE: usize = 16;

/// A receive descriptor: the address is ours, the rest is the card's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Receive {
    /// Where the frame goes.
    pub address: u64,
    /// Its length.
    pub length: u16,
    /// Its raw checksum.
    pub checksum: u16,
    /// `RECEIVED_*`.
    pub status: u8,
    /// `ERROR_*`.
    pub errors: u8,
    /// A VLAN tag.
    pub special: u16,
}

/// The card is done with the descriptor.
pub const DONE: u8 = 1 << 0;
/// The frame ends here.
pub const RECEIVED_END: u8 = 1 << 1;
/// Checksums were not looked at.
pub const RECEIVED_UNCHECKED: u8 = 1 << 2;
/// The transport checksum was looked at.
pub const RECEIVED_TRANSPORT_CHECKED: u8 = 1 << 5;
/// The transport checksum is wrong.
pub const ERROR_TRANSPORT: u8 = 1 << 5;
/// The frame itself is bad: check sequence, symbol, sequence, carrier extension, overrun.
pub const ERROR_FRAME: u8 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7;

/// A transmit descriptor, context or data, as two words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Transmit {
    /// The buffer's address, or the places of checksums.
    pub first: u64,
    /// Length, kind, commands, status.
    pub second: u64,
}

const COMMAND_END: u64 = 1 << 24;
const COMMAND_ADD_CHECK_SEQUENCE: u64 = 1 << 25;
const COMMAND_SEGMENT: u64 = 1 << 26;
const COMMAND_REPORT: u64 = 1 << 27;
const COMMAND_EXTENDED: u64 = 1 << 29;
const KIND_DATA: u64 = 1 << 20;
const CONTEXT_TCP: u64 = 1 << 24;
const CONTEXT_IPV4: u64 = 1 << 25;
/// Status bit 0 of a data descriptor that was reported.
pub const TRANSMITTED: u64 = 1 << 32;
const OPTION_IP_CHECKSUM: u64 = 1 << 40;
const OPTION_TRANSPORT_CHECKSUM: u64 = 1 << 41;

/// Places in a frame that a context descriptor names, in bytes from the frame's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The network header.
    pub network: u8,
    /// The transport header.
    pub transport: u8,
    /// The first byte behind the transport header.
    pub payload: u8,
    /// The transport checksum.
    pub checksum: u8,
    /// IPv4 rather than IPv6.
    pub ipv4: bool,
    /// TCP rather than UDP.
    pub tcp: bool,
}

impl Transmit {
    /// The context for the data descriptors that follow.
    pub fn context(places: &Places, segment: Option<u16>, length: usize) -> Self {
        let ip_checksum_end = u64::from(places.transport) - 1;
        let (ip_start, ip_checksum) = (u64::from(places.network), u64::from(places.network) + 10);
        let ip = ip_start | ip_checksum << 8 | ip_checksum_end << 16;
        let transport = u64::from(places.transport) | u64::from(places.checksum) << 8;
        let mut second = COMMAND_EXTENDED;
        second |= if places.tcp { CONTEXT_TCP } else { 0 };
        second |= if places.ipv4 { CONTEXT_IPV4 } else { 0 };
        if let Some(size) = segment {
            let payload = length.saturating_sub(places.payload.into()) as u64 & 0xf_ffff;
            second |= COMMAND_SEGMENT | payload | u64::from(places.payload) << 40 | u64::from(size) << 48;
        }
        Self {
            first: ip | transport << 32,
            second,
        }
    }

    /// A piece of a frame.
    pub fn data(address: u64, length: u16, last: bool, frame: &Frame, places: Option<&Places>) -> Self {
        let mut second = u64::from(length) | KIND_DATA | COMMAND_EXTENDED | COMMAND_ADD_CHECK_SEQUENCE;
        if last {
            second |= COMMAND_END | COMMAND_REPORT;
        }
        if let Some(places) = places {
            second |= OPTION_TRANSPORT_CHECKSUM;
            if frame.offload.segment.is_some() {
                second |= COMMAND_SEGMENT;
                second |= if places.ipv4 { OPTION_IP_CHECKSUM } else { 0 };
            }
        }
        Self {
            first: address,
            second,
        }
    }
}
