//! The driver against the fake controller.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::time::Clock;

use super::command::nvm;
use super::fake::FakeController;
use super::status::Status;
use super::{NamespaceDisk, NvmeError, registers, start};
use crate::device::{
    BlockDevice, Completion, IoError, Operation, Request, SECTOR, Segment, SubmitError, Tag,
};
use crate::testing::TestClock;

struct Bench {
    controller: FakeController,
    clock: Rc<TestClock>,
    cut_off: Rc<Cell<bool>>,
    disks: Vec<NamespaceDisk<FakeController>>,
}

fn try_start(controller: &FakeController) -> (Result<Bench, NvmeError>, Rc<Cell<bool>>) {
    let (clock, cut_off) = (Rc::new(TestClock::default()), Rc::new(Cell::new(false)));
    let flag = cut_off.clone();
    let disks = start(
        "nvme",
        controller.clone(),
        Box::new(move |allowed: bool| flag.set(!allowed)),
        clock.clone(),
    );
    let bench = disks.map(|disks| Bench {
        controller: controller.clone(),
        clock,
        cut_off: cut_off.clone(),
        disks,
    });
    (bench, cut_off)
}

fn bench(namespaces: &[(u64, u8)]) -> Bench {
    try_start(&FakeController::new(namespaces)).0.unwrap()
}

impl Bench {
    fn submit(
        &mut self,
        disk: usize,
        operation: Operation,
        first: u64,
        segments: &[Segment],
        tag: u64,
    ) -> Result<(), SubmitError> {
        let bytes: u64 = segments.iter().map(|segment| u64::from(segment.length)).sum();
        let request = Request {
            operation,
            first,
            sectors: bytes / SECTOR,
            segments,
        };
        self.disks[disk].submit(&request, Tag(tag), self.clock.now())
    }

    fn poll(&mut self, disk: usize) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.disks[disk].kick();
        self.disks[disk].poll(self.clock.now(), &mut completions);
        completions
    }
}

fn done(tag: u64) -> Completion {
    Completion {
        tag: Tag(tag),
        result: Ok(()),
    }
}

fn failed(tag: u64, error: IoError) -> Completion {
    Completion {
        tag: Tag(tag),
        result: Err(error),
    }
}

fn whole(buffer: &DmaBuffer) -> Segment {
    Segment {
        address: buffer.bus_address(),
        length: buffer.len() as u32,
    }
}

fn filled(bytes: usize) -> DmaBuffer {
    let buffer = DmaBuffer::allocate(bytes).unwrap();
    let pattern: Vec<u8> = (0..buffer.len())
        .map(|index| (index / 512 + index) as u8)
        .collect();
    buffer.memory().copy_in(0, &pattern).unwrap();
    buffer
}

