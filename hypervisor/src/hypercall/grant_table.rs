//! `HYPERVISOR_grant_table_op` (`grant_table.h`). Most operations come as arrays: a bounded number is carried out at a time, and the pointer and the count
//! in the registers move on. Each element has a status of its own; the hypercall fails only when the array cannot be read or written.

use xen_abi::grant_table::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Answer, Call, Result,
    context::{element, named, only_self, read, write},
};
use crate::{
    Hypervisor,
    domain::{Body, VcpuId},
    errno::Errno,
    grant::{self, MAX_FRAMES, Part, Version},
};

/// Maps and unmaps in one piece of work.
const MAPS: u64 = 64;
/// Copies, of up to a page each, in one piece of work.
const COPIES: u64 = 32;
/// Other operations in one piece of work.
const OTHERS: u64 = 16;

/// A frame that is nowhere in the guest's memory.
const NO_FRAME: u64 = u64::MAX;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    // The count is an unsigned int that must not be negative as a signed one.
    if call.arguments[2] > i32::MAX as u64 {
        return Err(Errno::INVAL);
    }
    match call.arguments[0] {
        GNTTABOP_map_grant_ref => each(hv, caller, call, MAPS, map),
        GNTTABOP_unmap_grant_ref => {
            let answer = each(hv, caller, call, MAPS, unmap);
            grant::flush(hv, caller.domain);
            answer
        }
        GNTTABOP_unmap_and_replace => each(
            hv,
            caller,
            call,
            OTHERS,
            |_, _, op: &mut GnttabUnmapAndReplace| {
                op.status = GNTST_general_error; // There is nothing to replace in a memory that the hypervisor does not page.
                Ok(())
            },
        ),
        GNTTABOP_transfer => each(hv, caller, call, OTHERS, |_, _, op: &mut GnttabTransfer| {
            op.status = GNTST_general_error; // For paravirtual guests only.
            Ok(())
        }),
        GNTTABOP_copy => each(hv, caller, call, COPIES, |hv, caller, op: &mut GnttabCopy| {
            op.status = status(grant::copy(hv, caller.domain, op));
            Ok(())
        }),
        GNTTABOP_swap_grant_ref => each(
            hv,
            caller,
            call,
            OTHERS,
            |hv, caller, op: &mut GnttabSwapGrantRef| {
                let memory = hv.memory;
                let swapped = hv
                    .body_mut(caller.domain)
                    .ok_or(Errno::SRCH)?
                    .grants
                    .swap(&memory, op.ref_a, op.ref_b);
                op.status = status(swapped);
                Ok(())
            },
        ),
        // Caches are coherent here, with devices too.
        GNTTABOP_cache_flush => each(hv, caller, call, OTHERS, |_, _, op: &mut GnttabCacheFlush| {
            let known = GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL | GNTTAB_CACHE_SOURCE_GREF;
            let fits = u64::from(op.offset) + u64::from(op.length) <= xen_abi::xen::PAGE_SIZE as u64;
            if op.op & !known != 0 || !fits {
                Err(Errno::INVAL)
            } else {
                Ok(())
            }
        }),
        GNTTABOP_setup_table => one(hv, caller, call, setup_table),
        GNTTABOP_get_status_frames => one(hv, caller, call, status_frames),
        GNTTABOP_query_size => one(hv, caller, call, query_size),
        GNTTABOP_set_version => one(hv, caller, call, set_version),
        GNTTABOP_get_version => one(hv, caller, call, get_version),
        _ => Err(Errno::NOSYS),
    }
}

/// Carries out up to `piece` elements of the caller's array, and moves the registers behind them.
fn each<T: FromBytes + IntoBytes + Immutable>(
    hv: &mut Hypervisor,
    caller: VcpuId,
    call: &mut Call,
    piece: u64,
    act: impl Fn(&mut Hypervisor, VcpuId, &mut T) -> Result<()>,
) -> Result {
    let [_, at, count, ..] = call.arguments;
    let now = count.min(piece);
    for index in 0..now {
        let at = element::<T>(at, index)?;
        let mut operation: T = read(hv, caller, at)?;
        act(hv, caller, &mut operation)?;
        write(hv, caller, at, &operation)?;
    }
    if now == count {
        return Ok(Answer::OK);
    }
    call.arguments[1] = element::<T>(at, now)?;
    call.arguments[2] = count - now;
    Ok(Answer::Again)
}

