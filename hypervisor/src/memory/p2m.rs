//! Guest-physical memory of a domain: its second-stage tables, and nothing beside them, so what the processor does and what the hypervisor
//! believes cannot differ.
//!
//! Ranges that allow it are mapped by pages of 2 MiB; a change inside one splits it. Tables live in frames of the allocator and come back
//! with [`P2m::release`]; the frames that are mapped belong to whoever mapped them.
//!
//! After [`P2m::unmap`], or a [`P2m::map`] over what was mapped, old translations may live on in the processor: the caller flushes the vCPUs of the domain
//! ([`crate::virt::VirtualCpu::flush_translations`]) before it lets the frame go.

use super::{
    DirectMap, Frame, FrameAllocator, GuestAddress, LongMode, MachineAddress, OutOfMemory, PAGE_SIZE,
    TableFormat, tables::Entry,
};

/// What a page of guest-physical memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// The domain's own memory.
    Ram = 0,
    /// Another domain's page, mapped by a grant.
    Granted = 1,
    /// A device's registers.
    Device = 2,
    /// A page of the hypervisor that the domain may reach: shared info, grant table.
    Special = 3,
}

/// What a page of guest-physical memory is backed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The frame.
    pub machine: Frame,
    /// Whether the guest may write.
    pub writable: bool,
    /// What it is.
    pub kind: PageKind,
}

const ENTRIES: u64 = 512;
const TOP: u32 = 3;
/// Pages of 4 KiB in one of 2 MiB.
const LARGE_PAGES: u64 = ENTRIES;
/// Guest-physical addresses have 48 bits.
const LIMIT: u64 = 1 << 48;

/// Guest-physical memory of a domain.
pub struct P2m<F = LongMode> {
    root: Frame,
    format: F,
    /// Frames that hold tables.
    tables: u64,
}

impl P2m {
    /// An empty memory in the format of SVM.
    pub fn new(memory: &DirectMap, frames: &mut FrameAllocator) -> Result<Self, OutOfMemory> {
        Self::with_format(memory, frames, LongMode)
    }
}

