//! `HYPERVISOR_memory_op` (`memory.h`): what a domain may do with its own guest-physical memory. Lists of extents are worked through a piece at a time; how far
//! they got stands in the operation's register above the six bits of its number.

use xen_abi::{arch_x86::hvm_start_info::*, memory::*};

use super::{
    Answer, Call, Result,
    context::{element, only_self, read, write},
};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    errno::Errno,
    grant::{self, MAX_FRAMES, Part, Version},
    memory::{Frame, GuestAddress, Mapping, PAGE_SIZE, PageKind},
};

const OPERATION_BITS: u32 = 6;
/// Pages in one piece of work.
const PIECE: u64 = 64;
/// The largest extents have 2 MiB.
const MAX_ORDER: u32 = 9;
/// The xenstore and the console ring.
const RING_PAGES: u64 = 2;
/// Guest frames end here (40 bits of address).
const FRAME_LIMIT: u64 = 1 << 28;
/// Where the low RAM of a domain ends, and where its high RAM begins.
const LOW_END: u64 = crate::guest::pvh::MemoryMap::HOLE;
const HIGH_START: u64 = 4 << 30;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let operation = call.arguments[0] & ((1 << OPERATION_BITS) - 1);
    let at = call.arguments[1];
    let domain = caller.domain;
    match operation {
        XENMEM_populate_physmap => extents(hv, caller, call, populate),
        XENMEM_decrease_reservation => extents(hv, caller, call, give_back),
        // Memory without a place in the domain is of no use to it.
        XENMEM_increase_reservation => Ok(Answer::OK),
        XENMEM_add_to_physmap => {
            let request: AddToPhysmap = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            add(hv, domain, request.space, request.idx, request.gpfn)?;
            Ok(Answer::OK)
        }
        XENMEM_add_to_physmap_batch => add_batch(hv, caller, call),
        XENMEM_remove_from_physmap => {
            let request: RemoveFromPhysmap = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            vacate(hv, domain, place(request.gpfn)?)?.ok_or(Errno::NOENT)?;
            Ok(Answer::OK)
        }
        XENMEM_memory_map => memory_map(hv, caller, at),
        XENMEM_current_reservation => {
            about_self(hv, caller, at)?;
            Ok(Answer::Done(hv.body(domain).ok_or(Errno::SRCH)?.pages as i64))
        }
        XENMEM_maximum_reservation => {
            about_self(hv, caller, at)?;
            Ok(Answer::Done(reservation(hv, domain)? as i64))
        }
        XENMEM_maximum_gpfn => {
            about_self(hv, caller, at)?;
            let bytes = hv.domain(domain).ok_or(Errno::SRCH)?.spec.memory_maximum;
            let end = if bytes > LOW_END {
                HIGH_START + bytes - LOW_END
            } else {
                HIGH_START
            };
            Ok(Answer::Done((end / PAGE_SIZE) as i64 - 1))
        }
        XENMEM_maximum_ram_page => Ok(Answer::Done((hv.memory.size() / PAGE_SIZE) as i64 - 1)),
        XENMEM_machine_memory_map | XENMEM_set_memory_map => Err(Errno::PERM),
        _ => Err(Errno::NOSYS),
    }
}

fn about_self(hv: &Hypervisor, caller: VcpuId, at: u64) -> Result<()> {
    let request: MemoryDomain = read(hv, caller, at)?;
    only_self(caller, request.domid)
}

/// Pages that a domain can be given at most: its memory, and its rings beside.
fn reservation(hv: &Hypervisor, domain: DomainId) -> Result<u64> {
    Ok(hv.domain(domain).ok_or(Errno::SRCH)?.spec.memory_maximum / PAGE_SIZE + RING_PAGES)
}

/// A guest frame as an address; `INVAL` beyond what a guest can have.
fn place(frame: u64) -> Result<GuestAddress> {
    if frame < FRAME_LIMIT {
        Ok(GuestAddress::of_frame(frame))
    } else {
        Err(Errno::INVAL)
    }
}

