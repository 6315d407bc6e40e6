//! A diskdom and a guest on fakes: xenstore, grants, event channels, a disk in memory.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use unikernel_rt::DomainId;
use unikernel_rt::event::{EventChannels, Port};
use unikernel_rt::fake::{FakeEvents, FakeGrants, FakeStore};
use unikernel_rt::grant::{Access, GrantRef, Grants};
use unikernel_rt::keep::Keep;
use unikernel_rt::memory::{PAGE_SIZE, SharedMemory};
use unikernel_rt::ring::FrontRing;
use unikernel_rt::xenbus::BackendBus;
use unikernel_rt::xenstore::Store;
use xen_abi::io::blkif::{BlkifRequest, BlkifRequestSegment, BlkifResponse};

use crate::backend::{BlockBackend, turn};
use crate::device::BlockDevice;
use crate::testing::{MemoryDisk, TestClock};
use crate::volume::Disks;

pub const DISKDOM: DomainId = DomainId(2);

/// The driver domain.
pub struct Server {
    pub store: FakeStore,
    pub events: FakeEvents,
    pub grants: FakeGrants,
    pub bus: Option<BackendBus<BlockBackend>>,
    pub disk: MemoryDisk,
    /// What its lives hand on.
    pub keep: Keep,
}

impl Server {
    /// A domain with a disk `nvme0` that has not started yet.
    pub fn new(disk: MemoryDisk) -> Self {
        Self {
            store: FakeStore::new(DISKDOM),
            events: FakeEvents::new(DISKDOM),
            grants: FakeGrants::new(DISKDOM),
            bus: None,
            disk,
            keep: Keep::fake(16),
        }
    }

    /// Starts the domain, or starts it again.
    pub fn start(&mut self) {
        let held = core::mem::replace(&mut self.disk.state.borrow_mut().automatic, true);
        self.start_with(vec![Box::new(self.disk.clone())]);
        self.disk.state.borrow_mut().automatic = held;
        self.disk.state.borrow_mut().executed.clear();
    }

    /// Starts the domain with disks `nvme0` and so on.
    pub fn start_with(&mut self, devices: Vec<Box<dyn BlockDevice>>) {
        let clock = Rc::new(TestClock::default());
        let mut disks = Disks::default();
        for device in devices {
            disks.add("nvme", device, &*clock).unwrap();
        }
        let backend = BlockBackend::new(
            disks,
            Rc::new(self.events.clone()),
            Rc::new(self.grants.clone()),
            clock,
        )
        .with_keep(&self.keep.next_life());
        self.bus = Some(BackendBus::start(Rc::new(self.store.clone()), backend).unwrap());
    }

    /// The domain dies: its memory is gone, its mappings are ended, its ports closed.
    pub fn kill(&mut self) {
        self.bus = None;
        self.store.disconnect();
        self.events.kill();
        self.disk.state.borrow_mut().pending.clear();
    }

    pub fn bus(&mut self) -> &mut BackendBus<BlockBackend> {
        self.bus.as_mut().unwrap()
    }

    /// Handles what xenstore has to say.
    pub fn settle(&mut self) {
        let store = self.store.clone();
        while let Some(event) = store.take_event().unwrap() {
            self.bus().handle(&event).unwrap();
        }
    }

    /// Turns until there is nothing to do.
    pub fn serve(&mut self) {
        self.settle();
        for _ in 0..100 {
            if !turn(self.bus()).unwrap() && self.disk.state.borrow().pending.is_empty() {
                break;
            }
        }
        turn(self.bus()).unwrap();
    }

    pub fn node(&self, guest: &Guest, key: &str) -> String {
        self.store.get(&format!("{}/{key}", guest.backend))
    }
}

/// A guest with one disk.
pub struct Guest {
    pub store: FakeStore,
    pub events: FakeEvents,
    pub grants: FakeGrants,
    pub frontend: String,
    pub backend: String,
    pub ring: Option<FrontRing<BlkifRequest, BlkifResponse>>,
    pub ring_memory: Option<SharedMemory>,
    pub port: Option<Port>,
    next_id: u64,
}