impl<F: TableFormat> P2m<F> {
    /// An empty memory in a given format.
    pub fn with_format(
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        format: F,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            root: new_table(memory, frames)?,
            format,
            tables: 1,
        })
    }

    /// Where the processor finds the tables.
    pub const fn root(&self) -> MachineAddress {
        self.root.address()
    }

    /// Frames that hold tables.
    pub const fn table_pages(&self) -> u64 {
        self.tables
    }

    /// Maps the page that holds `at`, over whatever was there. An address beyond 48 bits counts as no memory.
    pub fn map(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
        mapping: Mapping,
    ) -> Result<(), OutOfMemory> {
        self.set(memory, frames, at, mapping, 0)
    }

    /// Maps `count` pages from `at` to frames that follow each other from `mapping.machine`, by large pages where both sides are aligned. What
    /// was mapped before stays mapped if memory runs out halfway.
    pub fn map_range(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
        count: u64,
        mapping: Mapping,
    ) -> Result<(), OutOfMemory> {
        let mut page = 0;
        while page < count {
            let guest = at.frame_number() + page;
            let machine = Frame(mapping.machine.0 + page);
            let large = guest.is_multiple_of(LARGE_PAGES)
                && machine.0.is_multiple_of(LARGE_PAGES)
                && count - page >= LARGE_PAGES
                && !self.has_table(memory, GuestAddress::of_frame(guest));
            let level = u32::from(large);
            self.set(
                memory,
                frames,
                GuestAddress::of_frame(guest),
                Mapping { machine, ..mapping },
                level,
            )?;
            page += if large { LARGE_PAGES } else { 1 };
        }
        Ok(())
    }

    /// Takes the page that holds `at` away; answers what it was. Splitting a large page may need a table.
    pub fn unmap(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
    ) -> Result<Option<Mapping>, OutOfMemory> {
        let Some(mapping) = self.translate(memory, at) else {
            return Ok(None);
        };
        let slot = self.slot(memory, frames, at, 0)?;
        write_entry(memory, slot, 0);
        Ok(Some(mapping))
    }

    /// What backs the page that holds `at`.
    pub fn translate(&self, memory: &DirectMap, at: GuestAddress) -> Option<Mapping> {
        if at.0 >= LIMIT {
            return None;
        }
        let mut table = self.root;
        for level in (0..=TOP).rev() {
            match self
                .format
                .decode(read_entry(memory, slot_of(table, at, level)), level)
            {
                Entry::Empty => return None,
                Entry::Table(next) => table = next,
                Entry::Page(mapping) => {
                    let offset = at.frame_number() & (pages_at(level) - 1);
                    return Some(Mapping {
                        machine: Frame(mapping.machine.0 + offset),
                        ..mapping
                    });
                }
            }
        }
        None
    }

    /// Where the byte at `at` is, for the hypervisor's own reading or writing on the guest's behalf: memory only, never a device.
    pub fn machine_address(
        &self,
        memory: &DirectMap,
        at: GuestAddress,
        write: bool,
    ) -> Option<MachineAddress> {
        let mapping = self.translate(memory, at)?;
        (mapping.kind != PageKind::Device && (mapping.writable || !write))
            .then(|| MachineAddress(mapping.machine.address().0 + at.page_offset()))
    }

    /// Calls `each` with every mapped page or large page: its address, what backs its first page, and how many pages it has.
    pub fn for_each(&self, memory: &DirectMap, mut each: impl FnMut(GuestAddress, Mapping, u64)) {
        self.visit(memory, self.root, TOP, 0, &mut each);
    }

    /// Gives the tables back. The frames that they mapped are the caller's matter, before.
    pub fn release(self, memory: &DirectMap, frames: &mut FrameAllocator) {
        self.release_table(memory, frames, self.root, TOP);
    }

    fn set(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
        mapping: Mapping,
        level: u32,
    ) -> Result<(), OutOfMemory> {
        let slot = self.slot(memory, frames, at, level)?;
        write_entry(memory, slot, self.format.page(mapping, level));
        Ok(())
    }

    /// Whether the 2 MiB around `at` already have a table of small pages, which a large page would lose.
    fn has_table(&self, memory: &DirectMap, at: GuestAddress) -> bool {
        if at.0 >= LIMIT {
            return false;
        }
        let mut table = self.root;
        for level in (1..=TOP).rev() {
            match self
                .format
                .decode(read_entry(memory, slot_of(table, at, level)), level)
            {
                Entry::Table(next) => table = next,
                _ => return false,
            }
        }
        true
    }

    /// The entry for `at` in a table of `level`; makes the tables above it, and splits large pages on the way.
    fn slot(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
        level: u32,
    ) -> Result<MachineAddress, OutOfMemory> {
        if at.0 >= LIMIT {
            return Err(OutOfMemory);
        }
        let mut table = self.root;
        for above in (level + 1..=TOP).rev() {
            let slot = slot_of(table, at, above);
            table = match self.format.decode(read_entry(memory, slot), above) {
                Entry::Table(next) => next,
                Entry::Empty => {
                    let next = new_table(memory, frames)?;
                    self.tables += 1;
                    write_entry(memory, slot, self.format.table(next));
                    next
                }
                Entry::Page(mapping) => {
                    let next = new_table(memory, frames)?;
                    self.tables += 1;
                    for index in 0..ENTRIES {
                        let machine = Frame(mapping.machine.0 + index * pages_at(above - 1));
                        let entry = self.format.page(Mapping { machine, ..mapping }, above - 1);
                        write_entry(memory, MachineAddress(next.address().0 + index * 8), entry);
                    }
                    write_entry(memory, slot, self.format.table(next));
                    next
                }
            };
        }
        Ok(slot_of(table, at, level))
    }

    fn visit(
        &self,
        memory: &DirectMap,
        table: Frame,
        level: u32,
        base: u64,
        each: &mut impl FnMut(GuestAddress, Mapping, u64),
    ) {
        for index in 0..ENTRIES {
            let at = base + index * pages_at(level);
            match self.format.decode(
                read_entry(memory, MachineAddress(table.address().0 + index * 8)),
                level,
            ) {
                Entry::Empty => {}
                Entry::Table(next) => self.visit(memory, next, level - 1, at, each),
                Entry::Page(mapping) => each(GuestAddress::of_frame(at), mapping, pages_at(level)),
            }
        }
    }

    fn release_table(&self, memory: &DirectMap, frames: &mut FrameAllocator, table: Frame, level: u32) {
        if level > 0 {
            for index in 0..ENTRIES {
                let entry = read_entry(memory, MachineAddress(table.address().0 + index * 8));
                if let Entry::Table(next) = self.format.decode(entry, level) {
                    self.release_table(memory, frames, next, level - 1);
                }
            }
        }
        frames.free(table, 1);
    }
}

/// Pages of 4 KiB that an entry of a table at `level` covers.
const fn pages_at(level: u32) -> u64 {
    1 << (9 * level)
}

const fn slot_of(table: Frame, at: GuestAddress, level: u32) -> MachineAddress {
    MachineAddress(table.address().0 + (at.frame_number() >> (9 * level)) % ENTRIES * 8)
}

// The processor walks the tables of a running domain at the same time, so entries are read and written whole.
fn read_entry(memory: &DirectMap, slot: MachineAddress) -> u64 {
    memory
        .atomic_u64(slot)
        .load(core::sync::atomic::Ordering::Relaxed)
}

fn write_entry(memory: &DirectMap, slot: MachineAddress, entry: u64) {
    memory
        .atomic_u64(slot)
        .store(entry, core::sync::atomic::Ordering::Release);
}

