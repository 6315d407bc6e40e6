//! The loop of every processor: run a vCPU, send its exit to the room that owns it, pick who runs next.
//!
//! All of it happens with the lock around the [`Hypervisor`], which is given up to run a guest and to idle; see [`crate::processors`]. The lock is
//! the first in the order of locks: those of the platform (log, heap, page tables, I/O APIC) are held for moments below it.

mod exits;
pub(crate) mod interrupts;
mod memory_access;
pub(crate) mod timers;

use spin::Once;
use xen_abi::vcpu::{RUNSTATE_runnable, RUNSTATE_running};

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus, build::Progress, fault, revival},
    event,
    figures::{self, Phase, Watch},
    hypercall::{self, Outcome},
    iommu,
    lock::{Guard, Lock, Waiting},
    platform,
    platform::time,
    processors::Seat,
    virt::{self, Exit, Injection},
};

static HYPERVISOR: Once<Lock<Hypervisor>> = Once::new();

/// The value, for as long as a processor works.
type Locked = Guard<'static, Hypervisor, Sleep>;

/// Waiters sleep until the next interrupt.
struct Sleep;

impl Waiting for Sleep {
    fn sleep() {
        platform::interrupts::sleep();
    }

    fn wake(processor: usize) {
        platform::smp::wake(processor);
    }
}

/// What a processor keeps for itself.
struct Own {
    index: usize,
    clock: timers::Alarm,
    seat: Seat,
    watch: Watch,
}

impl Own {
    fn new(index: usize) -> Self {
        Self {
            index,
            clock: timers::Alarm::default(),
            seat: Seat::default(),
            watch: Watch::default(),
        }
    }

    /// Waits for the lock; `urgent` is for what a realtime vCPU waits for.
    fn lock(&self, urgent: bool) -> Locked {
        let hypervisor = HYPERVISOR.get().expect("processors work once there is work");
        let mut guard: Locked = hypervisor.lock(self.index, urgent);
        guard.processors[self.index].account.arrive(time::ticks());
        guard
    }

    /// Gives the lock up.
    fn unlock(&self, mut hv: Locked, phase: Phase) {
        let here = platform::cpu::current();
        let account = &mut hv.processors[self.index].account;
        (account.interrupts, account.messages) = (here.interrupts.get(), here.messages.get());
        account.depart(phase, time::ticks());
    }
}

/// Starts the control domain, and runs whoever may run for as long as the machine is up.
pub fn run(mut hv: Hypervisor) -> ! {
    start_first(&mut hv);
    let online = hv.machine.online.clone();
    HYPERVISOR.call_once(|| Lock::new(hv));
    platform::log::defer();
    platform::smp::set_to_work(join, &online);
    work(0)
}

/// Another processor begins.
fn join(processor: usize) -> ! {
    let own = Own::new(processor);
    let hv = own.lock(false);
    virt::enable_here(&*hv.backend);
    own.unlock(hv, Phase::Waiting);
    work(processor)
}

fn work(processor: usize) -> ! {
    let mut own = Own::new(processor);
    let mut hv = own.lock(false);
    own.seat = hv.processors[processor].seat.clone();
    own.watch = hv.processors[processor].account.watch();
    loop {
        take_interrupts(&mut hv, processor);
        event::announce_log(&mut hv);
        let now = time::now();
        timers::expire(&mut hv, processor, now);
        hv.release_throttled(now);
        if revival::step(&mut hv, now) {
            // Others may work between two pieces.
            own.unlock(hv, Phase::Waiting);
            platform::interrupts::window();
            hv = own.lock(false);
            continue;
        }
        hv = match hv.next(processor, now) {
            Some(id) => run_vcpu(hv, &mut own, id),
            None => idle(hv, &mut own),
        };
    }
}

