//! The table in which a domain writes what it grants, in both versions of `grant_table.h`, and what of it is in use.
//!
//! The guest writes entries while the hypervisor reads them. An entry is taken into use by one atomic step that checks it and marks it (version 1), or
//! by marking it and checking it again (version 2), as the header prescribes, so that a guest that revokes a grant either finds it in use or
//! has revoked it in time. The frame is read and translated once, when an entry comes into use, and stays what it was until the last user lets go.

#![allow(
    non_upper_case_globals,
    reason = "constants of the public headers in patterns"
)]

use alloc::{collections::BTreeMap, vec::Vec};

use xen_abi::grant_table::{
    GNTST_bad_gntref, GNTST_bad_page, GNTST_general_error, GTF_permit_access, GTF_reading, GTF_readonly,
    GTF_sub_page, GTF_type_mask, GTF_writing, GrantEntryHeader, GrantEntryV1, GrantEntryV2,
    GrantEntryV2FullPage,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    domain::DomainId,
    errno::Errno,
    memory::{DirectMap, Frame, FrameAllocator, GuestAddress, MachineAddress, P2m, PAGE_SIZE, PageKind},
    sync::{Ordering, fence},
};

use super::maps::{Map, Maps};

mod version;

/// Pages that a table may have.
pub const MAX_FRAMES: u32 = 64;

/// How often the guest may change an entry of version 1 while it is being taken into use.
const ATTEMPTS: u32 = 5;

/// Layout of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Entries of 8 bytes that hold everything.
    #[default]
    One,
    /// Entries of 16 bytes; use is marked in a table of its own.
    Two,
}

impl Version {
    const fn entry_size(self) -> u64 {
        match self {
            Self::One => size_of::<GrantEntryV1>() as u64,
            Self::Two => size_of::<GrantEntryV2>() as u64,
        }
    }

    /// Entries in a page.
    const fn entries(self) -> u64 {
        PAGE_SIZE / self.entry_size()
    }
}

/// Bytes in a word of the status table.
const STATUS_SIZE: u64 = 2;

/// A page of the table, and where the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFrame {
    /// The page.
    pub frame: Frame,
    /// Where it is in the guest's memory.
    pub at: Option<GuestAddress>,
}

/// Which of a table's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Entries.
    Entries,
    /// Status words of version 2.
    Status,
}

/// An entry in use.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    /// By whom.
    user: Option<DomainId>,
    /// Uses for reading only.
    readers: u32,
    /// Uses for writing too.
    writers: u32,
    /// What it grants.
    grant: Grant,
}

/// What an entry grants, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The page.
    pub frame: Frame,
    /// The granter itself may write it.
    writable: bool,
    /// First byte of the page.
    pub start: u16,
    /// Number of bytes.
    pub length: u16,
}

/// What a user wants of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Who.
    pub user: DomainId,
    /// Write, too.
    pub write: bool,
    /// A part of a page will do.
    pub partial: bool,
}

/// The grants of a domain and its maps of others' grants.
#[derive(Debug, Default)]
pub struct GrantTable {
    /// Maps without a part left, whose granters are told when the devices of the domain have forgotten the pages.
    pub(super) ending: Vec<Map>,
    version: Version,
    frames: Vec<TableFrame>,
    status: Vec<TableFrame>,
    /// The entries in use, and no others: what the hypervisor remembers of a table grows with what others do with it, not with its length.
    active: BTreeMap<u32, Active>,
    /// Frames of this domain that are mapped by others, and how often.
    pinned: BTreeMap<Frame, u32>,
    /// What this domain has mapped.
    pub(super) maps: Maps,
}

impl GrantTable {
    /// How many grants of others the domain has mapped.
    pub fn mapped(&self) -> u32 {
        self.maps.count()
    }

    /// The layout.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The pages of a part.
    pub fn frames(&self, part: Part) -> &[TableFrame] {
        match part {
            Part::Entries => &self.frames,
            Part::Status => &self.status,
        }
    }

    /// Remembers where the guest sees a page.
    pub fn set_place(&mut self, part: Part, index: usize, at: Option<GuestAddress>) {
        let frames = if part == Part::Entries {
            &mut self.frames
        } else {
            &mut self.status
        };
        if let Some(frame) = frames.get_mut(index) {
            frame.at = at;
        }
    }

    /// The guest's memory no longer has the page at `at`.
    pub fn forget_place(&mut self, at: GuestAddress) {
        for frame in self.frames.iter_mut().chain(&mut self.status) {
            if frame.at == Some(at) {
                frame.at = None;
            }
        }
    }

    /// Makes the table at least `count` pages long.
    pub fn grow(&mut self, memory: &DirectMap, frames: &mut FrameAllocator, count: u32) -> Result<(), Errno> {
        if count > MAX_FRAMES {
            return Err(Errno::INVAL);
        }
        while self.frames.len() < count as usize {
            if self.version == Version::Two {
                let entries = self.entries() + self.version.entries();
                self.grow_status(memory, frames, entries)?;
            }
            self.frames.push(new_frame(memory, frames)?);
        }
        Ok(())
    }

