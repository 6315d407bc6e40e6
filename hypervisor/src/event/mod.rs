//! Event channels: the two-level ABI.
//!
//! Every domain has up to 4095 ports. A port is one end of a channel to another domain, a virtual interrupt, a physical one, or an
//! interrupt between vCPUs. An event sets the port's pending bit in the receiver's memory and, unless the port is masked, the upcall flag of the
//! port's vCPU, which wakes up; a vCPU that polls for the port wakes even if it is masked.
//!
//! When one end of a channel closes, or its domain goes, the other end waits again for the same domain id, so that a domain that is built
//! anew binds to the ports that its predecessor was bound to.

mod hardware;
pub mod interrupts;
mod ports;
mod shared;

use alloc::vec::Vec;

use xen_abi::{
    hvm::params::{CallbackVia, HVM_PARAM_CALLBACK_IRQ},
    xen::{
        NR_VIRQS, VIRQ_ARCH_0, VIRQ_CON_RING, VIRQ_DEBUG, VIRQ_DOM_EXC, VIRQ_TIMER, VIRQ_XENOPROF,
        VIRQ_XENPMU,
    },
};

pub use interrupts::{Vectors, raise_interrupt};
pub use ports::{Binding, EventChannels, Port};

use crate::{
    Hypervisor,
    domain::{Body, DomainId, VcpuId},
    errno::Errno,
    memory::MachineAddress,
};
use shared::PortBits;

/// Makes a port of `owner` to which `remote` may bind. The builder makes the xenstore and console ports of a new domain so.
pub fn alloc_unbound(hv: &mut Hypervisor, owner: DomainId, remote: DomainId) -> Result<u32, Errno> {
    let body = hv.body_mut(owner).ok_or(Errno::SRCH)?;
    body.events.allocate(Binding::Unbound { remote }, 0)
}

/// Connects a new port of `domain` with an unbound port of `remote` that waits for it. The new port has an event at once: some may have been
/// sent before.
pub fn bind_interdomain(
    hv: &mut Hypervisor,
    domain: DomainId,
    remote: DomainId,
    remote_port: u32,
) -> Result<u32, Errno> {
    let other = hv
        .body_mut(remote)
        .ok_or(Errno::SRCH)?
        .events
        .allocated(remote_port)?;
    if other.binding != (Binding::Unbound { remote: domain }) {
        return Err(Errno::INVAL);
    }
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    let port = body.events.allocate(
        Binding::Interdomain {
            remote,
            port: remote_port,
        },
        0,
    )?;
    let other = hv
        .body_mut(remote)
        .ok_or(Errno::SRCH)?
        .events
        .allocated(remote_port)?;
    other.binding = Binding::Interdomain { remote: domain, port };
    set_pending(hv, domain, port);
    Ok(port)
}

/// Whether a virtual interrupt belongs to the machine rather than to each vCPU.
fn is_global(virq: u32) -> bool {
    !matches!(
        virq,
        VIRQ_TIMER | VIRQ_DEBUG | VIRQ_XENOPROF | VIRQ_XENPMU | VIRQ_ARCH_0..NR_VIRQS
    )
}

/// Whether the manifest lets a domain have a virtual interrupt.
fn may_have(domain: &crate::domain::Domain, virq: u32) -> bool {
    match virq {
        VIRQ_DOM_EXC => domain.spec.capabilities.control,
        VIRQ_CON_RING => domain.spec.capabilities.console_log,
        _ => true,
    }
}

/// Binds a virtual interrupt to a new port. `VIRQ_CON_RING` makes the domain the owner of the operator's console.
pub fn bind_virq(hv: &mut Hypervisor, domain: DomainId, virq: u32, vcpu: u32) -> Result<u32, Errno> {
    if virq >= NR_VIRQS || is_global(virq) && vcpu != 0 {
        return Err(Errno::INVAL);
    }
    if !may_have(hv.domain(domain).ok_or(Errno::SRCH)?, virq) {
        return Err(Errno::PERM);
    }
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    existing_vcpu(body, vcpu)?;
    if body.events.virq(virq, vcpu).is_some() {
        return Err(Errno::EXIST);
    }
    let port = body.events.allocate(Binding::Virq { virq }, vcpu)?;
    if virq == VIRQ_CON_RING {
        hardware::leave_console(true);
    }
    Ok(port)
}

/// Makes a port by which the domain's vCPUs interrupt one of them.
pub fn bind_ipi(hv: &mut Hypervisor, domain: DomainId, vcpu: u32) -> Result<u32, Errno> {
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    existing_vcpu(body, vcpu)?;
    body.events.allocate(Binding::Ipi, vcpu)
}

fn existing_vcpu(body: &Body, vcpu: u32) -> Result<(), Errno> {
    if (vcpu as usize) < body.vcpus.len() {
        Ok(())
    } else {
        Err(Errno::NOENT)
    }
}