/// Nobody has anything to do here until an interrupt.
fn idle(mut hv: Locked, own: &mut Own) -> Locked {
    // Time that nobody wants: memory that was given back is scrubbed, a little at a time.
    let memory = hv.memory;
    if hv.frames.scrub(&memory) {
        let urgency = hv.scheduler.urgency(own.index);
        own.unlock(hv, Phase::Waiting);
        platform::interrupts::window();
        return own.lock(urgency.after_interrupt);
    }
    let ends = [hv.next_timer(own.index), hv.scheduler.alarm(own.index)];
    let alarm = ends.into_iter().flatten().min();
    own.clock.set(alarm);
    hv.scheduler.idle(own.index, alarm);
    let urgency = hv.scheduler.urgency(own.index);
    hv.processors[own.index].account.current = None;
    own.unlock(hv, Phase::Idle);
    if own.index == 0 && platform::log::show_some() {
        platform::interrupts::window();
    } else {
        platform::interrupts::wait();
    }
    own.watch.left(time::ticks());
    let mut hv = own.lock(urgency.after_interrupt);
    hv.scheduler.work(own.index);
    hv
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
fn take_interrupts(hv: &mut Hypervisor, processor: usize) {
    while let Some(vector) = platform::interrupts::take_pending() {
        if hv.iommu.fault_vector() == Some(vector) {
            iommu::confine::report(hv);
            continue;
        }
        event::raise_interrupt(hv, processor, vector);
    }
    if platform::interrupts::take_non_maskable() {
        log::warn!("a non-maskable interrupt arrived at the machine");
    }
}

/// Runs a vCPU until somebody else should run.
fn run_vcpu(mut hv: Locked, own: &mut Own, id: VcpuId) -> Locked {
    hv.load(own.index, id);
    hv.processors[own.index].account.current = Some(id);
    loop {
        note_running(&mut hv, id);
        let nudge = interrupts::deliver(&mut hv, id);
        let fault = fault::due_after(&hv, id).map(|left| (time::now(), left));
        let ends = [
            hv.next_timer(own.index),
            hv.scheduler.alarm(own.index),
            nudge,
            fault.map(|(now, left)| now.saturating_add(left)),
        ];
        let alarm = ends.into_iter().flatten().min();
        own.clock.set(alarm);
        hv.first_guest.get_or_insert_with(time::now);
        let urgency = hv.scheduler.urgency(own.index);
        let Some((mut guest, root, stay)) = hv.depart(own.index, id, alarm) else {
            return hv;
        };
        own.unlock(hv, Phase::Guest);
        let exit = guest.processor.run(&mut guest.registers, root);
        own.watch.left(time::ticks());
        let ran = fault.map(|(entered, _)| time::now().saturating_sub(entered));
        own.seat.leave(guest);
        if own.index == 0 {
            platform::log::show_some();
        }
        let interrupted = matches!(exit, Exit::Interrupt | Exit::NonMaskableInterrupt);
        hv = own.lock(if interrupted {
            urgency.after_interrupt
        } else {
            urgency.always
        });
        let reason = figures::reason(&exit);
        hv.processors[own.index].account.because(reason);
        let same = hv.arrive(own.index, id, stay, reason);
        if interrupted {
            platform::interrupts::window();
        } else if same {
            handle(&mut hv, own.index, id, exit);
        }
        // Some may also have come while the processor waited for the lock.
        take_interrupts(&mut hv, own.index);
        event::announce_log(&mut hv);
        let now = time::now();
        timers::expire(&mut hv, own.index, now);
        hv.release_throttled(now);
        if !same {
            return hv;
        }
        if let Some(ran) = ran {
            fault::ran(&mut hv, id, ran);
        }
        if hv.scheduler.should_switch(own.index, now) || hv.revival.is_due(now) {
            break;
        }
    }
    if let Some(vcpu) = hv.vcpu_mut(id)
        && vcpu.status == VcpuStatus::Runnable
    {
        vcpu.runstate.enter(RUNSTATE_runnable, time::now());
    }
    // What others of its domain see while it does not run: whether it waits for a processor, or sleeps.
    hypercall::update_runstate_area(&hv, id);
    hv
}

/// A vCPU is about to run: also one that slept and woke again before anybody took its place.
fn note_running(hv: &mut Hypervisor, id: VcpuId) {
    if let Some(vcpu) = hv
        .vcpu_mut(id)
        .filter(|vcpu| vcpu.runstate.current != RUNSTATE_running)
    {
        let now = time::now();
        vcpu.runstate.enter(RUNSTATE_running, now);
        vcpu.counts.runs(now);
        hypercall::update_runstate_area(hv, id);
    }
}

/// Sends an exit to the room that owns it.
pub(crate) fn handle(hv: &mut Hypervisor, processor: usize, id: VcpuId, exit: Exit) {
    match exit {
        Exit::Interrupt | Exit::NonMaskableInterrupt | Exit::InterruptWindow => {}
        Exit::Hypercall => hypercall(hv, processor, id),
        Exit::Halt => exits::halt(hv, id),
        Exit::Cpuid => exits::cpuid(hv, id),
        Exit::ReadMsr(msr) => exits::read_msr(hv, id, msr),
        Exit::WriteMsr(msr, value) => exits::write_msr(hv, id, msr, value),
        Exit::SetExtendedControl(register, value) => exits::set_extended_control(hv, id, register, value),
        Exit::Port(access) => exits::port(hv, id, access),
        Exit::NestedFault(fault) => memory_access::nested_fault(hv, id, fault),
        Exit::FlushCaches => exits::skip(hv, id),
        Exit::MachineCheck => {
            platform::machine_check::report();
            crash(
                hv,
                id,
                format_args!(
                    "the machine reported broken hardware while it ran, and its state cannot be trusted"
                ),
            );
        }
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

fn hypercall(hv: &mut Hypervisor, processor: usize, id: VcpuId) {
    let outcome = hypercall::dispatch(hv, id);
    if outcome != Outcome::Again && outcome != Outcome::Stopped {
        exits::skip(hv, id);
    }
    match outcome {
        Outcome::Complete | Outcome::Stopped => {}
        // Between the pieces of a long hypercall its equals have their turn.
        Outcome::Again | Outcome::Yield => hv.scheduler.give_way(processor, time::now()),
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
    hv.crash_domain(id, alloc::format!("{reason}"));
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
