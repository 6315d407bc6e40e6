//! An interface against a frontend made of the same rings.

use unikernel_rt::{
    event::{EventChannels, Events, Port as EventPort},
    fake::{FakeEvents, FakeGrants},
    grant::Access,
    memory::SharedMemory,
    ring::FrontRing,
};
use xen_abi::io::netif::{NETTXF_extra_info, NETTXF_more_data, NetifTxRequest};

use zerocopy::IntoBytes;

use super::*;
use crate::{frame::Segmentation, interface::packet::Slot};

const BACK: DomainId = DomainId(4);
const FRONT: DomainId = DomainId(5);

struct Bench {
    grants: FakeGrants,
    front: FakeGrants,
    transmit: FrontRing<Slot, NetifTxResponse>,
    receive: FrontRing<NetifRxRequest, ReceiveSlot>,
    interface: Interface,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let grants = FakeGrants::new(BACK);
        let events = FakeEvents::new(FRONT);
        let port = events.allocate_unbound(BACK).unwrap();
        let back: Events = std::rc::Rc::new(events.as_domain(BACK));
        let channel = Channel::bind_interdomain(&back, FRONT, EventPort(port.0)).unwrap();
        let (transmit, receive) = (
            SharedMemory::allocate(1).unwrap(),
            SharedMemory::allocate(1).unwrap(),
        );
        Self {
            front: grants.as_domain(FRONT),
            grants,
            transmit: FrontRing::create(transmit.clone()).unwrap(),
            receive: FrontRing::create(receive.clone()).unwrap(),
            interface: Interface {
                port: Port(1),
                domain: FRONT,
                channel,
                transmit: BackRing::attach(transmit).unwrap(),
                receive: BackRing::attach(receive).unwrap(),
                place: Place::mortal(),
                features: Features::default(),
                waiting: VecDeque::new(),
                held: 0,
                must_notify: false,
                counts: Default::default(),
            },
            pool: Pool::new(SharedMemory::allocate(128).unwrap(), 0),
        }
    }

    fn grant(&mut self, byte: u8) -> (SharedMemory, u32) {
        let memory = SharedMemory::allocate(1).unwrap();
        memory.fill(0, PAGE_SIZE, byte).unwrap();
        let reference = self.front.grant(BACK, &memory, 0, Access::ReadWrite).unwrap();
        (memory, reference.0)
    }

    fn sends(&mut self, request: NetifTxRequest) {
        self.transmit.push(&zerocopy::transmute!(request)).unwrap();
        let _ = self.transmit.publish().unwrap();
    }

    fn collect(&mut self) -> Vec<(Vec<u8>, Offload)> {
        let mut frames = Vec::new();
        self.interface
            .collect(&self.grants, &mut self.pool, |frame| frames.push(frame))
            .unwrap();
        frames
            .into_iter()
            .map(|frame| {
                let mut bytes = vec![0; frame.length()];
                frame.copy_out(&self.pool, &mut bytes);
                let offload = frame.offload;
                frame.release(&mut self.pool);
                (bytes, offload)
            })
            .collect()
    }

    fn gives_pages(&mut self, count: u16) -> Vec<SharedMemory> {
        (0..count)
            .map(|id| {
                let (memory, gref) = self.grant(0);
                self.receive.push(&NetifRxRequest { id, gref, pad: 0 }).unwrap();
                let _ = self.receive.publish().unwrap();
                memory
            })
            .collect()
    }

    fn deliver(&mut self, bytes: &[u8], offload: Offload) {
        let mut frame = Frame {
            offload,
            ..Default::default()
        };
        for chunk in bytes.chunks(2000) {
            let page = self.pool.allocate().unwrap();
            self.pool.write(&page, 100, chunk);
            frame
                .pieces
                .push(Piece {
                    page,
                    offset: 100,
                    length: chunk.len() as u16,
                })
                .unwrap();
        }
        self.interface.deliver(frame, &mut self.pool);
    }

    fn received(&mut self) -> Vec<NetifRxResponse> {
        core::iter::from_fn(|| self.receive.pop().unwrap())
            .map(|slot| zerocopy::transmute!(slot))
            .collect()
    }
}

