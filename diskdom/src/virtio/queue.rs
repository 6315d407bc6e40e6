//! The queue: a split virtqueue (VIRTIO 1.2, section 2.7) whose requests have fixed places.
//!
//! Request `n` owns page `n` of a buffer, with its header, its status byte and, where the device knows indirect descriptors, its
//! table; it always uses the same descriptors. So nothing is allocated on the way of a request, and what the
//! device returns is compared with what it was given.

use core::sync::atomic::{Ordering, fence};

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::memory::{MemoryError, PAGE_SIZE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::Segment;

/// Requests in flight at most.
const REQUESTS: u16 = 64;
/// Descriptors of a queue at most.
const MAX_ENTRIES: u16 = 256;
/// Descriptors of one request without indirect tables.
const DIRECT_CHAIN: u16 = 32;

// Where things lie in a request's page.
const HEADER: usize = 0;
const RANGE: usize = 16;
const STATUS: usize = 32;
const TABLE: usize = 64;
/// Descriptors of a request's table.
const TABLE_ENTRIES: usize = (PAGE_SIZE - TABLE) / size_of::<Descriptor>();

const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
const INDIRECT: u16 = 4;
/// In the used ring's flags: the device need not be notified.
const NO_NOTIFY: u32 = 1;

/// A descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Descriptor {
    /// Bus address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// `NEXT`, `DEVICE_WRITES`, `INDIRECT`.
    pub flags: u16,
    /// The next one.
    pub next: u16,
}

/// What a request begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// The command.
    pub kind: u32,
    /// Reserved.
    pub reserved: u32,
    /// The first sector.
    pub sector: u64,
}

/// The data of a discard.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DiscardRange {
    /// The first sector.
    pub sector: u64,
    /// How many.
    pub sectors: u32,
    /// 0.
    pub flags: u32,
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// Memory that the device reads.
    ToDevice(&'a [Segment]),
    /// Memory that the device writes.
    FromDevice(&'a [Segment]),
    /// A range to discard.
    Range(DiscardRange),
}

/// What the device returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// A request, with its status byte.
    Request(u16, u8),
    /// Something that names no request.
    Unknown(u32),
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    rings: DmaBuffer,
    pages: DmaBuffer,
    entries: u16,
    /// Requests that it has places for.
    requests: u16,
    /// Descriptors from one request to the next.
    stride: u16,
    indirect: bool,
    available: u16,
    used: u16,
    /// Requests were added that the device was not told of.
    added: bool,
}

impl Queue {
    /// A queue for a device that takes up to `max_entries` descriptors; `None` if that is too few.
    pub fn allocate(max_entries: u32, indirect: bool) -> Result<Option<Self>, MemoryError> {
        let entries = max_entries.min(MAX_ENTRIES.into()) as u16;
        if entries < 4 {
            return Ok(None);
        }
        // A split queue has a power of two.
        let entries = 1 << entries.ilog2();
        let stride = if indirect { 1 } else { DIRECT_CHAIN.min(entries) };
        let requests = REQUESTS.min(entries / stride);
        let queue = Self {
            rings: DmaBuffer::allocate(used_offset(entries) + 4 + 8 * usize::from(entries))?,
            pages: DmaBuffer::allocate(usize::from(requests) * PAGE_SIZE)?,
            entries,
            requests,
            stride,
            indirect,
            available: 0,
            used: 0,
            added: false,
        };
        Ok(Some(queue))
    }

    /// Makes the queue new, for a device that was reset.
    pub fn reset(&mut self) -> Result<(), MemoryError> {
        self.rings.memory().fill(0, self.rings.len(), 0)?;
        (self.available, self.used, self.added) = (0, 0, false);
        Ok(())
    }

    /// The number of descriptors.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// How many requests may be in flight; they are numbered from 0.
    pub fn requests(&self) -> u16 {
        self.requests
    }

    /// The longest chain of a request: header and status included, and no longer than the queue.
    pub fn chain(&self) -> usize {
        let room = if self.indirect {
            TABLE_ENTRIES
        } else {
            self.stride.into()
        };
        room.min(self.entries.into())
    }

