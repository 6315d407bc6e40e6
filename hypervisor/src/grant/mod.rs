//! Grants: what a domain lets others map and copy, and what it has mapped of theirs.
//!
//! A map keeps the granter's entry marked as in use and its frame pinned, so that the granter can neither end the grant nor give the frame
//! back. When the *mapper* goes, its maps are taken down and the marks with them. When the *granter* goes, maps of its pages stay: see [`HeldFrames`].
//!
//! Errors of single operations are the numbers `GNTST_*` that the guest is told.

mod copy;
mod held;
mod maps;
mod table;

use alloc::vec::Vec;

use xen_abi::grant_table::{
    GNTMAP_application_map, GNTMAP_contains_pte, GNTMAP_device_map, GNTMAP_host_map, GNTMAP_readonly,
    GNTST_bad_dev_addr, GNTST_bad_domain, GNTST_bad_gntref, GNTST_bad_handle, GNTST_bad_virt_addr,
    GNTST_general_error, GNTST_no_space,
};

pub use copy::copy;
pub use held::HeldFrames;
pub use maps::{MAX_MAPS, Map};
pub use table::{Grant, GrantTable, MAX_FRAMES, Part, TableFrame, Use, Version};

use crate::{
    Hypervisor,
    domain::{Body, DomainId},
    errno::Errno,
    iommu::confine,
    memory::{Frame, GuestAddress, Mapping, PageKind},
    platform::heap,
};

/// Guest-physical addresses that grants can be mapped at end here: what the smallest of our processors translates (40 bits).
const ADDRESS_LIMIT: u64 = 1 << 40;

/// A new map as the mapper knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Names it.
    pub handle: u32,
    /// What the mapper's devices reach the page by; 0 if it is not for them.
    pub device_address: u64,
}

/// Fills an entry of a new domain's table: `to` may map the guest frame `frame` for writing. Makes the table's first page if need be.
pub fn offer(
    hv: &mut Hypervisor,
    domain: DomainId,
    reference: u32,
    to: DomainId,
    frame: u64,
) -> Result<(), Errno> {
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    body.grants.grow(&memory, &mut hv.frames, 1)?;
    body.grants.offer(&memory, reference, to, frame)
}

/// Maps a page that `granter` has granted to `mapper`, at `at` of the mapper's memory and for its devices as `flags` (`GNTMAP_*`) say.
pub fn map(
    hv: &mut Hypervisor,
    mapper: DomainId,
    granter: DomainId,
    reference: u32,
    at: u64,
    flags: u32,
) -> Result<Mapped, i16> {
    let (host, device) = (flags & GNTMAP_host_map != 0, flags & GNTMAP_device_map != 0);
    let write = flags & GNTMAP_readonly == 0;
    if !host && !device {
        return Err(GNTST_bad_gntref);
    }
    let domain = hv.domain(mapper).ok_or(GNTST_general_error)?;
    let drives = !domain.devices.is_empty() || !domain.spec.devices.is_empty();
    if flags & (GNTMAP_application_map | GNTMAP_contains_pte) != 0 || device && !drives {
        return Err(GNTST_general_error);
    }
    let body = domain.body.as_ref().ok_or(GNTST_general_error)?;
    if !body.grants.maps.has_room() || !heap::has_reserve() {
        return Err(GNTST_no_space);
    }
    // Confined devices reach a page where their domain sees it.
    if device && !host && body.io.is_some() {
        return Err(GNTST_bad_virt_addr);
    }
    let at = if host {
        Some(free_place(hv, body, at)?)
    } else {
        None
    };

    let memory = hv.memory;
    let body = hv.body_mut(granter).ok_or(GNTST_bad_domain)?;
    let wanted = Use {
        user: mapper,
        write,
        partial: false,
    };
    let frame = body.grants.acquire(&memory, &body.p2m, reference, wanted)?.frame;
    body.grants.pin(frame);

    let confined = hv.body(mapper).is_some_and(|body| body.io.is_some());
    let device_address = match at {
        _ if !device => None,
        Some(at) if confined => Some(at.0),
        _ => Some(frame.address().0),
    };
    let handle = place(
        hv,
        mapper,
        Map {
            granter,
            reference,
            frame,
            write,
            at,
            device: device_address,
            orphan: false,
        },
    );
    if handle.is_none() {
        let_go(hv, granter, reference, frame, write);
    }
    handle
        .map(|handle| Mapped {
            handle,
            device_address: device_address.unwrap_or(0),
        })
        .ok_or(GNTST_no_space)
}