/// Carries out a list of extents until one fails; the result is how many succeeded.
fn extents(
    hv: &mut Hypervisor,
    caller: VcpuId,
    call: &mut Call,
    act: fn(&mut Hypervisor, DomainId, GuestAddress) -> Result<()>,
) -> Result {
    let domain = caller.domain;
    let request: MemoryReservation = read(hv, caller, call.arguments[1])?;
    only_self(caller, request.domid)?;
    let mut done = call.arguments[0] >> OPERATION_BITS;
    // What a continuation can note down, and what a result can say.
    if request.extent_order > MAX_ORDER
        || request.nr_extents > u64::from(u32::MAX)
        || done > request.nr_extents
    {
        return Err(Errno::INVAL);
    }
    // Devices of such a domain find its memory by one offset, so it stays as it is.
    let fixed = hv.body(domain).ok_or(Errno::SRCH)?.is_fixed();
    let pages = 1 << request.extent_order;
    let mut budget = PIECE;
    while done < request.nr_extents && !fixed {
        let first: u64 = read(hv, caller, element::<u64>(request.extent_start, done)?)?;
        let worked = (0..pages).try_for_each(|page| {
            let frame = first.checked_add(page).ok_or(Errno::INVAL)?;
            act(hv, domain, place(frame)?)
        });
        if worked.is_err() {
            break;
        }
        done += 1;
        budget = budget.saturating_sub(pages);
        if budget == 0 && done < request.nr_extents {
            call.arguments[0] = call.arguments[0] & ((1 << OPERATION_BITS) - 1) | done << OPERATION_BITS;
            return Ok(Answer::Again);
        }
    }
    Ok(Answer::Done(done as i64))
}

/// Puts a new page where there is none.
fn populate(hv: &mut Hypervisor, domain: DomainId, at: GuestAddress) -> Result<()> {
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    if body.pages >= body.target + RING_PAGES || !body.within_table_budget() {
        return Err(Errno::NOMEM);
    }
    match body.p2m.translate(&memory, at) {
        None => {}
        Some(mapping) if mapping.kind == PageKind::Ram => return Ok(()),
        Some(_) => return Err(Errno::BUSY),
    }
    let wanted = body.p2m.beside(&memory, at);
    let frame = hv
        .frames
        .allocate_beside(&memory, wanted, at.frame_number())
        .ok_or(Errno::NOMEM)?;
    let ram = Mapping {
        machine: frame,
        writable: true,
        kind: PageKind::Ram,
    };
    if body.p2m.map(&memory, &mut hv.frames, at, ram).is_err() {
        hv.frames.free(frame, 1);
        return Err(Errno::NOMEM);
    }
    body.pages += 1;
    if let Some(table) = body.p2m.promote(&memory, at) {
        // Processors may remember where the table was.
        grant::flush(hv, domain);
        hv.frames.free(table, 1);
    }
    Ok(())
}

fn give_back(hv: &mut Hypervisor, domain: DomainId, at: GuestAddress) -> Result<()> {
    vacate(hv, domain, at)?.map(drop).ok_or(Errno::NOENT)
}

/// Takes away what is at a place, unless somebody else depends on it: RAM becomes free, pages of the hypervisor merely leave the domain's memory.
/// Says what it was. Translations of it are flushed here, whatever becomes of the call afterwards.
fn vacate(hv: &mut Hypervisor, domain: DomainId, at: GuestAddress) -> Result<Option<PageKind>> {
    // No vCPU of the domain reaches the page from here until the flush.
    hv.recall_domain(domain);
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    let Some(mapping) = body.p2m.translate(&memory, at) else {
        return Ok(None);
    };
    match mapping.kind {
        PageKind::Ram if body.grants.is_pinned(mapping.machine) || body.is_fixed() => {
            return Err(Errno::BUSY);
        }
        PageKind::Ram | PageKind::Special => {}
        PageKind::Granted | PageKind::Device => return Err(Errno::BUSY),
    }
    let free = if mapping.kind == PageKind::Ram {
        let free = body.p2m.give_up(&memory, &mut hv.frames, at);
        let free = free.map_err(|_| Errno::NOMEM)?;
        body.pages = body.pages.saturating_sub(1);
        free
    } else {
        let unmapped = body.p2m.unmap(&memory, &mut hv.frames, at);
        unmapped.map_err(|_| Errno::NOMEM)?;
        body.grants.forget_place(at);
        None
    };
    grant::flush(hv, domain);
    if let Some(frame) = free {
        hv.frames.free(frame, 1);
    }
    Ok(Some(mapping.kind))
}

/// Puts a page of a space at a place of the domain's memory.
fn add(hv: &mut Hypervisor, domain: DomainId, space: u32, index: u64, frame: u64) -> Result<()> {
    let at = place(frame)?;
    match space {
        XENMAPSPACE_shared_info => {
            let page = hv.body(domain).ok_or(Errno::SRCH)?.shared_info;
            put(hv, domain, at, page)
        }
        XENMAPSPACE_grant_table => add_table(hv, domain, index, at),
        XENMAPSPACE_gmfn => move_page(hv, domain, place(index)?, at),
        XENMAPSPACE_gmfn_foreign => Err(Errno::PERM),
        _ => Err(Errno::NOSYS),
    }
}

