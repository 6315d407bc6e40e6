//! `HYPERVISOR_event_channel_op` (`event_channel.h`): the two-level ABI; asking for the FIFO one answers `ENOSYS`, and guests fall back.

use xen_abi::event_channel::*;

use super::{
    Answer, Call, Result,
    context::{named, only_self, read, write},
};
use crate::{
    Hypervisor,
    domain::VcpuId,
    errno::Errno,
    event::{self, Binding, interrupts},
};

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    let domain = caller.domain;
    match operation {
        EVTCHNOP_alloc_unbound => {
            let mut request: EvtchnAllocUnbound = read(hv, caller, at)?;
            only_self(caller, request.dom)?;
            request.port = event::alloc_unbound(hv, domain, named(caller, request.remote_dom))?;
            answer_with_port(hv, caller, at, &request, request.port)
        }
        EVTCHNOP_bind_interdomain => {
            let mut request: EvtchnBindInterdomain = read(hv, caller, at)?;
            let remote = named(caller, request.remote_dom);
            request.local_port = event::bind_interdomain(hv, domain, remote, request.remote_port)?;
            answer_with_port(hv, caller, at, &request, request.local_port)
        }
        EVTCHNOP_bind_virq => {
            let mut request: EvtchnBindVirq = read(hv, caller, at)?;
            request.port = event::bind_virq(hv, domain, request.virq, request.vcpu)?;
            answer_with_port(hv, caller, at, &request, request.port)
        }
        EVTCHNOP_bind_ipi => {
            let mut request: EvtchnBindIpi = read(hv, caller, at)?;
            request.port = event::bind_ipi(hv, domain, request.vcpu)?;
            answer_with_port(hv, caller, at, &request, request.port)
        }
        EVTCHNOP_bind_pirq => {
            let mut request: EvtchnBindPirq = read(hv, caller, at)?;
            request.port = interrupts::bind(hv, domain, request.pirq)?;
            answer_with_port(hv, caller, at, &request, request.port)
        }
        EVTCHNOP_close => {
            let request: EvtchnClose = read(hv, caller, at)?;
            event::close(hv, domain, request.port)?;
            Ok(Answer::OK)
        }
        EVTCHNOP_send => {
            let request: EvtchnSend = read(hv, caller, at)?;
            event::send(hv, domain, request.port)?;
            Ok(Answer::OK)
        }
        EVTCHNOP_status => {
            let mut request: EvtchnStatus = read(hv, caller, at)?;
            only_self(caller, request.dom)?;
            status(hv, caller, &mut request)?;
            write(hv, caller, at, &request)?;
            Ok(Answer::OK)
        }
        EVTCHNOP_bind_vcpu => {
            let request: EvtchnBindVcpu = read(hv, caller, at)?;
            event::bind_vcpu(hv, domain, request.port, request.vcpu)?;
            Ok(Answer::OK)
        }
        EVTCHNOP_unmask => {
            let request: EvtchnUnmask = read(hv, caller, at)?;
            event::unmask(hv, domain, request.port)?;
            Ok(Answer::OK)
        }
        EVTCHNOP_reset => {
            let request: EvtchnReset = read(hv, caller, at)?;
            only_self(caller, request.dom)?;
            event::unbind_all(hv, domain);
            Ok(Answer::OK)
        }
        _ => Err(Errno::NOSYS),
    }
}

/// Tells the caller its new port; a port that it cannot be told of is closed again.
fn answer_with_port<T>(hv: &mut Hypervisor, caller: VcpuId, at: u64, answer: &T, port: u32) -> Result
where
    T: zerocopy::IntoBytes + zerocopy::Immutable,
{
    if let Err(error) = write(hv, caller, at, answer) {
        event::close(hv, caller.domain, port)?;
        return Err(error);
    }
    Ok(Answer::OK)
}

fn status(hv: &Hypervisor, caller: VcpuId, answer: &mut EvtchnStatus) -> Result<()> {
    if answer.port >= EVTCHN_2L_NR_CHANNELS {
        return Err(Errno::INVAL);
    }
    let port = hv
        .body(caller.domain)
        .ok_or(Errno::SRCH)?
        .events
        .port(answer.port);
    answer.vcpu = port.vcpu;
    match port.binding {
        Binding::Free => answer.status = EVTCHNSTAT_closed,
        Binding::Unbound { remote } => answer.set_unbound(remote.0),
        Binding::Interdomain { remote, port } => answer.set_interdomain(remote.0, port),
        Binding::Pirq { pirq } => answer.set_pirq(pirq),
        Binding::Virq { virq } => answer.set_virq(virq),
        Binding::Ipi => answer.status = EVTCHNSTAT_ipi,
    }
    Ok(())
}
