//! The driver against the fake device.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::time::Clock;
use virtio_drivers::transport::DeviceStatus;

use super::fake::FakeDevice;
use super::{Features, VirtioDisk, VirtioError};
use crate::device::{
    BlockDevice, Completion, DiscardLimits, IoError, Operation, Request, SECTOR, Segment, SubmitError, Tag,
};
use crate::testing::TestClock;

struct Bench {
    clock: Rc<TestClock>,
    cut_off: Rc<Cell<bool>>,
    disk: VirtioDisk<FakeDevice>,
}

fn start(device: &FakeDevice) -> Result<Bench, VirtioError> {
    let (clock, cut_off) = (Rc::new(TestClock::default()), Rc::new(Cell::new(false)));
    let flag = cut_off.clone();
    let cut = Box::new(move || flag.set(true));
    let disk = VirtioDisk::start("virtio", device.clone(), Box::new(|| {}), cut, clock.clone())?;
    Ok(Bench { clock, cut_off, disk })
}

impl Bench {
    fn submit(
        &mut self,
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
        self.disk.submit(&request, Tag(tag), self.clock.now())
    }

    fn poll(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.disk.kick();
        self.disk.poll(self.clock.now(), &mut completions);
        completions
    }
}

fn done(tag: u64) -> Completion {
    Completion {
        tag: Tag(tag),
        result: Ok(()),
    }
}

fn sector_of(buffer: &DmaBuffer, index: u64) -> Segment {
    Segment {
        address: buffer.bus_address() + index * 512,
        length: 512,
    }
}

#[test]
fn data_goes_both_ways_with_and_without_indirect_tables() {
    for indirect in [true, false] {
        let device = FakeDevice::new(4096);
        if !indirect {
            device.0.borrow_mut().features &= !Features::INDIRECT.bits();
        }
        let mut bench = start(&device).unwrap();
        let (from, to) = (
            DmaBuffer::allocate(1 << 18).unwrap(),
            DmaBuffer::allocate(1 << 18).unwrap(),
        );
        let pattern: Vec<u8> = (0..1 << 18)
            .map(|index: usize| (index / 512 + index) as u8)
            .collect();
        from.memory().copy_in(0, &pattern).unwrap();
        // More pieces than a request takes, none beside its neighbour: every second sector, last first.
        let scattered = |buffer: &DmaBuffer| {
            (0..256)
                .rev()
                .map(|index| sector_of(buffer, index * 2))
                .collect::<Vec<_>>()
        };
        bench.submit(Operation::Write, 5, &scattered(&from), 1).unwrap();
        bench.submit(Operation::Flush, 0, &[], 2).unwrap();
        // Without tables there is room for eight requests, so it takes another round.
        assert_eq!([bench.poll(), bench.poll()].concat(), [done(1), done(2)]);
        bench.submit(Operation::Read, 5, &scattered(&to), 3).unwrap();
        assert_eq!([bench.poll(), bench.poll()].concat(), [done(3)]);
        for index in (0..512).step_by(2) {
            let sector: [u8; 512] = to.memory().read(index * 512).unwrap();
            assert_eq!(sector[..], pattern[index * 512..(index + 1) * 512]);
        }
        let requests = device.0.borrow().executed.len();
        assert_eq!(requests, if indirect { 2 + 1 + 2 } else { 9 + 1 + 9 });
    }
}

#[test]
fn the_configuration_becomes_properties() {
    let device = FakeDevice::new(4100);
    device.configure(20, 4096);
    device.configure(24, 1);
    let bench = start(&device).unwrap();
    let properties = bench.disk.properties();
    assert_eq!(
        (
            properties.sectors,
            properties.logical_block,
            properties.physical_block
        ),
        (4096, 4096, 8192)
    );
    assert_eq!(
        properties.discard,
        Some(DiscardLimits {
            granularity: 4096,
            alignment: 0
        })
    );
    assert!(properties.volatile_cache && !properties.read_only);

    device.0.borrow_mut().features = (Features::VERSION_1 | Features::READ_ONLY | Features::INDIRECT).bits();
    let bench = start(&device).unwrap();
    let properties = bench.disk.properties();
    assert_eq!((properties.sectors, properties.logical_block), (4100, 512));
    assert!(properties.read_only && !properties.volatile_cache && properties.discard.is_none());
}

#[test]
fn devices_that_cannot_be_used_say_why() {
    let refused = |change: fn(&FakeDevice)| {
        let device = FakeDevice::new(64);
        change(&device);
        start(&device).err().unwrap()
    };
    assert_eq!(
        refused(|device| device.0.borrow_mut().features = 0),
        VirtioError::Legacy
    );
    assert_eq!(
        refused(|device| device.configure(20, 8192)),
        VirtioError::BlockSize(8192)
    );
    assert_eq!(refused(|device| device.configure(0, 0)), VirtioError::Capacity(0));
    assert_eq!(
        refused(|device| device.0.borrow_mut().max_entries = 0),
        VirtioError::Queue(0)
    );
    assert_eq!(
        refused(|device| {
            let mut state = device.0.borrow_mut();
            (state.stuck, state.status) = (true, DeviceStatus::ACKNOWLEDGE);
        }),
        VirtioError::Reset
    );
}