fn new_table(memory: &DirectMap, frames: &mut FrameAllocator) -> Result<Frame, OutOfMemory> {
    let table = frames.allocate().ok_or(OutOfMemory)?;
    memory.zero(table.address(), PAGE_SIZE as usize);
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn setup() -> (DirectMap, FrameAllocator, P2m) {
        let memory = DirectMap::fake(64);
        let mut frames = FrameAllocator::new(&[(Frame(0), 64)]);
        let p2m = P2m::new(&memory, &mut frames).unwrap();
        (memory, frames, p2m)
    }

    fn ram(frame: u64) -> Mapping {
        Mapping {
            machine: Frame(frame),
            writable: true,
            kind: PageKind::Ram,
        }
    }

    #[test]
    fn maps_a_range_by_large_pages_and_splits_them() {
        let (memory, mut frames, mut p2m) = setup();
        p2m.map_range(&memory, &mut frames, GuestAddress(0), 1024 + 3, ram(0x20_0000))
            .unwrap();
        assert_eq!(p2m.table_pages(), 4);
        assert_eq!(
            p2m.translate(&memory, GuestAddress(0x2f_f123)),
            Some(ram(0x20_02ff))
        );
        assert_eq!(
            p2m.translate(&memory, GuestAddress(1026 << 12)),
            Some(ram(0x20_0402))
        );
        assert_eq!(p2m.translate(&memory, GuestAddress(1027 << 12)), None);
        // Taking one page out of a large one leaves the others.
        let taken = p2m.unmap(&memory, &mut frames, GuestAddress(5 << 12)).unwrap();
        assert_eq!((taken, p2m.table_pages()), (Some(ram(0x20_0005)), 5));
        assert_eq!(p2m.translate(&memory, GuestAddress(5 << 12)), None);
        assert_eq!(
            p2m.translate(&memory, GuestAddress(6 << 12)),
            Some(ram(0x20_0006))
        );
        assert_eq!(
            p2m.translate(&memory, GuestAddress(511 << 12)),
            Some(ram(0x20_01ff))
        );
        let granted = Mapping {
            machine: Frame(9),
            writable: false,
            kind: PageKind::Granted,
        };
        p2m.map(&memory, &mut frames, GuestAddress(5 << 12), granted)
            .unwrap();
        assert_eq!(p2m.translate(&memory, GuestAddress(5 << 12)), Some(granted));
        assert_eq!(
            p2m.machine_address(&memory, GuestAddress(0x5123), false),
            Some(MachineAddress(0x9123))
        );
        assert_eq!(p2m.machine_address(&memory, GuestAddress(0x5123), true), None);
        let mut pages = 0;
        p2m.for_each(&memory, |_, _, count| pages += count);
        assert_eq!(pages, 1027);
        p2m.release(&memory, &mut frames);
        assert_eq!(frames.free_pages(), 64);
    }

    #[test]
    fn says_when_no_frame_is_left_for_a_table() {
        let memory = DirectMap::fake(4);
        let mut frames = FrameAllocator::new(&[(Frame(0), 3)]);
        let mut p2m = P2m::new(&memory, &mut frames).unwrap();
        assert_eq!(
            p2m.map(&memory, &mut frames, GuestAddress(0), ram(1)),
            Err(OutOfMemory)
        );
        assert_eq!(
            p2m.map(&memory, &mut frames, GuestAddress(LIMIT), ram(1)),
            Err(OutOfMemory)
        );
        p2m.release(&memory, &mut frames);
        assert_eq!(frames.free_pages(), 3);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0u8..3, 0u64..2048, 1u64..1200), 1..12)) {
            let (memory, mut frames, mut p2m) = setup();
            let mut model = BTreeMap::new();
            for (index, (what, page, count)) in steps.into_iter().enumerate() {
                let at = GuestAddress::of_frame(page);
                match what {
                    0 => {
                        let first = ((index as u64) << 20) + page % 512;
                        p2m.map_range(&memory, &mut frames, at, count, ram(first)).unwrap();
                        model.extend((0..count).map(|offset| (page + offset, first + offset)));
                    }
                    1 => {
                        p2m.map(&memory, &mut frames, at, ram(count)).unwrap();
                        model.insert(page, count);
                    }
                    _ => {
                        let was = p2m.unmap(&memory, &mut frames, at).unwrap();
                        prop_assert_eq!(was.map(|mapping| mapping.machine.0), model.remove(&page));
                    }
                }
            }
            for page in 0..4096 {
                let found = p2m.translate(&memory, GuestAddress::of_frame(page)).map(|mapping| mapping.machine.0);
                prop_assert_eq!(found, model.get(&page).copied());
            }
        }

        #[test]
        fn answers_any_address(address: u64) {
            let (memory, _, p2m) = setup();
            prop_assert_eq!(p2m.translate(&memory, GuestAddress(address)), None);
        }
    }
}
