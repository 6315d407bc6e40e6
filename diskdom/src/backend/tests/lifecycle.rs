//! Negotiation, connecting, leaving, being rebuilt.

use unikernel_rt::grant::Access;
use xen_abi::io::blkif::{BLKIF_OP_READ, BLKIF_OP_WRITE};

use super::bench::{Guest, Server, pattern};
use crate::backend::turn;
use crate::device::{BlockDevice, Properties};
use crate::testing::MemoryDisk;

#[test]
fn the_features_are_those_of_the_disk() {
    let mut server = Server::new(MemoryDisk::new(1000));
    let guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    server.settle();
    for (key, value) in [
        ("state", "2"),
        ("sectors", "1000"),
        ("sector-size", "512"),
        ("physical-sector-size", "4096"),
        ("info", "0"),
        ("feature-flush-cache", "1"),
        ("feature-barrier", "1"),
        ("feature-discard", "1"),
        ("discard-granularity", "4096"),
        ("discard-alignment", "0"),
        ("discard-secure", "0"),
        ("feature-persistent", "1"),
        ("feature-max-indirect-segments", "256"),
        ("max-ring-page-order", "4"),
        ("multi-queue-max-queues", "1"),
        ("error", ""),
    ] {
        assert_eq!(server.node(&guest, key), value, "{key}");
    }
}

#[test]
fn a_plain_read_only_disk_offers_less() {
    let disk = MemoryDisk::with(Properties {
        volatile_cache: false,
        discard: None,
        ..*MemoryDisk::new(64).properties()
    });
    let mut server = Server::new(disk);
    let guest = Guest::new(&server, 5, "nvme0", "r");
    server.start();
    server.settle();
    for (key, value) in [
        ("info", "4"),
        ("feature-flush-cache", "0"),
        ("feature-discard", "0"),
        ("discard-granularity", ""),
    ] {
        assert_eq!(server.node(&guest, key), value, "{key}");
    }
}

#[test]
fn an_absent_volume_is_named_and_the_others_are_served() {
    let mut server = Server::new(MemoryDisk::new(64));
    let lost = Guest::new(&server, 4, "nvme3:data", "w");
    let mut guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    server.settle();
    assert_eq!(server.node(&lost, "state"), "2");
    assert_eq!(
        server.node(&lost, "error"),
        "the volume \"nvme3:data\" of domain 4's device 51712 is not there: there is no disk nvme3; there is nvme0"
    );
    guest.connect(&mut server, false);
}

#[test]
fn frontends_that_ask_for_the_impossible_are_told() {
    for (key, value, sentence) in [
        (
            "protocol",
            "arm-abi",
            "the frontend speaks the protocol \"arm-abi\", and this backend x86_64-abi",
        ),
        (
            "ring-page-order",
            "5",
            "the frontend's ring has 2^5 pages, and at most 2^4 were offered",
        ),
        (
            "multi-queue-num-queues",
            "2",
            "the frontend wants 2 queues, and was offered one",
        ),
        (
            "ring-ref",
            "4000",
            "domain 5's grant 4000 was refused: bad grant reference",
        ),
        (
            "event-channel",
            "4000",
            "the event channel cannot be bound: invalid argument (EINVAL)",
        ),
    ] {
        let mut server = Server::new(MemoryDisk::new(64));
        let mut guest = Guest::new(&server, 5, "nvme0", "w");
        server.start();
        guest.offer(1, false);
        guest.put(key, value);
        server.settle();
        assert_eq!(server.node(&guest, "error"), sentence);
        assert_eq!(server.node(&guest, "state"), "5");
        assert_eq!(server.grants.mapped_pages(), 0);
    }
}

#[test]
fn rings_of_several_pages_work() {
    let mut server = Server::new(MemoryDisk::new(4096));
    let mut guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    guest.offer(16, false);
    server.settle();
    assert_eq!(
        server.node(&guest, "state"),
        "4",
        "{}",
        server.node(&guest, "error")
    );
    let (page, reference) = guest.page(Access::ReadOnly);
    page.copy_in(0, &pattern(3)).unwrap();
    let ids: Vec<u64> = (0..512)
        .map(|_| guest.request(BLKIF_OP_WRITE, 8, &[reference]))
        .collect();
    server.serve();
    assert_eq!(
        guest.responses(),
        ids.iter().map(|&id| (id, BLKIF_OP_WRITE, 0)).collect::<Vec<_>>()
    );
    assert_eq!(server.disk.state.borrow().data[4096..8192], pattern(3));
}

