//! The memory map and `hvm_start_info` (arch-x86/hvm/start_info.h) as bytes.

use alloc::vec::Vec;

use xen_abi::arch_x86::hvm_start_info::{
    HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_MEMMAP_TYPE_ACPI, XEN_HVM_MEMMAP_TYPE_RAM,
    XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
};
use zerocopy::IntoBytes;

use crate::memory::GuestAddress;

/// What a range of guest-physical memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Memory.
    Ram,
    /// Neither memory nor free.
    Reserved,
    /// ACPI tables.
    Acpi,
}

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub address: GuestAddress,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// The ranges of a guest, by rising address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap(pub Vec<Range>);

impl MemoryMap {
    /// Where RAM ends below the hole: 3 GiB.
    pub const HOLE: u64 = 0xc000_0000;
    /// Where RAM goes on behind it: 4 GiB.
    pub const HIGH: u64 = 0x1_0000_0000;
    /// The local APIC's page and the special pages, which no guest may take for free: first address and bytes.
    const RESERVED: [(u64, u64); 2] = [(0xfee0_0000, 0x1000), (0xfeff_0000, 0x1_0000)];

    /// The map of a guest with `bytes` of memory: RAM from 0, the hole, RAM from 4 GiB.
    pub fn new(bytes: u64) -> Self {
        let range = |address, length, kind| Range {
            address: GuestAddress(address),
            length,
            kind,
        };
        let low = bytes.min(Self::HOLE);
        let mut ranges = alloc::vec![range(0, low, RangeKind::Ram)];
        ranges.extend(Self::RESERVED.map(|(address, length)| range(address, length, RangeKind::Reserved)));
        if bytes > low {
            ranges.push(range(Self::HIGH, bytes - low, RangeKind::Ram));
        }
        Self(ranges)
    }

    /// Changes part of the RAM into another kind (the ACPI tables, for example). Ignored unless all of it lies in one range of RAM.
    pub fn carve(&mut self, address: GuestAddress, length: u64, kind: RangeKind) {
        let end = address.0.saturating_add(length);
        let inside = |range: &Range| {
            range.kind == RangeKind::Ram
                && range.address <= address
                && end <= range.address.0.saturating_add(range.length)
        };
        let Some(index) = self.0.iter().position(inside) else {
            return;
        };
        let old = self.0[index];
        let parts = [
            Range {
                length: address.0 - old.address.0,
                ..old
            },
            Range {
                address,
                length,
                kind,
            },
            Range {
                address: GuestAddress(end),
                length: old.address.0 + old.length - end,
                ..old
            },
        ];
        self.0
            .splice(index..=index, parts.into_iter().filter(|part| part.length > 0));
    }

    /// The ranges of RAM, also where it is carved: first address and bytes.
    pub fn ram(&self) -> impl Iterator<Item = (GuestAddress, u64)> + '_ {
        self.0
            .iter()
            .filter(|range| range.kind != RangeKind::Reserved)
            .map(|range| (range.address, range.length))
    }
}

/// A module, already in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where.
    pub address: GuestAddress,
    /// Bytes.
    pub length: u64,
}

/// What `hvm_start_info` tells.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo<'a> {
    /// The command line, without NUL.
    pub command_line: &'a str,
    /// The modules.
    pub modules: &'a [Module],
    /// The memory map.
    pub memory_map: &'a MemoryMap,
    /// The ACPI root pointer; 0 for none.
    pub rsdp: GuestAddress,
}

