//! What the devices of one domain reach: its I/O page tables, which all its devices share. Device addresses are the domain's guest-physical ones.

use super::Format;
use crate::memory::{
    DirectMap, Frame, FrameAllocator, GuestAddress, MachineAddress, Mapping, OutOfMemory, P2m, PageKind,
};

/// How tables have to be made so that every unit of the machine can walk them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How entries are written.
    pub format: Format,
    /// Levels of tables: 3 for addresses of 39 bits, 4 for 48.
    pub levels: u32,
    /// Pages of 2 MiB can be used.
    pub large_pages: bool,
    /// Pages of 1 GiB can be used.
    pub giant_pages: bool,
}

/// The I/O page tables of a domain. The frames that are mapped belong to whoever mapped them.
///
/// After an unmapping, units may know the old translation: it has to be invalidated ([`super::Unit::invalidate`]) and that completed before a frame gets
/// another use.
pub struct IoTables {
    pages: P2m<Format>,
}

impl IoTables {
    /// Tables that map nothing.
    pub fn new(memory: &DirectMap, frames: &mut FrameAllocator, shape: Shape) -> Result<Self, OutOfMemory> {
        let mut pages = P2m::with_levels(memory, frames, shape.format, shape.levels)?;
        if !shape.large_pages {
            pages.forbid_large_pages();
        }
        if shape.giant_pages && shape.large_pages {
            pages.allow_giant_pages();
        }
        Ok(Self { pages })
    }

    /// Where units find them.
    pub const fn root(&self) -> MachineAddress {
        self.pages.root()
    }

    /// Frames that hold them.
    pub const fn table_pages(&self) -> u64 {
        self.pages.table_pages()
    }

    /// Lets devices reach `count` pages from `at`, which are frames that follow each other from `first`; over whatever was there.
    pub fn map(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
        first: Frame,
        count: u64,
        writable: bool,
    ) -> Result<(), OutOfMemory> {
        let mapping = Mapping {
            machine: first,
            writable,
            kind: PageKind::Ram,
        };
        self.pages.map_range(memory, frames, at, count, mapping)
    }

    /// Keeps devices from the page at `at`; whether anything was there.
    pub fn unmap(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
    ) -> Result<bool, OutOfMemory> {
        Ok(self.pages.unmap(memory, frames, at)?.is_some())
    }

    /// What devices find at an address: the frame, and whether they may write to it.
    pub fn translate(&self, memory: &DirectMap, at: GuestAddress) -> Option<(Frame, bool)> {
        let mapping = self.pages.translate(memory, at)?;
        Some((mapping.machine, mapping.writable))
    }

    /// Whether an address is one that the tables can map.
    pub const fn covers(&self, at: GuestAddress) -> bool {
        self.pages.covers(at)
    }

    /// Calls `each` with every mapped page or large page: its address, its first frame, how many pages it has.
    pub fn for_each(&self, memory: &DirectMap, mut each: impl FnMut(GuestAddress, Frame, u64)) {
        self.pages
            .for_each(memory, |at, mapping, count| each(at, mapping.machine, count));
    }

    /// Gives the tables back. No unit knows them any more.
    pub fn release(self, memory: &DirectMap, frames: &mut FrameAllocator) {
        self.pages.release(memory, frames);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE_SIZE;

    #[test]
    fn tables_have_the_levels_and_pages_that_units_can_walk() {
        let memory = DirectMap::fake(2048);
        for (levels, large_pages, tables) in [(3, true, 3), (4, true, 4), (3, false, 4)] {
            let mut frames = FrameAllocator::new(&[(Frame(1), 600)]);
            let free = frames.free_pages();
            let shape = Shape {
                format: Format::Intel { coherent: true },
                levels,
                large_pages,
                giant_pages: false,
            };
            let mut io = IoTables::new(&memory, &mut frames, shape).unwrap();
            let at = GuestAddress(2 << 20);
            // One large page and one small one behind it.
            io.map(&memory, &mut frames, at, Frame(1024), 513, true).unwrap();
            assert_eq!(io.table_pages(), tables + u64::from(levels == 4 && !large_pages));
            let last = GuestAddress(at.0 + 512 * PAGE_SIZE);
            assert_eq!(io.translate(&memory, last), Some((Frame(1536), true)));
            assert!(io.unmap(&memory, &mut frames, last).unwrap());
            assert!(!io.unmap(&memory, &mut frames, last).unwrap());
            let beyond = GuestAddress(1 << (12 + 9 * levels));
            assert!(io.covers(GuestAddress(beyond.0 - 1)) && !io.covers(beyond));
            assert!(io.map(&memory, &mut frames, beyond, Frame(1), 1, false).is_err());
            let mut pages = 0;
            io.for_each(&memory, |_, _, count| pages += count);
            assert_eq!(pages, 512);
            io.release(&memory, &mut frames);
            assert_eq!(frames.free_pages(), free);
        }
    }
}
