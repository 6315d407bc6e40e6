//! The end of a domain: stopped by itself or by the hypervisor, and taken down.

use alloc::{boxed::Box, string::String};

use xen_abi::{sched, vcpu::RUNSTATE_offline, xen::VIRQ_DOM_EXC};

use super::{Domain, DomainId, State, VcpuId, VcpuStatus, crash, revival};
use crate::{
    Hypervisor, event, grant, hypercall,
    iommu::confine,
    memory::{P2m, PageKind},
    platform::time,
};

/// Stops a domain: its vCPUs run no more, everything that it owns stays until it is destroyed. `reason` is one of `SHUTDOWN_*` (sched.h).
/// The control domain learns of it by `VIRQ_DOM_EXC`. Of a crash, and of a watchdog that expired, a report is kept.
pub fn stop_domain(hv: &mut Hypervisor, id: DomainId, reason: u32) {
    stop(hv, VcpuId { domain: id, index: 0 }, reason, None);
}

/// Stops the domain of a vCPU that did what none may; `cause` is the sentence about it that the report begins with.
pub fn crash_domain(hv: &mut Hypervisor, vcpu: VcpuId, cause: String) {
    stop(hv, vcpu, sched::SHUTDOWN_crash, Some(cause));
}

fn stop(hv: &mut Hypervisor, culprit: VcpuId, reason: u32, cause: Option<String>) {
    let id = culprit.domain;
    hypercall::flush_console(hv, id);
    event::take_console_back(hv, id);
    let Some(domain) = hv.domain_mut(id).filter(|domain| domain.state == State::Running) else {
        return;
    };
    domain.state = State::Stopped { reason };
    hv.recall_domain(id);
    let now = time::now();
    if matches!(reason, sched::SHUTDOWN_crash | sched::SHUTDOWN_watchdog) {
        crash::keep_report(hv, culprit, reason, cause, now);
    }
    let Some(domain) = hv.domain_mut(id) else { return };
    let (name, control) = (domain.spec.name.clone(), domain.spec.capabilities.control);
    let vcpus = domain.body.as_mut().map_or(0, |body| {
        for vcpu in &mut body.vcpus {
            vcpu.resumes = vcpu.status != VcpuStatus::Offline;
            vcpu.status = VcpuStatus::Offline;
            vcpu.stops += 1;
            vcpu.runstate.enter(RUNSTATE_offline, now);
            (vcpu.oneshot, vcpu.periodic, vcpu.polling) = (None, None, None);
            // It has a timer, too. Who is suspended finds it as it was.
            if reason != sched::SHUTDOWN_suspend {
                vcpu.machine.apic.reset();
            }
        }
        body.watchdogs = Default::default();
        body.vcpus.len() as u32
    });
    for index in 0..vcpus {
        let vcpu = VcpuId { domain: id, index };
        hv.scheduler.sleep(vcpu);
        hv.rearm(vcpu);
    }
    match reason {
        sched::SHUTDOWN_poweroff => log::info!("{name} powered off"),
        sched::SHUTDOWN_reboot => log::info!("{name} wants a reboot"),
        sched::SHUTDOWN_suspend => log::info!("{name} is suspended"),
        sched::SHUTDOWN_watchdog => log::error!("{name} stopped: its watchdog expired"),
        sched::SHUTDOWN_crash => log::error!("{name} crashed"),
        reason => log::error!("{name} stopped with reason {reason}"),
    }
    if control {
        revival::control_stopped(hv, id, reason, now);
    }
    event::raise_global_virq(hv, VIRQ_DOM_EXC);
}

/// A life that was shorter may have ended because of what its devices are in.
const SHORT_LIFE: u64 = 1_000_000_000;

/// Whether the functions of a domain that goes are reset by themselves, which takes a tenth of a second. A unikernel tells its devices to forget everything before it lets
/// them reach memory, so one that died after a life of some length is back without that; but who was stopped by the operator, or died young, or is
/// no program of ours, gets devices as new.
fn wants_reset(domain: &Domain, now: u64) -> bool {
    let died = matches!(
        domain.state,
        State::Stopped {
            reason: sched::SHUTDOWN_crash | sched::SHUTDOWN_watchdog
        }
    );
    let unikernel = matches!(domain.spec.kind, manifest::Kind::Unikernel { .. });
    !(died && unikernel && now.saturating_sub(domain.started) >= SHORT_LIFE)
}

/// What is left of a domain that was taken down, while its memory is given back piece by piece.
pub struct Remains {
    p2m: P2m,
    pages: u64,
}

impl Remains {
    /// Of a domain with this memory.
    pub(super) fn new(p2m: P2m, pages: u64) -> Self {
        Self { p2m, pages }
    }

