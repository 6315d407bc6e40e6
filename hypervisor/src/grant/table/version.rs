//! Rearranging a table: entries change places, or the whole table its layout.

#![allow(
    non_upper_case_globals,
    reason = "constants of the public headers in patterns"
)]

use alloc::vec::Vec;

use xen_abi::grant_table::{
    GNTST_bad_gntref, GNTST_eagain, GNTTAB_NR_RESERVED_ENTRIES, GTF_invalid, GTF_permit_access, GTF_readonly,
    GTF_sub_page, GTF_type_mask, GrantEntryV1, GrantEntryV2,
};
use zerocopy::{FromZeros, IntoBytes};

use super::{GrantTable, TableFrame, Version};
use crate::{
    errno::Errno,
    memory::{DirectMap, FrameAllocator, PAGE_SIZE},
};

impl GrantTable {
    /// Exchanges two entries that are not in use. Errors are `GNTST_*`.
    pub fn swap(&mut self, memory: &DirectMap, one: u32, other: u32) -> Result<(), i16> {
        let (at, to) = (
            self.entry(one).ok_or(GNTST_bad_gntref)?,
            self.entry(other).ok_or(GNTST_bad_gntref)?,
        );
        if self.in_use(one) || self.in_use(other) {
            return Err(GNTST_eagain);
        }
        let size = self.version.entry_size() as usize;
        let (mut first, mut second) = ([0; 16], [0; 16]);
        memory.read(at, &mut first[..size]);
        memory.read(to, &mut second[..size]);
        memory.write(at, &second[..size]);
        memory.write(to, &first[..size]);
        Ok(())
    }

    /// Changes the layout, while nothing is in use. The reserved entries are kept, all others revoked. Answers the pages that are
    /// not needed any more.
    pub fn set_version(
        &mut self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        version: Version,
    ) -> Result<Vec<TableFrame>, Errno> {
        if version == self.version {
            return Ok(Vec::new());
        }
        if !self.active.is_empty() {
            return Err(Errno::BUSY);
        }
        let mut reserved = Vec::new();
        if !self.frames.is_empty() {
            for reference in 0..GNTTAB_NR_RESERVED_ENTRIES {
                reserved.push(self.plain_entry(memory, reference)?);
            }
        }
        let entries = self.frames.len() as u64 * version.entries();
        if version == Version::Two {
            self.grow_status(memory, frames, entries)?;
        }
        self.version = version;
        for page in &self.frames {
            memory.zero(page.frame.address(), PAGE_SIZE as usize);
        }
        for (reference, (flags, to, frame)) in (0..).zip(reserved) {
            let at = self.entry(reference).ok_or(Errno::INVAL)?;
            self.write_entry(memory, at, flags, to, frame)?;
        }
        Ok(if version == Version::One {
            self.status.drain(..).collect()
        } else {
            Vec::new()
        })
    }

    /// An entry that means the same in both versions.
    fn plain_entry(&self, memory: &DirectMap, reference: u32) -> Result<(u16, u16, u64), Errno> {
        let at = self.entry(reference).ok_or(Errno::INVAL)?;
        let (flags, to, frame) = match self.version {
            Version::One => {
                let mut entry = GrantEntryV1::new_zeroed();
                memory.read(at, entry.as_mut_bytes());
                (entry.flags, entry.domid, u64::from(entry.frame))
            }
            Version::Two => {
                let mut entry = GrantEntryV2::new_zeroed();
                memory.read(at, entry.as_mut_bytes());
                (entry.hdr.flags, entry.hdr.domid, entry.full_page().frame)
            }
        };
        match flags & GTF_type_mask {
            GTF_invalid => Ok((0, 0, 0)),
            GTF_permit_access if flags & GTF_sub_page == 0 && frame <= u64::from(u32::MAX) => {
                Ok((flags & (GTF_type_mask | GTF_readonly), to, frame))
            }
            _ => Err(Errno::RANGE),
        }
    }
}
