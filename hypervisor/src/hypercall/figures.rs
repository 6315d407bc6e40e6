//! `ATOLLOP_DOMAIN_FIGURES` and `ATOLLOP_PROCESSOR_FIGURES`: what was counted, put together for a reader.

use xen_abi::{
    atoll::{
        CLASS_INTERACTIVE, CLASS_REALTIME, CLASS_SHARED, DomainFigures, PROCESSOR_EXCLUSIVE,
        PROCESSOR_FIGURES_RESTART, ProcessorFigures,
    },
    vcpu::{RUNSTATE_blocked, RUNSTATE_offline, RUNSTATE_runnable, RUNSTATE_running},
};

use super::{Result, machine};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuStatus},
    errno::Errno,
};

/// The figures of a domain of the manifest.
pub(super) fn of_domain(hv: &Hypervisor, id: DomainId) -> Result<DomainFigures> {
    let domain = hv.domain(id).ok_or(Errno::SRCH)?;
    let mut figures = DomainFigures {
        domain: id.0,
        class: match domain.spec.scheduling.class {
            manifest::Class::Realtime { .. } => CLASS_REALTIME,
            manifest::Class::Interactive => CLASS_INTERACTIVE,
            manifest::Class::Shared { .. } => CLASS_SHARED,
        },
        generation: domain.generation,
        now: machine::now(),
        ..DomainFigures::default()
    };
    let Some(body) = &domain.body else {
        return Ok(figures);
    };
    body.counts.add_to(&mut figures);
    figures.vcpus = body.vcpus.len() as u16;
    figures.grants_mapped = body.grants.mapped();
    for vcpu in &body.vcpus {
        vcpu.counts.add_to(&mut figures);
        let throttlings = hv.scheduler.throttlings(vcpu.id);
        if figures.class == CLASS_REALTIME {
            figures.budget_exhaustions += throttlings;
        } else {
            figures.cap_throttlings += throttlings;
        }
        let spent = vcpu.runstate.totals(figures.now);
        figures.running += spent[RUNSTATE_running as usize];
        figures.runnable += spent[RUNSTATE_runnable as usize];
        figures.blocked += spent[RUNSTATE_blocked as usize];
        figures.offline += spent[RUNSTATE_offline as usize];
        figures.online += u16::from(vcpu.status != VcpuStatus::Offline);
    }
    Ok(figures)
}

/// The figures of the processor that is asked for, at this tick.
pub(super) fn of_processor(
    hv: &mut Hypervisor,
    request: &ProcessorFigures,
    now: u64,
) -> Result<ProcessorFigures> {
    let number = request.processor;
    let exclusive = hv.domains.values().any(|domain| {
        let scheduling = &domain.spec.scheduling;
        scheduling.exclusive && scheduling.processors.contains(&number)
    });
    let processor = hv.processors.get_mut(number as usize).ok_or(Errno::NOENT)?;
    let restart = request.flags & PROCESSOR_FIGURES_RESTART != 0;
    Ok(ProcessorFigures {
        processor: number,
        flags: if exclusive { PROCESSOR_EXCLUSIVE } else { 0 },
        apic_id: processor.apic_id,
        ..processor.account.figures(now, machine::scale(), restart)
    })
}
