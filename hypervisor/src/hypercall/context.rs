//! What every group of hypercalls needs: reading and writing the caller's memory, telling whom it means, and the little that hypercalls remember.

use alloc::{string::String, vec::Vec};

use xen_abi::xen::DOMID_SELF;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Result;
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    errno::Errno,
    memory::walk::{GuestPointer, GuestSpace},
};

/// What hypercalls remember of a domain.
#[derive(Default)]
pub struct DomainCalls {
    /// The line that it is writing to the hypervisor's console.
    pub(super) line: Vec<u8>,
    /// The reason that it has given for a shutdown to come (`SCHEDOP_shutdown_code`).
    pub(super) shutdown_code: Option<u32>,
    /// The vCPU that shut it down.
    pub(super) shutdown_by: Option<u32>,
    /// It wants runstate areas to be marked while they change (`VMASST_TYPE_runstate_update_flag`).
    pub(super) mark_runstate_updates: bool,
    vcpus: Vec<VcpuCalls>,
}

impl DomainCalls {
    /// The vCPU that shut the domain down, if one of its own did.
    pub fn shutdown_by(&self) -> Option<u32> {
        self.shutdown_by
    }

    /// What they remember of a vCPU that exists.
    pub(super) fn vcpu(&mut self, index: u32) -> &mut VcpuCalls {
        let index = index as usize;
        if self.vcpus.len() <= index {
            self.vcpus.resize(index + 1, VcpuCalls::default());
        }
        &mut self.vcpus[index]
    }

    /// Where a vCPU shows its clock to user mode.
    pub(super) fn time_area(&self, index: u32) -> Option<u64> {
        self.vcpus.get(index as usize)?.time_area
    }
}

/// What hypercalls remember of a vCPU.
#[derive(Clone, Default)]
pub(super) struct VcpuCalls {
    /// It has registered a `vcpu_info` of its own.
    pub(super) has_own_info: bool,
    /// Guest-virtual address of the copy of its clock that it shows to user mode.
    pub(super) time_area: Option<u64>,
}

/// A domain's name in the manifest.
pub(super) fn name(hv: &Hypervisor, domain: DomainId) -> String {
    hv.domain(domain)
        .map_or_else(String::new, |domain| domain.spec.name.clone())
}

/// The caller's address space.
pub(super) fn space(hv: &Hypervisor, caller: VcpuId) -> Result<GuestSpace<'_>> {
    let body = hv.body(caller.domain).ok_or(Errno::SRCH)?;
    let vcpu = body.vcpus.get(caller.index as usize).ok_or(Errno::SRCH)?;
    let walks = (hv.calling == Some(caller)).then_some(&hv.walks);
    Ok(GuestSpace::new(&hv.memory, &body.p2m, vcpu.processor.paging()).remembering(walks))
}

/// Copies a structure out of the caller's memory.
pub(super) fn read<T: FromBytes + IntoBytes>(hv: &Hypervisor, caller: VcpuId, at: u64) -> Result<T> {
    Ok(space(hv, caller)?.read(GuestPointer::new(at))?)
}

/// Copies a structure into the caller's memory.
pub(super) fn write<T: IntoBytes + Immutable>(
    hv: &Hypervisor,
    caller: VcpuId,
    at: u64,
    value: &T,
) -> Result<()> {
    Ok(space(hv, caller)?.write(GuestPointer::new(at), value)?)
}

/// Copies bytes into the caller's memory.
pub(super) fn write_bytes(hv: &Hypervisor, caller: VcpuId, at: u64, bytes: &[u8]) -> Result<()> {
    Ok(space(hv, caller)?.write_bytes(GuestPointer::<u8>::new(at).address(), bytes)?)
}

/// The address of an element of an array in the caller's memory.
pub(super) fn element<T>(array: u64, index: u64) -> Result<u64> {
    Ok(GuestPointer::<T>::new(array).element(index)?.address().0)
}

/// The domain that a call names; `DOMID_SELF` is the caller's.
pub(super) fn named(caller: VcpuId, id: u16) -> DomainId {
    if id == DOMID_SELF {
        caller.domain
    } else {
        DomainId(id)
    }
}

/// Checks that a call is about the caller's own domain.
pub(super) fn only_self(caller: VcpuId, id: u16) -> Result<()> {
    if named(caller, id) == caller.domain {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}