    /// Entries of the whole table.
    fn entries(&self) -> u64 {
        self.frames.len() as u64 * self.version.entries()
    }

    fn grow_status(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        entries: u64,
    ) -> Result<(), Errno> {
        while (self.status.len() as u64) < (entries * STATUS_SIZE).div_ceil(PAGE_SIZE) {
            self.status.push(new_frame(memory, frames)?);
        }
        Ok(())
    }

    /// Takes all pages out of the table.
    pub(super) fn take_frames(&mut self) -> Vec<TableFrame> {
        self.active.clear();
        self.frames.drain(..).chain(self.status.drain(..)).collect()
    }

    /// Writes an entry on the granter's behalf: `to` may map `frame` for writing.
    pub(super) fn offer(
        &self,
        memory: &DirectMap,
        reference: u32,
        to: DomainId,
        frame: u64,
    ) -> Result<(), Errno> {
        let at = self.entry(reference).ok_or(Errno::INVAL)?;
        self.write_entry(memory, at, GTF_permit_access, to.0, frame)
    }

    fn write_entry(
        &self,
        memory: &DirectMap,
        at: MachineAddress,
        flags: u16,
        to: u16,
        frame: u64,
    ) -> Result<(), Errno> {
        match self.version {
            Version::One => {
                let frame = u32::try_from(frame).map_err(|_| Errno::RANGE)?;
                memory.write(
                    at,
                    GrantEntryV1 {
                        flags,
                        domid: to,
                        frame,
                    }
                    .as_bytes(),
                );
            }
            Version::Two => {
                let hdr = GrantEntryHeader { flags, domid: to };
                memory.write(at, GrantEntryV2FullPage { hdr, pad0: 0, frame }.as_bytes());
            }
        }
        Ok(())
    }

    fn entry(&self, reference: u32) -> Option<MachineAddress> {
        let (page, index) = (
            u64::from(reference) / self.version.entries(),
            u64::from(reference) % self.version.entries(),
        );
        let frame = self.frames.get(page as usize)?.frame;
        Some(MachineAddress(
            frame.address().0 + index * self.version.entry_size(),
        ))
    }

    fn status_word(&self, reference: u32) -> Option<MachineAddress> {
        let offset = u64::from(reference) * STATUS_SIZE;
        let frame = self.status.get((offset / PAGE_SIZE) as usize)?.frame;
        Some(MachineAddress(frame.address().0 + offset % PAGE_SIZE))
    }

    /// Takes an entry into use. `p2m` is the granter's. Errors are `GNTST_*`.
    pub(super) fn acquire(
        &mut self,
        memory: &DirectMap,
        p2m: &P2m,
        reference: u32,
        wanted: Use,
    ) -> Result<Grant, i16> {
        if u64::from(reference) >= self.entries() {
            return Err(GNTST_bad_gntref);
        }
        let mut active = self.active.get(&reference).copied().unwrap_or_default();
        let used = active.readers + active.writers > 0;
        if used && active.user != Some(wanted.user) {
            return Err(GNTST_general_error);
        }
        let mut grant = active.grant;
        if !used || wanted.write && active.writers == 0 {
            let flags = self.mark(memory, reference, wanted)?;
            let resolved = if used {
                Ok(grant)
            } else {
                self.resolve(memory, p2m, reference, flags)
            };
            grant = match resolved {
                Ok(grant) if grant.writable || !wanted.write => grant,
                _ => {
                    self.unmark(memory, reference, active.readers, active.writers);
                    return Err(GNTST_bad_page);
                }
            };
        }
        if grant.is_partial() && !wanted.partial {
            self.unmark(memory, reference, active.readers, active.writers);
            return Err(GNTST_general_error);
        }
        (active.user, active.grant) = (Some(wanted.user), grant);
        if wanted.write {
            active.writers += 1;
        } else {
            active.readers += 1;
        }
        self.active.insert(reference, active);
        Ok(grant)
    }

    /// Ends a use.
    pub(super) fn release(&mut self, memory: &DirectMap, reference: u32, write: bool) {
        let Some(active) = self.active.get_mut(&reference) else {
            return;
        };
        let count = if write {
            &mut active.writers
        } else {
            &mut active.readers
        };
        *count = count.saturating_sub(1);
        let (readers, writers) = (active.readers, active.writers);
        if readers + writers == 0 {
            self.active.remove(&reference);
        }
        self.unmark(memory, reference, readers, writers);
    }

