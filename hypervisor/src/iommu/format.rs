//! How the entries of the tables that an IOMMU walks are written. Both makers have levels of 512 entries; the levels count from 0, which holds pages of 4 KiB.
#![allow(unsafe_code)] // Writes back cache lines.

use crate::memory::{DirectMap, Frame, MachineAddress, Mapping, PageKind, TableEntry, TableFormat};

/// Bits 12 to 51: the frame, at any level.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bytes that CLFLUSH writes back.
const CACHE_LINE: usize = 64;

/// A format of I/O page tables. Whatever is mapped can be read; a page's [`PageKind`] is kept where software has bits for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Second-stage entries of VT-d (Virtualization Technology for Directed I/O, 9.8).
    Intel {
        /// The unit sees the processors' caches; where it does not, entries are written back to memory.
        coherent: bool,
    },
    /// Version 1 entries of AMD-Vi (48882, 2.2.3).
    Amd,
}

mod intel {
    pub(super) const READ: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const KIND: u32 = 52;
}

mod amd {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const KIND: u32 = 1;
    /// The level of the next table, counted from 1; 0 for a page.
    pub(super) const NEXT_LEVEL: u32 = 9;
    /// Accesses are kept coherent with the processors' caches.
    pub(super) const COHERENT: u64 = 1 << 60;
    pub(super) const READ: u64 = 1 << 61;
    pub(super) const WRITE: u64 = 1 << 62;
}

const fn kind(bits: u64) -> PageKind {
    match bits & 3 {
        0 => PageKind::Ram,
        1 => PageKind::Granted,
        2 => PageKind::Device,
        _ => PageKind::Special,
    }
}

impl TableFormat for Format {
    fn page(&self, mapping: Mapping, level: u32) -> u64 {
        let frame = mapping.machine.address().0;
        let bits = mapping.kind as u64;
        match self {
            Self::Intel { .. } => {
                let write = if mapping.writable { intel::WRITE } else { 0 };
                let large = if level > 0 { intel::LARGE } else { 0 };
                frame | intel::READ | write | large | bits << intel::KIND
            }
            Self::Amd => {
                let write = if mapping.writable { amd::WRITE } else { 0 };
                frame | amd::PRESENT | amd::READ | write | amd::COHERENT | bits << amd::KIND
            }
        }
    }

    fn table(&self, table: Frame, level: u32) -> u64 {
        let table = table.address().0;
        match self {
            Self::Intel { .. } => table | intel::READ | intel::WRITE,
            Self::Amd => table | amd::PRESENT | amd::READ | amd::WRITE | u64::from(level) << amd::NEXT_LEVEL,
        }
    }

    fn decode(&self, entry: u64, level: u32) -> TableEntry {
        let frame = Frame((entry & ADDRESS) >> 12);
        let (present, table, writable, bits) = match self {
            Self::Intel { .. } => (
                entry & (intel::READ | intel::WRITE) != 0,
                level > 0 && entry & intel::LARGE == 0,
                entry & intel::WRITE != 0,
                entry >> intel::KIND,
            ),
            Self::Amd => (
                entry & amd::PRESENT != 0,
                entry >> amd::NEXT_LEVEL & 7 != 0,
                entry & amd::WRITE != 0,
                entry >> amd::KIND,
            ),
        };
        match (present, table) {
            (false, _) => TableEntry::Empty,
            (true, true) => TableEntry::Table(frame),
            (true, false) => TableEntry::Page(Mapping {
                machine: frame,
                writable,
                kind: kind(bits),
            }),
        }
    }

    fn written(&self, memory: &DirectMap, at: MachineAddress, length: usize) {
        if matches!(self, Self::Intel { coherent: false }) {
            write_back(memory, at, length);
        }
    }
}

/// Writes what the processors' caches hold of a piece of memory back, for a unit that does not see them.
pub(super) fn write_back(memory: &DirectMap, at: MachineAddress, length: usize) {
    let first = at.0 as usize % CACHE_LINE;
    let start = memory.pointer(at, length);
    for offset in (0..first + length).step_by(CACHE_LINE) {
        let line = start.wrapping_add(offset).wrapping_sub(first);
        // SAFETY: the line holds a byte of the range that `pointer` checked; CLFLUSH changes no memory.
        unsafe { core::arch::x86_64::_mm_clflush(line) };
    }
    // SAFETY: a fence has no operands.
    unsafe { core::arch::x86_64::_mm_mfence() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back() {
        for format in [Format::Intel { coherent: true }, Format::Amd] {
            for writable in [false, true] {
                for level in [0, 1, 2] {
                    let mapping = Mapping {
                        machine: Frame(0x40_0000),
                        writable,
                        kind: PageKind::Granted,
                    };
                    let entry = format.page(mapping, level);
                    assert_eq!(format.decode(entry, level), TableEntry::Page(mapping));
                }
            }
            for level in [1, 2, 3] {
                let entry = format.table(Frame(7), level);
                assert_eq!(format.decode(entry, level), TableEntry::Table(Frame(7)));
            }
            assert_eq!(format.decode(0, 2), TableEntry::Empty);
        }
    }

    #[test]
    fn entries_are_what_the_manuals_say() {
        let page = |format: Format, level| {
            let mapping = Mapping {
                machine: Frame(0x200),
                writable: true,
                kind: PageKind::Ram,
            };
            format.page(mapping, level)
        };
        let intel = Format::Intel { coherent: false };
        assert_eq!((page(intel, 0), page(intel, 1)), (0x20_0003, 0x20_0083));
        assert_eq!(intel.table(Frame(1), 3), 0x1003);
        assert_eq!(page(Format::Amd, 1), 0x7000_0000_0020_0001);
        assert_eq!(Format::Amd.table(Frame(1), 3), 0x6000_0000_0000_1601);
    }

    #[test]
    fn lines_are_written_back_wherever_they_begin() {
        let memory = DirectMap::fake(2);
        write_back(&memory, MachineAddress(4096 - 8), 8);
        Format::Intel { coherent: false }.written(&memory, MachineAddress(0x100), 4096);
    }
}
