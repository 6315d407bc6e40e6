//! The pages that frames lie in: one machine-contiguous run that devices reach, handed out page by page.

use alloc::vec::Vec;

use unikernel_rt::memory::{PAGE_SIZE, SharedMemory};

/// A page of the pool. Not copyable: who has it may use it, and gives it back to [`Pool::free`].
#[derive(Debug, PartialEq, Eq)]
pub struct Page(u32);

impl Page {
    /// Its number in the pool.
    pub fn index(&self) -> u32 {
        self.0
    }
}

/// The pool.
pub struct Pool {
    memory: SharedMemory,
    bus: u64,
    free: Vec<u32>,
    pages: usize,
}

impl Pool {
    /// A pool over `memory`, which devices reach at the bus address `bus`.
    pub fn new(memory: SharedMemory, bus: u64) -> Self {
        let pages = memory.pages();
        Self {
            memory,
            bus,
            free: (0..pages as u32).rev().collect(),
            pages,
        }
    }

    /// Takes a page; `None` when all are in use.
    pub fn allocate(&mut self) -> Option<Page> {
        self.free.pop().map(Page)
    }

    /// Gives a page back.
    pub fn free(&mut self, page: Page) {
        debug_assert!((page.0 as usize) < self.pages && !self.free.contains(&page.0));
        self.free.push(page.0);
    }

    /// Pages that nobody has.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Pages in all.
    pub fn size(&self) -> usize {
        self.pages
    }

    /// Where the page starts in [`Pool::memory`].
    pub fn offset(&self, page: &Page) -> usize {
        page.0 as usize * PAGE_SIZE
    }

    /// Where a device finds the page.
    pub fn bus(&self, page: &Page) -> u64 {
        self.bus.wrapping_add(u64::from(page.0) * PAGE_SIZE as u64)
    }

    /// The pool's memory, for drivers and hypercalls that name bytes by their place.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Copies bytes out of a page. Bytes beyond the page are not copied.
    pub fn read(&self, page: &Page, offset: usize, into: &mut [u8]) {
        let length = into.len().min(PAGE_SIZE.saturating_sub(offset));
        let copied = self
            .memory
            .copy_out(page.0 as usize * PAGE_SIZE + offset, &mut into[..length]);
        debug_assert!(copied.is_ok());
    }

    /// Copies bytes into a page. Bytes beyond the page are not copied.
    pub fn write(&self, page: &Page, offset: usize, bytes: &[u8]) {
        let length = bytes.len().min(PAGE_SIZE.saturating_sub(offset));
        let copied = self
            .memory
            .copy_in(page.0 as usize * PAGE_SIZE + offset, &bytes[..length]);
        debug_assert!(copied.is_ok());
    }
}
