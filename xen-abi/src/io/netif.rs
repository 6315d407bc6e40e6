//! The network protocol, of `io/netif.h`: a transmit ring, a receive ring and an optional control ring.
//!
//! A packet takes one slot per fragment, all but the last flagged with more data. If the first slot of a packet says so,
//! [`NetifExtraInfo`] slots follow it. "Transmit" is the frontend's view.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

consts! {
    usize, "Fewest slots per packet that a backend must accept." {
        XEN_NETIF_NR_SLOTS_MIN = 18,
    }

    usize, "Longest packet in a transmit ring." {
        XEN_NETIF_MAX_TX_SIZE = 0xffff,
    }

    u16, "Bit of [`NetifTxRequest::flags`]." {
        /// The checksum field holds the pseudo-header's sum only.
        NETTXF_csum_blank = 1 << 0,
        /// The data need no checking.
        NETTXF_data_validated = 1 << 1,
        /// The packet goes on in the next slot.
        NETTXF_more_data = 1 << 2,
        /// A [`NetifExtraInfo`] follows.
        NETTXF_extra_info = 1 << 3,
    }

    u16, "Bit of [`NetifRxResponse::flags`]." {
        /// The data need no checking.
        NETRXF_data_validated = 1 << 0,
        /// The checksum field holds the pseudo-header's sum only.
        NETRXF_csum_blank = 1 << 1,
        /// The packet goes on in the next slot.
        NETRXF_more_data = 1 << 2,
        /// A [`NetifExtraInfo`] follows.
        NETRXF_extra_info = 1 << 3,
        /// The slot is a prefix that tells the segment size.
        NETRXF_gso_prefix = 1 << 4,
    }

    u8, "[`NetifExtraInfo::type`](NetifExtraInfo)." {
        XEN_NETIF_EXTRA_TYPE_NONE = 0,
        /// Segmentation offload; see [`NetifExtraGso`].
        XEN_NETIF_EXTRA_TYPE_GSO = 1,
        /// A multicast address to add to the backend's filter.
        XEN_NETIF_EXTRA_TYPE_MCAST_ADD = 2,
        /// A multicast address to remove from the backend's filter.
        XEN_NETIF_EXTRA_TYPE_MCAST_DEL = 3,
        /// The packet's hash; see [`NetifExtraHash`].
        XEN_NETIF_EXTRA_TYPE_HASH = 4,
        /// Behind the highest.
        XEN_NETIF_EXTRA_TYPE_MAX = 5,
    }

    u8, "Bit of [`NetifExtraInfo::flags`]: another one follows." {
        XEN_NETIF_EXTRA_FLAG_MORE = 1 << 0,
    }

    u8, "[`NetifExtraGso::type`](NetifExtraGso)." {
        XEN_NETIF_GSO_TYPE_NONE = 0,
        XEN_NETIF_GSO_TYPE_TCPV4 = 1,
        XEN_NETIF_GSO_TYPE_TCPV6 = 2,
    }

    i16, "Status of a response; in a receive response a positive one is a length." {
        NETIF_RSP_DROPPED = -2,
        NETIF_RSP_ERROR = -1,
        NETIF_RSP_OKAY = 0,
        /// The slot held no request (it was an extra slot).
        NETIF_RSP_NULL = 1,
    }

    u32, "Bit of the hash flags: what is hashed." {
        XEN_NETIF_CTRL_HASH_TYPE_IPV4 = 1 << 0,
        XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP = 1 << 1,
        XEN_NETIF_CTRL_HASH_TYPE_IPV6 = 1 << 2,
        XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP = 1 << 3,
    }

    u32, "Hash algorithm." {
        XEN_NETIF_CTRL_HASH_ALGORITHM_NONE = 0,
        XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ = 1,
    }

    u16, "[`NetifCtrlRequest::type`](NetifCtrlRequest)." {
        XEN_NETIF_CTRL_TYPE_INVALID = 0,
        XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS = 1,
        XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS = 2,
        XEN_NETIF_CTRL_TYPE_SET_HASH_KEY = 3,
        XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE = 4,
        XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE = 5,
        XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING = 6,
        XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM = 7,
        XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE = 8,
        XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING = 9,
        XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING = 10,
    }

    u32, "[`NetifCtrlResponse::status`]." {
        XEN_NETIF_CTRL_STATUS_SUCCESS = 0,
        XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED = 1,
        XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER = 2,
        XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW = 3,
    }

    u16, "Bit of [`NetifGref::flags`]: map without write access." {
        XEN_NETIF_CTRLF_GREF_readonly = 1 << 0,
    }
}

/// Bytes in a slot of the transmit ring.
pub const NETIF_TX_RING_SLOT_SIZE: usize = size_of::<NetifTxRequest>();
/// Bytes in a slot of the receive ring.
pub const NETIF_RX_RING_SLOT_SIZE: usize = size_of::<NetifRxRequest>();
/// Bytes in a slot of the control ring.
pub const NETIF_CTRL_RING_SLOT_SIZE: usize = size_of::<NetifCtrlRequest>();

/// A fragment to send.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifTxRequest {
    /// The page that it is in.
    pub gref: u32,
    /// Where it starts in the page.
    pub offset: u16,
    /// `NETTXF_*`.
    pub flags: u16,
    /// The frontend's own; comes back with the response.
    pub id: u16,
    /// Length of the whole packet in its first slot, of the fragment in the others.
    pub size: u16,
}