/// The address as a place where a grant may go: nothing is there yet.
fn free_place(hv: &Hypervisor, body: &Body, at: u64) -> Result<GuestAddress, i16> {
    let at = GuestAddress(at);
    if at.page_offset() != 0 || at.0 >= ADDRESS_LIMIT || body.p2m.translate(&hv.memory, at).is_some() {
        return Err(GNTST_bad_virt_addr);
    }
    if body.within_table_budget() {
        Ok(at)
    } else {
        Err(GNTST_no_space)
    }
}

/// Enters a map into the mapper's memory and its books.
fn place(hv: &mut Hypervisor, mapper: DomainId, map: Map) -> Option<u32> {
    let memory = hv.memory;
    let body = hv.domains.get_mut(&mapper)?.body.as_mut()?;
    let handle = body.grants.maps.insert(map)?;
    if let Some(at) = map.at {
        let mapping = Mapping {
            machine: map.frame,
            writable: map.write,
            kind: PageKind::Granted,
        };
        if body.p2m.map(&memory, &mut hv.frames, at, mapping).is_err() {
            body.grants.maps.remove(handle);
            return None;
        }
    }
    body.counts.grant_maps += 1;
    if let (Some(device), true) = (map.device, body.io.is_some()) {
        let at = GuestAddress(device);
        if confine::map_grant(hv, mapper, at, map.frame, map.write).is_err() {
            let body = hv.body_mut(mapper)?;
            body.grants.maps.remove(handle);
            if let Some(at) = map.at {
                take_from_p2m(hv, mapper, at);
            }
            return None;
        }
    }
    Some(handle)
}

/// Takes a page that was just mapped away again.
fn take_from_p2m(hv: &mut Hypervisor, mapper: DomainId, at: GuestAddress) {
    let memory = hv.memory;
    if let Some(body) = hv
        .domains
        .get_mut(&mapper)
        .and_then(|domain| domain.body.as_mut())
    {
        let _ = body.p2m.unmap(&memory, &mut hv.frames, at);
    }
    flush(hv, mapper);
}

/// The granter's side of the end of a map.
fn let_go(hv: &mut Hypervisor, granter: DomainId, reference: u32, frame: Frame, write: bool) {
    let memory = hv.memory;
    if let Some(body) = hv.body_mut(granter) {
        body.grants.unpin(frame);
        body.grants.release(&memory, reference, write);
    }
}

