//! Copies between pages of which either may be granted; the hypervisor does them, and nothing stays mapped.

use xen_abi::grant_table::{
    GNTCOPY_dest_gref, GNTCOPY_source_gref, GNTST_bad_copy_arg, GNTST_bad_domain, GNTST_bad_page,
    GNTST_general_error, GNTST_permission_denied, GnttabCopy, GnttabCopyPtr,
};
use xen_abi::xen::DOMID_SELF;

use super::Use;
use crate::{
    Hypervisor,
    domain::DomainId,
    memory::{GuestAddress, MachineAddress, PAGE_SIZE},
};

/// One end of a copy, found and, if granted, marked as in use.
struct End {
    at: MachineAddress,
    /// The granter, its reference, and whether for writing.
    granted: Option<(DomainId, u32, bool)>,
}

/// Carries out a copy on behalf of `caller`. Errors are `GNTST_*`.
pub fn copy(hv: &mut Hypervisor, caller: DomainId, request: &GnttabCopy) -> Result<(), i16> {
    let from = open(
        hv,
        caller,
        &request.source,
        request.flags & GNTCOPY_source_gref != 0,
        request.len,
        false,
    )?;
    let into = open(
        hv,
        caller,
        &request.dest,
        request.flags & GNTCOPY_dest_gref != 0,
        request.len,
        true,
    );
    if let Ok(into) = &into {
        hv.memory.copy(from.at, into.at, usize::from(request.len));
        close(hv, into);
        hv.count(caller, |counts| {
            counts.grant_copies += 1;
            counts.bytes_copied += u64::from(request.len);
        });
    }
    close(hv, &from);
    into.map(drop)
}

fn open(
    hv: &mut Hypervisor,
    caller: DomainId,
    end: &GnttabCopyPtr,
    granted: bool,
    length: u16,
    write: bool,
) -> Result<End, i16> {
    let memory = hv.memory;
    let owner = if end.domid == DOMID_SELF {
        caller
    } else {
        DomainId(end.domid)
    };
    let (first, last) = (u64::from(end.offset), u64::from(end.offset) + u64::from(length));
    if last > PAGE_SIZE {
        return Err(GNTST_bad_copy_arg);
    }
    if !granted {
        if owner != caller {
            return Err(GNTST_permission_denied);
        }
        let body = hv.body(caller).ok_or(GNTST_general_error)?;
        let address = end
            .gmfn()
            .checked_mul(PAGE_SIZE)
            .and_then(|page| page.checked_add(first))
            .map(GuestAddress);
        let at = address.and_then(|address| body.p2m.machine_address(&memory, address, write));
        return Ok(End {
            at: at.ok_or(GNTST_bad_page)?,
            granted: None,
        });
    }
    let body = hv.body_mut(owner).ok_or(GNTST_bad_domain)?;
    let wanted = Use {
        user: caller,
        write,
        partial: true,
    };
    let grant = body.grants.acquire(&memory, &body.p2m, end.gref(), wanted)?;
    let opened = End {
        at: MachineAddress(grant.frame.address().0 + first),
        granted: Some((owner, end.gref(), write)),
    };
    if first < u64::from(grant.start) || last > u64::from(grant.start) + u64::from(grant.length) {
        close(hv, &opened);
        return Err(GNTST_general_error);
    }
    Ok(opened)
}

fn close(hv: &mut Hypervisor, end: &End) {
    let memory = hv.memory;
    if let Some((granter, reference, write)) = end.granted
        && let Some(body) = hv.body_mut(granter)
    {
        body.grants.release(&memory, reference, write);
    }
}
