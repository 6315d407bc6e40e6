//! Atoll's own operations (`xen_abi::atoll`), for the domains to which the manifest gives their capabilities.

use alloc::{string::ToString, vec::Vec};

use manifest::Capabilities;
use xen_abi::{
    atoll::*,
    hvm::params::{
        HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
    },
    vcpu::RUNSTATE_running,
};

use super::{
    Answer, Call, Result, context,
    context::{named, read, write, write_bytes},
    figures, machine,
};
use crate::{
    Hypervisor,
    domain::{
        DomainId, Polling, State, Vcpu, VcpuId, VcpuStatus, build::Progress, fault, keep, layout, life,
        suspend,
    },
    errno::Errno,
    memory::PAGE_SIZE,
};

/// Bytes of the log that are read in one piece of work; a reader asks again for more.
const LOG_PIECE: u64 = 8 * 1024;
const LOG_BUFFER: usize = 512;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    let needs = |wanted: fn(&Capabilities) -> bool| {
        let domain = hv.domain(caller.domain);
        if domain.is_some_and(|domain| wanted(&domain.spec.capabilities)) {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    };
    match operation {
        ATOLLOP_DOMAIN_INFO => {
            let mut info: DomainInfo = read(hv, caller, at)?;
            let domain = named(caller, info.domain);
            if domain != caller.domain {
                needs(|capabilities| capabilities.observe)?;
            }
            domain_info(hv, domain, &mut info)?;
            write(hv, caller, at, &info)?;
            Ok(Answer::OK)
        }
        ATOLLOP_DOMAIN_START => {
            needs(|capabilities| capabilities.control)?;
            let request: DomainReference = read(hv, caller, at)?;
            match hv.start_domain(existing(hv, request.domain)?)? {
                Progress::Done => Ok(Answer::OK),
                Progress::Again => {
                    alive(hv, caller);
                    Ok(Answer::Again)
                }
                Progress::Wait(until) => {
                    alive(hv, caller);
                    let vcpu = hv.vcpu_mut(caller).ok_or(Errno::SRCH)?;
                    vcpu.polling = Some(Polling {
                        ports: Vec::new(),
                        deadline: Some(until),
                    });
                    hv.sleep(caller);
                    Ok(Answer::Again)
                }
            }
        }
        ATOLLOP_DOMAIN_DESTROY => {
            needs(|capabilities| capabilities.control)?;
            let request: DomainReference = read(hv, caller, at)?;
            let domain = existing(hv, request.domain)?;
            if domain == caller.domain {
                hv.destroy_domain(domain);
                return Ok(Answer::Stopped);
            }
            alive(hv, caller);
            Ok(if life::destroy_some(hv, domain) {
                Answer::OK
            } else {
                Answer::Again
            })
        }
        ATOLLOP_DOMAIN_RESUME => {
            needs(|capabilities| capabilities.control)?;
            let request: DomainReference = read(hv, caller, at)?;
            suspend::resume(hv, existing(hv, request.domain)?)?;
            Ok(Answer::OK)
        }
        ATOLLOP_DOMAIN_MEMORY => {
            needs(|capabilities| capabilities.control)?;
            let request: DomainMemory = read(hv, caller, at)?;
            let domain = hv.domain_mut(existing(hv, request.domain)?).ok_or(Errno::SRCH)?;
            let most = domain.spec.memory_maximum / PAGE_SIZE;
            let body = domain.body.as_mut().ok_or(Errno::SRCH)?;
            if !(1..=most).contains(&request.pages) {
                return Err(Errno::INVAL);
            }
            body.target = request.pages;
            Ok(Answer::OK)
        }
        ATOLLOP_KEEP_REGION => {
            let mut request: KeepRegion = read(hv, caller, at)?;
            let domain = named(caller, request.domain);
            if domain != caller.domain {
                needs(|capabilities| capabilities.control)?;
            }
            keep_region(hv, domain, &mut request)?;
            write(hv, caller, at, &request)?;
            Ok(Answer::OK)
        }
        ATOLLOP_INJECT_FAULT => {
            needs(|capabilities| capabilities.control)?;
            let request: FaultInjection = read(hv, caller, at)?;
            fault::inject(hv, existing(hv, request.domain)?, &request)?;
            let runs = |vcpu: &Vcpu| vcpu.status == VcpuStatus::Runnable;
            Ok(if hv.vcpu(caller).is_some_and(runs) {
                Answer::OK
            } else {
                Answer::Stopped
            })
        }
        ATOLLOP_MACHINE_CONTROL => {
            needs(|capabilities| capabilities.control)?;
            let request: MachineControl = read(hv, caller, at)?;
            let name = context::name(hv, caller.domain);
            match request.action {
                MACHINE_POWER_OFF => {
                    log::info!("{name} powers the machine off");
                    machine::power_off();
                }
                MACHINE_REBOOT => {
                    log::info!("{name} restarts the machine");
                    machine::reboot();
                }
                _ => return Err(Errno::INVAL),
            }
            Ok(Answer::OK)
        }
        ATOLLOP_LOG_READ => {
            needs(|capabilities| capabilities.console_log)?;
            let mut request: LogRead = read(hv, caller, at)?;
            read_log(hv, caller, &mut request)?;
            write(hv, caller, at, &request)?;
            Ok(Answer::OK)
        }
        ATOLLOP_CRASH_READ => {
            needs(|capabilities| capabilities.console_log)?;
            let mut request: CrashRead = read(hv, caller, at)?;
            read_crash(hv, caller, &mut request)?;
            write(hv, caller, at, &request)?;
            Ok(Answer::OK)
        }
        ATOLLOP_DMA_WINDOW => {
            let body = hv.body(caller.domain).ok_or(Errno::NODEV)?;
            // Confined devices use the domain's own addresses.
            let offset = match &body.io {
                Some(_) => 0,
                None => body.contiguous_base.ok_or(Errno::NODEV)?.0,
            };
            write(hv, caller, at, &DmaWindow { offset })?;
            Ok(Answer::OK)
        }
        ATOLLOP_MACHINE_INFO => {
            needs(|capabilities| capabilities.observe)?;
            write(hv, caller, at, &machine_info(hv))?;
            Ok(Answer::OK)
        }
        ATOLLOP_PCI_FUNCTION => {
            let mut request: PciFunction = read(hv, caller, at)?;
            let place = hv
                .domain(caller.domain)
                .and_then(|domain| domain.devices.get(request.index as usize))
                .ok_or(Errno::NOENT)?;
            request.segment = place.segment;
            request.bus = place.bus;
            request.devfn = place.device << 3 | place.function;
            write(hv, caller, at, &request)?;
            Ok(Answer::OK)
        }
        ATOLLOP_DOMAIN_FIGURES => {
            let request: DomainFigures = read(hv, caller, at)?;
            let domain = named(caller, request.domain);
            if domain != caller.domain {
                needs(|capabilities| capabilities.observe)?;
            }
            write(hv, caller, at, &figures::of_domain(hv, domain)?)?;
            Ok(Answer::OK)
        }
        ATOLLOP_PROCESSOR_FIGURES => {
            needs(|capabilities| capabilities.observe)?;
            let request: ProcessorFigures = read(hv, caller, at)?;
            let answer = figures::of_processor(hv, &request, machine::ticks())?;
            write(hv, caller, at, &answer)?;
            Ok(Answer::OK)
        }
        _ => Err(Errno::NOSYS),
    }
}

