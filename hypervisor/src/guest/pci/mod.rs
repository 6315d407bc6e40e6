//! The PCI configuration space that a domain sees through ports 0xcf8 and 0xcfc: its functions, and no others.
//!
//! Reads are those of the machine but for BARs that are being sized; writes pass only where they can harm nobody else.

use alloc::vec::Vec;

use crate::platform::pci::PciAddress;

/// The machine's configuration space.
pub trait ConfigurationSpace {
    /// Reads 1, 2 or 4 aligned bytes.
    fn read(&mut self, function: PciAddress, offset: u16, size: u8) -> u32;
    /// Writes 1, 2 or 4 aligned bytes.
    fn write(&mut self, function: PciAddress, offset: u16, size: u8, value: u32);
}

/// What a BAR maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes the next BAR too.
    Memory64,
}

/// A base address register, sized at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// 0 to 5.
    pub index: u8,
    /// What it maps.
    pub kind: BarKind,
    /// Bits 0 to 3 (memory) or 0 to 1 (ports) of the register.
    pub flags: u8,
    /// Machine address, or port.
    pub address: u64,
    /// Bytes, a power of two.
    pub size: u64,
}

/// Where a function keeps its MSI-X table and pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiX {
    /// Offset of the capability in configuration space.
    pub capability: u16,
    /// Entries.
    pub entries: u16,
    /// BAR of the table, and the offset in it.
    pub table: (u8, u32),
    /// BAR of the pending bits, and the offset in it.
    pub pending: (u8, u32),
}

/// A function as it is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its place; segment 0.
    pub address: PciAddress,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// Its MSI-X capability.
    pub msix: Option<MsiX>,
}

/// A range of machine addresses to map into the domain at the same guest-physical address, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    /// First address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

impl Function {
    /// The memory of its BARs without the pages that hold the MSI-X table; port BARs are in [`Self::ports`].
    pub fn memory(&self) -> Vec<DeviceRange> {
        todo!()
    }

    /// Its I/O ports: first and count.
    pub fn ports(&self) -> Vec<(u16, u16)> {
        todo!()
    }
}

/// What a domain sees of configuration space; one a domain.
#[derive(Clone, Debug, Default)]
pub struct PciView {}

impl PciView {
    /// The view of a domain with these functions.
    pub fn new(functions: Vec<Function>) -> Self {
        let _ = functions;
        Self {}
    }

    /// Whether it mediates accesses to `port`: 0xcf8 to 0xcff.
    pub fn owns_port(port: u16) -> bool {
        (0xcf8..=0xcff).contains(&port)
    }

    /// IN of 1, 2 or 4 bytes.
    pub fn read(&mut self, machine: &mut impl ConfigurationSpace, port: u16, size: u8) -> u32 {
        let _ = (machine, port, size);
        todo!()
    }

    /// OUT of 1, 2 or 4 bytes.
    pub fn write(&mut self, machine: &mut impl ConfigurationSpace, port: u16, size: u8, value: u32) {
        let _ = (machine, port, size, value);
        todo!()
    }
}
