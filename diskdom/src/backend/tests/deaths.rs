//! The backend dies before any one of its writes to what it shares, and lives again.

use proptest::prelude::*;
use unikernel_rt::fake::death;
use unikernel_rt::grant::Access;
use xen_abi::io::blkif::{BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER};

use super::bench::{Guest, Server, pattern};
use crate::backend::turn;
use crate::testing::MemoryDisk;

/// A frontend has so many requests of each kind under way when the backend dies after `writes` writes. Answers whether it died before it was done.
fn live_and_die(writes: u64, requests: usize, garble: bool) -> bool {
    let mut server = Server::new(MemoryDisk::new(4096));
    let mut guest = Guest::new(&server, 5, "nvme0", "w");
    server.start();
    guest.connect(&mut server, false);
    // One round before, so that the record holds an old batch.
    let (page, reference) = guest.page(Access::ReadWrite);
    page.copy_in(0, &pattern(77)).unwrap();
    guest.request(BLKIF_OP_WRITE, 2048, &[reference]);
    server.serve();
    assert_eq!(guest.responses().len(), 1);
    let mut expected = Vec::new();
    let mut pages = Vec::new();
    for number in 0..requests {
        let operation = [
            BLKIF_OP_WRITE,
            BLKIF_OP_READ,
            BLKIF_OP_FLUSH_DISKCACHE,
            BLKIF_OP_WRITE_BARRIER,
        ][number % 4];
        let (page, reference) = guest.page(Access::ReadWrite);
        let sector = number as u64 * 8;
        let id = match operation {
            BLKIF_OP_READ => guest.request(operation, 2048, &[reference]),
            BLKIF_OP_FLUSH_DISKCACHE => guest.request(operation, 0, &[]),
            _ => {
                page.copy_in(0, &pattern(number as u8)).unwrap();
                guest.request(operation, sector, &[reference])
            }
        };
        expected.push((id, operation, 0));
        pages.push(page);
    }
    let died = {
        let bus = server.bus.as_mut().unwrap();
        death::after_writes(writes, || {
            for _ in 0..20 {
                turn(bus).unwrap();
            }
        })
    };
    let before = guest.responses();
    server.kill();
    if garble {
        let region = server.keep.next_life();
        let all = region.area(region.len()).unwrap();
        for at in (0..all.len()).step_by(64) {
            all.copy_in(at, &[0x5a]).unwrap();
        }
    }
    server.start();
    assert_eq!(
        server.node(&guest, "state"),
        "4",
        "{}",
        server.node(&guest, "error")
    );
    server.serve();
    let mut answers = before;
    answers.extend(guest.responses());
    assert_eq!(answers, expected, "death after {writes} writes");
    for (number, page) in pages.iter().enumerate() {
        let mut bytes = vec![0; 4096];
        match number % 4 {
            1 => {
                page.copy_out(0, &mut bytes).unwrap();
                assert_eq!(bytes, pattern(77), "death after {writes} writes");
            }
            2 => continue,
            _ => {
                let range = number * 4096..(number + 1) * 4096;
                assert_eq!(server.disk.state.borrow().data[range], pattern(number as u8));
            }
        }
    }
    let everywhere_else = server.disk.state.borrow().data[requests * 4096..2048 * 512]
        .iter()
        .all(|byte| *byte == 0);
    assert!(everywhere_else, "something was written where nobody asked");
    died
}

#[test]
fn a_backend_may_die_before_any_of_its_writes() {
    for requests in [1, 5, 32] {
        let mut writes = 0;
        while live_and_die(writes, requests, false) {
            writes += 1;
        }
        assert!(writes > 10, "{writes} writes are too few to have been all");
    }
}

#[test]
fn a_garbled_keep_region_costs_nothing_but_the_window() {
    // It dies before it answers, and after it has.
    for writes in [0, 1000] {
        live_and_die(writes, 5, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn it_may_die_several_times(deaths in prop::collection::vec(0u64..120, 1..5)) {
        let mut server = Server::new(MemoryDisk::new(4096));
        let mut guest = Guest::new(&server, 5, "nvme0", "w");
        server.start();
        guest.connect(&mut server, true);
        let mut expected = Vec::new();
        let mut answers = Vec::new();
        for (round, writes) in deaths.into_iter().enumerate() {
            for number in 0..7 {
                let (page, reference) = guest.page(Access::ReadWrite);
                page.copy_in(0, &pattern(round as u8)).unwrap();
                let id = guest.request(BLKIF_OP_WRITE, number * 8, &[reference]);
                expected.push((id, BLKIF_OP_WRITE, 0));
            }
            let bus = server.bus.as_mut().unwrap();
            death::after_writes(writes, || for _ in 0..10 {
                turn(bus).unwrap();
            });
            server.kill();
            // The beginning may be cut short, too.
            death::after_writes(writes % 7, || server.start());
            server.kill();
            server.start();
            server.serve();
            answers.extend(guest.responses());
            prop_assert_eq!(&answers, &expected);
            prop_assert_eq!(&server.disk.state.borrow().data[4096 * 6..4096 * 7], &pattern(round as u8)[..]);
        }
    }
}
