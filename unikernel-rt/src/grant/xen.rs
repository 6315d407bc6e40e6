//! Grants on the machine: our table (version 1) for what we grant, the window for what we map.
#![allow(unsafe_code)] // Mappings become memory here.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;

use xen_abi::grant_table::*;
use xen_abi::memory::{AddToPhysmap, XENMAPSPACE_grant_table, XENMEM_add_to_physmap};
use xen_abi::xen::{__HYPERVISOR_grant_table_op, __HYPERVISOR_memory_op, DOMID_SELF};

use super::mapper::Mapper;
use super::{Access, CopyEnd, CopyOperation, GrantError, GrantRef, Grants, MapRequest, Mapping};
use crate::DomainId;
use crate::hypercall::call;
use crate::memory::{MemoryError, PAGE_SIZE, SharedMemory};

/// Entries of version 1 in a page.
const ENTRIES: u32 = (PAGE_SIZE / size_of::<GrantEntryV1>()) as u32;
/// Pages of the window that our own table may take; mappings lie behind them.
pub(crate) const TABLE_PAGES: usize = 32;

/// The grant tables of the domain that we run in.
pub(crate) struct XenGrants {
    /// The table's place: the first [`TABLE_PAGES`] pages of the window.
    table: SharedMemory,
    own: RefCell<Own>,
    mapper: Rc<Mapper>,
    scratch: RefCell<(Vec<GnttabCopy>, Vec<usize>)>,
}

/// Which entries of our table are in use.
#[derive(Default)]
struct Own {
    /// Pages of the table that exist.
    pages: u32,
    free: Vec<u32>,
}

impl XenGrants {
    /// Uses an address range for our table and for mappings.
    ///
    /// # Safety
    /// `pages` pages at `base` must be mapped in the page tables for data, for ever, with no memory behind them, and be used by
    /// nobody else.
    pub unsafe fn new(base: NonNull<u8>, pages: usize) -> Self {
        // SAFETY: the range's first pages; those that the hypervisor has put in place are touched only (see `grow`).
        let table = unsafe { SharedMemory::from_raw(base, TABLE_PAGES * PAGE_SIZE, None) };
        // SAFETY: by our contract; what lies behind the table is the mapper's alone.
        let mapper = unsafe { Mapper::new(base.add(TABLE_PAGES * PAGE_SIZE), pages - TABLE_PAGES) };
        Self {
            table,
            own: RefCell::default(),
            mapper: Rc::new(mapper),
            scratch: RefCell::default(),
        }
    }

    /// Takes an entry that is free.
    fn take_entry(&self) -> Result<u32, GrantError> {
        let mut own = self.own.borrow_mut();
        if own.free.is_empty() {
            self.grow(&mut own)?;
        }
        own.free.pop().ok_or(GrantError::TableFull)
    }

    /// Adds a page to our table.
    fn grow(&self, own: &mut Own) -> Result<(), GrantError> {
        if own.pages as usize == TABLE_PAGES {
            return Err(GrantError::TableFull);
        }
        let place = self.table.address(own.pages as usize * PAGE_SIZE)?.as_ptr() as u64;
        let mut argument = AddToPhysmap {
            domid: DOMID_SELF,
            space: XENMAPSPACE_grant_table,
            idx: own.pages.into(),
            gpfn: place / PAGE_SIZE as u64,
            ..AddToPhysmap::default()
        };
        call::with(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &mut argument)?;
        // The first entries belong to the console and to xenstore.
        let first = (own.pages * ENTRIES).max(GNTTAB_NR_RESERVED_ENTRIES);
        own.pages += 1;
        own.free.extend((first..own.pages * ENTRIES).rev());
        Ok(())
    }
}

impl Grants for XenGrants {
    fn grant(
        &self,
        domain: DomainId,
        memory: &SharedMemory,
        page: usize,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        let address = memory.part(page * PAGE_SIZE, PAGE_SIZE)?.address(0)?.as_ptr() as u64;
        let frame = u32::try_from(address / PAGE_SIZE as u64);
        let frame = frame.map_err(|_| MemoryError::Misaligned {
            offset: page * PAGE_SIZE,
        })?;
        let reference = self.take_entry()?;
        let entry = reference as usize * size_of::<GrantEntryV1>();
        let flags = match access {
            Access::ReadOnly => GTF_permit_access | GTF_readonly,
            Access::ReadWrite => GTF_permit_access,
        };
        // The frame first; the flags make the entry valid.
        self.table.store(entry + 4, frame)?;
        self.table
            .store(entry, u32::from(domain.0) << 16 | u32::from(flags))?;
        Ok(GrantRef(reference))
    }

