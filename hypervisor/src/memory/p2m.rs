//! Guest-physical memory of a domain: its second-stage tables, and nothing beside them, so what the processor does and what the hypervisor
//! believes cannot differ. The tables by which an IOMMU shows a domain's memory to its devices are of the same make ([`crate::iommu::IoTables`]).
//!
//! Ranges that allow it are mapped by pages of 2 MiB, and of 1 GiB where the processor has them; a change inside one splits it, and [`P2m::promote`] joins the
//! parts again. Tables live in frames of the allocator and come back with [`P2m::release`]; the frames that are mapped belong to whoever mapped them.
//!
//! Translations are looked up far more often than tables change, so the last ones are remembered by 2 MiB ([`Recent`]).
//!
//! After [`P2m::unmap`], [`P2m::promote`], or a [`P2m::map`] over what was mapped, old translations may live on in the processor: the caller flushes the vCPUs of the domain
//! ([`crate::virt::VirtualCpu::flush_translations`]) before it lets the frame go.

use alloc::vec::Vec;
use core::cell::Cell;

use super::{
    DirectMap, Frame, FrameAllocator, GuestAddress, LongMode, MachineAddress, OutOfMemory, TableFormat,
    tables::Entry,
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
/// Level of the root where nothing else is said: four levels, which is 48 bits.
const TOP: u32 = 3;
/// Pages of 4 KiB in one of 2 MiB.
const LARGE_PAGES: u64 = ENTRIES;

/// Guest-physical memory of a domain.
pub struct P2m<F = LongMode> {
    root: Frame,
    /// Level of the root.
    top: u32,
    format: F,
    /// Frames that hold tables, or are going to.
    tables: u64,
    /// Pages of 2 MiB; one of 1 GiB counts as 512.
    large: u64,
    /// Whether the processor has pages of 1 GiB.
    giant_pages: bool,
    /// Only pages of 4 KiB.
    small_only: bool,
    /// A frame for each page of 1 GiB, so that it can be split when no other is left.
    spare: Vec<Frame>,
    /// A page that is being given up, for want of another frame for a table.
    given_up: Option<Frame>,
    recent: Recent,
}

/// Entries for 2 MiB (a large page, or the table of its small ones) as they were last seen. Entries that change are forgotten, all at once.
struct Recent([Cell<(u64, u64)>; RECENT]);

const RECENT: usize = 16;

impl Recent {
    const fn new() -> Self {
        Self([const { Cell::new((u64::MAX, 0)) }; RECENT])
    }

    fn place(&self, region: u64) -> &Cell<(u64, u64)> {
        // Regions that are used together often lie apart by a power of two.
        &self.0[((region ^ region >> 4 ^ region >> 9) % RECENT as u64) as usize]
    }

    fn get(&self, region: u64) -> Option<u64> {
        let (of, entry) = self.place(region).get();
        (of == region).then_some(entry)
    }

    fn note(&self, region: u64, entry: u64) {
        self.place(region).set((region, entry));
    }

    fn forget(&self) {
        self.0.iter().for_each(|cell| cell.set((u64::MAX, 0)));
    }
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
        Self::with_levels(memory, frames, format, TOP + 1)
    }

    /// An empty memory in a given format, with addresses of 12 bits and nine more for each of the levels, of which there are at least two.
    pub fn with_levels(
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        format: F,
        levels: u32,
    ) -> Result<Self, OutOfMemory> {
        assert!((2..=5).contains(&levels));
        let root = new_table(memory, frames, &format)?;
        Ok(Self {
            root,
            top: levels - 1,
            format,
            tables: 1,
            large: 0,
            giant_pages: false,
            small_only: false,
            spare: Vec::new(),
            given_up: None,
            recent: Recent::new(),
        })
    }

    /// Lets pages of 1 GiB be used from now on; the processor has them.
    pub const fn allow_giant_pages(&mut self) {
        self.giant_pages = true;
    }

    /// Maps by pages of 4 KiB alone from now on.
    pub const fn forbid_large_pages(&mut self) {
        self.small_only = true;
    }

    /// Whether an address is one that the tables can map.
    pub const fn covers(&self, at: GuestAddress) -> bool {
        at.0 >> (12 + 9 * (self.top + 1)) == 0
    }

    /// Pages of 2 MiB that it maps by; one of 1 GiB counts as 512.
    pub const fn large_pages(&self) -> u64 {
        self.large
    }

    /// Where the processor finds the tables.
    pub const fn root(&self) -> MachineAddress {
        self.root.address()
    }

    /// Frames that hold tables.
    pub const fn table_pages(&self) -> u64 {
        self.tables
    }

    /// Maps the page that holds `at`, over whatever was there. An address beyond what the tables cover counts as no memory.
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
            let fits = |level: u32| {
                let pages = pages_at(level);
                !self.small_only
                    && guest.is_multiple_of(pages)
                    && machine.0.is_multiple_of(pages)
                    && count - page >= pages
                    && !self.has_table(memory, GuestAddress::of_frame(guest), level)
            };
            let level = if self.giant_pages && fits(2) {
                2
            } else {
                u32::from(fits(1))
            };
            if level == 2 {
                self.spare.try_reserve(1).map_err(|_| OutOfMemory)?;
                self.spare.push(frames.allocate().ok_or(OutOfMemory)?);
                self.tables += 1;
            }
            self.set(
                memory,
                frames,
                GuestAddress::of_frame(guest),
                Mapping { machine, ..mapping },
                level,
            )?;
            page += pages_at(level);
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
        self.write(memory, slot, 0);
        Ok(Some(mapping))
    }

    /// The same for a page whose frame the domain gives up, which works without a free frame: if none is left for a table, the page itself becomes one.
    /// Answers the frame that is free now, if it did not.
    ///
    /// No vCPU of the domain runs until its translations are flushed.
    pub fn give_up(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        at: GuestAddress,
    ) -> Result<Option<Frame>, OutOfMemory> {
        match self.unmap(memory, frames, at) {
            Ok(mapping) => Ok(mapping.map(|mapping| mapping.machine)),
            Err(OutOfMemory) => {
                let mapping = self.translate(memory, at).ok_or(OutOfMemory)?;
                self.given_up = Some(mapping.machine);
                let slot = self.slot(memory, frames, at, 0)?;
                self.write(memory, slot, 0);
                Ok(None)
            }
        }
    }

    /// Joins the pages of the 2 MiB around `at` if they are memory of the domain that lies together in the machine. Answers the frame of the table that
    /// they had, which is the caller's to free once the translations of the domain are flushed.
    pub fn promote(&mut self, memory: &DirectMap, at: GuestAddress) -> Option<Frame> {
        let mut table = self.root;
        for level in (2..=self.top).rev() {
            match self
                .format
                .decode(read_entry(memory, slot_of(table, at, level)), level)
            {
                Entry::Table(next) => table = next,
                _ => return None,
            }
        }
        let slot = slot_of(table, at, 1);
        let Entry::Table(small) = self.format.decode(read_entry(memory, slot), 1) else {
            return None;
        };
        let entry = |index: u64| read_entry(memory, MachineAddress(small.address().0 + index * 8));
        let Entry::Page(first) = self.format.decode(entry(0), 0) else {
            return None;
        };
        let wanted = |index: u64| {
            let machine = Frame(first.machine.0 + index);
            self.format.page(Mapping { machine, ..first }, 0)
        };
        // The processor may have marked entries as accessed and written.
        let same = |index: u64| self.format.decode(entry(index), 0) == self.format.decode(wanted(index), 0);
        let whole = first.kind == PageKind::Ram
            && first.machine.0.is_multiple_of(LARGE_PAGES)
            && same(ENTRIES - 1)
            && (1..ENTRIES - 1).all(same);
        if !whole {
            return None;
        }
        self.write(memory, slot, self.format.page(first, 1));
        self.recent.forget();
        self.large += 1;
        self.tables -= 1;
        Some(small)
    }

    /// The frame that would lie beside those of the neighbours of the page at `at`, so that they could be joined one day.
    pub fn beside(&self, memory: &DirectMap, at: GuestAddress) -> Option<Frame> {
        let page = at.frame_number();
        let index = page % LARGE_PAGES;
        let before = (index > 0).then(|| page - 1);
        let behind = (index + 1 < LARGE_PAGES).then_some(page + 1);
        before.into_iter().chain(behind).find_map(|neighbour| {
            let mapping = self.translate(memory, GuestAddress::of_frame(neighbour))?;
            let frame = (mapping.machine.0 + page).checked_sub(neighbour)?;
            (mapping.kind == PageKind::Ram && frame % LARGE_PAGES == index).then_some(Frame(frame))
        })
    }

    /// What backs the page that holds `at`.
    pub fn translate(&self, memory: &DirectMap, at: GuestAddress) -> Option<Mapping> {
        if !self.covers(at) {
            return None;
        }
        let region = at.frame_number() / LARGE_PAGES;
        let entry = match self.recent.get(region) {
            Some(entry) => entry,
            None => self.look_up(memory, at)?,
        };
        match self.format.decode(entry, 1) {
            Entry::Empty => None,
            Entry::Table(table) => match self.format.decode(read_entry(memory, slot_of(table, at, 0)), 0) {
                Entry::Page(mapping) => Some(mapping),
                _ => None,
            },
            Entry::Page(mapping) => Some(Mapping {
                machine: Frame(mapping.machine.0 + at.frame_number() % LARGE_PAGES),
                ..mapping
            }),
        }
    }

    /// The entry for the 2 MiB around `at`, if there is one, from the tables.
    fn look_up(&self, memory: &DirectMap, at: GuestAddress) -> Option<u64> {
        let mut table = self.root;
        for level in (1..=self.top).rev() {
            let entry = read_entry(memory, slot_of(table, at, level));
            let found = match self.format.decode(entry, level) {
                Entry::Empty => return None,
                _ if level == 1 => entry,
                Entry::Table(next) => {
                    table = next;
                    continue;
                }
                Entry::Page(mapping) => {
                    let offset = at.frame_number() % pages_at(level) / LARGE_PAGES * LARGE_PAGES;
                    let machine = Frame(mapping.machine.0 + offset);
                    self.format.page(Mapping { machine, ..mapping }, 1)
                }
            };
            self.recent.note(at.frame_number() / LARGE_PAGES, found);
            return Some(found);
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
        self.visit(memory, self.root, self.top, 0, &mut each);
    }

    /// Gives a part of the tables back, and calls `each` with what they mapped: at most `pages` pages or large pages. True once nothing is left; it must not be used
    /// any more from the first call on.
    pub fn release_some(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        mut pages: u32,
        mut each: impl FnMut(&mut FrameAllocator, Mapping, u64),
    ) -> bool {
        self.recent.forget();
        if self.tables == 0 {
            return true;
        }
        if !self.release_some_of(memory, frames, (self.root, TOP), &mut pages, &mut each) {
            return false;
        }
        self.spare.drain(..).for_each(|frame| frames.free(frame, 1));
        frames.free(self.root, 1);
        self.tables = 0;
        true
    }

    fn release_some_of(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        (table, level): (Frame, u32),
        pages: &mut u32,
        each: &mut impl FnMut(&mut FrameAllocator, Mapping, u64),
    ) -> bool {
        for index in 0..ENTRIES {
            let slot = MachineAddress(table.address().0 + index * 8);
            match self.format.decode(read_entry(memory, slot), level) {
                Entry::Empty => continue,
                Entry::Table(next) => {
                    if !self.release_some_of(memory, frames, (next, level - 1), pages, each) {
                        return false;
                    }
                    frames.free(next, 1);
                    self.tables -= 1;
                }
                Entry::Page(mapping) => {
                    let Some(left) = pages.checked_sub(1) else {
                        return false;
                    };
                    *pages = left;
                    each(frames, mapping, pages_at(level));
                }
            }
            write_entry(memory, slot, 0);
        }
        true
    }

    /// Gives the tables back. The frames that they mapped are the caller's matter, before.
    pub fn release(self, memory: &DirectMap, frames: &mut FrameAllocator) {
        self.release_table(memory, frames, self.root, self.top);
        self.spare.iter().for_each(|&frame| frames.free(frame, 1));
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
        if level > 0 {
            let was = self.format.decode(read_entry(memory, slot), level);
            let fresh = !matches!(was, Entry::Page(_));
            self.large += if fresh { pages_at(level) / LARGE_PAGES } else { 0 };
            self.recent.forget();
        }
        self.write(memory, slot, self.format.page(mapping, level));
        Ok(())
    }

    /// Writes an entry that whoever walks the tables sees from now on.
    fn write(&self, memory: &DirectMap, slot: MachineAddress, entry: u64) {
        write_entry(memory, slot, entry);
        self.format.written(memory, slot, size_of::<u64>());
    }

    /// Whether the page of `level` around `at` already has a table of smaller ones, which it would lose.
    fn has_table(&self, memory: &DirectMap, at: GuestAddress, page_level: u32) -> bool {
        if !self.covers(at) {
            return false;
        }
        let mut table = self.root;
        for level in (page_level..=self.top).rev() {
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
        if !self.covers(at) {
            return Err(OutOfMemory);
        }
        let mut table = self.root;
        for above in (level + 1..=self.top).rev() {
            let slot = slot_of(table, at, above);
            table = match self.format.decode(read_entry(memory, slot), above) {
                Entry::Table(next) => next,
                Entry::Empty => {
                    let next = new_table(memory, frames, &self.format)?;
                    self.tables += 1;
                    self.write(memory, slot, self.format.table(next, above));
                    next
                }
                Entry::Page(mapping) => {
                    let next = self.table_for_split(frames, above)?;
                    for index in 0..ENTRIES {
                        let machine = Frame(mapping.machine.0 + index * pages_at(above - 1));
                        let entry = self.format.page(Mapping { machine, ..mapping }, above - 1);
                        write_entry(memory, MachineAddress(next.address().0 + index * 8), entry);
                    }
                    self.large -= u64::from(above == 1);
                    self.recent.forget();
                    self.format
                        .written(memory, next.address(), super::PAGE_SIZE as usize);
                    self.write(memory, slot, self.format.table(next, above));
                    next
                }
            };
        }
        Ok(slot_of(table, at, level))
    }

    /// A frame for the parts of a page of `level`, counted as a table; whoever splits one of 1 GiB set it aside.
    fn table_for_split(&mut self, frames: &mut FrameAllocator, level: u32) -> Result<Frame, OutOfMemory> {
        if level == 2
            && let Some(spare) = self.spare.pop()
        {
            return Ok(spare);
        }
        let frame = frames.allocate().or_else(|| self.given_up.take());
        self.tables += u64::from(frame.is_some());
        frame.ok_or(OutOfMemory)
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

fn new_table(
    memory: &DirectMap,
    frames: &mut FrameAllocator,
    format: &impl TableFormat,
) -> Result<Frame, OutOfMemory> {
    let table = frames.allocate_zeroed(memory).ok_or(OutOfMemory)?;
    format.written(memory, table.address(), super::PAGE_SIZE as usize);
    Ok(table)
}

#[cfg(test)]
mod tests;
