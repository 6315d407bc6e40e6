//! Reads packets off a transmit ring: a first slot, extra slots, more slots (netif.h). Pure; the slots have been copied out, so what is checked here
//! is what is used.

use heapless::Vec;
use thiserror::Error;
use unikernel_rt::ring::{BackRing, RingError};
use xen_abi::io::netif::{
    NETTXF_csum_blank, NETTXF_data_validated, NETTXF_extra_info, NETTXF_more_data, NetifExtraInfo,
    NetifTxRequest, NetifTxResponse, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO,
    XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6, XEN_NETIF_NR_SLOTS_MIN,
};
use zerocopy::FromBytes;

use crate::frame::{Offload, Segmentation};

/// Slots that a packet can have.
pub const MOST_SLOTS: usize = XEN_NETIF_NR_SLOTS_MIN;
/// Bytes before the payload of any Ethernet frame.
const ETHERNET_HEADER: u16 = 14;
const PAGE: u16 = 4096;
/// Extra slots that are read behind a first slot; more than there are types is nonsense.
const MOST_EXTRAS: usize = 8;

/// A slot of a transmit ring before it is known what it holds.
pub type Slot = [u8; size_of::<NetifTxRequest>()];
/// The transmit ring.
pub type TransmitRing = BackRing<Slot, NetifTxResponse>;

/// A packet as its frontend describes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its slots, each with the length of its own fragment.
    pub slots: Vec<NetifTxRequest, MOST_SLOTS>,
    /// Extra slots behind the first one.
    pub extras: u16,
    /// Length of the whole packet.
    pub length: u16,
    /// Work that it owes.
    pub offload: Offload,
    /// What is wrong with it: it is answered with an error and not sent.
    pub fault: Option<&'static str>,
}

/// A ring that cannot be read on: where one packet ends and the next begins is lost.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Bad indices.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A packet that says it goes on, and does not.
    #[error("the frontend published a part of a packet")]
    Partial,
    /// More slots than any packet has.
    #[error("the frontend published a packet of more than {MOST_SLOTS} slots")]
    TooManySlots,
}

/// Takes the next packet off the ring.
pub fn next(ring: &mut TransmitRing) -> Result<Option<Packet>, Error> {
    let Some(first) = ring.pop()? else { return Ok(None) };
    let first = request(&first);
    let mut packet = Packet {
        slots: Vec::new(),
        extras: 0,
        length: first.size,
        offload: Offload {
            checksum_blank: first.flags & NETTXF_csum_blank != 0,
            checksum_validated: first.flags & (NETTXF_csum_blank | NETTXF_data_validated) != 0,
            segment: None,
        },
        fault: None,
    };
    let mut more_extras = first.flags & NETTXF_extra_info != 0;
    while more_extras {
        let slot = ring.pop()?.ok_or(Error::Partial)?;
        packet.extras += 1;
        if usize::from(packet.extras) > MOST_EXTRAS {
            return Err(Error::TooManySlots);
        }
        let extra = extra(&slot);
        more_extras = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE != 0;
        if extra.r#type == XEN_NETIF_EXTRA_TYPE_GSO {
            read_segmentation(&extra, &mut packet);
        }
    }
    let mut flags = first.flags;
    add_slot(&mut packet, first)?;
    while flags & NETTXF_more_data != 0 {
        let slot = request(&ring.pop()?.ok_or(Error::Partial)?);
        flags = slot.flags;
        add_slot(&mut packet, slot)?;
    }
    check(&mut packet);
    Ok(Some(packet))
}

fn request(slot: &Slot) -> NetifTxRequest {
    zerocopy::transmute!(*slot)
}

fn extra(slot: &Slot) -> NetifExtraInfo {
    // A slot is longer than the structure, so there is always one.
    NetifExtraInfo::read_from_prefix(slot)
        .map(|(extra, _)| extra)
        .unwrap_or_default()
}

fn read_segmentation(extra: &NetifExtraInfo, packet: &mut Packet) {
    let gso = extra.gso();
    match gso.r#type {
        XEN_NETIF_GSO_TYPE_TCPV4 | XEN_NETIF_GSO_TYPE_TCPV6 if gso.size > 0 => {
            let ipv6 = gso.r#type == XEN_NETIF_GSO_TYPE_TCPV6;
            packet.offload.segment = Some(Segmentation { size: gso.size, ipv6 });
        }
        _ => packet.fault = Some("its segmentation is of no known kind"),
    }
}

fn add_slot(packet: &mut Packet, slot: NetifTxRequest) -> Result<(), Error> {
    packet.slots.push(slot).map_err(|_| Error::TooManySlots)
}