/// Carries out an operation that does not come as an array.
fn one<T: FromBytes + IntoBytes + Immutable>(
    hv: &mut Hypervisor,
    caller: VcpuId,
    call: &mut Call,
    act: impl Fn(&mut Hypervisor, VcpuId, &mut T) -> Result<()>,
) -> Result {
    if call.arguments[2] != 1 {
        return Err(Errno::INVAL);
    }
    each(hv, caller, call, 1, act)
}

fn status<T>(result: core::result::Result<T, i16>) -> i16 {
    result.err().unwrap_or(GNTST_okay)
}

fn map(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabMapGrantRef) -> Result<()> {
    let granter = crate::domain::DomainId(op.dom);
    match grant::map(hv, caller.domain, granter, op.r#ref, op.host_addr, op.flags) {
        Ok(mapped) => {
            op.status = GNTST_okay;
            op.handle = mapped.handle;
            op.dev_bus_addr = mapped.device_address;
        }
        Err(error) => op.status = error,
    }
    Ok(())
}

fn unmap(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabUnmapGrantRef) -> Result<()> {
    op.status = status(grant::unmap(
        hv,
        caller.domain,
        op.handle,
        op.host_addr,
        op.dev_bus_addr,
    ));
    Ok(())
}

fn body(hv: &Hypervisor, caller: VcpuId) -> Result<&Body> {
    hv.body(caller.domain).ok_or(Errno::SRCH)
}

/// Makes the caller's table at least so long.
fn grow(hv: &mut Hypervisor, caller: VcpuId, frames: u32) -> Result<()> {
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&caller.domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    body.grants.grow(&memory, &mut hv.frames, frames)
}

/// Writes where the caller sees the first frames of a part of its table.
fn list_frames(hv: &Hypervisor, caller: VcpuId, part: Part, count: u32, list: u64) -> Result<()> {
    let frames = body(hv, caller)?.grants.frames(part);
    for (index, frame) in (0..).zip(frames).take(count as usize) {
        let place = frame.at.map_or(NO_FRAME, |at| at.frame_number());
        write(hv, caller, element::<u64>(list, index)?, &place)?;
    }
    Ok(())
}

fn setup_table(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabSetupTable) -> Result<()> {
    op.status = if only_self(caller, op.dom).is_err() {
        GNTST_permission_denied
    } else if op.nr_frames > MAX_FRAMES || grow(hv, caller, op.nr_frames).is_err() {
        GNTST_general_error
    } else if list_frames(hv, caller, Part::Entries, op.nr_frames, op.frame_list).is_err() {
        GNTST_bad_virt_addr
    } else {
        GNTST_okay
    };
    Ok(())
}

fn status_frames(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabGetStatusFrames) -> Result<()> {
    let grants = &body(hv, caller)?.grants;
    op.status = if only_self(caller, op.dom).is_err() {
        GNTST_permission_denied
    } else if op.nr_frames as usize > grants.frames(Part::Status).len() {
        GNTST_general_error
    } else if list_frames(hv, caller, Part::Status, op.nr_frames, op.frame_list).is_err() {
        GNTST_bad_virt_addr
    } else {
        GNTST_okay
    };
    Ok(())
}

fn query_size(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabQuerySize) -> Result<()> {
    op.status = if only_self(caller, op.dom).is_err() {
        GNTST_permission_denied
    } else {
        op.nr_frames = body(hv, caller)?.grants.frames(Part::Entries).len() as u32;
        op.max_nr_frames = MAX_FRAMES;
        GNTST_okay
    };
    Ok(())
}

fn set_version(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabSetVersion) -> Result<()> {
    let wanted = match op.version {
        1 => Version::One,
        2 => Version::Two,
        _ => return Err(Errno::INVAL),
    };
    let memory = hv.memory;
    let body = hv
        .domains
        .get_mut(&caller.domain)
        .and_then(|domain| domain.body.as_mut())
        .ok_or(Errno::SRCH)?;
    let spare = body.grants.set_version(&memory, &mut hv.frames, wanted)?;
    grant::free_table_frames(hv, caller.domain, spare);
    Ok(())
}

fn get_version(hv: &mut Hypervisor, caller: VcpuId, op: &mut GnttabGetVersion) -> Result<()> {
    let domain = named(caller, op.dom);
    if domain != caller.domain {
        return Err(Errno::PERM);
    }
    op.version = match body(hv, caller)?.grants.version() {
        Version::One => 1,
        Version::Two => 2,
    };
    Ok(())
}