/// Takes down the parts of a map that are named: at an address of the mapper's memory, and for its devices; zero leaves a part alone. With its last
/// part the handle goes. The caller flushes the mapper's translations before it runs again ([`flush`]).
pub fn unmap(
    hv: &mut Hypervisor,
    mapper: DomainId,
    handle: u32,
    at: u64,
    device_address: u64,
) -> Result<(), i16> {
    hv.recall_domain(mapper);
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&mapper)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(GNTST_general_error)?;
    let map = body.grants.maps.get_mut(handle).ok_or(GNTST_bad_handle)?;
    if device_address != 0 && map.device.is_some_and(|device| device != device_address) {
        return Err(GNTST_bad_dev_addr);
    }
    if at != 0
        && let Some(place) = map.at
    {
        if place != GuestAddress(at) {
            return Err(GNTST_bad_virt_addr);
        }
        if body.p2m.unmap(&memory, &mut hv.frames, place).is_err() {
            return Err(GNTST_no_space);
        }
        map.at = None;
    }
    let taken = if device_address != 0 {
        map.device.take()
    } else {
        None
    };
    let map = *map;
    let confined = body.io.is_some();
    if let (Some(device), true) = (taken, confined) {
        confine::unmap_grant(hv, mapper, GuestAddress(device));
    }
    if map.at.is_none() && map.device.is_none() {
        let body = hv.body_mut(mapper).ok_or(GNTST_general_error)?;
        body.grants.maps.remove(handle);
        body.counts.grant_unmaps += 1;
        if confined && body.grants.ending.try_reserve(1).is_ok() {
            body.grants.ending.push(map);
            return Ok(());
        }
        if confined || map.orphan {
            // The page may become free with it.
            flush(hv, mapper);
        }
        end(hv, &map);
    }
    Ok(())
}

/// A map has no part left.
fn end(hv: &mut Hypervisor, map: &Map) {
    if map.orphan {
        hv.held.let_go(&mut hv.frames, map.frame);
    } else {
        let_go(hv, map.granter, map.reference, map.frame, map.write);
    }
}

/// Makes every vCPU of a domain forget what it knows of its memory before it runs again, and its devices at once: after pages were taken away.
pub fn flush(hv: &mut Hypervisor, domain: DomainId) {
    confine::complete(hv, domain);
    hv.recall_domain(domain);
    if let Some(body) = hv.body_mut(domain) {
        body.vcpus
            .iter_mut()
            .for_each(|vcpu| vcpu.processor.flush_translations());
        for map in core::mem::take(&mut body.grants.ending) {
            end(hv, &map);
        }
    }
}

/// Unwinds everything between a domain and the others: its maps of their pages are taken down, the pages that they have mapped of its are
/// held back until they let go (see [`HeldFrames::free`]), and the frames of its table are freed.
///
/// Call it once the domain's devices are quiet and before its body goes.
pub fn release_all(hv: &mut Hypervisor, domain: DomainId) {
    hv.recall_domain(domain);
    let memory = hv.memory;
    let Some(body) = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
    else {
        return;
    };
    let maps = core::mem::take(&mut body.grants.maps);
    for at in maps.iter().filter_map(|map| map.at) {
        // Fails only for want of a table to split a large page, and grants are mapped by small ones.
        let _ = body.p2m.unmap(&memory, &mut hv.frames, at);
    }
    for map in maps.iter() {
        end(hv, map);
    }
    drop(maps);
    for other in hv.domains.values_mut().filter_map(|other| other.body.as_mut()) {
        for map in other
            .grants
            .maps
            .iter_mut()
            .filter(|map| map.granter == domain && !map.orphan)
        {
            map.orphan = true;
            hv.held.hold(map.frame);
        }
    }
    let Some(body) = hv
        .domains
        .get_mut(&domain)
        .and_then(|domain| domain.body.as_mut())
    else {
        return;
    };
    let table = core::mem::take(&mut body.grants).take_frames();
    free_table_frames(hv, domain, table);
}

/// Frees pages of a domain's table that are out of use, wherever it sees them.
pub fn free_table_frames(hv: &mut Hypervisor, domain: DomainId, mut pages: Vec<TableFrame>) {
    hv.recall_domain(domain);
    let memory = hv.memory;
    pages.retain(|page| {
        let body = hv
            .domains
            .get_mut(&domain)
            .and_then(|domain| domain.body.as_mut());
        match (page.at, body) {
            // Rather lose the page than free it while it is mapped.
            (Some(at), Some(body)) => body.p2m.unmap(&memory, &mut hv.frames, at).is_ok(),
            _ => true,
        }
    });
    flush(hv, domain);
    for page in pages {
        hv.frames.free(page.frame, 1);
    }
}

#[cfg(test)]
mod tests;
