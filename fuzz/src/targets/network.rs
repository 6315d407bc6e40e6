//! What frontends put into network rings, and packets themselves.
#![allow(unsafe_code)] // A trait with unsafe methods, which do nothing here.

use std::rc::Rc;

use netdom::{
    fabric::Fabric,
    frame::{Frame, Offload, Piece, Segmentation},
    interface::{Interfaces, PortNumbers},
    network::Network,
    offload,
    pool::Pool,
    stack::{Addressing, Stack},
};
use unikernel_rt::{
    Connections, DomainId, StartError, System,
    event::EventChannels,
    fake::{FakeControl, FakeEvents, FakeGrants, FakeStore},
    grant::{Access, Grants},
    memory::{PAGE_SIZE, SharedMemory},
    pci::{ConfigRegionAccess, PciAddress},
    xenbus::BackendBus,
    xenstore::Store,
};

use crate::Input;

const NETDOM: DomainId = DomainId(2);
const GUEST: DomainId = DomainId(5);
const FRONTEND: &str = "/local/domain/5/device/vif/0";
const BACKEND: &str = "/local/domain/2/backend/vif/5/0";
const POOL_PAGES: usize = 128;
/// Bytes of a slot (netif.h), and where the slots begin.
const TRANSMIT_SLOT: usize = 12;
const RECEIVE_SLOT: usize = 8;
const SLOTS: usize = 64;

struct NoFunctions;

impl ConfigRegionAccess for NoFunctions {
    unsafe fn read(&self, _: PciAddress, _: u16) -> u32 {
        u32::MAX
    }
    unsafe fn write(&self, _: PciAddress, _: u16, _: u32) {}
}

/// A frontend that writes its two rings as it likes, with a few grants of its own; beside it netdom's own stack, which reads what
/// it is sent.
pub(crate) fn ring(bytes: &[u8]) {
    let (store, events, grants) = (
        FakeStore::new(NETDOM),
        FakeEvents::new(NETDOM),
        FakeGrants::new(NETDOM),
    );
    let front = grants.as_domain(GUEST);
    let page = || SharedMemory::allocate(1).expect("memory");
    let rings = [page(), page()];
    let references = rings.each_ref().map(|ring| {
        ring.store(4, 1).expect("the ring's header");
        ring.store(12, 1).expect("the ring's header");
        front.grant(NETDOM, ring, 0, Access::ReadWrite).expect("a grant")
    });
    let mut input = Input(bytes);
    let data = page();
    data.copy_in(0, &input.array::<128>())
        .expect("it lies in the page");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        front.grant(NETDOM, &data, 0, access).expect("a grant");
    }
    let port = events.as_domain(GUEST).allocate_unbound(NETDOM).expect("a port");
    let flags = input.byte();
    let flag = |bit: u8| if flags & 1 << bit == 0 { "0" } else { "1" };
    let (transmit, receive, port) = (
        references[0].0.to_string(),
        references[1].0.to_string(),
        port.0.to_string(),
    );
    for (home, key, value) in [
        (FRONTEND, "backend", BACKEND),
        (FRONTEND, "backend-id", "2"),
        (FRONTEND, "tx-ring-ref", &*transmit),
        (FRONTEND, "rx-ring-ref", &*receive),
        (FRONTEND, "event-channel", &*port),
        (FRONTEND, "request-rx-copy", "1"),
        (FRONTEND, "feature-sg", flag(0)),
        (FRONTEND, "feature-gso-tcpv4", flag(1)),
        (FRONTEND, "feature-gso-tcpv6", flag(2)),
        (FRONTEND, "feature-no-csum-offload", flag(3)),
        (FRONTEND, "state", "3"),
        (BACKEND, "frontend", FRONTEND),
        (BACKEND, "frontend-id", "5"),
        (BACKEND, "handle", "0"),
        (BACKEND, "online", "1"),
        (BACKEND, "state", "1"),
    ] {
        store.as_domain(GUEST).put(&[(&format!("{home}/{key}"), value)]);
    }
    let system = System::new(
        NETDOM,
        "",
        Vec::new(),
        Rc::new(events),
        Rc::new(grants),
        Rc::new(FakeControl::new()),
        Rc::new(NoFunctions),
        Connections {
            store: |_| Err(StartError::Missing("xenstore")),
            console: |_| Err(StartError::Missing("console")),
        },
    );
    let mut ports = PortNumbers::default();
    let addressing: Addressing = "10.0.2.20/24".parse().expect("an address");
    let stack = Stack::new([2, 0, 0, 0, 0, 1], addressing, 0);
    let stack = Some((ports.take(), stack));
    let bus = BackendBus::start(Rc::new(store.clone()), Interfaces::new(&system, ports)).expect("a bus");
    let mut network = Network::new(bus, stack, system.grants.clone());
    let pool = SharedMemory::allocate(POOL_PAGES).expect("memory");
    let mut fabric = Fabric::new(Pool::new(pool, 0));
    while let Some(event) = store.take_event().expect("the fake answers") {
        network.bus.handle(&event).expect("the fake answers");
    }
    let mut now = 0;
    while input.any() {
        let choice = input.byte();
        let (ring, size) = if choice & 1 == 0 {
            (&rings[0], TRANSMIT_SLOT)
        } else {
            (&rings[1], RECEIVE_SLOT)
        };
        match choice >> 1 {
            0 => ring
                .store(usize::from(input.byte() % 4) * 4, input.word())
                .expect("it lies in the page"),
            slot => {
                let at = SLOTS + usize::from(slot % 128) * size;
                ring.copy_in(at, &input.array::<TRANSMIT_SLOT>()[..size])
                    .expect("it lies in the page");
                let produced = ring.load(0).expect("it lies in the page");
                ring.store(0, produced.wrapping_add(1))
                    .expect("it lies in the page");
            }
        }
        now += 1_000_000;
        network.bury(&mut fabric);
        let _ = network.collect(&mut fabric, now).expect("the fake answers");
        let _ = network.flush(&mut fabric.pool).expect("the fake answers");
        let _ = network.final_check(&fabric.pool).expect("the fake answers");
    }
}

