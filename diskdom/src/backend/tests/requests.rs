//! Requests, good and bad.

use proptest::prelude::*;
use unikernel_rt::grant::{Access, GrantRef};
use unikernel_rt::memory::PAGE_SIZE;
use xen_abi::io::blkif::*;
use zerocopy::FromBytes;

use super::bench::{Guest, Server, pattern};
use crate::backend::turn;
use crate::device::{BlockDevice, Operation, Properties};
use crate::testing::MemoryDisk;

fn connected(disk: MemoryDisk, mode: &str, persistent: bool) -> (Server, Guest) {
    let mut server = Server::new(disk);
    let mut guest = Guest::new(&server, 5, "nvme0", mode);
    server.start();
    guest.connect(&mut server, persistent);
    (server, guest)
}

fn status(server: &mut Server, guest: &mut Guest, request: BlkifRequest) -> i16 {
    let id = guest.push(request);
    server.serve();
    let responses = guest.responses();
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].0, id);
    responses[0].2
}

#[test]
fn data_goes_from_page_to_disk_and_back() {
    for persistent in [false, true] {
        let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", persistent);
        let access = if persistent {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        };
        let (from, written) = guest.page(access);
        from.copy_in(0, &pattern(9)).unwrap();
        // Sectors 2 to 5 of the page, to sectors 10 to 13 of the disk.
        let segment = BlkifRequestSegment {
            gref: written.0,
            first_sect: 2,
            last_sect: 5,
            ..Default::default()
        };
        let mut request = BlkifRequest {
            operation: BLKIF_OP_WRITE,
            nr_segments: 1,
            sector_number: 10,
            ..Default::default()
        };
        request.seg[0] = segment;
        assert_eq!(status(&mut server, &mut guest, request), 0);
        assert_eq!(
            server.disk.state.borrow().data[10 * 512..14 * 512],
            pattern(9)[1024..3072]
        );
        assert!(guest.was_notified());
        // The ring, and what stays mapped.
        assert_eq!(server.grants.mapped_pages(), if persistent { 2 } else { 1 });

        let (to, read) = guest.page(Access::ReadWrite);
        request.operation = BLKIF_OP_READ;
        request.seg[0] = BlkifRequestSegment {
            gref: read.0,
            ..segment
        };
        assert_eq!(status(&mut server, &mut guest, request), 0);
        assert_eq!(to.read::<[u8; 2048]>(1024).unwrap()[..], pattern(9)[1024..3072]);
        assert_eq!(to.read::<[u8; 1024]>(0).unwrap(), [0; 1024]);
    }
}

#[test]
fn persistent_grants_are_mapped_once_and_others_each_time() {
    for (persistent, expected) in [(true, 1), (false, 10)] {
        let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", persistent);
        let (_page, reference) = guest.page(Access::ReadWrite);
        let before = server.grants.calls();
        for _ in 0..10 {
            guest.request(BLKIF_OP_READ, 0, &[reference]);
            server.serve();
        }
        assert_eq!(server.grants.calls() - before, expected);
        assert_eq!(guest.responses().len(), 10);
    }
}

#[test]
fn the_pages_of_a_turn_are_mapped_by_one_call() {
    let (mut server, mut guest) = connected(MemoryDisk::new(512), "w", false);
    let pages: Vec<GrantRef> = (0..11).map(|_| guest.page(Access::ReadWrite).1).collect();
    let before = server.grants.calls();
    for _ in 0..20 {
        guest.request(BLKIF_OP_READ, 0, &pages);
    }
    server.serve();
    assert_eq!(server.grants.calls() - before, 1);
    assert_eq!(guest.responses().len(), 20);
    assert_eq!(server.grants.mapped_pages(), 1);
}

#[test]
fn indirect_requests_carry_many_segments() {
    for persistent in [false, true] {
        let (mut server, mut guest) = connected(MemoryDisk::new(2048), "w", persistent);
        let pages: Vec<_> = (0..256).map(|_| guest.page(Access::ReadWrite)).collect();
        let (list, list_reference) = guest.page(Access::ReadWrite);
        for (index, (page, reference)) in pages.iter().enumerate() {
            page.copy_in(0, &pattern(index as u8)).unwrap();
            let segment = BlkifRequestSegment {
                gref: reference.0,
                first_sect: 0,
                last_sect: 7,
                ..Default::default()
            };
            list.write(index * 8, &segment).unwrap();
        }
        let mut request = BlkifRequestIndirect {
            operation: BLKIF_OP_INDIRECT,
            indirect_op: BLKIF_OP_WRITE,
            nr_segments: 256,
            sector_number: 0,
            ..Default::default()
        };
        request.indirect_grefs[0] = list_reference.0;
        let id = guest.push(request.into());
        server.serve();
        assert_eq!(guest.responses(), [(id, BLKIF_OP_WRITE, 0)]);
        for index in 0..256usize {
            let range = index * PAGE_SIZE..(index + 1) * PAGE_SIZE;
            assert_eq!(server.disk.state.borrow().data[range], pattern(index as u8));
        }
        assert_eq!(server.grants.mapped_pages(), if persistent { 258 } else { 1 });
        // A list that nobody granted.
        request.indirect_grefs[0] = 9999;
        assert_eq!(status(&mut server, &mut guest, request.into()), BLKIF_RSP_ERROR);
    }
}

