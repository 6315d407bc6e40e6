//! The PCI configuration space that a domain sees through ports 0xcf8 and 0xcfc: its functions, and no others.
//!
//! Reads are those of the machine but for base address registers, which a guest can size without moving them. Writes pass only where they can harm nobody else:
//! memory space, bus mastering and INTx-disable of the command register, and the error bits of the status register. All capabilities can be read;
//! MSI and MSI-X are programmed by the hypervisor, and what a write to another (power states, resets) would undo is the hypervisor's too.

mod function;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use function::{Bar, BarKind, DeviceRange, Function, MsiX};

use crate::platform::pci::PciAddress;

/// The machine's configuration space.
pub trait ConfigurationSpace {
    /// Reads 1, 2 or 4 aligned bytes.
    fn read(&mut self, function: PciAddress, offset: u16, size: u8) -> u32;
    /// Writes 1, 2 or 4 aligned bytes.
    fn write(&mut self, function: PciAddress, offset: u16, size: u8, value: u32);
}

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ADDRESS_ENABLED: u32 = 1 << 31;

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const FIRST_BAR: u16 = 0x10;
const LAST_BAR: u16 = 0x24;
const EXPANSION_ROM: u16 = 0x30;

/// Bits of the command register that a domain decides: memory space, bus mastering, INTx disable.
const COMMAND_WRITABLE: u32 = 1 << 1 | 1 << 2 | 1 << 10;
/// Bits of the status register, cleared by writing ones: parity and system errors, aborts.
const STATUS_CLEARABLE: u32 = 0xf900;

/// What a domain sees of configuration space; one a domain.
#[derive(Clone, Debug, Default)]
pub struct PciView {
    /// The register that port 0xcf8 selects.
    latch: u32,
    functions: Vec<View>,
}

/// A function and the registers of it that read other than on the machine.
#[derive(Clone, Debug)]
struct View {
    function: Function,
    /// Base address registers that the guest has filled with other than their address, to size them.
    sizing: [Option<u32>; 6],
}

impl PciView {
    /// The view of a domain with these functions.
    pub fn new(functions: Vec<Function>) -> Self {
        let functions = functions
            .into_iter()
            .map(|function| View {
                function,
                sizing: [None; 6],
            })
            .collect();
        Self { latch: 0, functions }
    }

    /// Whether it mediates accesses to `port`: 0xcf8 to 0xcff.
    pub fn owns_port(port: u16) -> bool {
        (ADDRESS_PORT..DATA_PORT + 4).contains(&port)
    }

    /// IN of 1, 2 or 4 bytes.
    pub fn read(&mut self, machine: &mut impl ConfigurationSpace, port: u16, size: u8) -> u32 {
        let mask = mask(size);
        if port == ADDRESS_PORT && size == 4 {
            return self.latch;
        }
        let Some((offset, shift)) = self.selected(port, size) else {
            return mask;
        };
        let latch = self.latch;
        let Some(view) = self.function(latch) else {
            return mask;
        };
        view.read(machine, offset) >> shift & mask
    }

    /// OUT of 1, 2 or 4 bytes.
    pub fn write(&mut self, machine: &mut impl ConfigurationSpace, port: u16, size: u8, value: u32) {
        if port == ADDRESS_PORT && size == 4 {
            self.latch = value & !3;
            return;
        }
        let Some((offset, shift)) = self.selected(port, size) else {
            return;
        };
        let latch = self.latch;
        if let Some(view) = self.function(latch) {
            view.write(
                machine,
                offset,
                (value & mask(size)) << shift,
                mask(size) << shift,
            );
        }
    }

    /// The offset of the register that an access to `port` reaches, and the bits below its bytes; `None` if it reaches none.
    fn selected(&self, port: u16, size: u8) -> Option<(u16, u32)> {
        let byte = port.checked_sub(DATA_PORT)?;
        let inside = matches!(size, 1 | 2 | 4) && byte + u16::from(size) <= 4;
        (inside && self.latch & ADDRESS_ENABLED != 0)
            .then_some((self.latch as u16 & 0xfc, 8 * u32::from(byte)))
    }

    fn function(&mut self, latch: u32) -> Option<&mut View> {
        let address = PciAddress {
            segment: 0,
            bus: (latch >> 16) as u8,
            device: (latch >> 11) as u8 & 0x1f,
            function: (latch >> 8) as u8 & 7,
        };
        self.functions
            .iter_mut()
            .find(|view| view.function.address == address)
    }
}

/// The bits of `size` bytes.
fn mask(size: u8) -> u32 {
    if size >= 4 {
        u32::MAX
    } else {
        (1 << (8 * size)) - 1
    }
}

impl View {
    /// Reads the register at `offset`, a multiple of 4.
    fn read(&self, machine: &mut impl ConfigurationSpace, offset: u16) -> u32 {
        match offset {
            FIRST_BAR..=LAST_BAR => {
                let index = usize::from(offset - FIRST_BAR) / 4;
                self.sizing[index].map_or_else(
                    || machine.read(self.function.address, offset, 4),
                    |written| self.sized(index, written),
                )
            }
            EXPANSION_ROM => 0,
            _ => machine.read(self.function.address, offset, 4),
        }
    }

    /// Writes the bits in `mask` of the register at `offset`, a multiple of 4.
    fn write(&mut self, machine: &mut impl ConfigurationSpace, offset: u16, value: u32, mask: u32) {
        let address = self.function.address;
        match offset {
            COMMAND => {
                let writable = mask & COMMAND_WRITABLE;
                if writable != 0 {
                    let old = machine.read(address, COMMAND, 2);
                    machine.write(address, COMMAND, 2, old & !writable & 0xffff | value & writable);
                }
                let cleared = value >> 16 & mask >> 16 & STATUS_CLEARABLE;
                if cleared != 0 {
                    machine.write(address, STATUS, 2, cleared);
                }
            }
            FIRST_BAR..=LAST_BAR => {
                let index = usize::from(offset - FIRST_BAR) / 4;
                let address = machine.read(address, offset, 4);
                let written = self.sizing[index].unwrap_or(address) & !mask | value & mask;
                // Back at its address, it reads as on the machine again.
                self.sizing[index] =
                    (written != address && self.sized(index, written) != address).then_some(written);
            }
            _ => {}
        }
    }

    /// What the register reads after `written` was written into it: the bits below its size do not take a value.
    fn sized(&self, index: usize, written: u32) -> u32 {
        let own = |bar: &&Bar| usize::from(bar.index) == index;
        let upper = |bar: &&Bar| bar.kind == BarKind::Memory64 && usize::from(bar.index) + 1 == index;
        if let Some(bar) = self.function.bars.iter().find(own) {
            let keep = !(bar.size.wrapping_sub(1) as u32) & if bar.kind == BarKind::Io { !3 } else { !15 };
            written & keep | u32::from(bar.flags)
        } else if let Some(bar) = self.function.bars.iter().find(upper) {
            written & !((bar.size.wrapping_sub(1) >> 32) as u32)
        } else {
            0
        }
    }
}