#[test]
fn fragments_arrive_as_one_frame() {
    let mut bench = Bench::new();
    let (_first, a) = bench.grant(1);
    let (_second, b) = bench.grant(2);
    bench.sends(NetifTxRequest {
        gref: a,
        offset: 10,
        flags: NETTXF_more_data,
        id: 3,
        size: 5066,
    });
    bench.sends(NetifTxRequest {
        gref: b,
        offset: 0,
        flags: NETTXF_more_data,
        id: 4,
        size: 4000,
    });
    bench.sends(NetifTxRequest {
        gref: a,
        offset: 96,
        flags: 0,
        id: 5,
        size: 1000,
    });
    let before = bench.pool.available();
    let frames = bench.collect();
    assert_eq!(frames[0].0, [vec![1; 66], vec![2; 4000], vec![1; 1000]].concat());
    assert_eq!(bench.pool.available(), before);
    let answers: Vec<(u16, i16)> = core::iter::from_fn(|| bench.transmit.pop().unwrap())
        .map(|answer| (answer.id, answer.status))
        .collect();
    assert_eq!(
        answers,
        [(3, NETIF_RSP_OKAY), (4, NETIF_RSP_OKAY), (5, NETIF_RSP_OKAY)]
    );
}

#[test]
fn a_bad_grant_costs_its_own_packet() {
    let mut bench = Bench::new();
    let (_memory, good) = bench.grant(1);
    bench.sends(NetifTxRequest {
        gref: 9999,
        offset: 0,
        flags: 0,
        id: 1,
        size: 60,
    });
    bench.sends(NetifTxRequest {
        gref: good,
        offset: 4090,
        flags: 0,
        id: 2,
        size: 60,
    });
    bench.sends(NetifTxRequest {
        gref: good,
        offset: 0,
        flags: 0,
        id: 3,
        size: 60,
    });
    let before = bench.pool.available();
    assert_eq!(bench.collect(), [(vec![1; 60], Offload::default())]);
    let answers: Vec<i16> = core::iter::from_fn(|| bench.transmit.pop().unwrap())
        .map(|answer| answer.status)
        .collect();
    assert_eq!(answers, [NETIF_RSP_ERROR, NETIF_RSP_ERROR, NETIF_RSP_OKAY]);
    assert_eq!(bench.pool.available(), before);
}

#[test]
fn extra_slots_are_answered() {
    let mut bench = Bench::new();
    let (_memory, gref) = bench.grant(1);
    bench.sends(NetifTxRequest {
        gref,
        offset: 0,
        flags: NETTXF_extra_info,
        id: 1,
        size: 3000,
    });
    let gso = NetifExtraGso {
        size: 1448,
        r#type: XEN_NETIF_GSO_TYPE_TCPV4,
        ..Default::default()
    };
    let mut slot = Slot::default();
    slot[..8].copy_from_slice(NetifExtraInfo::of_gso(gso).as_bytes());
    bench.sends(zerocopy::transmute!(slot));
    let frames = bench.collect();
    assert_eq!(
        frames[0].1.segment,
        Some(Segmentation {
            size: 1448,
            ipv6: false
        })
    );
    let answers: Vec<i16> = core::iter::from_fn(|| bench.transmit.pop().unwrap())
        .map(|answer| answer.status)
        .collect();
    assert_eq!(answers, [NETIF_RSP_OKAY, NETIF_RSP_NULL]);
}