/// Chooses the vCPU that learns of a port's events; those that belong to a vCPU stay there.
pub fn bind_vcpu(hv: &mut Hypervisor, domain: DomainId, port: u32, vcpu: u32) -> Result<(), Errno> {
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    existing_vcpu(body, vcpu)?;
    let port = body.events.allocated(port)?;
    match port.binding {
        Binding::Virq { virq } if !is_global(virq) => Err(Errno::INVAL),
        Binding::Ipi => Err(Errno::INVAL),
        binding => {
            port.vcpu = vcpu;
            if let Binding::Pirq { pirq } = binding {
                interrupts::follow(hv, domain, pirq, None);
            }
            Ok(())
        }
    }
}

/// Closes a port. The other end of a channel waits for the same domain again.
pub fn close(hv: &mut Hypervisor, domain: DomainId, port: u32) -> Result<(), Errno> {
    let was = hv.body_mut(domain).ok_or(Errno::SRCH)?.events.free(port)?;
    match was.binding {
        Binding::Interdomain {
            remote,
            port: remote_port,
        } => {
            if let Some(other) = hv.body_mut(remote)
                && let Ok(other) = other.events.allocated(remote_port)
                && other.binding == (Binding::Interdomain { remote: domain, port })
            {
                other.binding = Binding::Unbound { remote: domain };
            }
        }
        Binding::Pirq { pirq } => interrupts::unbind(hv, domain, pirq),
        Binding::Virq { virq: VIRQ_CON_RING } => hardware::leave_console(false),
        _ => {}
    }
    if let Some((bits, _)) = bits(hv, domain, port) {
        bits.clear_pending();
    }
    Ok(())
}

/// Closes every port of a domain and gives its physical interrupts back; the other ends become unbound towards the same id.
/// Call it before the domain's body goes.
pub fn unbind_all(hv: &mut Hypervisor, domain: DomainId) {
    let Some(body) = hv.body(domain) else { return };
    for port in body
        .events
        .allocated_ports()
        .map(|(port, _)| port)
        .collect::<Vec<_>>()
    {
        // A port that is connected with another of the same domain stays allocated until its own turn.
        let _ = close(hv, domain, port);
    }
    interrupts::unmap_all(hv, domain);
}

/// Gives a domain that goes on elsewhere event channels as new: closes every port but those of `kept`, nothing is pending, and all is
/// masked. Its `vcpu_info` are where they are at the beginning already.
pub fn reset(hv: &mut Hypervisor, domain: DomainId, kept: &[u32]) {
    let Some(body) = hv.body(domain) else { return };
    let shared_info = body.shared_info.address();
    let ports: Vec<u32> = body
        .events
        .allocated_ports()
        .map(|(port, _)| port)
        .filter(|port| !kept.contains(port))
        .collect();
    for port in ports {
        let _ = close(hv, domain, port);
    }
    shared::reset(&hv.memory, shared_info);
}

/// Raises an event at the other end of a port of `domain`. Into a port that waits for its peer it goes nowhere, and that is no error.
pub fn send(hv: &mut Hypervisor, domain: DomainId, port: u32) -> Result<(), Errno> {
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    let (receiver, port) = match body.events.allocated(port)?.binding {
        Binding::Interdomain { remote, port } => (remote, port),
        Binding::Ipi => {
            body.counts.ipis += 1;
            (domain, port)
        }
        Binding::Unbound { .. } => return Ok(()),
        _ => return Err(Errno::INVAL),
    };
    body.counts.events_sent += 1;
    set_pending(hv, receiver, port);
    Ok(())
}

/// Clears a port's mask bit and announces an event that it held back.
pub fn unmask(hv: &mut Hypervisor, domain: DomainId, port: u32) -> Result<(), Errno> {
    hv.body_mut(domain).ok_or(Errno::SRCH)?.events.allocated(port)?;
    let Some((bits, vcpu_info)) = bits(hv, domain, port) else {
        return Err(Errno::INVAL);
    };
    if bits.unmask() && vcpu_info.is_some_and(|info| bits.announce(info)) {
        let index = hv.body(domain).map_or(0, |body| body.events.port(port).vcpu);
        announced(hv, VcpuId { domain, index });
    }
    Ok(())
}

/// The upcall flag of a vCPU was set that was clear. One that runs and takes no interrupts for events, as unikernels do not, is left alone: it looks at the
/// flag itself, and once more when it is about to sleep.
fn announced(hv: &mut Hypervisor, vcpu: VcpuId) {
    let Some(body) = hv.body_mut(vcpu.domain) else {
        return;
    };
    let by_domain = CallbackVia::from_param(body.parameters[HVM_PARAM_CALLBACK_IRQ as usize]);
    let Some(told) = body.vcpus.get_mut(vcpu.index as usize) else {
        return;
    };
    told.upcall_edge = true;
    let takes_interrupts = told.upcall_vector.is_some() || matches!(by_domain, Some(CallbackVia::Vector(_)));
    if takes_interrupts || told.on.is_none() {
        hv.wake(vcpu);
    }
}