#[test]
fn bad_requests_cost_their_sender_an_error_each() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    let (_page, good) = guest.page(Access::ReadWrite);
    let (_page, read_only) = guest.page(Access::ReadOnly);
    let segment = |gref: GrantRef, first_sect, last_sect| BlkifRequestSegment {
        gref: gref.0,
        first_sect,
        last_sect,
        ..Default::default()
    };
    let request = |operation, sector_number, segment| {
        let mut request = BlkifRequest {
            operation,
            nr_segments: 1,
            sector_number,
            ..Default::default()
        };
        request.seg[0] = segment;
        request
    };
    for (what, request, expected) in [
        (
            "beyond the end",
            request(BLKIF_OP_READ, 57, segment(good, 0, 7)),
            BLKIF_RSP_ERROR,
        ),
        (
            "overflow",
            request(BLKIF_OP_WRITE, u64::MAX, segment(good, 0, 7)),
            BLKIF_RSP_ERROR,
        ),
        (
            "segment",
            request(BLKIF_OP_READ, 0, segment(good, 5, 4)),
            BLKIF_RSP_ERROR,
        ),
        (
            "segment",
            request(BLKIF_OP_READ, 0, segment(good, 0, 8)),
            BLKIF_RSP_ERROR,
        ),
        (
            "grant",
            request(BLKIF_OP_READ, 0, segment(GrantRef(4242), 0, 7)),
            BLKIF_RSP_ERROR,
        ),
        (
            "rights",
            request(BLKIF_OP_READ, 0, segment(read_only, 0, 7)),
            BLKIF_RSP_ERROR,
        ),
        (
            "operation",
            request(77, 0, segment(good, 0, 7)),
            BLKIF_RSP_EOPNOTSUPP,
        ),
        (
            "fine",
            request(BLKIF_OP_WRITE, 0, segment(read_only, 0, 7)),
            BLKIF_RSP_OKAY,
        ),
        (
            "fine",
            request(BLKIF_OP_READ, 56, segment(good, 0, 7)),
            BLKIF_RSP_OKAY,
        ),
    ] {
        assert_eq!(status(&mut server, &mut guest, request), expected, "{what}");
    }
    assert_eq!(server.grants.mapped_pages(), 1);
}

#[test]
fn a_read_only_volume_refuses_writes_and_still_reads() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "r", false);
    let (_page, reference) = guest.page(Access::ReadWrite);
    let ids = [BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, BLKIF_OP_READ]
        .map(|operation| (guest.request(operation, 0, &[reference]), operation));
    server.serve();
    let expected = [BLKIF_RSP_ERROR, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY];
    let expected: Vec<_> = ids
        .iter()
        .zip(expected)
        .map(|(&(id, operation), status)| (id, operation, status))
        .collect();
    assert_eq!(guest.responses(), expected);
}

#[test]
fn blocks_of_4096_bytes_are_not_torn() {
    let disk = MemoryDisk::with(Properties {
        logical_block: 4096,
        ..*MemoryDisk::new(64).properties()
    });
    let (mut server, mut guest) = connected(disk, "w", false);
    assert_eq!(server.node(&guest, "sector-size"), "4096");
    let (_page, reference) = guest.page(Access::ReadWrite);
    let id = guest.request(BLKIF_OP_READ, 1, &[reference]);
    server.serve();
    assert_eq!(guest.responses(), [(id, BLKIF_OP_READ, BLKIF_RSP_ERROR)]);
    let id = guest.request(BLKIF_OP_READ, 8, &[reference]);
    server.serve();
    assert_eq!(guest.responses(), [(id, BLKIF_OP_READ, BLKIF_RSP_OKAY)]);
}

