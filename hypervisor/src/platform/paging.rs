//! The hypervisor's own page tables (AMD64 Architecture Programmer's Manual, volume 2, 5.3): built once, later only added to, never changed, so no
//! translation ever has to be flushed. The largest page that fits is used.

use crate::memory::{MachineAddress, PAGE_SIZE};

bitflags::bitflags! {
    /// What a mapping allows. Readable it always is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u64 {
        /// Writable.
        const WRITABLE = 1 << 1;
        /// Not cached (PAT entry 3, uncacheable after reset).
        const UNCACHED = 1 << 3 | 1 << 4;
        /// Not executable.
        const NO_EXECUTE = 1 << 63;
    }
}

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RIGHTS: u64 = Rights::all().bits();

/// Where page tables live.
pub trait TableMemory {
    /// A zeroed page for a table.
    fn allocate(&mut self) -> Option<MachineAddress>;
    /// Entry `index` of a table.
    fn entry(&self, table: MachineAddress, index: usize) -> u64;
    /// Sets entry `index` of a table.
    fn set_entry(&mut self, table: MachineAddress, index: usize, value: u64);
}

/// Why something is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No page for a table.
    #[error("no memory is left for page tables")]
    OutOfMemory,
    /// There is another mapping.
    #[error("address {0:#x} is mapped already, to another place or with other rights")]
    Conflict(u64),
    /// The place is not one that may be mapped like this.
    #[error("machine address {0:#x} may not be mapped like this")]
    Refused(u64),
}

/// Four-level tables.
pub struct Tables<M> {
    memory: M,
    root: MachineAddress,
    gigabyte_pages: bool,
    no_execute: bool,
}

impl<M: TableMemory> Tables<M> {
    /// Empty tables. `gigabyte_pages` and `no_execute` say what the processor knows.
    pub fn new(mut memory: M, gigabyte_pages: bool, no_execute: bool) -> Result<Self, MapError> {
        let root = memory.allocate().ok_or(MapError::OutOfMemory)?;
        Ok(Self {
            memory,
            root,
            gigabyte_pages,
            no_execute,
        })
    }

    /// What CR3 is to hold.
    pub fn root(&self) -> MachineAddress {
        self.root
    }

    /// Maps `length` bytes at `address` to `machine`; all three are multiples of the page size. Mapping again what is mapped the same way is
    /// no error.
    pub fn map(
        &mut self,
        address: u64,
        machine: MachineAddress,
        length: u64,
        rights: Rights,
    ) -> Result<(), MapError> {
        assert!(
            (address | machine.0 | length).is_multiple_of(PAGE_SIZE),
            "mappings are of whole pages"
        );
        let mut done = 0;
        while done < length {
            let (at, to) = (address + done, machine.0 + done);
            let fits = |level: u32| {
                let size = page_size(level);
                (at | to).is_multiple_of(size) && length - done >= size
            };
            let level = match () {
                () if self.gigabyte_pages && fits(2) => 2,
                () if fits(1) => 1,
                () => 0,
            };
            done += self.map_page(at, to, level, rights)?;
        }
        Ok(())
    }

    /// Maps one page of `level` or smaller; how many bytes from `at` on are mapped now.
    fn map_page(&mut self, at: u64, to: u64, level: u32, rights: Rights) -> Result<u64, MapError> {
        let rights = if self.no_execute {
            rights
        } else {
            rights - Rights::NO_EXECUTE
        };
        let mut table = self.root;
        for depth in [3, 2, 1, 0] {
            let index = (at >> (12 + 9 * depth)) as usize % 512;
            let entry = self.memory.entry(table, index);
            let leaf = entry & PRESENT != 0 && (depth == 0 || entry & LARGE != 0);
            if leaf {
                let offset = at % page_size(depth);
                let same = (entry & ADDRESS) + offset == to && entry & RIGHTS == rights.bits();
                return if same {
                    Ok(page_size(depth) - offset)
                } else {
                    Err(MapError::Conflict(at))
                };
            }
            if entry & PRESENT != 0 {
                // A table, which also serves a page that would have fitted here.
                table = MachineAddress(entry & ADDRESS);
                continue;
            }
            if depth <= level {
                let large = if depth > 0 { LARGE } else { 0 };
                self.memory
                    .set_entry(table, index, to | rights.bits() | PRESENT | GLOBAL | large);
                return Ok(page_size(depth));
            }
            let next = self.memory.allocate().ok_or(MapError::OutOfMemory)?;
            self.memory
                .set_entry(table, index, next.0 | Rights::WRITABLE.bits() | PRESENT);
            table = next;
        }
        unreachable!("depth 0 is a leaf or absent")
    }