impl StartInfo<'_> {
    /// The structure, which comes first, and all that it points to, to be copied to `at` (a multiple of 8).
    pub fn serialise(&self, at: GuestAddress) -> Vec<u8> {
        let modules = size_of::<HvmStartInfo>();
        let memory_map = modules + self.modules.len() * size_of::<HvmModlistEntry>();
        let command_line = memory_map + self.memory_map.0.len() * size_of::<HvmMemmapTableEntry>();
        let place = |offset: usize| at.0.wrapping_add(offset as u64);

        let start_info = HvmStartInfo {
            magic: XEN_HVM_START_MAGIC_VALUE,
            version: 1,
            flags: 0,
            nr_modules: self.modules.len() as u32,
            modlist_paddr: if self.modules.is_empty() {
                0
            } else {
                place(modules)
            },
            cmdline_paddr: place(command_line),
            rsdp_paddr: self.rsdp.0,
            memmap_paddr: place(memory_map),
            memmap_entries: self.memory_map.0.len() as u32,
            reserved: 0,
        };
        let mut bytes = start_info.as_bytes().to_vec();
        for module in self.modules {
            let entry = HvmModlistEntry {
                paddr: module.address.0,
                size: module.length,
                ..HvmModlistEntry::default()
            };
            bytes.extend(entry.as_bytes());
        }
        for range in &self.memory_map.0 {
            let kind = match range.kind {
                RangeKind::Ram => XEN_HVM_MEMMAP_TYPE_RAM,
                RangeKind::Reserved => XEN_HVM_MEMMAP_TYPE_RESERVED,
                RangeKind::Acpi => XEN_HVM_MEMMAP_TYPE_ACPI,
            };
            let entry = HvmMemmapTableEntry {
                addr: range.address.0,
                size: range.length,
                r#type: kind,
                reserved: 0,
            };
            bytes.extend(entry.as_bytes());
        }
        bytes.extend(self.command_line.bytes().filter(|byte| *byte != 0));
        bytes.push(0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_goes_around_the_hole() {
        let ram = |bytes| MemoryMap::new(bytes).ram().collect::<Vec<_>>();
        assert_eq!(ram(GIB), [(GuestAddress(0), GIB)]);
        assert_eq!(ram(3 * GIB), [(GuestAddress(0), 3 * GIB)]);
        assert_eq!(
            ram(5 * GIB),
            [(GuestAddress(0), 3 * GIB), (GuestAddress(4 * GIB), 2 * GIB)]
        );
    }

    #[test]
    fn carving_splits_ram() {
        let mut map = MemoryMap::new(GIB);
        map.carve(GuestAddress(GIB - 0x4000), 0x2000, RangeKind::Acpi);
        let head: Vec<_> = map.0[..3]
            .iter()
            .map(|range| (range.address.0, range.length, range.kind))
            .collect();
        assert_eq!(
            head,
            [
                (0, GIB - 0x4000, RangeKind::Ram),
                (GIB - 0x4000, 0x2000, RangeKind::Acpi),
                (GIB - 0x2000, 0x2000, RangeKind::Ram)
            ]
        );
        let before = map.clone();
        map.carve(GuestAddress(GIB - 0x3000), 0x2000, RangeKind::Reserved);
        map.carve(GuestAddress(u64::MAX), 5, RangeKind::Reserved);
        assert_eq!(map, before);
    }

    #[test]
    fn a_guest_finds_everything_from_the_root() {
        let at = GuestAddress(0x9_0000);
        let memory_map = MemoryMap::new(6 * GIB);
        let modules = [
            Module {
                address: GuestAddress(0x100_0000),
                length: 77,
            },
            Module {
                address: GuestAddress(0x200_0000),
                length: 1,
            },
        ];
        let info = StartInfo {
            command_line: "console=hvc0 root=/dev/xvda",
            modules: &modules,
            memory_map: &memory_map,
            rsdp: GuestAddress(0x50),
        };
        let bytes = info.serialise(at);
        let offset = |address: u64| (address - at.0) as usize;

        let (root, _) = HvmStartInfo::read_from_prefix(&bytes).unwrap();
        assert_eq!(
            (root.magic, root.version, root.nr_modules, root.rsdp_paddr),
            (XEN_HVM_START_MAGIC_VALUE, 1, 2, 0x50)
        );
        let (module, _) =
            HvmModlistEntry::read_from_prefix(&bytes[offset(root.modlist_paddr) + 32..]).unwrap();
        assert_eq!((module.paddr, module.size), (0x200_0000, 1));
        let mut ranges = &bytes[offset(root.memmap_paddr)..];
        for range in &memory_map.0 {
            let (entry, rest) = HvmMemmapTableEntry::read_from_prefix(ranges).unwrap();
            assert_eq!((entry.addr, entry.size), (range.address.0, range.length));
            ranges = rest;
        }
        assert_eq!(root.memmap_entries as usize, memory_map.0.len());
        assert_eq!(
            &bytes[offset(root.cmdline_paddr)..],
            b"console=hvc0 root=/dev/xvda\0"
        );
    }

    proptest! {
        #[test]
        fn carving_keeps_the_map_whole(bytes in 1u64..8 * GIB, cuts in prop::collection::vec((0u64..8 * GIB, 0u64..GIB), 0..8)) {
            let mut map = MemoryMap::new(bytes);
            for (address, length) in cuts {
                map.carve(GuestAddress(address), length, RangeKind::Acpi);
            }
            prop_assert_eq!(map.ram().map(|(_, length)| length).sum::<u64>(), bytes);
            prop_assert!(map.0.windows(2).all(|pair| pair[0].address.0 + pair[0].length <= pair[1].address.0));
        }
    }
}
