//! The loop: run a vCPU, send its exit to the room that owns it, pick who runs next.

mod exits;
mod interrupts;
mod memory_access;
mod timers;

use xen_abi::{
    sched,
    vcpu::{RUNSTATE_runnable, RUNSTATE_running},
};

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus, build::Progress},
    event,
    hypercall::{self, Outcome},
    platform,
    platform::time,
    virt::{self, Exit, Injection},
};

/// The one processor that works for now.
const PROCESSOR: usize = 0;

/// Starts the control domain, and runs whoever may run for as long as the machine is up.
pub fn run(mut hv: Hypervisor) -> ! {
    start_first(&mut hv);
    let mut clock = timers::Alarm::default();
    loop {
        take_interrupts(&mut hv);
        event::announce_log(&mut hv);
        let now = time::now();
        timers::expire(&mut hv, now);
        match hv.scheduler.pick(PROCESSOR, now) {
            Some(id) => run_vcpu(&mut hv, id, &mut clock),
            None => {
                clock.set(hv.timers.first().map(|(deadline, _)| *deadline));
                platform::interrupts::wait();
                clock.went_off();
            }
        }
    }
}

/// Starts the control domain, which starts the others. If there is none, or it cannot start, all others are started all the same: a guest without
/// its store is better than a silent machine.
fn start_first(hv: &mut Hypervisor) {
    let control = hv
        .domains
        .values()
        .find(|domain| domain.spec.capabilities.control)
        .map(|domain| domain.id);
    if control.is_some_and(|id| start_whole(hv, id)) {
        return;
    }
    log::error!("no control domain runs; the other domains start without it, and have no xenstore");
    let others: alloc::vec::Vec<DomainId> = hv
        .domains
        .keys()
        .copied()
        .filter(|id| Some(*id) != control)
        .collect();
    for id in others {
        start_whole(hv, id);
    }
}

fn start_whole(hv: &mut Hypervisor, id: DomainId) -> bool {
    loop {
        match hv.start_domain(id) {
            Ok(Progress::Again | Progress::Wait(_)) => {}
            Ok(Progress::Done) => return true,
            Err(_) => return false,
        }
    }
}

/// Hands what has arrived at the processor to whom it is for.
fn take_interrupts(hv: &mut Hypervisor) {
    while let Some(vector) = platform::interrupts::take_pending() {
        event::raise_interrupt(hv, vector);
    }
    if platform::interrupts::take_non_maskable() {
        log::warn!("a non-maskable interrupt arrived at the machine");
    }
}

/// Runs a vCPU until somebody else should run.
fn run_vcpu(hv: &mut Hypervisor, id: VcpuId, clock: &mut timers::Alarm) {
    load(hv, id);
    loop {
        note_running(hv, id);
        let nudge = interrupts::deliver(hv, id);
        let timer = hv.timers.first().map(|(deadline, _)| *deadline);
        clock.set(
            [timer, hv.scheduler.slice_end(PROCESSOR), nudge]
                .into_iter()
                .flatten()
                .min(),
        );
        let Some(body) = hv
            .domains
            .get_mut(&id.domain)
            .and_then(|domain| domain.body.as_mut())
        else {
            return;
        };
        let root = body.p2m.root();
        let Some(vcpu) = body.vcpus.get_mut(id.index as usize) else {
            return;
        };
        hv.first_guest.get_or_insert_with(time::now);
        vcpu.processor.set_task_priority(vcpu.machine.apic.cr8());
        let exit = vcpu.processor.run(&mut vcpu.registers, root);
        vcpu.machine.apic.set_cr8(vcpu.processor.task_priority());
        vcpu.exits += 1;
        handle(hv, id, exit, clock);
        event::announce_log(hv);
        let now = time::now();
        timers::expire(hv, now);
        if hv.scheduler.should_switch(PROCESSOR, now) {
            break;
        }
    }
    if let Some(vcpu) = hv.vcpu_mut(id)
        && vcpu.status == VcpuStatus::Runnable
    {
        vcpu.runstate.enter(RUNSTATE_runnable, time::now());
    }
}

/// A vCPU is about to run: also one that slept and woke again before anybody took its place.
fn note_running(hv: &mut Hypervisor, id: VcpuId) {
    if let Some(vcpu) = hv
        .vcpu_mut(id)
        .filter(|vcpu| vcpu.runstate.current != RUNSTATE_running)
    {
        vcpu.runstate.enter(RUNSTATE_running, time::now());
        hypercall::update_runstate_area(hv, id);
    }
}

