//! Event channels: the 2-level ABI.

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    errno::Errno,
};

/// The event channels of a domain.
#[derive(Default)]
pub struct EventChannels {}

/// Raises an event at the other end of a port of `domain`.
pub fn send(_hv: &mut Hypervisor, _domain: DomainId, _port: u32) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Makes a port of `owner` to which `remote` may bind: the xenstore and console ports of a new domain.
pub fn alloc_unbound(_hv: &mut Hypervisor, _owner: DomainId, _remote: DomainId) -> Result<u32, Errno> {
    Err(Errno::NOSYS)
}

/// Raises a virtual interrupt of one vCPU (`VIRQ_TIMER`, `VIRQ_DEBUG`) if it is bound.
pub fn raise_virq(_hv: &mut Hypervisor, _vcpu: VcpuId, _virq: u32) {}

/// Raises a virtual interrupt of the machine at the domain that it belongs to: `VIRQ_DOM_EXC` at the one with the capability `control`,
/// `VIRQ_CON_RING` at the one with `console-log`.
pub fn raise_global_virq(_hv: &mut Hypervisor, _virq: u32) {}

/// A physical interrupt arrived on `vector`: sends it to the domain that it is bound to. False if it is nobody's.
pub fn raise_interrupt(_hv: &mut Hypervisor, _vector: u8) -> bool {
    false
}

/// Closes every port of a domain and gives its physical interrupts back; the other ends become unbound towards the same id.
/// Call it before the domain's body goes.
pub fn unbind_all(_hv: &mut Hypervisor, _domain: DomainId) {}

/// Whether an upcall is pending (`evtchn_upcall_pending`): before an entry, a vCPU with an upcall vector gets it injected; a
/// vCPU that is about to block does not.
pub fn upcall_pending(_hv: &Hypervisor, _vcpu: VcpuId) -> bool {
    false
}
