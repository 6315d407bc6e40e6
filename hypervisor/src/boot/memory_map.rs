//! The memory map: what the loader says about it, and what of it is free once everything that is in use has been taken out.
//!
//! Firmware maps overlap, run backwards and end anywhere in a page. Here a byte counts as RAM only where some entry says so and no entry
//! says otherwise, and only whole pages count.

use alloc::vec::Vec;

use super::layout::RAM_LIMIT;
use crate::memory::{MachineAddress, PAGE_SIZE};

/// What is below is left to firmware, the legacy video memory, and the start-up code of further processors.
pub const LOW_MEMORY_END: MachineAddress = MachineAddress(1 << 20);

/// Bytes of machine memory: from `start` until before `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// First address.
    pub start: MachineAddress,
    /// First address behind it; not below `start`.
    pub end: MachineAddress,
}

impl Region {
    /// The region of `length` bytes from `start`, cut at the end of the address space.
    pub const fn new(start: MachineAddress, length: u64) -> Self {
        Self {
            start,
            end: MachineAddress(start.0.saturating_add(length)),
        }
    }

    /// Bytes in it.
    pub const fn length(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether it lies wholly in `other`.
    pub const fn is_within(&self, other: &Self) -> bool {
        self.start.0 >= other.start.0 && self.end.0 <= other.end.0
    }

    /// The whole pages that it touches.
    pub const fn outer_pages(&self) -> Self {
        let end = match self.end.0.checked_next_multiple_of(PAGE_SIZE) {
            Some(end) => end,
            None => u64::MAX / PAGE_SIZE * PAGE_SIZE,
        };
        Self {
            start: MachineAddress(self.start.0 / PAGE_SIZE * PAGE_SIZE),
            end: MachineAddress(end),
        }
    }

    /// The whole pages in it; empty where there is none.
    pub const fn inner_pages(&self) -> Self {
        let end = self.end.0 / PAGE_SIZE * PAGE_SIZE;
        match self.start.0.checked_next_multiple_of(PAGE_SIZE) {
            Some(start) if start < end => Self {
                start: MachineAddress(start),
                end: MachineAddress(end),
            },
            _ => Self {
                start: self.start,
                end: self.start,
            },
        }
    }
}

/// What an entry of the map says about its bytes. The numbers are those of ACPI's address range types, which both loaders pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RAM, free for use (1).
    Usable,
    /// ACPI tables in RAM (3).
    AcpiTables,
    /// RAM that firmware needs to find again after sleep (4).
    AcpiStorage,
    /// Defective RAM (5).
    Defective,
    /// Anything else.
    Reserved,
}

impl From<u32> for Kind {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 => Self::AcpiTables,
            4 => Self::AcpiStorage,
            5 => Self::Defective,
            _ => Self::Reserved,
        }
    }
}

/// An entry of the loader's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub region: Region,
    /// What.
    pub kind: Kind,
}

/// Takes `length` bytes in whole pages out of `free`: from the end of the last region that has them.
pub fn take(free: &mut Vec<Region>, length: u64) -> Option<Region> {
    let length = length.checked_next_multiple_of(PAGE_SIZE)?;
    let at = free
        .iter()
        .rposition(|region| region.inner_pages().length() >= length)?;
    let end = free[at].inner_pages().end;
    let taken = Region {
        start: MachineAddress(end.0 - length),
        end,
    };
    *free = without(free, taken);
    Some(taken)
}

/// RAM in whole pages: sorted, apart from each other, none empty, none beyond what the direct map can hold.
pub fn ram(entries: &[Entry]) -> Vec<Region> {
    let mut usable: Vec<Region> = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Usable)
        .map(|entry| entry.region)
        .collect();
    usable.sort();
    let mut merged: Vec<Region> = Vec::new();
    for region in usable {
        match merged.last_mut() {
            Some(last) if region.start <= last.end => last.end = last.end.max(region.end),
            _ => merged.push(region),
        }
    }
    for entry in entries.iter().filter(|entry| entry.kind != Kind::Usable) {
        merged = without(&merged, entry.region);
    }
    merged = without(
        &merged,
        Region {
            start: MachineAddress(RAM_LIMIT),
            end: MachineAddress(u64::MAX),
        },
    );
    merged
        .iter()
        .map(Region::inner_pages)
        .filter(|region| region.length() != 0)
        .collect()
}

