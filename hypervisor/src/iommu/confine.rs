//! What the hypervisor does with the IOMMUs: turns them on, shows the devices of a domain the domain's memory and the grants that it has mapped, takes that back,
//! and tells the operator what was refused.

use alloc::vec::Vec;

use super::{
    IoTables, UnitError,
    unit::{Access, Report},
};
use crate::{
    Hypervisor,
    domain::DomainId,
    memory::{Frame, GuestAddress, OutOfMemory, PageKind},
    platform::pci,
};

/// Refused accesses of a domain that are logged one by one; then the count is, whenever it has doubled.
const LOGGED: u64 = 8;

/// Why a domain's devices cannot be confined to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfineError {
    /// No memory for tables.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// The unit's reason.
    #[error("the IOMMU cannot take its device: {0}")]
    Unit(#[from] UnitError),
}

/// Tables that hold a new domain's memory, with its devices attached to them; `None` for a domain without devices, or where nothing confines them.
pub fn confine(hv: &mut Hypervisor, id: DomainId) -> Result<(), ConfineError> {
    let Some(shape) = hv.iommu.shape() else {
        return Ok(());
    };
    let memory = hv.memory;
    let Some(domain) = hv
        .domains
        .get_mut(&id)
        .filter(|domain| !domain.devices.is_empty())
    else {
        return Ok(());
    };
    let devices = domain.devices.clone();
    let reserved: Vec<(GuestAddress, Frame, u64)> = domain
        .reserved
        .iter()
        .map(|(start, length)| {
            let frame = Frame::containing(*start);
            (GuestAddress(start.0), frame, length / crate::memory::PAGE_SIZE)
        })
        .collect();
    let Some(body) = domain.body.as_mut() else {
        return Ok(());
    };
    let mut own: Vec<(GuestAddress, Frame, u64)> = Vec::new();
    body.p2m.for_each(&memory, |at, mapping, count| {
        if mapping.kind == PageKind::Ram {
            match own.last_mut() {
                Some((start, first, pages))
                    if start.frame_number() + *pages == at.frame_number()
                        && first.0 + *pages == mapping.machine.0 =>
                {
                    *pages += count;
                }
                _ => own.push((at, mapping.machine, count)),
            }
        }
    });
    let mut tables = IoTables::new(&memory, &mut hv.frames, shape)?;
    let mut result = Ok(());
    // The domain's own memory is where it believes it to be, also where firmware wants something of its own.
    for (at, first, count) in reserved.into_iter().chain(own) {
        result = result.and_then(|()| tables.map(&memory, &mut hv.frames, at, first, count, true));
    }
    let root = tables.root();
    body.io = Some(tables);
    result?;
    for device in devices {
        hv.iommu.attach(device, id.0, root)?;
    }
    hv.iommu.complete()?;
    Ok(())
}

/// The devices of a domain reach nothing any more when this returns, and its tables are gone.
pub fn release(hv: &mut Hypervisor, id: DomainId) {
    hv.iommu.detach_all(id.0);
    complete(hv, id);
    let memory = hv.memory;
    if let Some(tables) = hv.body_mut(id).and_then(|body| body.io.take()) {
        tables.release(&memory, &mut hv.frames);
    }
}

/// Lets a domain's devices reach a page that was granted to it, where it sees it.
pub fn map_grant(
    hv: &mut Hypervisor,
    id: DomainId,
    at: GuestAddress,
    frame: Frame,
    write: bool,
) -> Result<(), OutOfMemory> {
    let memory = hv.memory;
    let tables = hv
        .domains
        .get_mut(&id)
        .and_then(|domain| domain.body.as_mut()?.io.as_mut())
        .ok_or(OutOfMemory)?;
    tables.map(&memory, &mut hv.frames, at, frame, 1, write)?;
    hv.iommu.mapped(id.0, at);
    Ok(())
}

/// Takes it from them, as soon as [`complete`] has been called.
pub fn unmap_grant(hv: &mut Hypervisor, id: DomainId, at: GuestAddress) {
    let memory = hv.memory;
    let Some(tables) = hv
        .domains
        .get_mut(&id)
        .and_then(|domain| domain.body.as_mut()?.io.as_mut())
    else {
        return;
    };
    // Grants are mapped by small pages, of which none has to be split.
    let _ = tables.unmap(&memory, &mut hv.frames, at);
    hv.iommu.invalidate(id.0, at);
}

/// Waits until the units have forgotten what was taken from a domain's devices. If one does not answer, the devices are kept from memory by themselves.
pub fn complete(hv: &mut Hypervisor, id: DomainId) {
    if hv.iommu.complete().is_ok() {
        return;
    }
    let Some(domain) = hv.domain(id) else { return };
    log::error!(
        "{} loses its devices: the IOMMU does not answer",
        domain.spec.name
    );
    for device in domain.devices.clone() {
        if let Some(function) = hv.machine.pci_function(device) {
            pci::quiesce(function);
        }
    }
    crate::domain::life::stop_domain(hv, id, xen_abi::sched::SHUTDOWN_crash);
}

/// Tells what the units have refused.
pub fn report(hv: &mut Hypervisor) {
    for (unit, report) in hv.iommu.reports() {
        let fault = match report {
            Report::Fault(fault) => fault,
            Report::Lost => {
                log::warn!("{} refused more than it could note", hv.iommu.name(unit));
                continue;
            }
            Report::Trouble(what, number) => {
                log::error!("{}: {what} ({number:#x})", hv.iommu.name(unit));
                continue;
            }
        };
        let function = hv.iommu.function(unit, fault.requester);
        let owner = hv.iommu.owner(unit, fault.requester).map(DomainId);
        let owner = owner.or_else(|| {
            let mine =
                |devices: &[pci::PciAddress]| function.is_some_and(|function| devices.contains(&function));
            hv.domains
                .values()
                .find(|domain| mine(&domain.devices))
                .map(|domain| domain.id)
        });
        let count = match owner.and_then(|owner| hv.domain_mut(owner)) {
            Some(domain) => {
                domain.refused_accesses += 1;
                domain.refused_accesses
            }
            None => 1,
        };
        if count > LOGGED && !count.is_power_of_two() {
            continue;
        }
        let name = owner
            .and_then(|owner| hv.domain(owner))
            .map_or("nobody", |domain| domain.spec.name.as_str());
        let what = match fault.access {
            Access::Read => "reading",
            Access::Write => "writing",
            Access::Interrupt => "interrupt",
        };
        let device = function.map_or_else(
            || alloc::format!("id {:04x}", fault.requester.0),
            |function| alloc::format!("{function}"),
        );
        log::warn!(
            "IOMMU: device {device} of {name} was kept from {what} {:#x}: {} (reason {:#x}, {count} so far)",
            fault.address,
            fault.reason,
            fault.code
        );
    }
}
