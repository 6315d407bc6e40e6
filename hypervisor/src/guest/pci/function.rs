//! A function as it is assigned to a domain, and what of its memory the domain may map.

use alloc::vec::Vec;

use crate::{memory::PAGE_SIZE, platform::pci::PciAddress};

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
    /// Machine address, or port; 0 where firmware gave none.
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

impl DeviceRange {
    pub(super) fn end(&self) -> u64 {
        self.address + self.length
    }
}

impl Function {
    /// The memory of its BARs without the pages that hold the MSI-X table; port BARs are in [`Self::ports`]. A BAR smaller than a page takes the page that it
    /// lies in: the caller has to know that nobody else's lies there too. Firmware places each in a page of its own.
    pub fn memory(&self) -> Vec<DeviceRange> {
        let table = self.msix_table();
        let mut ranges = Vec::new();
        for bar in &self.bars {
            let Some(range) = pages(bar, 0, bar.size) else {
                continue;
            };
            match table.filter(|table| table.address < range.end() && range.address < table.end()) {
                None => ranges.push(range),
                Some(table) => {
                    ranges.push(DeviceRange {
                        length: table.address.saturating_sub(range.address),
                        ..range
                    });
                    ranges.push(DeviceRange {
                        address: table.end(),
                        length: range.end().saturating_sub(table.end()),
                    });
                }
            }
        }
        ranges.retain(|range| range.length > 0);
        ranges
    }

    /// The pages that hold its MSI-X table.
    pub fn msix_table(&self) -> Option<DeviceRange> {
        const ENTRY_SIZE: u64 = 16;
        let msix = self.msix?;
        let (index, offset) = msix.table;
        let bar = self.bars.iter().find(|bar| bar.index == index)?;
        pages(bar, offset.into(), u64::from(msix.entries) * ENTRY_SIZE)
    }

    /// Its I/O ports: first and count.
    pub fn ports(&self) -> Vec<(u16, u16)> {
        let placed = self
            .bars
            .iter()
            .filter(|bar| bar.kind == BarKind::Io && bar.address != 0);
        placed
            .filter_map(|bar| Some((u16::try_from(bar.address).ok()?, u16::try_from(bar.size).ok()?)))
            .collect()
    }
}

/// The pages that hold `length` bytes at `offset` in the memory of a BAR; `None` for ports, for a BAR without a place, and beyond its end.
fn pages(bar: &Bar, offset: u64, length: u64) -> Option<DeviceRange> {
    if bar.kind == BarKind::Io || bar.address == 0 || length == 0 || offset.checked_add(length)? > bar.size {
        return None;
    }
    let address = bar.address.checked_add(offset)?;
    let end = address.checked_add(length)?.checked_next_multiple_of(PAGE_SIZE)?;
    let address = address / PAGE_SIZE * PAGE_SIZE;
    Some(DeviceRange {
        address,
        length: end - address,
    })
}