/// Puts a page of the hypervisor at a place, in the stead of what was there.
fn put(hv: &mut Hypervisor, domain: DomainId, at: GuestAddress, page: Frame) -> Result<()> {
    vacate(hv, domain, at)?;
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    if !body.within_table_budget() {
        return Err(Errno::NOMEM);
    }
    let special = Mapping {
        machine: page,
        writable: true,
        kind: PageKind::Special,
    };
    body.p2m
        .map(&memory, &mut hv.frames, at, special)
        .map_err(|_| Errno::NOMEM)?;
    Ok(())
}

/// Puts a page of the domain's grant table at a place; it has one place at a time.
fn add_table(hv: &mut Hypervisor, domain: DomainId, index: u64, at: GuestAddress) -> Result<()> {
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    let (part, index) = if index & XENMAPIDX_grant_table_status != 0 && body.grants.version() == Version::Two
    {
        (Part::Status, index & !XENMAPIDX_grant_table_status)
    } else {
        (Part::Entries, index)
    };
    if part == Part::Entries && index < u64::from(MAX_FRAMES) {
        body.grants.grow(&memory, &mut hv.frames, index as u32 + 1)?;
    }
    let page = *body.grants.frames(part).get(index as usize).ok_or(Errno::INVAL)?;
    if let Some(old) = page.at {
        vacate(hv, domain, old)?;
    }
    put(hv, domain, at, page.frame)?;
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    body.grants.set_place(part, index as usize, Some(at));
    Ok(())
}

/// Moves a page of the domain's RAM to another place.
fn move_page(hv: &mut Hypervisor, domain: DomainId, from: GuestAddress, to: GuestAddress) -> Result<()> {
    let memory = hv.memory;
    let body = hv.body(domain).ok_or(Errno::SRCH)?;
    let mapping = body.p2m.translate(&memory, from).ok_or(Errno::INVAL)?;
    if mapping.kind != PageKind::Ram || body.is_fixed() || !body.within_table_budget() {
        return Err(Errno::INVAL);
    }
    if from == to {
        return Ok(());
    }
    vacate(hv, domain, to)?;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    body.p2m
        .map(&memory, &mut hv.frames, to, mapping)
        .map_err(|_| Errno::NOMEM)?;
    if body.p2m.unmap(&memory, &mut hv.frames, from).is_err() {
        // The page must not be in two places, or it would be freed twice. The new place needs no table to be vacated.
        let _ = body.p2m.unmap(&memory, &mut hv.frames, to);
        return Err(Errno::NOMEM);
    }
    grant::flush(hv, domain);
    Ok(())
}

fn add_batch(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let request: AddToPhysmapBatch = read(hv, caller, call.arguments[1])?;
    only_self(caller, request.domid)?;
    let mut done = call.arguments[0] >> OPERATION_BITS;
    for _ in 0..PIECE {
        if done >= u64::from(request.size) {
            return Ok(Answer::OK);
        }
        let index: u64 = read(hv, caller, element::<u64>(request.idxs, done)?)?;
        let frame: u64 = read(hv, caller, element::<u64>(request.gpfns, done)?)?;
        let error = match add(hv, caller.domain, request.space.into(), index, frame) {
            Ok(()) => 0,
            Err(error) => -error.number(),
        };
        write(hv, caller, element::<i32>(request.errs, done)?, &error)?;
        done += 1;
    }
    call.arguments[0] = call.arguments[0] & ((1 << OPERATION_BITS) - 1) | done << OPERATION_BITS;
    Ok(Answer::Again)
}

/// The memory map that the domain started with.
fn memory_map(hv: &Hypervisor, caller: VcpuId, at: u64) -> Result {
    let mut request: MemoryMap = read(hv, caller, at)?;
    let bytes = hv.domain(caller.domain).ok_or(Errno::SRCH)?.spec.memory;
    let ram = |addr, size| E820Entry {
        addr,
        size,
        r#type: XEN_HVM_MEMMAP_TYPE_RAM,
    };
    let (low, high) = (
        ram(0, bytes.min(LOW_END)),
        ram(HIGH_START, bytes.saturating_sub(LOW_END)),
    );
    let map = [low, high];
    let map = if high.size == 0 { &map[..1] } else { &map[..] };
    let count = map.len().min(request.nr_entries as usize);
    for (index, entry) in (0..).zip(&map[..count]) {
        write(hv, caller, element::<E820Entry>(request.buffer, index)?, entry)?;
    }
    request.nr_entries = count as u32;
    write(hv, caller, at, &request)?;
    Ok(Answer::OK)
}