    /// Marks an entry as used, if it grants what is wanted; answers its flags as they were when that was so.
    fn mark(&self, memory: &DirectMap, reference: u32, wanted: Use) -> Result<u16, i16> {
        let at = self.entry(reference).ok_or(GNTST_bad_gntref)?;
        let marks = if wanted.write {
            GTF_reading | GTF_writing
        } else {
            GTF_reading
        };
        let word = memory.atomic_u32(at);
        let mut seen = word.load(Ordering::Acquire);
        match self.version {
            Version::One => {
                for _ in 0..ATTEMPTS {
                    check(seen, wanted, false)?;
                    let marked = seen | u32::from(marks);
                    match word.compare_exchange(seen, marked, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return Ok(seen as u16),
                        Err(now) => seen = now,
                    }
                }
                Err(GNTST_general_error)
            }
            Version::Two => {
                check(seen, wanted, true)?;
                let status = memory.atomic_u16(self.status_word(reference).ok_or(GNTST_bad_gntref)?);
                let before = status.fetch_or(marks, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                seen = word.load(Ordering::SeqCst);
                check(seen, wanted, true).inspect_err(|_| {
                    status.fetch_and(before | !marks, Ordering::SeqCst);
                })?;
                Ok(seen as u16)
            }
        }
    }

    /// Clears the marks that these counts of uses do not justify.
    fn unmark(&self, memory: &DirectMap, reference: u32, readers: u32, writers: u32) {
        let mut marks = 0;
        if writers == 0 {
            marks |= GTF_writing;
        }
        if readers + writers == 0 {
            marks |= GTF_reading;
        }
        let word = match self.version {
            Version::One => self.entry(reference),
            Version::Two => self.status_word(reference),
        };
        if let Some(word) = word.filter(|_| marks != 0) {
            memory.atomic_u16(word).fetch_and(!marks, Ordering::Release);
        }
    }

    /// Reads what a marked entry grants: memory of the granter's own.
    fn resolve(&self, memory: &DirectMap, p2m: &P2m, reference: u32, flags: u16) -> Result<Grant, i16> {
        let at = self.entry(reference).ok_or(GNTST_bad_gntref)?;
        let (frame, start, length) = match self.version {
            Version::One => {
                let mut entry = GrantEntryV1::new_zeroed();
                memory.read(at, entry.as_mut_bytes());
                (u64::from(entry.frame), 0, PAGE_SIZE as u16)
            }
            Version::Two => {
                let mut entry = GrantEntryV2::new_zeroed();
                memory.read(at, entry.as_mut_bytes());
                if flags & GTF_sub_page != 0 {
                    let part = entry.sub_page();
                    if u64::from(part.page_off) + u64::from(part.length) > PAGE_SIZE {
                        return Err(GNTST_bad_page);
                    }
                    (part.frame, part.page_off, part.length)
                } else {
                    (entry.full_page().frame, 0, PAGE_SIZE as u16)
                }
            }
        };
        if frame > u64::MAX / PAGE_SIZE {
            return Err(GNTST_bad_page);
        }
        let mapping = p2m
            .translate(memory, GuestAddress::of_frame(frame))
            .ok_or(GNTST_bad_page)?;
        if mapping.kind != PageKind::Ram {
            return Err(GNTST_bad_page);
        }
        Ok(Grant {
            frame: mapping.machine,
            writable: mapping.writable,
            start,
            length,
        })
    }

    /// A frame of this domain got mapped once more by somebody.
    pub(crate) fn pin(&mut self, frame: Frame) {
        *self.pinned.entry(frame).or_default() += 1;
    }

    /// And once less.
    pub(super) fn unpin(&mut self, frame: Frame) {
        if let Some(count) = self.pinned.get_mut(&frame) {
            *count -= 1;
            if *count == 0 {
                self.pinned.remove(&frame);
            }
        }
    }

    /// Whether somebody has a frame of this domain mapped, so that it cannot be given back.
    pub fn is_pinned(&self, frame: Frame) -> bool {
        self.pinned.contains_key(&frame)
    }

    fn in_use(&self, reference: u32) -> bool {
        self.active.contains_key(&reference)
    }
}

impl Grant {
    const fn is_partial(&self) -> bool {
        self.length as u64 != PAGE_SIZE
    }
}

/// Whether the first word of an entry, flags and domain, grants what is wanted.
fn check(word: u32, wanted: Use, parts: bool) -> Result<(), i16> {
    let (flags, to) = (word as u16, (word >> 16) as u16);
    let refused = flags & GTF_type_mask != GTF_permit_access
        || to != wanted.user.0
        || parts && flags & GTF_sub_page != 0 && !wanted.partial
        || wanted.write && flags & GTF_readonly != 0;
    if refused { Err(GNTST_general_error) } else { Ok(()) }
}

fn new_frame(memory: &DirectMap, frames: &mut FrameAllocator) -> Result<TableFrame, Errno> {
    let frame = frames.allocate_zeroed(memory).ok_or(Errno::NOMEM)?;
    Ok(TableFrame { frame, at: None })
}