/// Whether a port has an event; false for numbers beyond the ABI.
pub fn is_pending(hv: &Hypervisor, domain: DomainId, port: u32) -> bool {
    bits(hv, domain, port).is_some_and(|(bits, _)| bits.is_pending())
}

/// Raises a virtual interrupt of one vCPU (`VIRQ_TIMER`, `VIRQ_DEBUG`) if it is bound.
pub fn raise_virq(hv: &mut Hypervisor, vcpu: VcpuId, virq: u32) {
    if let Some(port) = hv
        .body(vcpu.domain)
        .and_then(|body| body.events.virq(virq, vcpu.index))
    {
        set_pending(hv, vcpu.domain, port);
    }
}

/// Raises a virtual interrupt of the machine at the domains that have bound it and may have it: `VIRQ_DOM_EXC` goes to the one with the capability
/// `control`, `VIRQ_CON_RING` to the one with `console-log`.
pub fn raise_global_virq(hv: &mut Hypervisor, virq: u32) {
    let bound = |id: &DomainId| {
        hv.body(*id)
            .is_some_and(|body| body.events.virq(virq, 0).is_some())
    };
    for domain in hv.domains.keys().copied().filter(bound).collect::<Vec<_>>() {
        raise_virq(hv, VcpuId { domain, index: 0 }, virq);
    }
}

/// Tells the reader of the log (`VIRQ_CON_RING`) if it has grown since the last call. The loop calls this now and then.
pub fn announce_log(hv: &mut Hypervisor) {
    let end = hardware::log_end();
    if core::mem::replace(&mut hv.log_announced, end) != end {
        raise_global_virq(hv, VIRQ_CON_RING);
    }
}

/// A domain stopped: if it had the operator's console, the hypervisor writes to the serial port itself again.
pub fn take_console_back(hv: &Hypervisor, domain: DomainId) {
    if hv
        .body(domain)
        .is_some_and(|body| body.events.virq(VIRQ_CON_RING, 0).is_some())
    {
        hardware::leave_console(false);
    }
}

/// Whether an upcall is pending (`evtchn_upcall_pending`): before an entry, a vCPU with an upcall vector gets it injected; a
/// vCPU that is about to block does not.
pub fn upcall_pending(hv: &Hypervisor, vcpu: VcpuId) -> bool {
    hv.vcpu(vcpu)
        .and_then(|vcpu| vcpu.vcpu_info)
        .is_some_and(|info| shared::upcall_pending(&hv.memory, info))
}

/// Moves a vCPU's `vcpu_info` to another place, with what is pending in it, or gives it its first one; the guest is told to look at every word once, since
/// an event may have fallen between.
pub fn move_vcpu_info(hv: &mut Hypervisor, vcpu: VcpuId, to: MachineAddress) -> Result<(), Errno> {
    let memory = hv.memory;
    let moved = hv.vcpu_mut(vcpu).ok_or(Errno::NOENT)?;
    let length = size_of::<xen_abi::xen::VcpuInfo>();
    match moved.vcpu_info.replace(to) {
        Some(from) => memory.copy(from, to, length),
        None => {
            memory.zero(to, length);
            crate::guest_time::publish(hv, vcpu);
        }
    }
    shared::announce_all(&memory, to);
    announced(hv, vcpu);
    Ok(())
}

/// The bits of a port and the `vcpu_info` of the vCPU that learns of it, if that has one by now.
fn bits(hv: &Hypervisor, domain: DomainId, port: u32) -> Option<(PortBits<'_>, Option<MachineAddress>)> {
    let body = hv.body(domain)?;
    let vcpu = body.vcpus.get(body.events.port(port).vcpu as usize)?;
    Some((
        PortBits::new(&hv.memory, body.shared_info.address(), port)?,
        vcpu.vcpu_info,
    ))
}

/// An event arrives at a port.
fn set_pending(hv: &mut Hypervisor, domain: DomainId, port: u32) {
    let Some((bits, vcpu_info)) = bits(hv, domain, port) else {
        return;
    };
    if !bits.set_pending() {
        return;
    }
    let upcall = !bits.is_masked() && vcpu_info.is_some_and(|info| bits.announce(info));
    let Some(body) = hv.body_mut(domain) else { return };
    body.counts.events_received += 1;
    let told = body.events.port(port).vcpu;
    let polls = |vcpu: &crate::domain::Vcpu| {
        vcpu.polling
            .as_ref()
            .is_some_and(|polling| polling.ports.contains(&port))
    };
    let polling: Vec<VcpuId> = body
        .vcpus
        .iter()
        .filter(|vcpu| polls(vcpu))
        .map(|vcpu| vcpu.id)
        .collect();
    if upcall {
        announced(hv, VcpuId { domain, index: told });
    }
    for vcpu in polling {
        hv.wake(vcpu);
    }
}

#[cfg(test)]
pub(crate) mod tests;