#[test]
fn discards_are_split_as_the_device_wants() {
    let device = FakeDevice::new(64);
    device.configure(36, 20);
    device.0.borrow_mut().data.fill(1);
    let mut bench = start(&device).unwrap();
    let request = Request {
        operation: Operation::Discard,
        first: 8,
        sectors: 48,
        segments: &[],
    };
    bench.disk.submit(&request, Tag(1), bench.clock.now()).unwrap();
    assert_eq!(bench.poll(), [done(1)]);
    assert_eq!(device.0.borrow().executed.len(), 3);
    let data = &device.0.borrow().data;
    assert!(data[8 * 512..56 * 512].iter().all(|&byte| byte == 0));
    assert!(
        data[..8 * 512]
            .iter()
            .chain(&data[56 * 512..])
            .all(|&byte| byte == 1)
    );
}

#[test]
fn many_rounds_in_any_order() {
    let device = FakeDevice::new(64);
    let mut bench = start(&device).unwrap();
    device.0.borrow_mut().hold = true;
    let buffer = DmaBuffer::allocate(4096).unwrap();
    // The rings' indices wrap at 65536.
    for round in 0..1100u64 {
        for tag in 0..61 {
            bench
                .submit(Operation::Read, tag, &[sector_of(&buffer, 0)], tag)
                .unwrap();
        }
        assert_eq!(bench.poll(), []);
        let mut tags = Vec::new();
        for step in 0..61 {
            let place = (round as usize + step) % device.0.borrow().held.len();
            device.execute(place);
        }
        tags.extend(bench.poll().iter().map(|completion| completion.tag.0));
        tags.sort_unstable();
        assert!(tags.into_iter().eq(0..61));
    }
}

#[test]
fn a_full_queue_keeps_requests_and_then_refuses_them() {
    let device = FakeDevice::new(64);
    let mut bench = start(&device).unwrap();
    device.0.borrow_mut().hold = true;
    let buffer = DmaBuffer::allocate(4096).unwrap();
    let accepted = (0..)
        .take_while(|&tag| {
            bench
                .submit(Operation::Read, 0, &[sector_of(&buffer, 0)], tag)
                .is_ok()
        })
        .count();
    bench.poll();
    assert_eq!((accepted, device.0.borrow().held.len()), (256, 64));
    device.0.borrow_mut().hold = false;
    let mut seen = 0;
    while seen < accepted {
        while !device.0.borrow().held.is_empty() {
            device.execute(0);
        }
        seen += bench.poll().len();
    }
}

#[test]
fn errors_and_nonsense_are_survived() {
    let device = FakeDevice::new(64);
    let mut bench = start(&device).unwrap();
    let buffer = DmaBuffer::allocate(4096).unwrap();
    for (status, error) in [
        (1, IoError::Device),
        (2, IoError::Unsupported),
        (255, IoError::Device),
    ] {
        device.0.borrow_mut().failures.push_back(status);
        bench
            .submit(Operation::Read, 0, &[sector_of(&buffer, 0)], 7)
            .unwrap();
        assert_eq!(
            bench.poll(),
            [Completion {
                tag: Tag(7),
                result: Err(error)
            }]
        );
    }
    for id in [0, 63, 64, 255, u32::MAX] {
        device.give(id);
    }
    assert_eq!(bench.poll(), []);
    bench
        .submit(Operation::Read, 0, &[sector_of(&buffer, 0)], 8)
        .unwrap();
    assert_eq!(bench.poll(), [done(8)]);
}

#[test]
fn a_device_that_asks_is_reset_and_nothing_is_lost() {
    let device = FakeDevice::new(64);
    let mut bench = start(&device).unwrap();
    let buffer = DmaBuffer::allocate(4096).unwrap();
    device.0.borrow_mut().hold = true;
    bench
        .submit(Operation::Write, 0, &[sector_of(&buffer, 0)], 1)
        .unwrap();
    bench.poll();
    device.0.borrow_mut().status |= DeviceStatus::DEVICE_NEEDS_RESET;
    device.0.borrow_mut().hold = false;
    bench.clock.advance(Duration::from_secs(1));
    bench.poll();
    assert_eq!(bench.poll(), [done(1)]);
    assert_eq!(device.0.borrow().started, 2);
}

#[test]
fn a_device_that_does_not_come_back_is_cut_off() {
    let device = FakeDevice::new(64);
    let mut bench = start(&device).unwrap();
    let buffer = DmaBuffer::allocate(4096).unwrap();
    device.0.borrow_mut().hold = true;
    bench
        .submit(Operation::Write, 0, &[sector_of(&buffer, 0)], 1)
        .unwrap();
    bench.poll();
    device.0.borrow_mut().stuck = true;
    bench.clock.advance(Duration::from_secs(31));
    assert_eq!(
        bench.poll(),
        [Completion {
            tag: Tag(1),
            result: Err(IoError::Gone)
        }]
    );
    assert!(bench.cut_off.get());
    assert_eq!(
        bench.submit(Operation::Flush, 0, &[], 2),
        Err(SubmitError::Refused(IoError::Gone))
    );
}