/// Tells that a fragment's page is free again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifTxResponse {
    /// The request's.
    pub id: u16,
    /// `NETIF_RSP_*`.
    pub status: i16,
}

/// A page to receive into.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifRxRequest {
    /// The frontend's own; comes back with the response.
    pub id: u16,
    /// Padding.
    pub pad: u16,
    /// The page.
    pub gref: u32,
}

/// A received fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifRxResponse {
    /// The request's.
    pub id: u16,
    /// Where it starts in the page.
    pub offset: u16,
    /// `NETRXF_*`.
    pub flags: u16,
    /// Length of the fragment, or a negative `NETIF_RSP_*`.
    pub status: i16,
}

/// An extra slot behind the first slot of a packet, in either ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifExtraInfo {
    /// `XEN_NETIF_EXTRA_TYPE_*`.
    pub r#type: u8,
    /// [`XEN_NETIF_EXTRA_FLAG_MORE`].
    pub flags: u8,
    /// A union that the type selects; see the methods.
    pub u: [u16; 3],
}

impl NetifExtraInfo {
    /// The union for [`XEN_NETIF_EXTRA_TYPE_GSO`].
    pub const fn gso(&self) -> NetifExtraGso {
        transmute!(self.u)
    }

    /// The address for [`XEN_NETIF_EXTRA_TYPE_MCAST_ADD`] and [`XEN_NETIF_EXTRA_TYPE_MCAST_DEL`].
    pub const fn mcast(&self) -> [u8; 6] {
        transmute!(self.u)
    }

    /// The union for [`XEN_NETIF_EXTRA_TYPE_HASH`].
    pub const fn hash(&self) -> NetifExtraHash {
        transmute!(self.u)
    }

    /// An extra slot, the last of its packet, about segmentation.
    pub const fn of_gso(gso: NetifExtraGso) -> Self {
        Self {
            r#type: XEN_NETIF_EXTRA_TYPE_GSO,
            flags: 0,
            u: transmute!(gso),
        }
    }

    /// An extra slot, the last of its packet, about a multicast address.
    pub const fn of_mcast(r#type: u8, address: [u8; 6]) -> Self {
        Self {
            r#type,
            flags: 0,
            u: transmute!(address),
        }
    }

    /// An extra slot, the last of its packet, with the packet's hash.
    pub const fn of_hash(hash: NetifExtraHash) -> Self {
        Self {
            r#type: XEN_NETIF_EXTRA_TYPE_HASH,
            flags: 0,
            u: transmute!(hash),
        }
    }
}

/// How a large packet is to be cut into segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifExtraGso {
    /// Most payload bytes in a segment.
    pub size: u16,
    /// `XEN_NETIF_GSO_TYPE_*`.
    pub r#type: u8,
    /// Padding.
    pub pad: u8,
    /// Zero.
    pub features: u16,
}

/// A packet's hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifExtraHash {
    /// Bit number of `XEN_NETIF_CTRL_HASH_TYPE_*`.
    pub r#type: u8,
    /// `XEN_NETIF_CTRL_HASH_ALGORITHM_*`.
    pub algorithm: u8,
    /// The hash.
    pub value: [u8; 4],
}

/// A request in the control ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifCtrlRequest {
    /// Comes back with the response.
    pub id: u16,
    /// `XEN_NETIF_CTRL_TYPE_*`.
    pub r#type: u16,
    /// As the type says.
    pub data: [u32; 3],
}

/// A response in the control ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifCtrlResponse {
    /// The request's.
    pub id: u16,
    /// The request's.
    pub r#type: u16,
    /// `XEN_NETIF_CTRL_STATUS_*`.
    pub status: u32,
    /// As the type says.
    pub data: u32,
}

/// A grant that the backend shall keep mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NetifGref {
    /// The page.
    pub r#ref: u32,
    /// [`XEN_NETIF_CTRLF_GREF_readonly`].
    pub flags: u16,
    /// Out: `XEN_NETIF_CTRL_STATUS_*`.
    pub status: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_256_slots_of_either_ring() {
        assert_eq!(crate::io::ring::ring_size(4096, NETIF_TX_RING_SLOT_SIZE), 256);
        assert_eq!(crate::io::ring::ring_size(4096, NETIF_RX_RING_SLOT_SIZE), 256);
    }

    #[test]
    fn extras_survive_the_union() {
        let gso = NetifExtraGso {
            size: 1448,
            r#type: XEN_NETIF_GSO_TYPE_TCPV4,
            ..Default::default()
        };
        assert_eq!(NetifExtraInfo::of_gso(gso).gso(), gso);
        let address = [1, 0, 0x5e, 0, 0, 1];
        assert_eq!(
            NetifExtraInfo::of_mcast(XEN_NETIF_EXTRA_TYPE_MCAST_ADD, address).mcast(),
            address
        );
        let hash = NetifExtraHash {
            r#type: 1,
            algorithm: 1,
            value: [1, 2, 3, 4],
        };
        assert_eq!(NetifExtraInfo::of_hash(hash).hash(), hash);
    }
}