/// Gives the first slot the length of its own fragment, and checks that every fragment lies in its page.
fn check(packet: &mut Packet) {
    let rest = packet.slots[1..]
        .iter()
        .map(|slot| u32::from(slot.size))
        .sum::<u32>();
    match u32::from(packet.length).checked_sub(rest) {
        Some(own) => packet.slots[0].size = own as u16,
        None => {
            packet.fault = Some("its fragments are longer than it is");
            return;
        }
    }
    if packet.length < ETHERNET_HEADER {
        packet.fault = Some("it is shorter than an Ethernet header");
    }
    let outside = |slot: &NetifTxRequest| u32::from(slot.offset) + u32::from(slot.size) > u32::from(PAGE);
    if packet.slots.iter().any(outside) {
        packet.fault = Some("a fragment crosses its page");
    }
}

#[cfg(test)]
mod tests {
    use unikernel_rt::{memory::SharedMemory, ring::FrontRing};
    use xen_abi::io::netif::NetifExtraGso;
    use zerocopy::IntoBytes;

    use super::*;

    struct Bench {
        front: FrontRing<Slot, NetifTxResponse>,
        back: TransmitRing,
    }

    impl Bench {
        fn new() -> Self {
            let memory = SharedMemory::allocate(1).unwrap();
            let front = FrontRing::create(memory.clone()).unwrap();
            Self {
                front,
                back: TransmitRing::attach(memory).unwrap(),
            }
        }

        fn slot(&mut self, offset: u16, size: u16, flags: u16) -> &mut Self {
            let request = NetifTxRequest {
                gref: 7,
                offset,
                flags,
                id: 9,
                size,
            };
            self.raw(request.as_bytes())
        }

        fn raw(&mut self, bytes: &[u8]) -> &mut Self {
            let mut slot = Slot::default();
            slot[..bytes.len()].copy_from_slice(bytes);
            self.front.push(&slot).unwrap();
            let _ = self.front.publish().unwrap();
            self
        }

        fn next(&mut self) -> Result<Option<Packet>, Error> {
            next(&mut self.back)
        }
    }

    #[test]
    fn reads_a_small_packet() {
        let mut bench = Bench::new();
        let packet = bench.slot(100, 60, NETTXF_csum_blank).next().unwrap().unwrap();
        assert_eq!((packet.length, packet.slots.len(), packet.fault), (60, 1, None));
        assert!(packet.offload.checksum_blank);
        assert_eq!(bench.next(), Ok(None));
    }

    #[test]
    fn reads_a_large_packet() {
        let mut bench = Bench::new();
        bench.slot(100, 5066, NETTXF_extra_info | NETTXF_more_data);
        let gso = NetifExtraGso {
            size: 1448,
            r#type: XEN_NETIF_GSO_TYPE_TCPV4,
            ..Default::default()
        };
        bench.raw(NetifExtraInfo::of_gso(gso).as_bytes());
        bench.slot(0, 4096, NETTXF_more_data).slot(10, 904, 0);
        let packet = bench.next().unwrap().unwrap();
        assert_eq!(
            packet
                .slots
                .iter()
                .map(|slot| slot.size)
                .collect::<std::vec::Vec<_>>(),
            [66, 4096, 904]
        );
        assert_eq!(
            packet.offload.segment,
            Some(Segmentation {
                size: 1448,
                ipv6: false
            })
        );
        assert_eq!((packet.extras, packet.fault), (1, None));
    }

    #[test]
    fn faults_are_named() {
        let mut bench = Bench::new();
        bench.slot(4000, 100, 0);
        assert_eq!(
            bench.next().unwrap().unwrap().fault,
            Some("a fragment crosses its page")
        );
        bench.slot(0, 13, 0);
        assert_eq!(
            bench.next().unwrap().unwrap().fault,
            Some("it is shorter than an Ethernet header")
        );
        bench.slot(0, 100, NETTXF_more_data).slot(0, 200, 0);
        assert_eq!(
            bench.next().unwrap().unwrap().fault,
            Some("its fragments are longer than it is")
        );
    }

    #[test]
    fn what_cannot_be_read_on_is_an_error() {
        let mut bench = Bench::new();
        assert_eq!(bench.slot(0, 100, NETTXF_more_data).next(), Err(Error::Partial));
        let mut bench = Bench::new();
        (0..=MOST_SLOTS).for_each(|_| {
            bench.slot(0, 1, NETTXF_more_data);
        });
        assert_eq!(bench.next(), Err(Error::TooManySlots));
    }

    proptest::proptest! {
        #[test]
        fn any_slots_are_survived(slots in proptest::collection::vec(proptest::array::uniform12(proptest::prelude::any::<u8>()), 1..100)) {
            let mut bench = Bench::new();
            for slot in &slots {
                bench.raw(slot);
            }
            while let Ok(Some(packet)) = bench.next() {
                let sum: u32 = packet.slots.iter().map(|slot| u32::from(slot.size)).sum();
                proptest::prop_assert!(packet.fault.is_some() || sum == u32::from(packet.length));
            }
        }
    }
}
