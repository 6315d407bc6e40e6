//! Registers of devices in memory: mapped uncached, read and written in one access each, bounds checked.
#![allow(unsafe_code)] // Reaches devices by address.

use super::{address_space, paging::MapError};
use crate::{boot::memory_map::Region, memory::MachineAddress};

/// A device's registers. The mapping lives as long as the hypervisor; mapping the same again costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
    length: usize,
}

/// Maps `length` bytes of device memory at `address`. RAM is refused.
pub fn map(address: MachineAddress, length: usize) -> Result<Mmio, MapError> {
    let base = address_space::map_device(Region::new(address, length as u64))?;
    Ok(Mmio { base, length })
}

impl Mmio {
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset.is_multiple_of(size) && offset.checked_add(size).is_some_and(|end| end <= self.length),
            "register {offset:#x} is outside the device or not aligned"
        );
        (self.base + offset) as *mut T
    }

    /// Bytes mapped.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads a register; `offset` is a multiple of the width and inside the device.
    pub fn read<T: Register>(&self, offset: usize) -> T {
        // SAFETY: `pointer` checked range and alignment, `map` mapped it for good, and a register is a plain integer.
        unsafe { self.pointer::<T>(offset).read_volatile() }
    }

    /// Writes a register; `offset` is a multiple of the width and inside the device.
    pub fn write<T: Register>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`. What the device does is up to the driver that owns it; devices that reach memory by themselves are driven by
        // domains, not here.
        unsafe { self.pointer::<T>(offset).write_volatile(value) }
    }
}

/// The widths of registers.
pub trait Register: Copy + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! registers {
    ($($width:ty),*) => { $(impl private::Sealed for $width {} impl Register for $width {})* };
}
registers!(u8, u16, u32, u64);