    fn end(&self, reference: GrantRef) -> Result<(), GrantError> {
        let entry = reference.0 as usize * size_of::<GrantEntryV1>();
        let mut current = self.table.load(entry)?;
        loop {
            if current as u16 & (GTF_reading | GTF_writing) != 0 {
                return Err(GrantError::InUse(reference));
            }
            match self.table.compare_exchange(entry, current, 0)? {
                Ok(_) => break,
                Err(changed) => current = changed,
            }
        }
        self.own.borrow_mut().free.push(reference.0);
        Ok(())
    }

    fn map(&self, requests: &[MapRequest]) -> Result<Mapping, GrantError> {
        self.mapper.map_row(requests)
    }

    fn map_each(&self, requests: &[MapRequest]) -> Vec<Result<Mapping, GrantError>> {
        self.mapper.map_each(requests)
    }

    fn unmap_all(&self, mappings: Vec<Mapping>) {
        self.mapper.unmap_together(|| drop(mappings));
    }

    fn copy(&self, operations: &[CopyOperation<'_>], results: &mut Vec<Result<(), GrantError>>) {
        results.clear();
        let (arguments, owners) = &mut *self.scratch.borrow_mut();
        arguments.clear();
        owners.clear();
        for (index, operation) in operations.iter().enumerate() {
            let before = arguments.len();
            let split = split(operation, arguments);
            if split.is_err() {
                arguments.truncate(before);
            }
            owners.resize(arguments.len(), index);
            results.push(split);
        }
        if arguments.is_empty() {
            return;
        }
        let call = call::batch(__HYPERVISOR_grant_table_op, GNTTABOP_copy, arguments);
        for (argument, &owner) in arguments.iter().zip(owners.iter()) {
            if let Err(error) = call {
                results[owner] = Err(error.into());
            } else if argument.status != GNTST_okay && results[owner].is_ok() {
                results[owner] = Err(GrantError::Copy(argument.status));
            }
        }
    }
}

/// Cuts a copy where our own side crosses a page.
fn split(operation: &CopyOperation<'_>, arguments: &mut Vec<GnttabCopy>) -> Result<(), GrantError> {
    let length = usize::from(operation.length);
    let mut done = 0;
    while done < length {
        let source = end(&operation.source, done, length)?;
        let target = end(&operation.target, done, length)?;
        let part = (length - done).min(source.room).min(target.room);
        arguments.push(GnttabCopy {
            source: source.place,
            dest: target.place,
            len: part as u16,
            flags: if source.granted { GNTCOPY_source_gref } else { 0 }
                | if target.granted { GNTCOPY_dest_gref } else { 0 },
            // What an operation keeps that the hypervisor did not come to.
            status: GNTST_general_error,
            ..GnttabCopy::default()
        });
        done += part;
    }
    Ok(())
}

/// One end of a part of a copy.
struct End {
    place: GnttabCopyPtr,
    granted: bool,
    /// How far its page reaches.
    room: usize,
}

fn end(end: &CopyEnd<'_>, done: usize, length: usize) -> Result<End, GrantError> {
    match *end {
        CopyEnd::Local { memory, offset } => {
            let address = memory.part(offset, length)?.address(done)?.as_ptr() as usize;
            let inside = address % PAGE_SIZE;
            let place = GnttabCopyPtr::of_frame(DOMID_SELF, (address / PAGE_SIZE) as u64, inside as u16);
            Ok(End {
                place,
                granted: false,
                room: PAGE_SIZE - inside,
            })
        }
        CopyEnd::Granted {
            domain,
            reference,
            offset,
        } => {
            let inside = usize::from(offset) + done;
            if inside + (length - done) > PAGE_SIZE {
                return Err(GrantError::Copy(GNTST_bad_copy_arg));
            }
            let place = GnttabCopyPtr::of_grant(domain.0, reference.0, inside as u16);
            Ok(End {
                place,
                granted: true,
                room: PAGE_SIZE - inside,
            })
        }
    }
}