/// `regions` without the bytes of `hole`; keeps their order.
pub fn without(regions: &[Region], hole: Region) -> Vec<Region> {
    if hole.length() == 0 {
        return regions.to_vec();
    }
    let pieces = |region: &Region| {
        [
            Region {
                start: region.start,
                end: region.end.min(hole.start),
            },
            Region {
                start: region.start.max(hole.end),
                end: region.end,
            },
        ]
    };
    regions
        .iter()
        .flat_map(pieces)
        .filter(|piece| piece.start < piece.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(start: u64, end: u64) -> Region {
        Region {
            start: MachineAddress(start),
            end: MachineAddress(end),
        }
    }

    fn entry(start: u64, end: u64, kind: Kind) -> Entry {
        Entry {
            region: region(start, end),
            kind,
        }
    }

    #[test]
    fn reserved_wins_over_usable_and_only_whole_pages_count() {
        let entries = [
            entry(0x10_0000, 0x20_0800, Kind::Usable),
            entry(0, 0x9fc00, Kind::Usable),
            entry(0x18_0800, 0x18_0900, Kind::AcpiTables),
            entry(0x1f_0000, 0x30_0000, Kind::Usable),
            entry(0x9fc00, 0xa_0000, Kind::Reserved),
        ];
        assert_eq!(
            ram(&entries),
            [
                region(0, 0x9f000),
                region(0x10_0000, 0x18_0000),
                region(0x18_1000, 0x30_0000)
            ]
        );
    }

    #[test]
    fn a_hole_splits_shortens_or_removes() {
        let regions = [region(0, 10), region(20, 30)];
        assert_eq!(
            without(&regions, region(5, 6)),
            [region(0, 5), region(6, 10), region(20, 30)]
        );
        assert_eq!(without(&regions, region(5, 25)), [region(0, 5), region(25, 30)]);
        assert_eq!(without(&regions, region(0, 30)), []);
        assert_eq!(without(&regions, region(7, 7)), regions);
    }

    proptest! {
        #[test]
        fn a_page_is_ram_exactly_if_all_its_bytes_are(
            raw in proptest::collection::vec((0u64..0x10000, 0u64..0x8000, 1u32..6), 0..8),
            page in 0u64..24,
        ) {
            let entries: Vec<Entry> = raw.iter()
                .map(|&(start, length, kind)| Entry { region: Region::new(MachineAddress(start), length), kind: kind.into() })
                .collect();
            let covers = |entry: &Entry, byte: u64| entry.region.start.0 <= byte && byte < entry.region.end.0;
            let expected = (page * PAGE_SIZE..(page + 1) * PAGE_SIZE).all(|byte| {
                entries.iter().any(|entry| entry.kind == Kind::Usable && covers(entry, byte))
                    && !entries.iter().any(|entry| entry.kind != Kind::Usable && covers(entry, byte))
            });
            let found = ram(&entries);
            let is_ram = found.iter().any(|region| region.start.0 <= page * PAGE_SIZE && (page + 1) * PAGE_SIZE <= region.end.0);
            prop_assert_eq!(is_ram, expected);
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }

        #[test]
        fn no_map_panics(raw in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..20)) {
            let entries: Vec<Entry> = raw.iter()
                .map(|&(start, length, kind)| Entry { region: Region::new(MachineAddress(start), length), kind: kind.into() })
                .collect();
            for region in ram(&entries) {
                prop_assert!(region.end.0 <= RAM_LIMIT && region.length() > 0);
                prop_assert!(region.start.0.is_multiple_of(PAGE_SIZE) && region.end.0.is_multiple_of(PAGE_SIZE));
            }
        }
    }
}
