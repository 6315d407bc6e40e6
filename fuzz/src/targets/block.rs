//! What frontends put into block rings, and disks into partition tables.

use std::rc::Rc;

use diskdom::{
    backend::{BlockBackend, turn},
    device::{BlockDevice, Completion, Operation, Pause, Properties, Request, SECTOR, SubmitError, Tag},
    volume::{
        Disks, crc32,
        gpt::{self, Blocks},
    },
};
use unikernel_rt::{
    DomainId,
    event::EventChannels,
    fake::{FakeEvents, FakeGrants, FakeStore},
    grant::{Access, Grants},
    memory::SharedMemory,
    time::{Clock, Instant},
    xenbus::BackendBus,
    xenstore::Store,
};

use crate::Input;

const DISKDOM: DomainId = DomainId(2);
const GUEST: DomainId = DomainId(5);
const SECTORS: u64 = 64;
const FRONTEND: &str = "/local/domain/5/device/vbd/51712";
const BACKEND: &str = "/local/domain/2/backend/vbd/5/51712";

/// A disk that has done everything as soon as it is asked, and complains of what no disk should be asked.
struct Disk {
    properties: Properties,
    done: Vec<Tag>,
}

impl BlockDevice for Disk {
    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn submit(&mut self, request: &Request<'_>, tag: Tag, _: Instant) -> Result<(), SubmitError> {
        self.properties.check(request)?;
        let bytes: u64 = request
            .segments
            .iter()
            .map(|segment| u64::from(segment.length))
            .sum();
        match request.operation {
            Operation::Read | Operation::Write => assert_eq!(bytes, request.sectors * SECTOR),
            Operation::Flush | Operation::Discard => assert_eq!(bytes, 0),
        }
        assert!(
            request
                .first
                .checked_add(request.sectors)
                .is_some_and(|end| end <= SECTORS)
        );
        self.done.push(tag);
        Ok(())
    }
    fn kick(&mut self) {}
    fn poll(&mut self, _: Instant, completions: &mut Vec<Completion>) {
        completions.extend(self.done.drain(..).map(|tag| Completion { tag, result: Ok(()) }));
    }
    fn outstanding(&self) -> usize {
        self.done.len()
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn wall(&self) -> core::time::Duration {
        core::time::Duration::ZERO
    }
}

impl Pause for Still {
    fn pause(&self, _: core::time::Duration) {}
}

/// A frontend that writes its ring as it likes, with a few grants of its own and one that was never given.
pub(crate) fn ring(bytes: &[u8]) {
    let (store, events, grants) = (
        FakeStore::new(DISKDOM),
        FakeEvents::new(DISKDOM),
        FakeGrants::new(DISKDOM),
    );
    let front = (events.as_domain(GUEST), grants.as_domain(GUEST));
    let page = SharedMemory::allocate(1).expect("memory");
    page.store(4, 1).expect("the ring's header");
    page.store(12, 1).expect("the ring's header");
    let reference = front
        .1
        .grant(DISKDOM, &page, 0, Access::ReadWrite)
        .expect("a grant");
    // Grants that the fuzzer's requests are likely to name: 8 and what follows.
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let memory = SharedMemory::allocate(1).expect("memory");
        front.1.grant(DISKDOM, &memory, 0, access).expect("a grant");
    }
    let port = front.0.allocate_unbound(DISKDOM).expect("a port");
    let mut input = Input(bytes);
    let flags = input.byte();
    let persistent = if flags & 1 == 0 { "0" } else { "1" };
    let mode = if flags & 2 == 0 { "w" } else { "r" };
    let (reference, port) = (reference.0.to_string(), port.0.to_string());
    for (home, key, value) in [
        (FRONTEND, "backend", BACKEND),
        (FRONTEND, "backend-id", "2"),
        (FRONTEND, "ring-ref", &*reference),
        (FRONTEND, "event-channel", &*port),
        (FRONTEND, "protocol", "x86_64-abi"),
        (FRONTEND, "feature-persistent", persistent),
        (FRONTEND, "state", "3"),
        (BACKEND, "frontend", FRONTEND),
        (BACKEND, "frontend-id", "5"),
        (BACKEND, "params", "nvme0"),
        (BACKEND, "mode", mode),
        (BACKEND, "online", "1"),
        (BACKEND, "state", "1"),
    ] {
        store.as_domain(GUEST).put(&[(&format!("{home}/{key}"), value)]);
    }
    let clock = Rc::new(Still);
    let disk = Disk {
        properties: Properties {
            sectors: SECTORS,
            logical_block: 512,
            physical_block: 512,
            volatile_cache: true,
            discard: None,
            max_transfer: 1 << 20,
            read_only: false,
        },
        done: Vec::new(),
    };
    let mut disks = Disks::default();
    disks.add("nvme", Box::new(disk), &*clock).expect("a disk");
    let backend = BlockBackend::new(disks, Rc::new(events), Rc::new(grants), clock);
    let mut bus = BackendBus::start(Rc::new(store.clone()), backend).expect("a bus");
    while let Some(event) = store.take_event().expect("the fake answers") {
        bus.handle(&event).expect("the fake answers");
    }
    while input.any() {
        match input.byte() {
            // Indices of the ring's header, and whatever lies in its slots.
            0 => page
                .store(usize::from(input.byte() % 4) * 4, input.word())
                .expect("it lies in the page"),
            slot => {
                let at = 64 + usize::from(slot % 32) * 112;
                page.copy_in(at, &input.array::<112>())
                    .expect("it lies in the page");
                let produced = page.load(0).expect("it lies in the page");
                page.store(0, produced.wrapping_add(1))
                    .expect("it lies in the page");
            }
        }
        for _ in 0..4 {
            let _ = turn(&mut bus);
        }
    }
}

struct Table<'a>(&'a [u8]);

impl Blocks for Table<'_> {
    fn block_size(&self) -> usize {
        512
    }
    fn count(&self) -> u64 {
        SECTORS
    }
    fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), diskdom::device::IoError> {
        into.fill(0);
        let start = usize::try_from(first).unwrap_or(usize::MAX).saturating_mul(512);
        if let Some(bytes) = self.0.get(start..) {
            let length = bytes.len().min(into.len());
            into[..length].copy_from_slice(&bytes[..length]);
        }
        Ok(())
    }
}

/// A disk's first blocks, also with the checksums that they should have.
pub(crate) fn partition_table(bytes: &[u8]) {
    let _ = gpt::read(&mut Table(bytes));
    let mut sealed = bytes.to_vec();
    sealed.resize(bytes.len().max(5 * 512), 0);
    let header = &mut sealed[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    // The entries begin in block 2; how many there are is the fuzzer's to say, within what it has sent.
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    let count = u32::from(header[80] % 9);
    header[80..88].copy_from_slice(&[count.to_le_bytes(), 128_u32.to_le_bytes()].concat());
    let entries = crc32::checksum(&sealed[1024..1024 + count as usize * 128]);
    sealed[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
    sealed[512 + 16..512 + 20].fill(0);
    let header = crc32::checksum(&sealed[512..512 + 92]);
    sealed[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
    let _ = gpt::read(&mut Table(&sealed));
}
