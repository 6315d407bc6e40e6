//! The hypervisor's heap: a fixed part of the image, so that it exists before anything is known about memory. What belongs to domains (their memory,
//! second-stage tables) comes from the frame allocator and not from here.
//!
//! Running out panics. What a guest can cause to be allocated is therefore bounded where it is allocated.
#![allow(unsafe_code)] // Implements the global allocator.

/// Bytes of the heap.
pub const SIZE: usize = 8 << 20;
/// Bytes that are kept for what must not fail: nothing that guests may have any number of takes them.
pub const RESERVE: usize = 2 << 20;

#[cfg(target_os = "none")]
pub use machine::{initialize, used};

/// Makes the heap usable; a second call does nothing. On the host there is one already.
#[cfg(not(target_os = "none"))]
pub fn initialize() {}

/// Bytes in use; on the host what a test says.
#[cfg(not(target_os = "none"))]
pub fn used() -> usize {
    #[cfg(test)]
    return USED.get();
    #[cfg(not(test))]
    0
}

#[cfg(test)]
std::thread_local! {
    /// What [`used`] answers.
    pub static USED: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Whether the reserve is whole. Whoever lets a guest have one more of what it may have many of asks this first.
pub fn has_reserve() -> bool {
    used() + RESERVE <= SIZE
}

#[cfg(target_os = "none")]
mod machine {
    use core::{
        alloc::{GlobalAlloc, Layout},
        cell::UnsafeCell,
        mem::MaybeUninit,
        ptr::{self, NonNull},
    };

    use linked_list_allocator::Heap;
    use spin::Mutex;

    use super::SIZE;

    #[repr(C, align(4096))]
    struct Store(UnsafeCell<MaybeUninit<[u8; SIZE]>>);

    // SAFETY: only `initialize` reaches the bytes, and hands them to the allocator, which locks.
    unsafe impl Sync for Store {}

    static STORE: Store = Store(UnsafeCell::new(MaybeUninit::uninit()));

    struct Locked(Mutex<Heap>);

    #[global_allocator]
    static HEAP: Locked = Locked(Mutex::new(Heap::empty()));

    /// Makes the heap usable; a second call does nothing.
    pub fn initialize() {
        let mut heap = HEAP.0.lock();
        if heap.size() == 0 {
            // SAFETY: the store is static, nobody else reaches it, and the heap is empty.
            unsafe { heap.init(STORE.0.get().cast(), SIZE) };
        }
    }

    /// Bytes in use.
    pub fn used() -> usize {
        HEAP.0.lock().used()
    }

    // SAFETY: passes everything to the heap below the lock, which keeps its contract. Interrupt handlers do not allocate.
    unsafe impl GlobalAlloc for Locked {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0
                .lock()
                .allocate_first_fit(layout)
                .map_or(ptr::null_mut(), |place| place.as_ptr())
        }

        unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
            if let Some(place) = NonNull::new(place) {
                // SAFETY: by the contract of the trait `place` came from `alloc` with this layout.
                unsafe { self.0.lock().deallocate(place, layout) }
            }
        }
    }
}