#[test]
fn a_frontend_that_leaves_waits_for_its_requests_and_nothing_stays_mapped() {
    for persistent in [false, true] {
        let mut server = Server::new(MemoryDisk::new(64));
        let mut guest = Guest::new(&server, 5, "nvme0", "w");
        server.start();
        guest.connect(&mut server, persistent);
        let (_page, reference) = guest.page(Access::ReadWrite);
        server.disk.state.borrow_mut().automatic = false;
        guest.request(BLKIF_OP_READ, 0, &[reference]);
        turn(server.bus()).unwrap();
        assert_eq!(server.disk.state.borrow().pending.len(), 1);
        assert_eq!(server.grants.mapped_pages(), 2);
        // The drain has the disk complete what it holds.
        server.disk.state.borrow_mut().automatic = true;
        guest.put("state", 5);
        server.settle();
        assert_eq!(server.node(&guest, "state"), "5");
        assert_eq!(server.grants.mapped_pages(), 0);
        assert_eq!(server.disk.state.borrow().executed.len(), 1);
        // It comes back with a new ring.
        guest.put("state", 6);
        server.settle();
        assert_eq!(server.node(&guest, "state"), "6");
        guest.put("state", 1);
        server.settle();
        guest.connect(&mut server, persistent);
        let id = guest.request(BLKIF_OP_READ, 0, &[reference]);
        server.serve();
        assert_eq!(guest.responses(), [(id, BLKIF_OP_READ, 0)]);
    }
}

#[test]
fn a_frontend_that_lies_about_its_ring_is_disconnected_and_the_others_go_on() {
    let mut server = Server::new(MemoryDisk::new(64));
    let mut liar = Guest::new(&server, 4, "nvme0", "w");
    let mut guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    liar.connect(&mut server, false);
    guest.connect(&mut server, false);
    liar.ring_memory.as_ref().unwrap().store(0, 33).unwrap();
    let (_page, reference) = guest.page(Access::ReadWrite);
    let id = guest.request(BLKIF_OP_READ, 0, &[reference]);
    server.serve();
    assert_eq!(
        server.node(&liar, "error"),
        "the peer claims 33 entries in a ring of 32"
    );
    assert_eq!(server.node(&liar, "state"), "5");
    assert_eq!(guest.responses(), [(id, BLKIF_OP_READ, 0)]);
}

#[test]
fn a_rebuilt_backend_goes_on_where_its_predecessor_died() {
    for persistent in [false, true] {
        let mut server = Server::new(MemoryDisk::new(64));
        let mut guest = Guest::new(&server, 5, "nvme0", "w");
        server.start();
        guest.connect(&mut server, persistent);
        let pages: Vec<_> = (0..4u8).map(|_| guest.page(Access::ReadWrite)).collect();
        for (seed, (page, _)) in pages.iter().enumerate() {
            page.copy_in(0, &pattern(seed as u8)).unwrap();
        }
        server.disk.state.borrow_mut().automatic = false;
        let ids: Vec<u64> = pages
            .iter()
            .zip(0..)
            .map(|((_, reference), n)| guest.request(BLKIF_OP_WRITE, n * 8, &[*reference]))
            .collect();
        turn(server.bus()).unwrap();
        // The second one is executed first, but not answered: the first one is not.
        server.disk.complete(1);
        turn(server.bus()).unwrap();
        assert_eq!(guest.responses(), []);
        server.disk.complete(0);
        turn(server.bus()).unwrap();
        assert_eq!(guest.responses().len(), 2);
        guest.was_notified();

        server.kill();
        assert_eq!(server.grants.mapped_pages(), 0);
        server.disk.state.borrow_mut().automatic = true;
        server.start();
        assert_eq!(server.node(&guest, "state"), "4");
        assert!(guest.was_notified(), "answers may have been left unannounced");
        server.serve();
        assert_eq!(
            guest.responses(),
            [(ids[2], BLKIF_OP_WRITE, 0), (ids[3], BLKIF_OP_WRITE, 0)]
        );
        for seed in 0..4 {
            let range = seed * 4096..(seed + 1) * 4096;
            assert_eq!(server.disk.state.borrow().data[range], pattern(seed as u8));
        }
        // And it serves on.
        let id = guest.request(BLKIF_OP_READ, 0, &[pages[3].1]);
        server.serve();
        assert_eq!(guest.responses(), [(id, BLKIF_OP_READ, 0)]);
    }
}
