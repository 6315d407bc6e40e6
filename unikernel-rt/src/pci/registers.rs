//! Device registers.
#![allow(unsafe_code)] // Volatile access to mapped device memory.

use core::ptr::NonNull;

/// A device's registers, little-endian and by offset: the seam at which a driver is tested with a fake device.
///
/// Offsets are the driver's constants. An access that does not fit in [`length`](Self::length) or is not aligned is a fault
/// of the driver and panics, so a driver whose offsets come from the device compares them with the length first.
pub trait Registers {
    /// How many bytes there are.
    fn length(&self) -> usize;
    /// Reads a byte.
    fn read8(&self, offset: usize) -> u8;
    /// Reads two bytes.
    fn read16(&self, offset: usize) -> u16;
    /// Reads four bytes.
    fn read32(&self, offset: usize) -> u32;
    /// Reads eight bytes.
    fn read64(&self, offset: usize) -> u64;
    /// Writes a byte.
    fn write8(&self, offset: usize, value: u8);
    /// Writes two bytes.
    fn write16(&self, offset: usize, value: u16);
    /// Writes four bytes.
    fn write32(&self, offset: usize, value: u32);
    /// Writes eight bytes.
    fn write64(&self, offset: usize, value: u64);
}

/// Registers mapped uncached at their machine address.
#[derive(Clone, Debug)]
pub struct MmioRegion {
    base: NonNull<u8>,
    length: usize,
}

impl MmioRegion {
    /// Wraps mapped registers.
    ///
    /// # Safety
    /// `length` bytes at `base`, aligned to a page, must stay mapped uncached for ever, and be registers of a device: no
    /// Rust object may lie there.
    pub unsafe fn new(base: NonNull<u8>, length: usize) -> Self {
        Self { base, length }
    }

    /// The address of the first register.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset.checked_add(size).is_some_and(|end| end <= self.length) && offset.is_multiple_of(size),
            "a register of {size} bytes at {offset:#x} does not lie in a region of {:#x}",
            self.length
        );
        // SAFETY: the offset lies in the region, by the assertion.
        unsafe { self.base.add(offset).cast().as_ptr() }
    }
}

/// The accessors differ in their width alone.
macro_rules! accessors {
    ($($read:ident $write:ident $type:ty;)*) => {
        $(
            fn $read(&self, offset: usize) -> $type {
                // SAFETY: `at` answers an aligned address in the region, which is mapped by the contract of `new`.
                unsafe { self.at::<$type>(offset).read_volatile() }
            }

            fn $write(&self, offset: usize, value: $type) {
                // SAFETY: as for the read. A device may be told to write into our memory; which addresses it is told is the
                // driver's affair, and the IOMMU keeps it within this domain.
                unsafe { self.at::<$type>(offset).write_volatile(value) }
            }
        )*
    };
}

impl Registers for MmioRegion {
    fn length(&self) -> usize {
        self.length
    }

    accessors! {
        read8 write8 u8;
        read16 write16 u16;
        read32 write32 u32;
        read64 write64 u64;
    }
}
