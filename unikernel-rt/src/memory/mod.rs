//! Memory that somebody else writes while we look at it: pages of rings, granted pages, buffers of devices.
//!
//! The promise: no Rust reference to such bytes ever exists. What is in them leaves by a copy, each byte read once; checks
//! and use then look at the copy. Indices are read and written as atomics. An offset that does not fit is an error,
//! since offsets may have come from a peer.
#![allow(unsafe_code)] // Raw pointers are what this module wraps.

mod copy;
pub(crate) mod gaps;

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::rc::Rc;
use core::alloc::Layout;
use core::any::Any;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The size of a page in every interface of Xen, and of ours.
pub const PAGE_SIZE: usize = 4096;

/// An access that the memory cannot serve.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// The range does not lie in the memory.
    #[error("{length} bytes at offset {offset:#x} do not lie in shared memory of {size:#x} bytes")]
    OutOfBounds {
        /// Where the access begins.
        offset: usize,
        /// How long it is.
        length: usize,
        /// How long the memory is.
        size: usize,
    },
    /// An index does not lie on a multiple of its size.
    #[error("the index at offset {offset:#x} is not aligned")]
    Misaligned {
        /// Where the access begins.
        offset: usize,
    },
    /// No memory of our own is left.
    #[error("no memory is left for {pages} pages")]
    Exhausted {
        /// How many pages were asked for.
        pages: usize,
    },
}

/// Where the bytes lie. Scattered pages occur in the fakes only; on the machine everything is contiguous.
#[derive(Clone)]
enum Place {
    Contiguous(NonNull<u8>),
    Pages(Rc<[NonNull<u8>]>),
}

/// A range of shared bytes. Clones refer to the same bytes; the last one gives them back (frees the pages, ends the
/// mapping), so no clone can outlive what it refers to.
#[derive(Clone)]
pub struct SharedMemory {
    place: Place,
    length: usize,
    keeper: Option<Rc<dyn Any>>,
}

impl SharedMemory {
    /// Takes pages of our own heap, zeroed, contiguous and page-aligned: to be granted to a peer, or given to a device.
    pub fn allocate(pages: usize) -> Result<Self, MemoryError> {
        let owner = Pages::allocate(pages).ok_or(MemoryError::Exhausted { pages })?;
        Ok(Self {
            place: Place::Contiguous(owner.base),
            length: owner.layout.size(),
            keeper: Some(Rc::new(owner)),
        })
    }

    /// Wraps `length` bytes at `base`. `keeper` is dropped with the last clone; a mapping's keeper unmaps.
    ///
    /// # Safety
    /// Until `keeper` is dropped (for ever if there is none), the bytes must be mapped, readable and writable, and no Rust
    /// reference may be made to them.
    pub unsafe fn from_raw(base: NonNull<u8>, length: usize, keeper: Option<Rc<dyn Any>>) -> Self {
        Self {
            place: Place::Contiguous(base),
            length,
            keeper,
        }
    }

    /// Puts whole pages that lie anywhere in a row. Each part is a multiple of [`PAGE_SIZE`] long; the rest of a longer
    /// one is left out. Meant for fakes of mappings.
    pub fn gather(parts: &[SharedMemory]) -> Self {
        let mut pages = alloc::vec::Vec::new();
        for part in parts {
            for page in 0..part.length / PAGE_SIZE {
                pages.push(part.pointer_in_bounds(page * PAGE_SIZE));
            }
        }
        let length = pages.len() * PAGE_SIZE;
        Self {
            place: Place::Pages(pages.into()),
            length,
            keeper: Some(Rc::new(parts.to_vec())),
        }
    }

