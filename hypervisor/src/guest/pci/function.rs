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
    /// Pages that its BARs share with something that the domain must not reach: a function of somebody else, the MSI-X table of another function.
    pub withheld: Vec<DeviceRange>,
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

    /// Whether the two have bytes in common.
    pub fn touches(&self, other: &Self) -> bool {
        self.address < other.end() && other.address < self.end()
    }

    /// What is left of it without `hole`: before and behind.
    fn without(self, hole: Self) -> impl Iterator<Item = Self> {
        let parts = if self.touches(&hole) {
            [
                Self {
                    length: hole.address.saturating_sub(self.address),
                    ..self
                },
                Self {
                    address: hole.end(),
                    length: self.end().saturating_sub(hole.end()),
                },
            ]
        } else {
            [self, Self { length: 0, ..self }]
        };
        parts.into_iter().filter(|part| part.length > 0)
    }
}

impl Function {
    /// The memory of its BARs without the pages that hold the MSI-X table and those that are withheld; port BARs are in [`Self::ports`]. A BAR smaller than
    /// a page takes the page that it lies in.
    pub fn memory(&self) -> Vec<DeviceRange> {
        let mut ranges = self.bar_pages();
        for hole in self.msix_table().iter().chain(&self.withheld) {
            ranges = ranges
                .into_iter()
                .flat_map(|range| range.without(*hole))
                .collect();
        }
        ranges
    }

    /// The pages of its BARs, all of them.
    pub fn bar_pages(&self) -> Vec<DeviceRange> {
        self.bars
            .iter()
            .filter_map(|bar| pages(bar, 0, bar.size))
            .collect()
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