impl Guest {
    /// What the toolstack lays out.
    pub fn new(server: &Server, id: u16, volume: &str, mode: &str) -> Self {
        let id = DomainId(id);
        let frontend = format!("/local/domain/{}/device/vbd/51712", id.0);
        let backend = format!("/local/domain/{}/backend/vbd/{}/51712", DISKDOM.0, id.0);
        let store = server.store.as_domain(id);
        for (key, value) in [
            ("backend", &*backend),
            ("backend-id", "2"),
            ("virtual-device", "51712"),
            ("state", "1"),
        ] {
            store.put(&[(&format!("{frontend}/{key}"), value)]);
        }
        let peer = format!("{}", id.0);
        for (key, value) in [
            ("frontend-id", &*peer),
            ("params", volume),
            ("mode", mode),
            ("online", "1"),
            ("state", "1"),
            ("frontend", &*frontend),
        ] {
            store.put(&[(&format!("{backend}/{key}"), value)]);
        }
        Self {
            store,
            events: server.events.as_domain(id),
            grants: server.grants.as_domain(id),
            frontend,
            backend,
            ring: None,
            ring_memory: None,
            port: None,
            next_id: 100,
        }
    }

    pub fn put(&self, key: &str, value: impl core::fmt::Display) {
        self.store
            .put(&[(&format!("{}/{key}", self.frontend), &format!("{value}"))]);
    }

    /// Makes a ring of pages and shows it.
    pub fn offer(&mut self, pages: usize, persistent: bool) {
        let memory = SharedMemory::allocate(pages).unwrap();
        self.ring = Some(FrontRing::create(memory.clone()).unwrap());
        for page in 0..pages {
            let reference = self
                .grants
                .grant(DISKDOM, &memory, page, Access::ReadWrite)
                .unwrap();
            if pages == 1 {
                self.put("ring-ref", reference.0);
            } else {
                self.put(&format!("ring-ref{page}"), reference.0);
            }
        }
        if pages > 1 {
            self.put("ring-page-order", pages.ilog2());
        }
        let port = self.events.allocate_unbound(DISKDOM).unwrap();
        self.put("event-channel", port.0);
        self.put("protocol", "x86_64-abi");
        self.put("feature-persistent", u32::from(persistent));
        self.put("state", 3);
        (self.port, self.ring_memory) = (Some(port), Some(memory));
    }

    /// Offers a ring and is connected.
    pub fn connect(&mut self, server: &mut Server, persistent: bool) {
        server.settle();
        self.offer(1, persistent);
        server.settle();
        assert_eq!(server.node(self, "state"), "4", "{}", server.node(self, "error"));
        self.put("state", 4);
        server.settle();
    }

    /// Grants a page of new memory.
    pub fn page(&self, access: Access) -> (SharedMemory, GrantRef) {
        let memory = SharedMemory::allocate(1).unwrap();
        let reference = self.grants.grant(DISKDOM, &memory, 0, access).unwrap();
        (memory, reference)
    }

    /// Puts a request on the ring with an id of its own; answers the id.
    pub fn push(&mut self, mut request: BlkifRequest) -> u64 {
        self.next_id += 1;
        // All three forms have the id at the same place.
        request.id = self.next_id;
        self.ring.as_mut().unwrap().push(&request).unwrap();
        self.publish();
        self.next_id
    }

    /// Shows the backend what was pushed.
    pub fn publish(&mut self) -> bool {
        self.ring.as_mut().unwrap().publish().unwrap()
    }

    /// Puts a request for whole pages on the ring.
    pub fn request(&mut self, operation: u8, sector: u64, pages: &[GrantRef]) -> u64 {
        let mut request = BlkifRequest {
            operation,
            nr_segments: pages.len() as u8,
            sector_number: sector,
            ..Default::default()
        };
        for (segment, page) in request.seg.iter_mut().zip(pages) {
            *segment = BlkifRequestSegment {
                gref: page.0,
                first_sect: 0,
                last_sect: 7,
                ..Default::default()
            };
        }
        self.push(request)
    }

    /// The responses that have come: id, operation, status.
    pub fn responses(&mut self) -> Vec<(u64, u8, i16)> {
        let ring = self.ring.as_mut().unwrap();
        let responses = core::iter::from_fn(|| ring.pop().unwrap());
        let responses = responses
            .map(|response| (response.id, response.operation, response.status))
            .collect();
        assert!(!ring.final_check().unwrap());
        responses
    }

    /// Whether the backend has notified since the last question.
    pub fn was_notified(&self) -> bool {
        self.events.poll().contains(self.port.unwrap())
    }
}

/// Bytes that tell pages apart.
pub fn pattern(seed: u8) -> Vec<u8> {
    (0..PAGE_SIZE).map(|index| (index / 7) as u8 ^ seed).collect()
}