    /// Bus addresses of descriptors, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        let base = self.rings.bus_address();
        [
            base,
            base + available_offset(self.entries) as u64,
            base + used_offset(self.entries) as u64,
        ]
    }

    /// Adds a request at a place that is free. The payload must fit the chain.
    pub fn add(&mut self, request: u16, header: &Header, payload: Payload<'_>) -> Result<(), MemoryError> {
        let page = usize::from(request) * PAGE_SIZE;
        let page_address = self.pages.bus_address() + page as u64;
        let part = |offset: usize, length: usize, flags| Descriptor {
            address: page_address + offset as u64,
            length: length as u32,
            flags,
            next: 0,
        };
        let pages = self.pages.memory();
        pages.write(page + HEADER, header)?;
        // A status that no device writes: one that completes without writing it has failed.
        pages.write(page + STATUS, &u8::MAX)?;

        let mut chain = Chain {
            queue: self,
            request,
            length: 0,
        };
        chain.push(part(HEADER, size_of::<Header>(), NEXT))?;
        let (segments, flags): (&[Segment], u16) = match payload {
            Payload::None => (&[], 0),
            Payload::ToDevice(segments) => (segments, NEXT),
            Payload::FromDevice(segments) => (segments, NEXT | DEVICE_WRITES),
            Payload::Range(range) => {
                chain.queue.pages.memory().write(page + RANGE, &range)?;
                chain.push(part(RANGE, size_of::<DiscardRange>(), NEXT))?;
                (&[], 0)
            }
        };
        for &Segment { address, length } in segments {
            chain.push(Descriptor {
                address,
                length,
                flags,
                next: 0,
            })?;
        }
        chain.push(part(STATUS, 1, DEVICE_WRITES))?;
        let length = chain.length;

        let head = request * self.stride;
        if self.indirect {
            let table = part(TABLE, length * size_of::<Descriptor>(), INDIRECT);
            self.rings
                .memory()
                .write(usize::from(head) * size_of::<Descriptor>(), &table)?;
        }
        let slot = usize::from(self.available % self.entries);
        let available = available_offset(self.entries);
        self.rings.memory().write(available + 4 + slot * 2, &head)?;
        self.available = self.available.wrapping_add(1);
        // Flags (0: do interrupt) and index in one word: it must not be seen half written.
        self.rings
            .memory()
            .store(available, u32::from(self.available) << 16)?;
        self.added = true;
        Ok(())
    }

    /// Whether the device is to be notified of what was added.
    pub fn needs_notify(&mut self) -> Result<bool, MemoryError> {
        if !core::mem::take(&mut self.added) {
            return Ok(false);
        }
        // The device must see the index before we see whether it wants to hear of it.
        fence(Ordering::SeqCst);
        Ok(self.rings.memory().load(used_offset(self.entries))? & NO_NOTIFY == 0)
    }

    /// Takes the next thing that the device returned.
    pub fn pop(&mut self) -> Result<Option<Used>, MemoryError> {
        let used = used_offset(self.entries);
        let memory = self.rings.memory();
        let index = (memory.load(used)? >> 16) as u16;
        if index == self.used {
            return Ok(None);
        }
        let slot = usize::from(self.used % self.entries);
        let id: u32 = memory.read(used + 4 + slot * 8)?;
        self.used = self.used.wrapping_add(1);
        let stride = u32::from(self.stride);
        if !id.is_multiple_of(stride) || id / stride >= u32::from(self.requests) {
            return Ok(Some(Used::Unknown(id)));
        }
        let request = (id / stride) as u16;
        let status = self
            .pages
            .memory()
            .read(usize::from(request) * PAGE_SIZE + STATUS)?;
        Ok(Some(Used::Request(request, status)))
    }
}

/// A chain of descriptors that grows: in the request's table, or among its descriptors.
struct Chain<'a> {
    queue: &'a Queue,
    request: u16,
    length: usize,
}

impl Chain<'_> {
    fn push(&mut self, mut descriptor: Descriptor) -> Result<(), MemoryError> {
        let queue = self.queue;
        let size = size_of::<Descriptor>();
        if self.length >= queue.chain() {
            return Err(MemoryError::OutOfBounds {
                offset: self.length * size,
                length: size,
                size: queue.chain() * size,
            });
        }
        let (memory, base, first) = if queue.indirect {
            (
                queue.pages.memory(),
                usize::from(self.request) * PAGE_SIZE + TABLE,
                0,
            )
        } else {
            let first = self.request * queue.stride;
            (queue.rings.memory(), usize::from(first) * size, first)
        };
        if descriptor.flags & NEXT != 0 {
            descriptor.next = first + self.length as u16 + 1;
        }
        memory.write(base + self.length * size, &descriptor)?;
        self.length += 1;
        Ok(())
    }
}

/// The available ring follows the descriptors.
fn available_offset(entries: u16) -> usize {
    usize::from(entries) * size_of::<Descriptor>()
}

/// The used ring begins at the next multiple of four behind the available ring (and its unused event field).
fn used_offset(entries: u16) -> usize {
    (available_offset(entries) + 6 + 2 * usize::from(entries)).next_multiple_of(4)
}