fn content(buffer: &DmaBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.memory().copy_out(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn several_namespaces_are_several_disks() {
    let mut bench = bench(&[(64, 9), (32, 12)]);
    let properties: Vec<_> = bench.disks.iter().map(|disk| *disk.properties()).collect();
    assert_eq!((properties[0].sectors, properties[0].logical_block), (64, 512));
    assert_eq!((properties[1].sectors, properties[1].logical_block), (256, 4096));
    assert!(properties[0].volatile_cache && properties[0].discard.is_some());
    assert_eq!(properties[0].max_transfer, 512 << 10);

    let buffer = filled(4096);
    bench
        .submit(1, Operation::Write, 8, &[whole(&buffer)], 1)
        .unwrap();
    assert_eq!(bench.poll(0), []);
    assert_eq!(bench.poll(1), [done(1)]);
    let state = bench.controller.0.borrow();
    assert_eq!(state.namespaces[1].data[4096..8192], content(&buffer));
    assert!(state.namespaces[0].data.iter().all(|&byte| byte == 0));
}

#[test]
fn a_namespace_that_cannot_be_used_is_left_out() {
    let controller = FakeController::new(&[(64, 9), (64, 9), (64, 14)]);
    controller.0.borrow_mut().namespaces[0].metadata = 8;
    let bench = try_start(&controller).0.unwrap();
    assert_eq!(
        bench.disks.iter().map(NamespaceDisk::number).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn blocks_of_4096_bytes_refuse_sectors() {
    let mut bench = bench(&[(32, 12)]);
    let buffer = filled(4096);
    let half = Segment {
        length: 512,
        ..whole(&buffer)
    };
    assert_eq!(
        bench.submit(0, Operation::Read, 8, &[half], 1),
        Err(SubmitError::Refused(IoError::Misaligned {
            first: 8,
            sectors: 1,
            block: 4096
        }))
    );
}

#[test]
fn long_requests_are_split_at_the_largest_transfer() {
    let mut bench = bench(&[(8192, 9)]);
    let (from, to) = (filled(1 << 20), DmaBuffer::allocate(1 << 20).unwrap());
    // Begin within a page: the lists must name one page more.
    let part = |buffer: &DmaBuffer| Segment {
        address: buffer.bus_address() + 512,
        length: buffer.len() as u32 - 1024,
    };
    bench.submit(0, Operation::Write, 3, &[part(&from)], 1).unwrap();
    assert_eq!(bench.poll(0), [done(1)]);
    bench.submit(0, Operation::Read, 3, &[part(&to)], 2).unwrap();
    assert_eq!(bench.poll(0), [done(2)]);
    assert_eq!(
        content(&to)[512..to.len() - 512],
        content(&from)[512..to.len() - 512]
    );
    assert_eq!(
        bench.controller.0.borrow().transferred,
        [512 << 10, (512 << 10) - 1024, 512 << 10, (512 << 10) - 1024]
    );
}

#[test]
fn a_small_limit_of_the_controller_is_kept() {
    let controller = FakeController::new(&[(8192, 9)]);
    controller.0.borrow_mut().max_transfer = 1;
    let mut bench = try_start(&controller).0.unwrap();
    let buffer = filled(65536);
    bench
        .submit(0, Operation::Write, 0, &[whole(&buffer)], 1)
        .unwrap();
    assert_eq!(bench.poll(0), [done(1)]);
    assert_eq!(controller.0.borrow().transferred, [8192; 8]);
}

#[test]
fn flush_and_discard_reach_the_namespace() {
    let mut bench = bench(&[(64, 9)]);
    bench.controller.0.borrow_mut().namespaces[0].data.fill(7);
    bench.submit(0, Operation::Flush, 5, &[], 1).unwrap();
    let request = Request {
        operation: Operation::Discard,
        first: 8,
        sectors: 16,
        segments: &[],
    };
    bench.disks[0]
        .submit(&request, Tag(2), bench.clock.now())
        .unwrap();
    assert_eq!(bench.poll(0), [done(1), done(2)]);
    let state = bench.controller.0.borrow();
    assert_eq!(
        state
            .executed
            .iter()
            .map(|command| command.opcode)
            .collect::<Vec<_>>(),
        [nvm::FLUSH, nvm::DATASET_MANAGEMENT]
    );
    let data = &state.namespaces[0].data;
    assert!(data[8 * 512..24 * 512].iter().all(|&byte| byte == 0));
    assert!(
        data[..8 * 512]
            .iter()
            .chain(&data[24 * 512..])
            .all(|&byte| byte == 7)
    );
}

#[test]
fn completions_come_in_any_order_and_the_phase_wraps() {
    let mut bench = bench(&[(64, 9)]);
    bench.controller.0.borrow_mut().hold = true;
    let buffer = filled(4096);
    // 128 entries: several rounds, in lots that do not divide them.
    for round in 0..50 {
        for tag in 0..11 {
            bench
                .submit(
                    0,
                    Operation::Read,
                    tag,
                    &[Segment {
                        length: 512,
                        ..whole(&buffer)
                    }],
                    round * 100 + tag,
                )
                .unwrap();
        }
        assert_eq!(bench.poll(0), []);
        for _ in 0..11 {
            let last = bench.controller.0.borrow().held.len() - 1;
            bench.controller.execute(last);
        }
        let completions = bench.poll(0);
        assert_eq!(
            completions,
            (0..11)
                .rev()
                .map(|tag| done(round * 100 + tag))
                .collect::<Vec<_>>()
        );
    }
    assert_eq!(bench.controller.0.borrow().overflows, 0);
}

#[test]
fn a_full_queue_keeps_requests_and_then_refuses_them() {
    let mut bench = bench(&[(64, 9)]);
    bench.controller.0.borrow_mut().hold = true;
    let buffer = filled(4096);
    let mut accepted = 0;
    while bench
        .submit(0, Operation::Read, 0, &[whole(&buffer)], accepted)
        .is_ok()
    {
        accepted += 1;
    }
    assert_eq!(accepted, 256);
    bench.poll(0);
    // One entry stays free, or a full queue would look empty.
    assert_eq!(bench.controller.0.borrow().held.len(), 127);
    bench.controller.0.borrow_mut().hold = false;
    let mut seen = 0;
    while seen < 256 {
        while !bench.controller.0.borrow().held.is_empty() {
            bench.controller.execute(0);
        }
        seen += bench.poll(0).len();
    }
    assert_eq!(bench.controller.0.borrow().overflows, 0);
    assert_eq!(bench.disks[0].outstanding(), 0);
}

#[test]
fn errors_are_told_apart() {
    let mut bench = bench(&[(64, 9)]);
    let buffer = filled(4096);
    let statuses = [(2, 0x81), (0, 0x20), (0, 0x01), (0, 0x06)];
    let errors = [
        IoError::Media,
        IoError::ReadOnly,
        IoError::Unsupported,
        IoError::Device,
    ];
    for ((kind, code), error) in statuses.into_iter().zip(errors) {
        bench.controller.0.borrow_mut().failures.push_back(Status {
            kind,
            code,
            do_not_retry: false,
        });
        bench.submit(0, Operation::Read, 0, &[whole(&buffer)], 9).unwrap();
        assert_eq!(bench.poll(0), [failed(9, error)]);
    }
    bench
        .submit(0, Operation::Read, 0, &[whole(&buffer)], 10)
        .unwrap();
    assert_eq!(bench.poll(0), [done(10)]);
}

#[test]
fn unknown_identifiers_are_survived() {
    let mut bench = bench(&[(64, 9)]);
    for identifier in [0, 5, 126, 127, 4000, u16::MAX] {
        bench.controller.complete_unknown(identifier);
    }
    let buffer = filled(4096);
    bench
        .submit(0, Operation::Write, 0, &[whole(&buffer)], 1)
        .unwrap();
    assert_eq!(bench.poll(0), [done(1)]);
}

#[test]
fn a_fatal_status_leads_to_a_reset_and_nothing_is_lost() {
    let mut bench = bench(&[(64, 9)]);
    bench.controller.die();
    let buffer = filled(4096);
    bench
        .submit(0, Operation::Write, 0, &[whole(&buffer)], 1)
        .unwrap();
    bench.submit(0, Operation::Flush, 0, &[], 2).unwrap();
    assert_eq!(bench.poll(0), []);
    bench.clock.advance(Duration::from_secs(1));
    bench.controller.0.borrow_mut().hold = false;
    // The look finds the status; the reset issues anew what was in flight.
    assert_eq!(bench.poll(0), []);
    assert_eq!(bench.poll(0), [done(1), done(2)]);
    assert_eq!(bench.controller.0.borrow().enabled, 2);
    assert_eq!(
        bench.controller.0.borrow().namespaces[0].data[..4096],
        content(&buffer)
    );
}

#[test]
fn a_command_without_an_answer_leads_to_a_reset() {
    let mut bench = bench(&[(64, 9)]);
    bench.controller.0.borrow_mut().hold = true;
    let buffer = filled(4096);
    bench.submit(0, Operation::Read, 0, &[whole(&buffer)], 1).unwrap();
    let mut completions = Vec::new();
    for _ in 0..200 {
        completions.extend(bench.poll(0));
        bench.clock.advance(Duration::from_secs(1));
    }
    // It was tried three times, with a reset after each.
    assert_eq!(completions, [failed(1, IoError::Gone)]);
    assert_eq!(bench.controller.0.borrow().enabled, 4);
}

#[test]
fn a_controller_that_vanishes_fails_everything_and_is_cut_off() {
    let mut bench = bench(&[(64, 9), (64, 9)]);
    bench.controller.0.borrow_mut().hold = true;
    let buffer = filled(4096);
    bench.submit(0, Operation::Read, 0, &[whole(&buffer)], 1).unwrap();
    bench.submit(1, Operation::Read, 0, &[whole(&buffer)], 2).unwrap();
    bench.poll(0);
    bench.controller.0.borrow_mut().absent = true;
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.poll(0), [failed(1, IoError::Gone)]);
    assert_eq!(bench.poll(1), [failed(2, IoError::Gone)]);
    assert!(bench.cut_off.get());
    assert_eq!(
        bench.submit(0, Operation::Flush, 0, &[], 3),
        Err(SubmitError::Refused(IoError::Gone))
    );
}

#[test]
fn controllers_that_do_not_start_say_why() {
    let never = FakeController::new(&[(64, 9)]);
    never.0.borrow_mut().never_ready = true;
    let (outcome, cut_off) = try_start(&never);
    assert_eq!(
        outcome.err(),
        Some(NvmeError::Timeout {
            what: "get ready",
            after: Duration::from_millis(500)
        })
    );
    assert!(!cut_off.get(), "it could be stopped");

    let absent = FakeController::new(&[]);
    absent.0.borrow_mut().absent = true;
    assert_eq!(try_start(&absent).0.err(), Some(NvmeError::Absent));

    let pages = FakeController::new(&[]);
    pages.set(registers::CAPABILITIES + 4, 0x20 | 1 << 16);
    assert_eq!(try_start(&pages).0.err(), Some(NvmeError::PageSize(8192)));

    let other = FakeController::new(&[]);
    other.set(registers::CAPABILITIES + 4, 0);
    assert_eq!(try_start(&other).0.err(), Some(NvmeError::NoNvmCommands));

    let far = FakeController::new(&[]);
    far.set(registers::CAPABILITIES + 4, 0x2f);
    assert!(matches!(
        try_start(&far).0.err(),
        Some(NvmeError::Doorbells { .. })
    ));
}

#[test]
fn an_old_controller_has_no_list_of_namespaces() {
    let controller = FakeController::new(&[(64, 9)]);
    controller.set(registers::VERSION, 0x1_0000);
    assert_eq!(try_start(&controller).0.unwrap().disks.len(), 1);
}