#[test]
fn media_errors_reach_the_frontend() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    server.disk.state.borrow_mut().bad_sector = Some(9);
    let (_page, reference) = guest.page(Access::ReadWrite);
    let ids = [
        guest.request(BLKIF_OP_READ, 8, &[reference]),
        guest.request(BLKIF_OP_READ, 0, &[reference]),
    ];
    server.serve();
    assert_eq!(
        guest.responses(),
        [
            (ids[0], BLKIF_OP_READ, BLKIF_RSP_ERROR),
            (ids[1], BLKIF_OP_READ, 0)
        ]
    );
}

#[test]
fn discards_reach_the_disk_within_bounds() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    server.disk.state.borrow_mut().data.fill(1);
    let discard = |sector_number, nr_sectors| BlkifRequestDiscard {
        operation: BLKIF_OP_DISCARD,
        sector_number,
        nr_sectors,
        ..Default::default()
    };
    assert_eq!(status(&mut server, &mut guest, discard(8, 16).into()), 0);
    assert!(
        server.disk.state.borrow().data[8 * 512..24 * 512]
            .iter()
            .all(|&byte| byte == 0)
    );
    assert_eq!(status(&mut server, &mut guest, discard(8, 0).into()), 0);
    for (sector, sectors) in [(60, 5), (u64::MAX, 2), (0, u64::MAX)] {
        assert_eq!(
            status(&mut server, &mut guest, discard(sector, sectors).into()),
            BLKIF_RSP_ERROR
        );
    }
    let disk = MemoryDisk::with(Properties {
        discard: None,
        ..*MemoryDisk::new(64).properties()
    });
    let (mut server, mut guest) = connected(disk, "w", false);
    assert_eq!(
        status(&mut server, &mut guest, discard(0, 8).into()),
        BLKIF_RSP_EOPNOTSUPP
    );
}

#[test]
fn responses_keep_the_order_of_the_requests() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    server.disk.state.borrow_mut().automatic = false;
    let (_page, reference) = guest.page(Access::ReadWrite);
    for sector in 0..3 {
        guest.request(BLKIF_OP_READ, sector * 8, &[reference]);
    }
    turn(server.bus()).unwrap();
    for (place, answered) in [(2, 0), (0, 1), (0, 2)] {
        server.disk.complete(place);
        turn(server.bus()).unwrap();
        assert_eq!(guest.responses().len(), answered);
    }
}

#[test]
fn a_barrier_is_alone_on_the_disk() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    server.disk.state.borrow_mut().automatic = false;
    let (_page, reference) = guest.page(Access::ReadWrite);
    for (operation, sector) in [
        (BLKIF_OP_WRITE, 0),
        (BLKIF_OP_WRITE_BARRIER, 8),
        (BLKIF_OP_WRITE, 16),
    ] {
        guest.request(operation, sector, &[reference]);
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        turn(server.bus()).unwrap();
        let pending: Vec<_> = server
            .disk
            .state
            .borrow()
            .pending
            .iter()
            .map(|step| (step.0, step.1))
            .collect();
        assert_eq!(pending.len(), 1);
        seen.extend(pending);
        server.disk.complete(0);
    }
    turn(server.bus()).unwrap();
    use Operation::{Flush, Write};
    assert_eq!(
        seen,
        [(Write, 0), (Flush, 0), (Write, 8), (Flush, 0), (Write, 16)]
    );
    assert_eq!(guest.responses().len(), 3);
}

#[test]
fn flushes_go_to_a_cache_and_nowhere_without_one() {
    let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", false);
    let id = guest.request(BLKIF_OP_FLUSH_DISKCACHE, 0, &[]);
    server.serve();
    assert_eq!(guest.responses(), [(id, BLKIF_OP_FLUSH_DISKCACHE, 0)]);
    assert_eq!(server.disk.state.borrow().executed, [(Operation::Flush, 0, 0)]);

    let disk = MemoryDisk::with(Properties {
        volatile_cache: false,
        ..*MemoryDisk::new(64).properties()
    });
    let (mut server, mut guest) = connected(disk, "w", false);
    let id = guest.request(BLKIF_OP_FLUSH_DISKCACHE, 0, &[]);
    server.serve();
    assert_eq!(guest.responses(), [(id, BLKIF_OP_FLUSH_DISKCACHE, 0)]);
    assert_eq!(server.disk.state.borrow().executed, []);
}

#[test]
fn a_disk_without_room_is_waited_for() {
    let (mut server, mut guest) = connected(MemoryDisk::new(512), "w", false);
    server.disk.state.borrow_mut().room = 2;
    let (_page, reference) = guest.page(Access::ReadWrite);
    for sector in 0..32 {
        guest.request(BLKIF_OP_READ, sector * 8, &[reference]);
    }
    for _ in 0..40 {
        turn(server.bus()).unwrap();
    }
    assert_eq!(guest.responses().len(), 32);
}

