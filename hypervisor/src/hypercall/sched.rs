//! `HYPERVISOR_sched_op` (`sched.h`): how a vCPU gives up the processor and how a domain ends.

use alloc::vec::Vec;

use xen_abi::{event_channel::EVTCHN_2L_NR_CHANNELS, sched::*, xen::VcpuInfo};

use super::{
    Answer, Call, Result,
    context::{element, named, read},
    machine,
};
use crate::{
    Hypervisor,
    domain::{DomainId, Polling, VcpuId, watchdog::Watchdog},
    errno::Errno,
    event,
    memory::MachineAddress,
};

/// Ports that a vCPU can poll for.
const MAX_POLLED: u32 = 128;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    match operation {
        SCHEDOP_yield => Ok(Answer::Yield),
        SCHEDOP_block => block(hv, caller),
        SCHEDOP_poll => poll(hv, caller, at),
        SCHEDOP_shutdown => {
            let request: SchedShutdown = read(hv, caller, at)?;
            if let Some(body) = hv.body_mut(caller.domain) {
                body.calls.shutdown_by = Some(caller.index);
            }
            shut_down(hv, caller.domain, request.reason)?;
            Ok(Answer::Stopped)
        }
        SCHEDOP_shutdown_code => {
            let request: SchedShutdown = read(hv, caller, at)?;
            let code = &mut hv.body_mut(caller.domain).ok_or(Errno::SRCH)?.calls.shutdown_code;
            if code.is_some() || request.reason > SHUTDOWN_MAX {
                return Err(Errno::INVAL);
            }
            *code = Some(request.reason);
            Ok(Answer::OK)
        }
        SCHEDOP_remote_shutdown => {
            let request: SchedRemoteShutdown = read(hv, caller, at)?;
            if !hv
                .domain(caller.domain)
                .is_some_and(|domain| domain.spec.capabilities.control)
            {
                return Err(Errno::PERM);
            }
            let domain = named(caller, request.domain_id);
            hv.body(domain).ok_or(Errno::SRCH)?;
            shut_down(hv, domain, request.reason)?;
            Ok(if domain == caller.domain {
                Answer::Stopped
            } else {
                Answer::OK
            })
        }
        SCHEDOP_watchdog => watchdog(hv, caller, at),
        _ => Err(Errno::NOSYS),
    }
}

/// Stops a domain, for the reason that it has given before if it has.
pub(super) fn shut_down(hv: &mut Hypervisor, domain: DomainId, reason: u32) -> Result<()> {
    if reason > SHUTDOWN_MAX {
        return Err(Errno::INVAL);
    }
    let given = hv.body(domain).and_then(|body| body.calls.shutdown_code);
    hv.stop_domain(domain, given.unwrap_or(reason));
    Ok(())
}

/// Waits for an event; one that is pending already ends the wait before it begins.
fn block(hv: &mut Hypervisor, caller: VcpuId) -> Result {
    let vcpu = hv.vcpu(caller).ok_or(Errno::SRCH)?;
    if let Some(info) = vcpu.vcpu_info {
        let mask = info.0 + core::mem::offset_of!(VcpuInfo, evtchn_upcall_mask) as u64;
        hv.memory
            .atomic_u8(MachineAddress(mask))
            .store(0, core::sync::atomic::Ordering::Release);
    }
    Ok(if event::upcall_pending(hv, caller) {
        Answer::OK
    } else {
        Answer::Block
    })
}

/// Waits for an event at one of a few ports, masked or not, for an upcall, or for a time.
fn poll(hv: &mut Hypervisor, caller: VcpuId, at: u64) -> Result {
    let request: SchedPoll = read(hv, caller, at)?;
    if request.nr_ports > MAX_POLLED {
        return Err(Errno::INVAL);
    }
    let mut ports = Vec::with_capacity(request.nr_ports as usize);
    for index in 0..request.nr_ports {
        let port: u32 = read(hv, caller, element::<u32>(request.ports, index.into())?)?;
        if port >= EVTCHN_2L_NR_CHANNELS {
            return Err(Errno::INVAL);
        }
        ports.push(port);
    }
    let vcpu = hv.vcpu(caller).ok_or(Errno::SRCH)?;
    let interrupted = event::upcall_pending(hv, caller) && vcpu.processor.interruptible(&vcpu.registers);
    let late = request.timeout != 0 && request.timeout <= machine::now();
    if interrupted
        || late
        || ports
            .iter()
            .any(|port| event::is_pending(hv, caller.domain, *port))
    {
        return Ok(Answer::OK);
    }
    let deadline = (request.timeout != 0).then_some(request.timeout);
    hv.vcpu_mut(caller).ok_or(Errno::SRCH)?.polling = Some(Polling { ports, deadline });
    Ok(Answer::Block)
}

/// Starts, pokes or stops one of the domain's watchdogs. They count what the domain lives, not what passes while it waits for a processor
/// (see [`crate::domain::watchdog`]); Xen's count all time.
fn watchdog(hv: &mut Hypervisor, caller: VcpuId, at: u64) -> Result {
    let request: SchedWatchdog = read(hv, caller, at)?;
    let now = machine::now();
    let timeout = u64::from(request.timeout) * 1_000_000_000;
    let body = hv.body_mut(caller.domain).ok_or(Errno::SRCH)?;
    let life = body.life(now);
    let answer = if request.id == 0 {
        if request.timeout == 0 {
            return Err(Errno::INVAL);
        }
        let free = body
            .watchdogs
            .iter()
            .position(Watchdog::is_free)
            .ok_or(Errno::NOSPC)?;
        body.watchdogs[free].feed(timeout, life, now);
        Answer::Done(free as i64 + 1)
    } else {
        let watchdog = body.watchdogs.get_mut(request.id as usize - 1);
        let watchdog = watchdog
            .filter(|watchdog| !watchdog.is_free())
            .ok_or(Errno::INVAL)?;
        match request.timeout {
            0 => *watchdog = Watchdog::default(),
            _ => watchdog.feed(timeout, life, now),
        }
        Answer::OK
    };
    hv.rearm(VcpuId {
        domain: caller.domain,
        index: 0,
    });
    Ok(answer)
}
