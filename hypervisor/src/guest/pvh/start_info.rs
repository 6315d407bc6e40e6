//! The memory map and `hvm_start_info` (arch-x86/hvm/start_info.h) as bytes.

use alloc::vec::Vec;

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

    /// The map of a guest with `bytes` of memory: RAM from 0, the hole, RAM from 4 GiB.
    pub fn new(bytes: u64) -> Self {
        let _ = bytes;
        todo!()
    }

    /// Changes part of the RAM into another kind (the ACPI tables, for example). Ignored where it is not RAM.
    pub fn carve(&mut self, address: GuestAddress, length: u64, kind: RangeKind) {
        let _ = (address, length, kind);
        todo!()
    }

    /// The ranges of RAM (of every kind that is backed by memory).
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
        let _ = at;
        todo!()
    }
}