/// A packet in pieces, with whatever its sender says that it still owes.
pub(crate) fn packet(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let size = input.half();
    let mut pool = Pool::new(SharedMemory::allocate(POOL_PAGES).expect("memory"), 0);
    let mut frame = Frame {
        offload: Offload {
            checksum_blank: flags & 1 != 0,
            checksum_validated: flags & 2 != 0,
            segment: (flags & 4 != 0).then_some(Segmentation {
                size,
                ipv6: flags & 8 != 0,
            }),
        },
        ..Frame::default()
    };
    let repeat = 1 + usize::from(flags >> 4);
    let first = 14 + usize::from(input.byte());
    let mut rest = input.0.repeat(repeat);
    rest.truncate(16 * PAGE_SIZE);
    let mut length = first;
    while !rest.is_empty() {
        let piece: Vec<u8> = rest.drain(..length.min(rest.len())).collect();
        let Some(page) = pool.allocate() else { break };
        pool.write(&page, 0, &piece);
        let piece = Piece {
            page,
            offset: 0,
            length: piece.len() as u16,
        };
        if let Err(piece) = frame.pieces.push(piece) {
            pool.free(piece.page);
            break;
        }
        length = PAGE_SIZE;
    }
    if frame.pieces.is_empty() {
        return frame.release(&mut pool);
    }
    let sound = offload::is_sound(&frame, &pool, netdom::nic::LONGEST);
    if frame.offload.segment.is_some() {
        for segment in offload::segment(frame, &mut pool) {
            assert!(!sound || segment.length() <= netdom::nic::LONGEST);
            segment.release(&mut pool);
        }
    } else {
        offload::complete_checksum(&mut frame, &pool);
        frame.release(&mut pool);
    }
    assert_eq!(pool.available(), pool.size(), "pages were lost");
}
