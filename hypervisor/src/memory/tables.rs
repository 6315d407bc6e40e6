//! How the entries of second-stage page tables, and of those that IOMMUs walk, are written: levels of 512 entries in each format; what differs is behind
//! [`TableFormat`]. SVM's nested tables have the long-mode format (APM vol. 2, 15.25); EPT's entries go beside it, and those of IOMMUs are in
//! [`crate::iommu::Format`].

use super::{DirectMap, Frame, MachineAddress, Mapping, PageKind};

/// Bits 12 to 51: the frame, at any level.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 52 and 53, which both formats leave to software: the [`PageKind`].
const KIND_SHIFT: u32 = 52;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Empty,
    /// The next table.
    Table(Frame),
    /// A page: of 4 KiB at level 0, of 2 MiB at level 1, of 1 GiB at level 2.
    Page(Mapping),
}

/// A format of second-stage tables.
pub trait TableFormat {
    /// The entry for a page at `level`.
    fn page(&self, mapping: Mapping, level: u32) -> u64;
    /// The entry, in a table at `level`, that points at the next table.
    fn table(&self, table: Frame, level: u32) -> u64;
    /// What an entry of a table at `level` says.
    fn decode(&self, entry: u64, level: u32) -> Entry;
    /// Called after `length` bytes of a table were written, before anything points at them that did not: whoever walks the tables may not see the
    /// processor's caches.
    fn written(&self, _memory: &DirectMap, _at: MachineAddress, _length: usize) {}
}

/// The long-mode format, as SVM's nested paging uses it. Every access of a guest counts as a user's, so every entry allows users.
#[derive(Clone, Copy, Debug)]
pub struct LongMode;

impl LongMode {
    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    /// PWT and PCD: entry 3 of the host's PAT, which is uncached after reset, and stays so.
    const UNCACHED: u64 = 1 << 3 | 1 << 4;
    const LARGE: u64 = 1 << 7;
    const NO_EXECUTE: u64 = 1 << 63;
}

impl TableFormat for LongMode {
    fn page(&self, mapping: Mapping, level: u32) -> u64 {
        let mut entry =
            mapping.machine.address().0 | Self::PRESENT | Self::USER | (mapping.kind as u64) << KIND_SHIFT;
        if mapping.writable {
            entry |= Self::WRITABLE;
        }
        if mapping.kind == PageKind::Device {
            entry |= Self::UNCACHED;
        }
        if mapping.kind != PageKind::Ram {
            entry |= Self::NO_EXECUTE;
        }
        if level > 0 {
            entry |= Self::LARGE;
        }
        entry
    }

    fn table(&self, table: Frame, _: u32) -> u64 {
        table.address().0 | Self::PRESENT | Self::WRITABLE | Self::USER
    }

    fn decode(&self, entry: u64, level: u32) -> Entry {
        if entry & Self::PRESENT == 0 {
            return Entry::Empty;
        }
        let frame = Frame((entry & ADDRESS) >> 12);
        if level > 0 && entry & Self::LARGE == 0 {
            return Entry::Table(frame);
        }
        let kind = match entry >> KIND_SHIFT & 3 {
            0 => PageKind::Ram,
            1 => PageKind::Granted,
            2 => PageKind::Device,
            _ => PageKind::Special,
        };
        Entry::Page(Mapping {
            machine: frame,
            writable: entry & Self::WRITABLE != 0,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mode_entries_read_back() {
        for kind in [
            PageKind::Ram,
            PageKind::Granted,
            PageKind::Device,
            PageKind::Special,
        ] {
            for writable in [false, true] {
                for level in [0, 1] {
                    let mapping = Mapping {
                        machine: Frame(0x1234_5600),
                        writable,
                        kind,
                    };
                    assert_eq!(
                        LongMode.decode(LongMode.page(mapping, level), level),
                        Entry::Page(mapping)
                    );
                }
            }
        }
        assert_eq!(
            LongMode.decode(LongMode.table(Frame(7), 2), 2),
            Entry::Table(Frame(7))
        );
        assert_eq!(LongMode.decode(0, 0), Entry::Empty);
    }

    #[test]
    fn devices_are_uncached_and_only_memory_is_executable() {
        let page = |kind| {
            LongMode.page(
                Mapping {
                    machine: Frame(1),
                    writable: true,
                    kind,
                },
                0,
            )
        };
        assert_eq!(page(PageKind::Ram), 0x1007);
        assert_eq!(page(PageKind::Device) & 0x18, 0x18);
        assert_ne!(page(PageKind::Granted) >> 63, 0);
        assert_eq!(page(PageKind::Granted) & 0x18, 0);
    }
}