#[test]
fn a_full_disk_is_shared() {
    let mut server = Server::new(MemoryDisk::new(512));
    let mut guests = [5, 6].map(|id| Guest::new(&server, id, "nvme0", "w"));
    server.start();
    for guest in &mut guests {
        guest.connect(&mut server, false);
    }
    server.disk.state.borrow_mut().room = 1;
    for guest in &mut guests {
        let (_page, reference) = guest.page(Access::ReadWrite);
        for sector in 0..32 {
            guest.request(BLKIF_OP_READ, sector * 8, &[reference]);
        }
    }
    for _ in 0..32 {
        turn(server.bus()).unwrap();
    }
    let [first, second] = guests.map(|mut guest| guest.responses().len());
    assert!(
        first.abs_diff(second) <= 1 && first + second > 30,
        "{first} {second}"
    );
}

#[test]
fn a_frontend_that_names_many_pages_waits_for_its_own_requests() {
    let mut server = Server::new(MemoryDisk::new(2048));
    let mut guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    server.settle();
    guest.offer(16, false);
    server.settle();
    guest.put("state", 4);
    server.settle();
    let (_page, reference) = guest.page(Access::ReadWrite);
    let (list, list_reference) = guest.page(Access::ReadOnly);
    for index in 0..256 {
        let segment = BlkifRequestSegment {
            gref: reference.0,
            first_sect: 0,
            last_sect: 7,
            ..Default::default()
        };
        list.write(index * 8, &segment).unwrap();
    }
    let mut request = BlkifRequestIndirect {
        operation: BLKIF_OP_INDIRECT,
        indirect_op: BLKIF_OP_WRITE,
        nr_segments: 256,
        sector_number: 0,
        ..Default::default()
    };
    request.indirect_grefs[0] = list_reference.0;
    for _ in 0..40 {
        guest.push(request.into());
    }
    server.disk.state.borrow_mut().automatic = false;
    for _ in 0..10 {
        turn(server.bus()).unwrap();
    }
    assert_eq!(server.grants.mapped_pages(), 16 + 4096);
    server.disk.state.borrow_mut().automatic = true;
    for _ in 0..10 {
        turn(server.bus()).unwrap();
    }
    assert_eq!(guest.responses().len(), 40);
}

#[test]
fn notifications_are_suppressed_both_ways() {
    let (mut server, mut guest) = connected(MemoryDisk::new(512), "w", false);
    let (_page, reference) = guest.page(Access::ReadWrite);
    server.serve();
    let mut request = BlkifRequest {
        operation: BLKIF_OP_READ,
        nr_segments: 1,
        ..Default::default()
    };
    request.seg[0] = BlkifRequestSegment {
        gref: reference.0,
        first_sect: 0,
        last_sect: 7,
        ..Default::default()
    };
    guest.was_notified();
    guest.ring.as_mut().unwrap().push(&request).unwrap();
    assert!(guest.publish(), "the backend sleeps");
    guest.ring.as_mut().unwrap().push(&request).unwrap();
    assert!(!guest.publish(), "it was woken already");
    server.serve();
    assert!(guest.was_notified());
    // The guest does not look, so it need not be told again.
    guest.ring.as_mut().unwrap().push(&request).unwrap();
    assert!(guest.publish());
    server.serve();
    assert!(!guest.was_notified());
    assert_eq!(guest.responses().len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a guest puts into its slots, each is answered once, and nothing stays mapped.
    #[test]
    fn any_slots_are_answered(
        slots in prop::collection::vec((prop::collection::vec(any::<u8>(), 112), 0u8..8, 0u8..14), 1..32),
        persistent: bool,
    ) {
        let (mut server, mut guest) = connected(MemoryDisk::new(64), "w", persistent);
        let pages: Vec<_> = (0..8).map(|_| guest.page(Access::ReadWrite)).collect();
        for (mut bytes, operation, count) in slots.clone() {
            (bytes[0], bytes[1]) = (operation, count);
            let mut request = BlkifRequest::read_from_bytes(&bytes).unwrap();
            for segment in &mut request.seg {
                // Mostly plausible, or nothing would get far.
                segment.gref = pages[segment.gref as usize % pages.len()].1.0;
                (segment.first_sect, segment.last_sect) = (segment.first_sect % 9, segment.last_sect % 9);
            }
            if operation != BLKIF_OP_INDIRECT {
                request.sector_number %= 66;
            }
            guest.push(request);
        }
        server.serve();
        prop_assert_eq!(guest.responses().len(), slots.len());
        guest.put("state", 5);
        server.settle();
        prop_assert_eq!(server.grants.mapped_pages(), 0);
    }
}
