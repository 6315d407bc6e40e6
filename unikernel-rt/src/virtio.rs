//! The `Hal` of the crate `virtio-drivers`: DMA memory and addresses of this domain.
#![allow(unsafe_code)] // The trait is unsafe to implement.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::dma;

/// Lets `virtio-drivers` use this domain's memory: `VirtIOBlk::<UnikernelHal, _>::new(…)`, or its queues alone.
///
/// Buffers are shared where they lie, without a copy: in this domain's own memory, or in a page of a
/// [`Mapping`](crate::grant::Mapping) for devices. In the latter a buffer must not cross the end of a page (split it there):
/// that would be a fault of the driver, and panics.
#[derive(Clone, Copy, Debug)]
pub struct UnikernelHal;

fn layout(pages: usize) -> Option<Layout> {
    Layout::from_size_align(pages.checked_mul(PAGE_SIZE)?, PAGE_SIZE)
        .ok()
        .filter(|layout| layout.size() > 0)
}

// SAFETY: `dma_alloc` answers zeroed pages of the heap that nobody else has; the machine is identity-mapped, so that registers
// are where their addresses say, once mapped; `share` answers the address that the DMA window gives the buffer.
unsafe impl Hal for UnikernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout's size is not zero.
        let base = layout(pages).and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }));
        match base {
            Some(base) => (dma::bus_address(base.as_ptr() as usize), base),
            // The crate takes the bus address 0 for a failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        if let Some(layout) = layout(pages) {
            // SAFETY: by the contract allocated by `dma_alloc` with as many pages, and not freed yet.
            unsafe { dealloc(vaddr.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        map_registers(paddr, size)
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let address = buffer.cast::<u8>().as_ptr() as usize;
        dma::bus_address_anywhere(address, buffer.len())
            .expect("a buffer for a device lies in one granted page")
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

#[cfg(target_os = "none")]
fn map_registers(address: PhysAddr, size: usize) -> NonNull<u8> {
    use crate::pci::Registers as _;
    let region = crate::boot::map_device(address, size as u64);
    let region = region.unwrap_or_else(|| panic!("registers at {address:#x} cannot be mapped"));
    debug_assert!(region.length() >= size);
    region.base()
}

#[cfg(not(target_os = "none"))]
fn map_registers(address: PhysAddr, _size: usize) -> NonNull<u8> {
    panic!("the host has no registers at {address:#x}")
}
