//! A domain that has suspended itself (`SHUTDOWN_suspend`) goes on where it is, as if it had come to another machine: it connects all its devices anew. That is what a guest does whose
//! backends cannot take its rings over.
//!
//! Such a guest expects nothing of what it had set up with the hypervisor to be there: event channels, the place of its `vcpu_info`, upcall vectors, runstate areas.
//! Its memory, its grants and its vCPUs are as it left them; its xenstore and console ports keep their numbers, which it learns only once.

use alloc::vec::Vec;

use xen_abi::{
    hvm::params::{HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_STORE_EVTCHN},
    sched::SHUTDOWN_suspend,
};

use super::{DomainId, State, VcpuId, legacy_vcpu_info};
use crate::{Hypervisor, errno::Errno, event};

/// Lets a suspended domain go on. `SRCH`: there is none of that id; `INVAL`: it is not suspended.
pub fn resume(hv: &mut Hypervisor, id: DomainId) -> Result<(), Errno> {
    let domain = hv.domain_mut(id).ok_or(Errno::SRCH)?;
    let suspended = State::Stopped {
        reason: SHUTDOWN_suspend,
    };
    let Some(body) = domain.body.as_mut().filter(|_| domain.state == suspended) else {
        return Err(Errno::INVAL);
    };
    domain.state = State::Running;
    let caller = body.calls.shutdown_by().unwrap_or(0);
    body.calls = Default::default();
    body.parameters[HVM_PARAM_CALLBACK_IRQ as usize] = 0;
    let kept = [HVM_PARAM_STORE_EVTCHN, HVM_PARAM_CONSOLE_EVTCHN]
        .map(|index| body.parameters[index as usize] as u32);
    let shared_info = body.shared_info;
    let mut online = Vec::new();
    for (vcpu, index) in body.vcpus.iter_mut().zip(0..) {
        vcpu.vcpu_info = legacy_vcpu_info(shared_info, index);
        (vcpu.upcall_vector, vcpu.upcall_edge, vcpu.runstate_area) = (None, false, None);
        if index == caller {
            // The hypercall that suspended it is over: it is on another machine.
            vcpu.registers.rax = 0;
            vcpu.processor.skip_instruction(&mut vcpu.registers);
        }
        if core::mem::take(&mut vcpu.resumes) {
            online.push(VcpuId { domain: id, index });
        }
    }
    event::reset(hv, id, &kept);
    for index in 0..hv.body(id).map_or(0, |body| body.vcpus.len() as u32) {
        crate::guest_time::publish(hv, VcpuId { domain: id, index });
    }
    for vcpu in online {
        hv.bring_up(vcpu);
    }
    if let Some(domain) = hv.domain(id) {
        log::info!("{} is resumed", domain.spec.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::VcpuStatus,
        event::Binding,
        testing::{hypervisor, machine, vcpu},
    };
    use xen_abi::{sched::SHUTDOWN_crash, xen::VIRQ_TIMER};

    const GUEST: DomainId = DomainId(3);

    fn masks(hv: &Hypervisor) -> [u8; 512] {
        let offset = core::mem::offset_of!(xen_abi::xen::SharedInfo, evtchn_mask);
        let shared_info = hv.body(GUEST).unwrap().shared_info.address();
        let mut bytes = [0; 512];
        let at = crate::memory::MachineAddress(shared_info.0 + offset as u64);
        hv.memory.read(at, &mut bytes);
        bytes
    }

    #[test]
    fn a_suspended_domain_goes_on_without_what_it_had_set_up() {
        let mut hv = hypervisor();
        let store = event::alloc_unbound(&mut hv, GUEST, DomainId(1)).unwrap();
        let servers = event::bind_interdomain(&mut hv, DomainId(1), GUEST, store).unwrap();
        let timer = event::bind_virq(&mut hv, GUEST, VIRQ_TIMER, 0).unwrap();
        let device = event::alloc_unbound(&mut hv, GUEST, DomainId(2)).unwrap();
        let backends = event::bind_interdomain(&mut hv, DomainId(2), GUEST, device).unwrap();
        let own = machine(&hv, GUEST.0, 0x5000);
        event::move_vcpu_info(&mut hv, vcpu(GUEST.0), own).unwrap();
        let body = hv.body_mut(GUEST).unwrap();
        body.parameters[HVM_PARAM_STORE_EVTCHN as usize] = store.into();
        body.parameters[HVM_PARAM_CALLBACK_IRQ as usize] = 7;
        body.vcpus[0].upcall_vector = Some(0x40);
        let rip = body.vcpus[0].registers.rip;
        body.vcpus[0].registers.rax = 29;
        assert_eq!(resume(&mut hv, GUEST), Err(Errno::INVAL));
        hv.stop_domain(GUEST, SHUTDOWN_suspend);
        assert_eq!(hv.vcpu(vcpu(GUEST.0)).unwrap().status, VcpuStatus::Offline);
        resume(&mut hv, GUEST).unwrap();
        let body = hv.body(GUEST).unwrap();
        assert_eq!(
            body.events.port(store).binding,
            Binding::Interdomain {
                remote: DomainId(1),
                port: servers
            }
        );
        assert_eq!(body.events.port(timer).binding, Binding::Free);
        assert_eq!(body.events.port(device).binding, Binding::Free);
        assert_eq!(body.parameters[HVM_PARAM_CALLBACK_IRQ as usize], 0);
        assert_eq!(masks(&hv), [0xff; 512]);
        let first = &body.vcpus[0];
        assert_eq!(first.vcpu_info, legacy_vcpu_info(body.shared_info, 0));
        assert_eq!((first.upcall_vector, first.status), (None, VcpuStatus::Runnable));
        assert_eq!((first.registers.rax, first.registers.rip > rip), (0, true));
        // Only who ran runs again.
        assert_eq!(body.vcpus[1].status, VcpuStatus::Offline);
        let waits = Binding::Unbound { remote: GUEST };
        assert_eq!(hv.body(DomainId(2)).unwrap().events.port(backends).binding, waits);
        // One that crashed does not go on.
        hv.stop_domain(GUEST, SHUTDOWN_crash);
        assert_eq!(resume(&mut hv, GUEST), Err(Errno::INVAL));
        assert_eq!(resume(&mut hv, DomainId(9)), Err(Errno::SRCH));
    }
}
