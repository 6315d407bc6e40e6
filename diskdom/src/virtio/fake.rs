//! A block device in memory behind the transport of `virtio-drivers`, after QEMU's model: 256 descriptors, indirect tables,
//! 254 segments. It reads the queue where it was told that it lies.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use virtio_drivers::PhysAddr;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::features::Features;
use super::queue::{Descriptor, DiscardRange, Header};
use crate::testing::bus;

/// What the test sets, and what it finds.
pub struct FakeState {
    /// What is offered.
    pub features: u64,
    /// The configuration space.
    pub config: [u8; 64],
    /// The longest queue.
    pub max_entries: u32,
    /// The content.
    pub data: Vec<u8>,
    /// Requests wait in `held` until the test executes them.
    pub hold: bool,
    /// Heads of requests that wait.
    pub held: VecDeque<u16>,
    /// Commands that were executed: kind, sector, segments.
    pub executed: Vec<(u32, u64, usize)>,
    /// Status bytes of the next requests; nothing is executed for them.
    pub failures: VecDeque<u8>,
    /// The device's status.
    pub status: DeviceStatus,
    /// How often it was started.
    pub started: u32,
    /// The status cannot be changed any more.
    pub stuck: bool,
    negotiated: u64,
    queue: Option<(u16, [u64; 3])>,
    taken: u16,
    returned: u16,
}

/// The device; clones are the same one.
#[derive(Clone)]
pub struct FakeDevice(pub Rc<RefCell<FakeState>>);

impl FakeDevice {
    /// A disk of so many sectors.
    pub fn new(sectors: u64) -> Self {
        let mut config = [0; 64];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        for (offset, value) in [(12, 254u32), (20, 512), (36, 4_194_303), (40, 1), (44, 8)] {
            config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        Self(Rc::new(RefCell::new(FakeState {
            features: (Features::all()
                - Features::READ_ONLY
                - Features::SIZE_MAX
                - Features::ACCESS_PLATFORM)
                .bits(),
            config,
            max_entries: 256,
            data: vec![0; sectors as usize * 512],
            hold: false,
            held: VecDeque::new(),
            executed: Vec::new(),
            failures: VecDeque::new(),
            status: DeviceStatus::empty(),
            started: 0,
            stuck: false,
            negotiated: 0,
            queue: None,
            taken: 0,
            returned: 0,
        })))
    }

    /// Sets four bytes of the configuration space.
    pub fn configure(&self, offset: usize, value: u32) {
        self.0.borrow_mut().config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Executes a request that was held back.
    pub fn execute(&self, place: usize) {
        let mut state = self.0.borrow_mut();
        let head = state.held.remove(place).expect("there is such a request");
        state.finish(head);
    }

    /// Returns something that was not given.
    pub fn give(&self, id: u32) {
        self.0.borrow_mut().give(id);
    }
}

impl FakeState {
    fn doorbell(&mut self) {
        let Some((entries, [_, available, _])) = self.queue else {
            panic!("notified without a queue")
        };
        let index: u16 = bus::read_value(available + 2);
        while self.taken != index {
            let head = bus::read_value(available + 4 + u64::from(self.taken % entries) * 2);
            self.taken = self.taken.wrapping_add(1);
            if self.hold {
                self.held.push_back(head);
            } else {
                self.finish(head);
            }
        }
    }

    /// Follows a chain.
    fn chain(&self, head: u16) -> Vec<Descriptor> {
        let Some((entries, [descriptors, ..])) = self.queue else {
            return Vec::new();
        };
        let read = |table: u64, index: u16| -> Descriptor { bus::read_value(table + u64::from(index) * 16) };
        let first = read(descriptors, head);
        let (table, mut next, bound) = if first.flags & 4 != 0 {
            assert_ne!(self.negotiated & Features::INDIRECT.bits(), 0);
            (first.address, 0, (first.length / 16) as u16)
        } else {
            (descriptors, head, entries)
        };
        let mut chain = Vec::new();
        loop {
            assert!(
                next < bound && chain.len() < usize::from(entries),
                "the chain leaves its table"
            );
            let descriptor = read(table, next);
            chain.push(descriptor);
            if descriptor.flags & 1 == 0 {
                return chain;
            }
            next = descriptor.next;
        }
    }

    fn finish(&mut self, head: u16) {
        let chain = self.chain(head);
        let [first, data @ .., last] = &chain[..] else {
            panic!("a chain of one")
        };
        assert_eq!((first.length, first.flags & 2), (16, 0));
        assert_eq!((last.length, last.flags & 2), (1, 2));
        let header: Header = bus::read_value(first.address);
        let status = match self.failures.pop_front() {
            Some(status) => status,
            None => self.execute(&header, data),
        };
        bus::write(last.address, &[status]);
        self.give(head.into());
    }

    fn execute(&mut self, header: &Header, data: &[Descriptor]) -> u8 {
        self.executed.push((header.kind, header.sector, data.len()));
        let mut at = header.sector as usize * 512;
        match header.kind {
            0 | 1 => {
                for part in data {
                    let range = at..at + part.length as usize;
                    let Some(sectors) = self.data.get_mut(range.clone()) else {
                        return 1;
                    };
                    if header.kind == 0 {
                        assert_eq!(part.flags & 2, 2);
                        bus::write(part.address, sectors);
                    } else {
                        assert_eq!(part.flags & 2, 0);
                        sectors.copy_from_slice(&bus::read(part.address, sectors.len()));
                    }
                    at = range.end;
                }
                0
            }
            4 => 0,
            11 => {
                let range: DiscardRange = bus::read_value(data[0].address);
                let start = range.sector as usize * 512;
                self.data[start..start + range.sectors as usize * 512].fill(0);
                0
            }
            _ => 2,
        }
    }

    fn give(&mut self, id: u32) {
        let Some((entries, [.., used])) = self.queue else {
            return;
        };
        let element = used + 4 + u64::from(self.returned % entries) * 8;
        bus::write(element, [id, 1].as_bytes());
        self.returned = self.returned.wrapping_add(1);
        bus::write(used + 2, &self.returned.to_le_bytes());
    }
}

impl Transport for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().features
    }

    fn write_driver_features(&mut self, features: u64) {
        let mut state = self.0.borrow_mut();
        assert_eq!(features & !state.features, 0);
        state.negotiated = features;
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.0.borrow().max_entries
    }

    fn notify(&mut self, _queue: u16) {
        self.0.borrow_mut().doorbell();
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.borrow().status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let mut state = self.0.borrow_mut();
        if state.stuck {
            return;
        }
        if status == DeviceStatus::empty() {
            (state.queue, state.taken, state.returned) = (None, 0, 0);
            state.held.clear();
        }
        state.started += u32::from(status.contains(DeviceStatus::DRIVER_OK));
        state.status = status;
    }

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        _queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        assert_eq!((descriptors % 16, driver % 2, device % 4), (0, 0, 0));
        self.0.borrow_mut().queue = Some((size as u16, [descriptors, driver, device]));
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, _queue: u16) -> bool {
        self.0.borrow().queue.is_some()
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> virtio_drivers::Result<V> {
        let state = self.0.borrow();
        let bytes = state
            .config
            .get(offset..offset + size_of::<V>())
            .ok_or(virtio_drivers::Error::ConfigSpaceTooSmall)?;
        V::read_from_bytes(bytes).map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<V: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: V,
    ) -> virtio_drivers::Result<()> {
        Ok(())
    }
}