    /// The same bytes, with something more that is dropped once nobody refers to them this way: how a fake counts its mappings.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn kept_by(self, more: Rc<dyn Any>) -> Self {
        let keeper: Rc<dyn Any> = Rc::new((self.keeper.clone(), more));
        Self {
            keeper: Some(keeper),
            ..self
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number of whole pages.
    pub fn pages(&self) -> usize {
        self.length / PAGE_SIZE
    }

    /// A part of this memory. The first byte of a part of scattered memory must begin a page.
    pub fn part(&self, offset: usize, length: usize) -> Result<Self, MemoryError> {
        self.check(offset, length)?;
        let place = match &self.place {
            // SAFETY: `check` proved that the offset lies in the range, so the pointer stays in its allocation.
            Place::Contiguous(base) => Place::Contiguous(unsafe { base.add(offset) }),
            Place::Pages(_) if !offset.is_multiple_of(PAGE_SIZE) => {
                return Err(MemoryError::Misaligned { offset });
            }
            Place::Pages(pages) => Place::Pages(pages[offset / PAGE_SIZE..].into()),
        };
        Ok(Self {
            place,
            length,
            keeper: self.keeper.clone(),
        })
    }

    /// The address of a byte, for drivers that hand memory to a device or to the hypervisor. Dereferencing it is up to
    /// the caller's `unsafe`; a reference must not be made of it.
    pub fn address(&self, offset: usize) -> Result<NonNull<u8>, MemoryError> {
        self.check(offset, 1)?;
        Ok(self.pointer_in_bounds(offset))
    }

    /// Copies a value out. The copy is what the caller checks and uses.
    pub fn read<T: FromBytes>(&self, offset: usize) -> Result<T, MemoryError> {
        let size = size_of::<T>();
        self.check(offset, size)?;
        let mut value = MaybeUninit::<T>::uninit();
        let target = value.as_mut_ptr().cast::<u8>();
        self.for_each_chunk(offset, size, |done, shared, length| {
            // SAFETY: `check` proved the shared range, which stays mapped while `self` lives; `done + length` is at most
            // the size of `value`, which is ours alone.
            unsafe { copy::from_shared(shared, target.add(done), length) }
        });
        // SAFETY: every byte was written above, and `T: FromBytes` accepts any bytes.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies a value in.
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> Result<(), MemoryError> {
        self.copy_in(offset, value.as_bytes())
    }

    /// Copies bytes out.
    pub fn copy_out(&self, offset: usize, target: &mut [u8]) -> Result<(), MemoryError> {
        self.check(offset, target.len())?;
        let base = target.as_mut_ptr();
        self.for_each_chunk(offset, target.len(), |done, shared, length| {
            // SAFETY: as in `read`; `done + length` is at most the length of `target`, which is borrowed for us alone.
            unsafe { copy::from_shared(shared, base.add(done), length) }
        });
        Ok(())
    }

    /// Copies bytes in.
    pub fn copy_in(&self, offset: usize, source: &[u8]) -> Result<(), MemoryError> {
        self.check(offset, source.len())?;
        #[cfg(any(test, feature = "fake"))]
        if crate::fake::death::awaited() && source.len() > 8 {
            // As the processor writes: a death finds any part of it done.
            for (piece, at) in source.chunks(8).zip((offset..).step_by(8)) {
                self.copy_in(at, piece)?;
            }
            return Ok(());
        }
        #[cfg(any(test, feature = "fake"))]
        crate::fake::death::step();
        let base = source.as_ptr();
        self.for_each_chunk(offset, source.len(), |done, shared, length| {
            // SAFETY: `check` proved the shared range; `done + length` is at most the length of `source`.
            unsafe { copy::to_shared(base.add(done), shared, length) }
        });
        Ok(())
    }

    /// Copies bytes to other shared memory. The ranges must not overlap, or the target's content is unspecified.
    pub fn copy_to(
        &self,
        offset: usize,
        target: &SharedMemory,
        target_offset: usize,
        length: usize,
    ) -> Result<(), MemoryError> {
        self.check(offset, length)?;
        target.check(target_offset, length)?;
        self.for_each_chunk(offset, length, |done, source, part| {
            target.for_each_chunk(target_offset + done, part, |further, shared, length| {
                // SAFETY: both ranges were checked above, and each stays mapped while its owner is borrowed here.
                unsafe { copy::between_shared(source.add(further), shared, length) }
            });
        });
        Ok(())
    }

    /// Sets every byte of a range.
    pub fn fill(&self, offset: usize, length: usize, byte: u8) -> Result<(), MemoryError> {
        self.check(offset, length)?;
        let block = [byte; 64];
        let mut done = 0;
        while done < length {
            let part = (length - done).min(block.len());
            self.copy_in(offset + done, &block[..part])?;
            done += part;
        }
        Ok(())
    }

    /// Reads an index that a peer publishes: what the peer wrote before it is visible afterwards.
    pub fn load(&self, offset: usize) -> Result<u32, MemoryError> {
        self.with_atomic(offset, |index| index.load(Ordering::Acquire))
    }

    /// Publishes an index: what was written before it is visible to whoever sees it.
    pub fn store(&self, offset: usize, value: u32) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::death::step();
        self.with_atomic(offset, |index| index.store(value, Ordering::Release))
    }

    /// Replaces a value if it is still `current`; otherwise answers what it is.
    pub fn compare_exchange(
        &self,
        offset: usize,
        current: u32,
        new: u32,
    ) -> Result<Result<u32, u32>, MemoryError> {
        self.with_atomic(offset, |index| {
            index.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
        })
    }

    fn with_atomic<R>(&self, offset: usize, action: impl FnOnce(&AtomicU32) -> R) -> Result<R, MemoryError> {
        self.check(offset, 4)?;
        let pointer = self.pointer_in_bounds(offset).cast::<u32>();
        if !pointer.is_aligned() {
            return Err(MemoryError::Misaligned { offset });
        }
        // SAFETY: in bounds, aligned (so it cannot cross a page), and mapped while `self` lives. An atomic allows others to
        // change it; all our other accesses to shared memory are volatile or atomic.
        Ok(action(unsafe { AtomicU32::from_ptr(pointer.as_ptr()) }))
    }

    fn check(&self, offset: usize, length: usize) -> Result<(), MemoryError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(MemoryError::OutOfBounds {
                offset,
                length,
                size: self.length,
            }),
        }
    }

    fn pointer_in_bounds(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.length);
        match &self.place {
            // SAFETY: every caller has checked that the offset lies in the range.
            Place::Contiguous(base) => unsafe { base.add(offset) },
            // SAFETY: as above, and the offset in the page is less than its size.
            Place::Pages(pages) => unsafe { pages[offset / PAGE_SIZE].add(offset % PAGE_SIZE) },
        }
    }

    /// Calls with (bytes done, pointer, length) for each contiguous piece of a range that was checked.
    fn for_each_chunk(
        &self,
        offset: usize,
        length: usize,
        mut action: impl FnMut(usize, NonNull<u8>, usize),
    ) {
        let mut done = 0;
        while done < length {
            let here = offset + done;
            let chunk = match &self.place {
                Place::Contiguous(_) => length - done,
                Place::Pages(_) => (length - done).min(PAGE_SIZE - here % PAGE_SIZE),
            };
            action(done, self.pointer_in_bounds(here), chunk);
            done += chunk;
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SharedMemory({:#x} bytes)", self.length)
    }
}

/// Pages of the heap, freed on drop.
struct Pages {
    base: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn allocate(pages: usize) -> Option<Self> {
        let layout = Layout::from_size_align(pages.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()?;
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { base, layout })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `allocate` with this layout, and dropped once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests;