/// Whoever has something built is not hung while that goes on, so its watchdogs are fed.
fn alive(hv: &mut Hypervisor, caller: VcpuId) {
    let now = machine::now();
    if let Some(body) = hv.body_mut(caller.domain) {
        let life = body.life(now);
        body.watchdogs
            .iter_mut()
            .for_each(|watchdog| watchdog.feed_again(life, now));
    }
}

fn read_crash(hv: &Hypervisor, caller: VcpuId, request: &mut CrashRead) -> Result<()> {
    let domain = hv.domain(DomainId(request.domain)).ok_or(Errno::SRCH)?;
    let report = domain.crashes.get(request.back.into()).ok_or(Errno::NOENT)?;
    let text = report.to_string();
    let length = text.floor_char_boundary(request.length.min(text.len() as u64) as usize);
    write_bytes(hv, caller, request.buffer, &text.as_bytes()[..length])?;
    request.length = length as u64;
    Ok(())
}

/// A domain of the manifest.
fn existing(hv: &Hypervisor, id: u16) -> Result<DomainId> {
    hv.domain(DomainId(id)).map(|domain| domain.id).ok_or(Errno::SRCH)
}

fn keep_region(hv: &Hypervisor, id: DomainId, region: &mut KeepRegion) -> Result<()> {
    let domain = hv.domain(id).ok_or(Errno::SRCH)?;
    match region.flags {
        0 => {}
        KEEP_DISCARD => keep::discard(hv, id),
        _ => return Err(Errno::INVAL),
    }
    *region = KeepRegion {
        domain: id.0,
        flags: 0,
        pages: domain.keep.pages() as u32,
        address: layout::KEEP.0,
    };
    Ok(())
}

