//! Faults on purpose: a domain is killed or hung in the middle of its work, to see that nobody suffers. The operator's `kill`, `hang` and `corrupt-keep`; an
//! appliance has them only if its manifest says `fault-injection`.
//!
//! The middle of its work is found by its own time: the processor's alarm goes off after the domain has run for so long, whatever instruction that is.

use xen_abi::atoll::{FAULT_CORRUPT_KEEP, FAULT_HANG, FAULT_KILL, FaultInjection};

use super::{DomainId, State, VcpuId};
use crate::{Hypervisor, errno::Errno};

/// A fault that waits for its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    /// Nanoseconds that the domain has to run before.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Hang,
}

/// Does what is asked for, or has it done when its moment comes; a later request takes the place of one that waits.
pub fn inject(hv: &mut Hypervisor, id: DomainId, request: &FaultInjection) -> Result<(), Errno> {
    if !hv.manifest.fault_injection {
        log::warn!(
            "no fault is injected: this appliance was built without fault-injection in its [hypervisor]"
        );
        return Err(Errno::NOTSUP);
    }
    let domain = hv.domain_mut(id).ok_or(Errno::SRCH)?;
    let kind = match request.fault {
        FAULT_KILL => Kind::Kill,
        FAULT_HANG => Kind::Hang,
        FAULT_CORRUPT_KEEP => {
            // Another pattern each time, and the same in each run of the machine.
            let seed = u64::from(domain.generation) << 16 | u64::from(id.0);
            domain.keep.garble_next(seed);
            return Ok(());
        }
        _ => return Err(Errno::INVAL),
    };
    if domain.state != State::Running {
        return Err(Errno::SRCH);
    }
    let body = domain.body.as_mut().ok_or(Errno::SRCH)?;
    body.fault = None;
    if request.after == 0 {
        strike(hv, id, kind);
    } else {
        body.fault = Some(Fault {
            kind,
            left: request.after,
        });
    }
    Ok(())
}

/// How long a vCPU may run, in nanoseconds, until a fault befalls its domain.
pub fn due_after(hv: &Hypervisor, id: VcpuId) -> Option<u64> {
    Some(hv.body(id.domain)?.fault?.left)
}

/// A vCPU has run for some time.
pub fn ran(hv: &mut Hypervisor, id: VcpuId, time: u64) {
    let Some(body) = hv.body_mut(id.domain) else {
        return;
    };
    let Some(fault) = &mut body.fault else { return };
    fault.left = fault.left.saturating_sub(time);
    if fault.left == 0 {
        let kind = fault.kind;
        body.fault = None;
        strike(hv, id.domain, kind);
    }
}

fn strike(hv: &mut Hypervisor, id: DomainId, kind: Kind) {
    let Some(domain) = hv.domain(id) else { return };
    let vcpus = domain.body.as_ref().map_or(0, |body| body.vcpus.len() as u32);
    match kind {
        Kind::Kill => {
            log::warn!("{} is killed, as was asked for", domain.spec.name);
            let cause = "it was killed, as was asked for".into();
            hv.crash_domain(VcpuId { domain: id, index: 0 }, cause);
        }
        Kind::Hang => {
            log::warn!("{} hangs from now on, as was asked for", domain.spec.name);
            for index in 0..vcpus {
                hv.take_down(VcpuId { domain: id, index });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use xen_abi::sched::SHUTDOWN_crash;

    use super::*;
    use crate::{
        domain::VcpuStatus,
        testing::{hypervisor, vcpu},
    };

    const GUEST: DomainId = DomainId(3);

    fn request(fault: u16, after: u64) -> FaultInjection {
        FaultInjection {
            domain: GUEST.0,
            fault,
            after,
            ..Default::default()
        }
    }

    fn state(hv: &Hypervisor) -> State {
        hv.domain(GUEST).unwrap().state
    }

    #[test]
    fn an_appliance_without_fault_injection_refuses() {
        let mut hv = hypervisor();
        for fault in [FAULT_KILL, FAULT_HANG, FAULT_CORRUPT_KEEP] {
            assert_eq!(inject(&mut hv, GUEST, &request(fault, 0)), Err(Errno::NOTSUP));
        }
        assert_eq!(state(&hv), State::Running);
    }

    #[test]
    fn a_domain_is_killed_once_it_has_run_for_so_long() {
        let mut hv = hypervisor();
        hv.manifest.fault_injection = true;
        assert_eq!(inject(&mut hv, GUEST, &request(7, 0)), Err(Errno::INVAL));
        inject(&mut hv, GUEST, &request(FAULT_KILL, 100)).unwrap();
        let id = vcpu(GUEST.0);
        assert_eq!(due_after(&hv, id), Some(100));
        assert_eq!(due_after(&hv, vcpu(1)), None);
        ran(&mut hv, id, 60);
        ran(&mut hv, vcpu(1), 60);
        assert_eq!((due_after(&hv, id), state(&hv)), (Some(40), State::Running));
        ran(&mut hv, id, 41);
        let killed = State::Stopped {
            reason: SHUTDOWN_crash,
        };
        assert_eq!(state(&hv), killed);
        assert_eq!(inject(&mut hv, GUEST, &request(FAULT_KILL, 0)), Err(Errno::SRCH));
    }

    #[test]
    fn a_domain_that_hangs_is_told_to_be_running_and_runs_no_more() {
        let mut hv = hypervisor();
        hv.manifest.fault_injection = true;
        inject(&mut hv, GUEST, &request(FAULT_HANG, 0)).unwrap();
        let id = vcpu(GUEST.0);
        assert_eq!(state(&hv), State::Running);
        assert_eq!(hv.vcpu(id).unwrap().status, VcpuStatus::Offline);
        hv.wake(id);
        assert_eq!(hv.vcpu(id).unwrap().status, VcpuStatus::Offline);
        // Its watchdog still bites.
        hv.body_mut(GUEST).unwrap().watchdogs[0].feed(80, 0, 0);
        hv.rearm(id);
        (40..=80)
            .step_by(10)
            .for_each(|now| crate::run::timers::expire(&mut hv, 0, now));
        assert!(matches!(state(&hv), State::Stopped { .. }));
    }
}
