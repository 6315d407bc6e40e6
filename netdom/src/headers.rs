//! Finds the headers of a frame as far as offloads need them. Pure; every length is checked, and a frame that does not fit any known form is
//! simply not understood.

/// Bytes from a frame's start that are enough to find every header that we understand.
pub const ENOUGH: usize = 14 + 4 + 60 + 60;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the headers of a TCP or UDP frame lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The network header.
    pub network: usize,
    /// The transport header.
    pub transport: usize,
    /// The first byte behind the transport header.
    pub payload: usize,
    /// The transport checksum.
    pub checksum: usize,
    /// IPv4 rather than IPv6.
    pub ipv4: bool,
    /// TCP rather than UDP.
    pub tcp: bool,
}

impl Headers {
    /// Finds them in the first bytes of a frame; `None` for a fragment, an extension header, and everything that is not TCP or UDP.
    pub fn find(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let (kind, network) = match word(12)? {
            VLAN => (word(16)?, 18),
            kind => (kind, 14),
        };
        let (protocol, transport, ipv4) = match kind {
            IPV4 => {
                let first = *frame.get(network)?;
                let length = usize::from(first & 0xf) * 4;
                let fragment = word(network + 6)? & 0x3fff != 0;
                if first >> 4 != 4 || length < 20 || fragment {
                    return None;
                }
                (*frame.get(network + 9)?, network + length, true)
            }
            IPV6 if frame.get(network)? >> 4 == 6 => (*frame.get(network + 6)?, network + 40, false),
            _ => return None,
        };
        let (payload, checksum) = match protocol {
            TCP => {
                let length = usize::from(frame.get(transport + 12)? >> 4) * 4;
                (transport + length.max(20), transport + 16)
            }
            UDP => (transport + 8, transport + 6),
            _ => return None,
        };
        (frame.len() >= payload).then_some(Self {
            network,
            transport,
            payload,
            checksum,
            ipv4,
            tcp: protocol == TCP,
        })
    }
}

/// Adds bytes, as big-endian words, to a ones' complement sum. `offset` says whether the bytes start at an odd place.
pub fn add(sum: u32, bytes: &[u8], odd: bool) -> u32 {
    let mut sum = u64::from(sum);
    for (index, &byte) in bytes.iter().enumerate() {
        let high = (index % 2 == 0) != odd;
        sum += if high {
            u64::from(byte) << 8
        } else {
            u64::from(byte)
        };
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u32
}

/// The checksum field for a sum of everything that it covers.
pub fn finish(sum: u32) -> u16 {
    !(add(sum, &[], false) as u16)
}

/// The sum of the pseudo-header for a transport segment of `length` bytes. `frame` starts with all headers.
pub fn pseudo_header(frame: &[u8], headers: &Headers, length: u32) -> u32 {
    let (addresses, count) = if headers.ipv4 {
        (headers.network + 12, 8)
    } else {
        (headers.network + 8, 32)
    };
    let sum = add(0, frame.get(addresses..addresses + count).unwrap_or(&[]), false);
    add(
        add(sum, &length.to_be_bytes(), false),
        &[0, if headers.tcp { TCP } else { UDP }],
        false,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An IPv4 TCP frame with `payload` and a correct checksum.
    pub fn tcp_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let total = (40 + payload.len()) as u16;
        frame.extend([
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            1,
            0x40,
            0,
            64,
            TCP,
            0,
            0,
            10,
            0,
            2,
            15,
            10,
            0,
            2,
            2,
        ]);
        frame.extend([
            0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
        ]);
        frame.extend(payload);
        let headers = Headers::find(&frame).unwrap();
        let sum = pseudo_header(&frame, &headers, 20 + payload.len() as u32);
        let checksum = finish(add(sum, &frame[headers.transport..], false));
        frame[headers.checksum..headers.checksum + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    #[test]
    fn finds_tcp_over_ipv4() {
        let frame = tcp_frame(b"hello");
        let headers = Headers::find(&frame).unwrap();
        let expected = Headers {
            network: 14,
            transport: 34,
            payload: 54,
            checksum: 50,
            ipv4: true,
            tcp: true,
        };
        assert_eq!(headers, expected);
        let sum = pseudo_header(&frame, &headers, 25);
        assert_eq!(
            finish(add(sum, &frame[34..], false)),
            0,
            "a right checksum sums to nothing"
        );
    }

    #[test]
    fn the_sum_does_not_depend_on_the_cut() {
        let bytes: Vec<u8> = (0..101).collect();
        let whole = add(0, &bytes, false);
        for cut in 0..bytes.len() {
            assert_eq!(
                add(add(0, &bytes[..cut], false), &bytes[cut..], cut % 2 == 1),
                whole
            );
        }
    }

    #[test]
    fn fragments_are_not_understood() {
        let mut frame = tcp_frame(b"");
        frame[20] = 0x20;
        assert_eq!(Headers::find(&frame), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            if let Some(headers) = Headers::find(&bytes) {
                proptest::prop_assert!(headers.payload <= bytes.len());
                proptest::prop_assert!(headers.network < headers.transport && headers.transport < headers.checksum);
            }
        }
    }
}
