//! Memory for devices.
//!
//! A domain's memory is contiguous for its devices: a bus address is the guest-physical (and, identity-mapped, the
//! virtual) address plus the offset of the DMA window. On the host there is no window: bus addresses are the test
//! process's own, so that a fake device can follow them.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::memory::{MemoryError, PAGE_SIZE, SharedMemory};

/// Bus address of guest-physical 0, wrapping. Written once by `boot`.
static WINDOW: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "none")]
pub(crate) fn set_window(offset: u64) {
    WINDOW.store(offset, Ordering::Relaxed);
}

/// The bus address of an address in our own memory. (Mapped grants have their own:
/// [`Mapping::bus_address`](crate::grant::Mapping::bus_address).)
pub fn bus_address(address: usize) -> u64 {
    (address as u64).wrapping_add(WINDOW.load(Ordering::Relaxed))
}

/// The bus addresses of granted pages that are mapped for devices, by their address here: for interfaces that know
/// nothing but an address, as `virtio-drivers`' does.
static GRANTED: Mutex<BTreeMap<usize, u64>> = Mutex::new(BTreeMap::new());

/// Remembers or (with `None`) forgets a granted page's bus address.
#[cfg(target_os = "none")]
pub(crate) fn set_granted(page: usize, bus: Option<u64>) {
    match bus {
        Some(bus) => GRANTED.lock().insert(page, bus),
        None => GRANTED.lock().remove(&page),
    };
}

/// The bus address of `length` bytes wherever they lie: in our own memory, or in a granted page that is mapped for devices.
/// `None` if they cross from one granted page into another, for neighbours here need not be neighbours there.
pub fn bus_address_anywhere(address: usize, length: usize) -> Option<u64> {
    let offset = address % PAGE_SIZE;
    match GRANTED.lock().get(&(address - offset)) {
        None => Some(bus_address(address)),
        Some(page) => (offset.checked_add(length)? <= PAGE_SIZE).then(|| page.wrapping_add(offset as u64)),
    }
}

/// Whole pages for a device: zeroed, contiguous, aligned to a page. Freed on drop, so keep it until the device is done.
#[derive(Debug)]
pub struct DmaBuffer {
    memory: SharedMemory,
}

impl DmaBuffer {
    /// Allocates at least `bytes`, rounded up to pages.
    pub fn allocate(bytes: usize) -> Result<Self, MemoryError> {
        Ok(Self {
            memory: SharedMemory::allocate(bytes.div_ceil(PAGE_SIZE).max(1))?,
        })
    }

    /// The bytes: a device may write them at any time, so they are shared memory.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Never: a buffer has at least a page.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The address at which devices find the first byte.
    pub fn bus_address(&self) -> u64 {
        // A buffer has a first byte, so the fallback is never taken.
        self.memory
            .address(0)
            .map_or(0, |pointer| bus_address(pointer.as_ptr() as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_whole_zeroed_pages() {
        let buffer = DmaBuffer::allocate(5000).unwrap();
        assert_eq!(buffer.len(), 8192);
        assert_eq!(buffer.bus_address() % 4096, 0);
        assert_eq!(buffer.memory().read::<[u8; 32]>(8160).unwrap(), [0; 32]);
    }
}