    /// Pages of its memory that are not given back yet.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages that still hold its tables.
    pub(super) fn table_pages(&self) -> u64 {
        self.p2m.table_pages()
    }
}

/// Pages or large pages that one call gives back at most.
const PIECE: u32 = 256;

/// Takes a domain down, whatever its state, and unwinds what it holds: with the first call everything that others can see, with the next ones its memory, piece by
/// piece. True if nothing is left to do. Its memory goes back to the machine (pages that others have mapped when they let go),
/// and reaches the next domain zeroed.
pub fn destroy_some(hv: &mut Hypervisor, id: DomainId) -> bool {
    super::build::abandon(hv, id);
    let Some(domain) = hv.domain_mut(id) else {
        return true;
    };
    if domain.body.is_some() {
        unwind(hv, id);
        return false;
    }
    let Some(mut remains) = domain.remains.take() else {
        return true;
    };
    let (held, pages) = (&mut hv.held, &mut remains.pages);
    let done = remains
        .p2m
        .release_some(&hv.memory, &mut hv.frames, PIECE, |frames, mapping, count| {
            if mapping.kind == PageKind::Ram {
                held.free(frames, mapping.machine, count);
                *pages -= count;
            }
        });
    match hv.domain_mut(id) {
        Some(domain) if !done => domain.remains = Some(remains),
        _ => hv.check_accounts(),
    }
    done
}

/// The same at a stretch.
pub fn destroy_domain(hv: &mut Hypervisor, id: DomainId) {
    while !destroy_some(hv, id) {}
}

/// The part of a domain's end that cannot be interrupted: afterwards nobody sees it any more.
fn unwind(hv: &mut Hypervisor, id: DomainId) {
    let Some(domain) = hv.domain_mut(id) else { return };
    let devices = domain.devices.clone();
    let now = time::now();
    let thorough = wants_reset(domain, now);
    hv.recall_domain(id);
    for function in devices {
        // No device may write to memory that is about to be somebody else's.
        hv.resets.take_back(&hv.machine, function, thorough, now);
    }
    // Its tables are emptied and what was under way is over before any page has another use.
    confine::release(hv, id);
    event::unbind_all(hv, id);
    grant::release_all(hv, id);
    let Some(domain) = hv.domain_mut(id) else { return };
    domain.state = State::Absent;
    let Some(body) = domain.body.take() else { return };
    domain.remains = Some(Box::new(Remains::new(body.p2m, body.pages)));
    hv.unload(id);
    for vcpu in body.vcpus {
        hv.scheduler.remove(vcpu.id);
        hv.timers.set(vcpu.id, 0, None);
        vcpu.processor.release(&mut hv.frames);
    }
    hv.frames.free(body.shared_info, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hypervisor;

    #[test]
    fn a_domain_goes_at_once_and_its_memory_little_by_little() {
        let mut large = crate::testing::spec("large", 1);
        large.memory = u64::from(3 * PIECE + 5) << 12;
        let mut hv = crate::testing::hypervisor_with(std::vec![crate::testing::spec("control", 1), large]);
        let id = DomainId(2);
        let free = hv.frames.free_pages();
        let mut calls = 0;
        while !destroy_some(&mut hv, id) {
            calls += 1;
            assert!(hv.body(id).is_none());
            assert!(hv.accounts_balance(), "{:?}", hv.accounts());
        }
        assert_eq!(calls, 4);
        assert!(hv.domain(id).unwrap().remains.is_none() && destroy_some(&mut hv, id));
        assert!(hv.frames.free_pages() > free + u64::from(3 * PIECE));
    }

    #[test]
    fn devices_are_reset_unless_their_driver_died_in_the_middle_of_its_life() {
        let mut hv = hypervisor();
        let domain = hv.domain_mut(DomainId(3)).unwrap();
        domain.started = 5 * SHORT_LIFE;
        let stopped = |reason| State::Stopped { reason };
        for (state, at, reset) in [
            (State::Running, 9, true),
            (stopped(sched::SHUTDOWN_poweroff), 9, true),
            (stopped(sched::SHUTDOWN_crash), 5, true),
            (stopped(sched::SHUTDOWN_crash), 6, false),
            (stopped(sched::SHUTDOWN_watchdog), 9, false),
        ] {
            domain.state = state;
            assert_eq!(wants_reset(domain, at * SHORT_LIFE), reset, "{state:?} at {at}");
        }
        domain.spec.kind = manifest::Kind::Linux {
            kernel: "kernel".into(),
            initrd: None,
            command_line: "".into(),
        };
        assert!(wants_reset(domain, 9 * SHORT_LIFE));
    }
}