fn domain_info(hv: &Hypervisor, id: DomainId, info: &mut DomainInfo) -> Result<()> {
    let domain = hv.domain(id).ok_or(Errno::SRCH)?;
    *info = DomainInfo {
        domain: id.0,
        generation: domain.generation,
        vcpus: domain.spec.vcpus,
        memory_pages: domain.memory_pages(),
        overhead_pages: domain.overhead_pages(),
        maximum_pages: domain.spec.memory_maximum / PAGE_SIZE,
        polling: if hv.scheduler.runs_beside_others(id) {
            domain.spec.scheduling.polling
        } else {
            0
        },
        watchdog: domain.spec.watchdog,
        ..Default::default()
    };
    (info.state, info.shutdown_reason) = match domain.state {
        State::Absent => (DOMAIN_STATE_ABSENT, 0),
        State::Building => (DOMAIN_STATE_BUILDING, 0),
        State::Running => (DOMAIN_STATE_RUNNING, 0),
        State::Stopped { reason } => (DOMAIN_STATE_STOPPED, reason),
        State::Failed => (DOMAIN_STATE_FAILED, 0),
    };
    let name = domain.spec.name.as_bytes();
    let length = name.len().min(NAME_LENGTH - 1);
    info.name[..length].copy_from_slice(&name[..length]);
    if let Some(body) = &domain.body {
        let parameter = |index: u32| body.parameters[index as usize];
        info.store_frame = parameter(HVM_PARAM_STORE_PFN);
        info.console_frame = parameter(HVM_PARAM_CONSOLE_PFN);
        info.store_port = parameter(HVM_PARAM_STORE_EVTCHN) as u32;
        info.console_port = parameter(HVM_PARAM_CONSOLE_EVTCHN) as u32;
        info.target_pages = body.target;
        info.large_pages = body.p2m.large_pages();
        let now = machine::now();
        for vcpu in &body.vcpus {
            info.cpu_time += vcpu.runstate.totals(now)[RUNSTATE_running as usize];
            info.exits += vcpu.counts.exits.iter().sum::<u64>();
        }
    }
    Ok(())
}

fn read_log(hv: &Hypervisor, caller: VcpuId, request: &mut LogRead) -> Result<()> {
    let wanted = request.length.min(LOG_PIECE);
    let mut done = 0;
    let mut buffer = [0; LOG_BUFFER];
    while done < wanted {
        let piece = &mut buffer[..LOG_BUFFER.min((wanted - done) as usize)];
        let (position, length) = machine::read_log(request.position, piece);
        let at = request.buffer.checked_add(done).ok_or(Errno::FAULT)?;
        write_bytes(hv, caller, at, &piece[..length])?;
        request.position = position;
        done += length as u64;
        if length == 0 {
            break;
        }
    }
    request.length = done;
    Ok(())
}

fn machine_info(hv: &Hypervisor) -> MachineInfo {
    let accounts = hv.accounts();
    if !hv.accounts_balance() {
        log::error!("the books of memory do not balance, which is a bug of the hypervisor: {accounts:?}");
    }
    MachineInfo {
        total_pages: accounts.total,
        free_pages: accounts.free,
        hypervisor_pages: accounts.hypervisor,
        bundle_pages: accounts.bundle,
        held_pages: accounts.held,
        first_guest: hv.first_guest.unwrap_or(0),
        uptime: machine::now(),
        tsc_khz: machine::tsc_khz(),
        cpus: hv.processors.len() as u32,
    }
}