    /// Where `address` leads, and with which rights.
    pub fn translate(&self, address: u64) -> Option<(MachineAddress, Rights)> {
        let mut table = self.root;
        for depth in [3, 2, 1, 0] {
            let entry = self
                .memory
                .entry(table, (address >> (12 + 9 * depth)) as usize % 512);
            if entry & PRESENT == 0 {
                return None;
            }
            if depth == 0 || entry & LARGE != 0 {
                let machine = (entry & ADDRESS) + address % page_size(depth);
                return Some((MachineAddress(machine), Rights::from_bits_truncate(entry)));
            }
            table = MachineAddress(entry & ADDRESS);
        }
        None
    }
}

const fn page_size(level: u32) -> u64 {
    PAGE_SIZE << (9 * level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const BASE: u64 = 0xffff_8000_0000_0000;

    #[derive(Default)]
    struct Fake(Vec<[u64; 512]>);

    impl TableMemory for Fake {
        fn allocate(&mut self) -> Option<MachineAddress> {
            self.0.push([0; 512]);
            (self.0.len() < 100).then_some(MachineAddress((self.0.len() as u64 - 1) * PAGE_SIZE))
        }
        fn entry(&self, table: MachineAddress, index: usize) -> u64 {
            self.0[(table.0 / PAGE_SIZE) as usize][index]
        }
        fn set_entry(&mut self, table: MachineAddress, index: usize, value: u64) {
            self.0[(table.0 / PAGE_SIZE) as usize][index] = value;
        }
    }

    fn tables() -> Tables<Fake> {
        Tables::new(Fake::default(), true, true).unwrap()
    }

    #[test]
    fn uses_the_largest_pages_that_fit() {
        let mut tables = tables();
        tables
            .map(
                BASE,
                MachineAddress(0),
                3 * GIB,
                Rights::WRITABLE | Rights::NO_EXECUTE,
            )
            .unwrap();
        assert_eq!(tables.memory.0.len(), 2);
        tables
            .map(
                BASE + 4 * GIB,
                MachineAddress(4 * GIB),
                2 * MIB + 8 * KIB,
                Rights::empty(),
            )
            .unwrap();
        assert_eq!(tables.memory.0.len(), 4);
        assert_eq!(
            tables.translate(BASE + 2 * GIB + 5),
            Some((MachineAddress(2 * GIB + 5), Rights::WRITABLE | Rights::NO_EXECUTE))
        );
        assert_eq!(
            tables.translate(BASE + 4 * GIB + 2 * MIB + 4096),
            Some((MachineAddress(4 * GIB + 2 * MIB + 4096), Rights::empty()))
        );
        assert_eq!(tables.translate(BASE + 4 * GIB + 2 * MIB + 8192), None);
        assert_eq!(tables.translate(0), None);
    }

    #[test]
    fn the_same_again_is_fine_and_another_is_a_conflict() {
        let mut tables = tables();
        let device = Rights::WRITABLE | Rights::NO_EXECUTE | Rights::UNCACHED;
        tables.map(BASE, MachineAddress(0), GIB, device).unwrap();
        tables
            .map(BASE + 4096, MachineAddress(4096), 2 * MIB, device)
            .unwrap();
        assert_eq!(
            tables.map(BASE + 4096, MachineAddress(8192), 4096, device),
            Err(MapError::Conflict(BASE + 4096))
        );
        assert_eq!(
            tables.map(BASE, MachineAddress(0), 4096, Rights::empty()),
            Err(MapError::Conflict(BASE))
        );
        // A small page first, then a range around it that would fit a large one.
        tables
            .map(BASE + GIB + 4096, MachineAddress(GIB + 4096), 4096, device)
            .unwrap();
        tables
            .map(BASE + GIB, MachineAddress(GIB), 2 * MIB, device)
            .unwrap();
        assert_eq!(
            tables.translate(BASE + GIB + 2 * MIB - 1).unwrap().0,
            MachineAddress(GIB + 2 * MIB - 1)
        );
    }

    #[test]
    fn running_out_of_tables_is_an_error() {
        let mut tables = tables();
        let result: Vec<_> = (0..120)
            .map(|slot| tables.map(BASE + slot * 512 * GIB, MachineAddress(0), 4096, Rights::empty()))
            .collect();
        assert!(result.contains(&Err(MapError::OutOfMemory)));
        assert_eq!(vec![Ok(()); 3], result[..3]);
    }

    proptest! {
        #[test]
        fn every_page_of_every_range_translates(ranges in proptest::collection::vec((0u64..2048, 1u64..1600), 1..6), probe in 0u64..4096) {
            let mut tables = tables();
            for &(start, pages) in &ranges {
                tables.map(BASE + start * PAGE_SIZE, MachineAddress(start * PAGE_SIZE), pages * PAGE_SIZE, Rights::empty()).unwrap();
            }
            let inside = ranges.iter().any(|&(start, pages)| (start..start + pages).contains(&probe));
            let found = tables.translate(BASE + probe * PAGE_SIZE).map(|(machine, _)| machine.0 / PAGE_SIZE);
            prop_assert_eq!(found, inside.then_some(probe));
        }
    }
}
