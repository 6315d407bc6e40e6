//! Timers of vCPUs: what happens when one is due, and the one alarm of the processor.

use xen_abi::{sched::SHUTDOWN_watchdog, xen::VIRQ_TIMER};

use crate::{
    Hypervisor,
    domain::VcpuId,
    event,
    platform::{interrupts, time},
};

/// The processor's timer, which is set only when what it should be set to changes.
#[derive(Default)]
pub(super) struct Alarm {
    set_to: Option<u64>,
}

impl Alarm {
    /// The processor is to be interrupted at this time, or never.
    pub(super) fn set(&mut self, deadline: Option<u64>) {
        if interrupts::take_timer_fired() {
            self.set_to = None;
        }
        if self.set_to != deadline {
            time::set_deadline(deadline);
            self.set_to = deadline;
        }
    }
}

/// Lets everything happen that is due at `now` for the vCPUs at home on a processor.
pub(crate) fn expire(hv: &mut Hypervisor, processor: usize, now: u64) {
    while let Some(id) = hv.timers.take_due(processor, now) {
        expire_vcpu(hv, id, now);
    }
}

fn expire_vcpu(hv: &mut Hypervisor, id: VcpuId, now: u64) {
    let due = |deadline: u64| deadline <= now;
    let Some(vcpu) = hv.vcpu_mut(id) else { return };
    let mut tick = false;
    if vcpu.oneshot.is_some_and(due) {
        vcpu.oneshot = None;
        tick = true;
    }
    if let Some((period, next)) = &mut vcpu.periodic
        && due(*next)
    {
        // Ticks that were missed are not made up for.
        *next += (now - *next) / (*period).max(1) * *period + (*period).max(1);
        tick = true;
    }
    let gives_up = vcpu
        .polling
        .as_ref()
        .is_some_and(|polling| polling.deadline.is_some_and(due));
    let interrupt = vcpu.machine.apic.expire(now);
    if tick {
        event::raise_virq(hv, id, VIRQ_TIMER);
    }
    if gives_up || interrupt {
        hv.wake(id);
    }
    if let Some(vcpu) = hv.vcpu_mut(id).filter(|_| gives_up) {
        vcpu.polling = None;
    }
    let expired = hv
        .body_mut(id.domain)
        .filter(|_| id.index == 0)
        .is_some_and(|body| {
            let life = body.life(now);
            let bites = body.watchdogs.iter_mut().map(|watchdog| watchdog.look(life, now));
            bites.fold(false, |any, bites| any | bites)
        });
    if expired {
        hv.stop_domain(id.domain, SHUTDOWN_watchdog);
    }
    hv.rearm(id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Polling, State, VcpuStatus},
        testing::{hypervisor, vcpu},
    };

    const GUEST: u16 = 3;

    #[test]
    fn timers_fire_once_and_periodic_ones_again() {
        let mut hv = hypervisor();
        let id = vcpu(GUEST);
        let port = event::bind_virq(&mut hv, id.domain, VIRQ_TIMER, 0).unwrap();
        let fired = |hv: &Hypervisor| event::tests::pending(hv, GUEST, port);
        hv.vcpu_mut(id).unwrap().oneshot = Some(100);
        hv.rearm(id);
        expire(&mut hv, 0, 99);
        assert!(!fired(&hv));
        hv.sleep(id);
        expire(&mut hv, 0, 100);
        assert!(fired(&hv) && hv.timers.next(0).is_none());
        assert_eq!(hv.vcpu(id).unwrap().status, VcpuStatus::Runnable);
        hv.vcpu_mut(id).unwrap().periodic = Some((10, 110));
        hv.rearm(id);
        expire(&mut hv, 0, 135);
        assert_eq!(hv.vcpu(id).unwrap().periodic, Some((10, 140)));
        assert_eq!(
            (hv.timers.next(0), hv.timers.deadline(id)),
            (Some(140), Some(140))
        );
    }

    #[test]
    fn a_stopped_domain_has_no_timers() {
        let mut hv = hypervisor();
        let id = vcpu(GUEST);
        let time = Default::default();
        let vcpu = hv.vcpu_mut(id).unwrap();
        (vcpu.oneshot, vcpu.periodic) = (Some(100), Some((10, 110)));
        let apic = &mut vcpu.machine.apic;
        for (register, value) in [(0xf0, 0x1ff), (0x320, 1 << 17 | 0x40), (0x380, 1000)] {
            apic.write_memory(register, 4, value, time);
        }
        assert!(apic.deadline().is_some());
        hv.rearm(id);
        hv.stop_domain(id.domain, SHUTDOWN_watchdog);
        assert!(hv.timers.next(0).is_none());
    }

    #[test]
    fn a_poll_gives_up_and_a_watchdog_bites() {
        let mut hv = hypervisor();
        let id = vcpu(GUEST);
        hv.vcpu_mut(id).unwrap().polling = Some(Polling {
            ports: vec![5],
            deadline: Some(50),
        });
        hv.sleep(id);
        hv.rearm(id);
        expire(&mut hv, 0, 50);
        let vcpu = hv.vcpu(id).unwrap();
        assert_eq!((vcpu.status, &vcpu.polling), (VcpuStatus::Runnable, &None));
        let body = hv.body_mut(id.domain).unwrap();
        let life = body.life(50);
        body.watchdogs[1].feed(80, life, 50);
        hv.sleep(id);
        hv.rearm(id);
        for now in [90, 100, 110, 120, 129] {
            expire(&mut hv, 0, now);
            assert_eq!(hv.domain(id.domain).unwrap().state, State::Running);
        }
        expire(&mut hv, 0, 130);
        assert_eq!(
            hv.domain(id.domain).unwrap().state,
            State::Stopped {
                reason: SHUTDOWN_watchdog
            }
        );
        assert!(hv.timers.next(0).is_none());
    }
}