/// Puts a vCPU's extended state into the processor, in place of whose is there.
fn load(hv: &mut Hypervisor, id: VcpuId) {
    if hv.loaded == Some(id) {
        return;
    }
    let last = hv.loaded.take();
    if let Some(vcpu) = last.and_then(|last| hv.vcpu_mut(last)) {
        vcpu.extended.save();
    }
    // The last one may also have been of a domain that was destroyed meanwhile.
    if last.is_none_or(|last| last.domain != id.domain) {
        virt::forget_branches();
    }
    if let Some(vcpu) = hv.vcpu_mut(id) {
        vcpu.extended.load();
        hv.loaded = Some(id);
    }
}

/// Sends an exit to the room that owns it.
fn handle(hv: &mut Hypervisor, id: VcpuId, exit: Exit, clock: &mut timers::Alarm) {
    match exit {
        Exit::Interrupt | Exit::NonMaskableInterrupt => {
            platform::interrupts::window();
            clock.went_off();
            take_interrupts(hv);
        }
        Exit::InterruptWindow => {}
        Exit::Hypercall => hypercall(hv, id),
        Exit::Halt => exits::halt(hv, id),
        Exit::Cpuid => exits::cpuid(hv, id),
        Exit::ReadMsr(msr) => exits::read_msr(hv, id, msr),
        Exit::WriteMsr(msr, value) => exits::write_msr(hv, id, msr, value),
        Exit::SetExtendedControl(register, value) => exits::set_extended_control(hv, id, register, value),
        Exit::Port(access) => exits::port(hv, id, access),
        Exit::NestedFault(fault) => memory_access::nested_fault(hv, id, fault),
        Exit::FlushCaches => exits::skip(hv, id),
        Exit::InvalidInstruction => exits::inject(hv, id, exits::INVALID_OPCODE),
        Exit::Exception { vector, error } => exits::inject(hv, id, Injection::Exception { vector, error }),
        Exit::TripleFault => crash(hv, id, format_args!("its processor shut down (triple fault)")),
        Exit::Unexpected(code) => crash(
            hv,
            id,
            format_args!("its vCPU exited for reason {code:#x}, which nobody knows"),
        ),
    }
}

fn hypercall(hv: &mut Hypervisor, id: VcpuId) {
    let outcome = hypercall::dispatch(hv, id);
    if outcome != Outcome::Again && outcome != Outcome::Stopped {
        exits::skip(hv, id);
    }
    match outcome {
        Outcome::Complete | Outcome::Stopped => {}
        // Between the pieces of a long hypercall its equals have their turn.
        Outcome::Again | Outcome::Yield => hv.scheduler.give_way(PROCESSOR, time::now()),
        Outcome::Block => exits::block(hv, id),
    }
    hv.rearm(id);
}

/// Stops a domain that did what no domain may, and tells the operator where it was.
fn crash(hv: &mut Hypervisor, id: VcpuId, reason: core::fmt::Arguments<'_>) {
    if let (Some(domain), Some(vcpu)) = (hv.domain(id.domain), hv.vcpu(id)) {
        let (registers, paging) = (&vcpu.registers, vcpu.processor.paging());
        log::error!("{} is stopped: {reason}", domain.spec.name);
        log::error!(
            "vCPU {}: rip {:#x} rsp {:#x} rflags {:#x} cr0 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x}",
            id.index,
            registers.rip,
            registers.rsp,
            registers.rflags,
            paging.cr0,
            paging.cr3,
            paging.cr4,
            paging.efer
        );
        log::error!(
            "rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x} rsi {:#x} rdi {:#x} rbp {:#x} r8 {:#x} r9 {:#x}",
            registers.rax,
            registers.rbx,
            registers.rcx,
            registers.rdx,
            registers.rsi,
            registers.rdi,
            registers.rbp,
            registers.r8,
            registers.r9
        );
    }
    hv.stop_domain(id.domain, sched::SHUTDOWN_crash);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hypervisor, vcpu};

    #[test]
    fn a_vcpu_that_wakes_in_its_own_turn_is_running_again() {
        let mut hv = hypervisor();
        let id = vcpu(3);
        let state = |hv: &Hypervisor| hv.vcpu(id).unwrap().runstate.current;
        note_running(&mut hv, id);
        assert_eq!(state(&hv), RUNSTATE_running);
        hv.sleep(id);
        hv.wake(id);
        assert_eq!(state(&hv), RUNSTATE_runnable);
        note_running(&mut hv, id);
        assert_eq!(state(&hv), RUNSTATE_running);
    }
}
