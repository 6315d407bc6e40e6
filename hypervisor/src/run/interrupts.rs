//! What a vCPU is interrupted by before it runs on: upcalls for events, interrupts of its local APIC, non-maskable ones; and the messages between the
//! local APICs of a domain.

use xen_abi::hvm::params::{CallbackVia, HVM_PARAM_CALLBACK_IRQ};

use crate::{
    Hypervisor,
    domain::VcpuId,
    event,
    guest::apic::{Delivered, Delivery, Destination, Ipi},
    platform::time,
    virt::Injection,
};

/// How soon to look again at a vCPU that can take no interrupt now and cannot be told to exit when it can, in nanoseconds.
const SOON: u64 = 20_000;

/// Injects what a vCPU can take now, and asks for an exit when it can take the rest. Answers when to look again where no such exit can
/// be had.
pub(crate) fn deliver(hv: &mut Hypervisor, id: VcpuId) -> Option<u64> {
    let upcall = event::upcall_pending(hv, id);
    let body = hv.body_mut(id.domain)?;
    let direct = match CallbackVia::from_param(body.parameters[HVM_PARAM_CALLBACK_IRQ as usize]) {
        Some(CallbackVia::Vector(vector)) if upcall => Some(vector),
        _ => None,
    };
    let vcpu = body.vcpus.get_mut(id.index as usize)?;
    if let Some(vector) = vcpu.upcall_vector
        && core::mem::take(&mut vcpu.upcall_edge)
    {
        let delivery = Delivery::Fixed(vector);
        vcpu.machine.apic.deliver(Ipi {
            delivery,
            destination: Destination::Itself,
            level: false,
        });
    }
    // A vCPU with a vector of its own has no use for the domain's.
    let mut direct = direct.filter(|_| vcpu.upcall_vector.is_none());
    if vcpu.non_maskable && vcpu.processor.takes_non_maskable(&vcpu.registers) {
        vcpu.non_maskable = false;
        vcpu.processor.inject(Injection::NonMaskableInterrupt);
        vcpu.counts.injected += 1;
    }
    if vcpu.processor.interruptible(&vcpu.registers) {
        if let Some(vector) = direct.take() {
            vcpu.processor.inject(Injection::Interrupt(vector));
            vcpu.counts.injected += 1;
        } else if let Some(vector) = vcpu.machine.apic.pending_vector() {
            vcpu.machine.apic.accept(vector);
            vcpu.processor.inject(Injection::Interrupt(vector));
            vcpu.counts.injected += 1;
        }
    }
    let more = direct.is_some() || vcpu.machine.apic.pending_vector().is_some() || vcpu.non_maskable;
    let shadow = vcpu.processor.in_interrupt_shadow(&vcpu.registers);
    let window = vcpu.processor.request_interrupt_window(more && !shadow);
    let ends = vcpu.non_maskable && vcpu.processor.ends_non_maskable(&vcpu.registers);
    (ends || more && (shadow || !window)).then(|| time::now() + SOON)
}

/// Whether something waits that would interrupt the vCPU right now, if it were to sleep with interrupts enabled.
pub(super) fn pending(hv: &Hypervisor, id: VcpuId) -> bool {
    let Some(body) = hv.body(id.domain) else {
        return false;
    };
    let Some(vcpu) = body.vcpus.get(id.index as usize) else {
        return false;
    };
    let domain_vector = CallbackVia::from_param(body.parameters[HVM_PARAM_CALLBACK_IRQ as usize]);
    let upcalls = vcpu.upcall_vector.is_none() && matches!(domain_vector, Some(CallbackVia::Vector(_)));
    upcalls && event::upcall_pending(hv, id)
        || vcpu.upcall_vector.is_some() && vcpu.upcall_edge
        || vcpu.machine.apic.pending_vector().is_some()
        || vcpu.processor.injection_pending()
}

/// Delivers a message of a local APIC to the domain's vCPUs that it reaches.
pub(super) fn send(hv: &mut Hypervisor, sender: VcpuId, ipi: Ipi) {
    let Some(body) = hv.body_mut(sender.domain) else {
        return;
    };
    let mut reached: alloc::vec::Vec<u32> = (0..)
        .zip(&body.vcpus)
        .filter(|(index, vcpu)| ipi.reaches(&vcpu.machine.apic, *index == sender.index))
        .map(|(index, _)| index)
        .collect();
    if let Delivery::LowestPriority(_) = ipi.delivery {
        let lowest = reached
            .iter()
            .copied()
            .min_by_key(|index| body.vcpus[*index as usize].machine.apic.processor_priority());
        reached = lowest.into_iter().collect();
    }
    body.counts.ipis += reached.len() as u64;
    for index in reached {
        let target = VcpuId { index, ..sender };
        let Some(vcpu) = hv.vcpu_mut(target) else { return };
        match vcpu.machine.apic.deliver(ipi) {
            Delivered::Nothing => {}
            Delivered::Interrupt => hv.wake(target),
            Delivered::NonMaskable => {
                vcpu.non_maskable = true;
                hv.wake(target);
            }
            Delivered::Init => {
                hv.take_down(target);
                let Some(vcpu) = hv.vcpu_mut(target) else { return };
                vcpu.machine.apic.reset();
                vcpu.awaits_startup = true;
                (vcpu.non_maskable, vcpu.upcall_edge, vcpu.polling) = (false, false, None);
                hv.rearm(target);
            }
            Delivered::StartUp(page) => {
                if vcpu.awaits_startup {
                    vcpu.processor.enter_startup(&mut vcpu.registers, page);
                    hv.bring_up(target);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::VcpuStatus,
        testing::{hypervisor, vcpu},
    };

    #[test]
    fn an_init_forgets_what_was_to_interrupt_and_a_startup_brings_up() {
        let mut hv = hypervisor();
        let (first, second) = (vcpu(3), VcpuId { index: 1, ..vcpu(3) });
        let message = |delivery| Ipi {
            delivery,
            destination: Destination::Physical { id: 1, wide: true },
            level: false,
        };
        send(&mut hv, first, message(Delivery::StartUp(7)));
        let status = |hv: &Hypervisor| hv.vcpu(second).unwrap().status;
        assert_eq!(status(&hv), VcpuStatus::Runnable);
        // A second start-up is no news to one that runs.
        hv.vcpu_mut(second).unwrap().registers.rip = 1;
        send(&mut hv, first, message(Delivery::StartUp(8)));
        assert_eq!(hv.vcpu(second).unwrap().registers.rip, 1);
        send(&mut hv, first, message(Delivery::NonMaskable));
        assert!(hv.vcpu(second).unwrap().non_maskable);
        send(&mut hv, first, message(Delivery::Init));
        assert_eq!(status(&hv), VcpuStatus::Offline);
        assert!(!hv.vcpu(second).unwrap().non_maskable);
        send(&mut hv, first, message(Delivery::StartUp(9)));
        assert_eq!(hv.vcpu(second).unwrap().registers.rip, 9 << 12);
        assert_eq!(status(&hv), VcpuStatus::Runnable);
    }
}
