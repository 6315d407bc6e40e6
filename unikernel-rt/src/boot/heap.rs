//! The heap: the largest piece of memory that nothing else occupies.
#![allow(unsafe_code)] // A global allocator is unsafe to implement.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;

struct Allocator(Mutex<Heap>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(Mutex::new(Heap::empty()));

/// Gives the heap its memory, once.
///
/// # Safety
/// The range must be memory of ours that nothing else uses, mapped for ever.
pub(super) unsafe fn install(range: Range<u64>) {
    let size = (range.end - range.start) as usize;
    // SAFETY: by our own contract.
    unsafe { ALLOCATOR.0.lock().init(range.start as *mut u8, size) };
}

/// Bytes that are free and bytes in use.
pub(super) fn usage() -> (usize, usize) {
    let heap = ALLOCATOR.0.lock();
    (heap.free(), heap.used())
}

// SAFETY: `Heap` hands out disjoint, aligned blocks of the memory that it was given; the lock is never contended, since there is one
// processor and no interrupt.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: by the trait's contract the block came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}