#[test]
fn frames_fill_the_pages_that_the_domain_gave() {
    let mut bench = Bench::new();
    let pages = bench.gives_pages(5);
    let bytes: Vec<u8> = (0..9000u32).map(|index| (index % 253) as u8).collect();
    let segment = Some(Segmentation {
        size: 1400,
        ipv6: false,
    });
    bench.deliver(
        &bytes,
        Offload {
            checksum_blank: true,
            segment,
            ..Default::default()
        },
    );
    bench.deliver(&[7; 60], Offload::default());
    assert!(bench.interface.flush(&bench.grants, &mut bench.pool).unwrap());
    let answers = bench.received();
    assert_eq!(
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()[..1],
        [4096]
    );
    assert_eq!(
        answers[0].flags,
        NETRXF_more_data | NETRXF_extra_info | NETRXF_csum_blank | NETRXF_data_validated
    );
    assert_eq!(
        (answers[2].id, answers[2].status, answers[2].flags),
        (2, 4096, NETRXF_more_data)
    );
    assert_eq!((answers[3].id, answers[3].status, answers[3].flags), (3, 808, 0));
    assert_eq!((answers[4].id, answers[4].status), (4, 60));
    let mut arrived = vec![0; 12288];
    for (index, page) in [0, 2, 3].into_iter().enumerate() {
        pages[page]
            .copy_out(0, &mut arrived[4096 * index..][..4096])
            .unwrap();
    }
    assert_eq!(arrived[..9000], bytes);
    assert_eq!(bench.pool.available(), bench.pool.size());
}

#[test]
fn frames_wait_for_pages_and_then_drop() {
    let mut bench = Bench::new();
    for _ in 0..120 {
        bench.deliver(&[7; 60], Offload::default());
    }
    assert!(!bench.interface.flush(&bench.grants, &mut bench.pool).unwrap());
    assert_eq!(bench.interface.counts[4], 120 - 96);
    assert!(!bench.interface.final_check(&bench.pool).unwrap());
    let _pages = bench.gives_pages(2);
    assert!(bench.interface.final_check(&bench.pool).unwrap());
    assert!(bench.interface.flush(&bench.grants, &mut bench.pool).unwrap());
    assert_eq!(bench.received().len(), 2);
}

#[test]
fn a_large_frame_hears_of_every_page_until_it_fits() {
    let mut bench = Bench::new();
    let _one = bench.gives_pages(1);
    bench.deliver(&[7; 9000], Offload::default());
    for _ in 0..2 {
        assert!(!bench.interface.flush(&bench.grants, &mut bench.pool).unwrap());
        assert!(!bench.interface.final_check(&bench.pool).unwrap());
        let (_, gref) = bench.grant(0);
        bench
            .receive
            .push(&NetifRxRequest { id: 0, gref, pad: 0 })
            .unwrap();
        assert!(bench.receive.publish().unwrap(), "netdom sleeps");
    }
    assert!(bench.interface.final_check(&bench.pool).unwrap());
    assert!(bench.interface.flush(&bench.grants, &mut bench.pool).unwrap());
}

#[test]
fn an_empty_pool_is_waited_for_and_not_polled() {
    let mut bench = Bench::new();
    let (_memory, gref) = bench.grant(1);
    bench.sends(NetifTxRequest {
        gref,
        offset: 0,
        flags: 0,
        id: 1,
        size: 60,
    });
    let taken: Vec<_> = core::iter::from_fn(|| bench.pool.allocate()).collect();
    assert!(bench.collect().is_empty());
    assert!(!bench.interface.final_check(&bench.pool).unwrap());
    taken.into_iter().for_each(|page| bench.pool.free(page));
    assert!(bench.interface.final_check(&bench.pool).unwrap());
    assert_eq!(bench.collect().len(), 1);
}

#[test]
fn a_domain_that_does_not_read_leaves_the_others_their_share() {
    let mut idle = Bench::new();
    for _ in 0..128 - 18 {
        idle.deliver(&[7; 60], Offload::default());
    }
    let mut other = Bench::new();
    core::mem::swap(&mut idle.pool, &mut other.pool);
    assert!(other.pool.available() <= other.pool.size() / 4);
    for _ in 0..8 {
        other.deliver(&[7; 60], Offload::default());
    }
    assert_eq!(
        (idle.interface.counts[4] > 0, other.interface.counts[4]),
        (true, 0)
    );
}
