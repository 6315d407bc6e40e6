//! The first Rust that runs: a heap, a serial line to complain on, and the loader's information copied out.
#![allow(unsafe_code)] // Reads machine memory through the early tables.

use super::{BootError, Information, layout, multiboot2, options, pvh};
use crate::{
    memory::MachineAddress,
    platform::{
        heap, log,
        physical::{Fields, OutOfReach, PhysicalMemory},
        time,
    },
};

/// Takes over from the loader. Called once, first, with what the entry found in EAX (0 from the PVH door) and EBX.
pub fn receive(magic: u32, information: u32) -> Result<Information, BootError> {
    time::mark_start();
    heap::initialize();
    log::initialize(options::serial_port(1));
    let at = MachineAddress(information.into());
    let information = match magic {
        multiboot2::MAGIC => {
            let length = EarlyMemory.bytes(at, 4).map_err(|_| BootError::Information)?;
            let length = length.u32_at(0).ok_or(BootError::Information)? as usize;
            if length > multiboot2::LONGEST {
                return Err(BootError::Information);
            }
            multiboot2::parse(
                &EarlyMemory
                    .bytes(at, length)
                    .map_err(|_| BootError::Information)?,
            )?
        }
        0 => pvh::parse(&EarlyMemory, at)?,
        _ => return Err(BootError::Loader),
    };
    let options = options::parse(&information.command_line);
    log::configure(&options);
    Ok(information)
}

/// Machine memory below 4 GiB, as the early tables map it.
struct EarlyMemory;

impl PhysicalMemory for EarlyMemory {
    fn read(&self, at: MachineAddress, into: &mut [u8]) -> Result<(), OutOfReach> {
        let end = at.0.checked_add(into.len() as u64).ok_or(OutOfReach(at))?;
        if end > 1 << 32 {
            return Err(OutOfReach(at));
        }
        // SAFETY: the early tables map the first 4 GiB at the direct map's address, and are loaded until `platform::discover` replaces them, which
        // happens after `receive`, the only user; `into` is heap or stack of the image, which no loader's structure overlaps, and if one claimed to,
        // bytes would be read that are initialized all the same.
        unsafe {
            core::ptr::copy(
                (layout::DIRECT_MAP + at.0) as *const u8,
                into.as_mut_ptr(),
                into.len(),
            );
        }
        Ok(())
    }
}
