//! Base address registers, and their mapping.
#![allow(unsafe_code)] // Configuration accesses are unsafe to call in `pci_types`.

use super::{Config, PciAddress};

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Memory.
    Memory {
        /// Its address, on the machine and in this domain alike.
        address: u64,
        /// Its size. Where the hypervisor refuses the sizing write, this is what the address's alignment allows: never less
        /// than the true size, perhaps more.
        size: u64,
    },
    /// I/O ports.
    Ports {
        /// The first port.
        base: u16,
        /// How many (with the same reservation).
        size: u32,
    },
}

/// Reads a register; `None` where nothing is implemented or no address was assigned.
pub(super) fn read(config: &Config, function: PciAddress, slot: u8) -> Option<Bar> {
    let offset = 0x10 + u16::from(slot) * 4;
    if slot >= 6 {
        return None;
    }
    let low = word(config, function, offset);
    if low & 1 != 0 {
        let base = low & !3;
        return (base != 0).then(|| Bar::Ports {
            base: base as u16,
            size: extent(
                u64::from(base),
                u64::from(probe(config, function, offset, low) & !3) | !0xffff,
            ) as u32,
        });
    }
    let wide = low & 0b110 == 0b100 && slot < 5;
    let high = if wide {
        word(config, function, offset + 4)
    } else {
        0
    };
    let address = u64::from(high) << 32 | u64::from(low & !0xf);
    if address == 0 {
        return None;
    }
    let mask_high = if wide {
        probe(config, function, offset + 4, high)
    } else {
        u32::MAX
    };
    let mask = u64::from(mask_high) << 32 | u64::from(probe(config, function, offset, low) & !0xf);
    Some(Bar::Memory {
        address,
        size: extent(address, mask),
    })
}

/// Writes ones, reads what sticks, and restores.
fn probe(config: &Config, function: PciAddress, offset: u16, value: u32) -> u32 {
    // SAFETY: a base address register of an assigned function; the value is restored before anybody uses the region, or the
    // hypervisor ignores both writes.
    unsafe {
        config.write(function, offset, u32::MAX);
        let mask = config.read(function, offset);
        config.write(function, offset, value);
        mask
    }
}

/// The size that a mask of writable address bits means. A register that ignored the write still shows its address,
/// whose lowest bit bounds the size, for regions are aligned to their size.
fn extent(address: u64, mask: u64) -> u64 {
    let bits = if mask == address { address } else { mask };
    1 << bits.trailing_zeros().min(63)
}

fn word(config: &Config, function: PciAddress, offset: u16) -> u32 {
    // SAFETY: reading a base address register has no effect.
    unsafe { config.read(function, offset) }
}
