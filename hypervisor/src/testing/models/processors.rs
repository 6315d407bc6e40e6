//! Processors that run, call and recall vCPUs: who blocks misses no wake-up, whoever is wanted back comes back, and a vCPU is in one place.
//!
//! Each processor takes the turns of [`crate::run`] with the real hypervisor under the lock; what it does without the lock (the guest, the seat, HLT, the
//! interrupt on its way) is explored. Guests are actors that take steps only while a processor runs them and no interrupt is there.

use core::{
    cell::RefCell,
    hash::{Hash, Hasher},
};
use std::{boxed::Box, format, hash::DefaultHasher, rc::Rc, vec::Vec};

use xen_abi::{event_channel::*, sched::*, vcpu::*, xen::*};
use zerocopy::{Immutable, IntoBytes};

use super::{GuestVcpu, World, events_and_vcpus, small};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus},
    event,
    memory::{FrameAllocator, GuestAddress, MachineAddress},
    processors::{Guest, Seat, Stay},
    run::{self, interrupts, timers},
    sched::Doing,
    sync::{AtomicU64, Ordering},
    testing::{
        self, KERNEL, hypervisor_on,
        interleave::{self, Outcome, Scenario, explore, settle, wait_for_interrupt, wait_until},
    },
    virt::{Exit, Injection, Paging, Registers, StartState, VirtualCpu},
};

const INTERRUPTS_ENABLED: u64 = 1 << 9;
const VECTOR: u8 = 0x40;

/// What a guest wants of its processor.
#[derive(Clone, Copy, Hash, PartialEq, Eq)]
enum Request {
    Call {
        number: u64,
        arguments: [u64; 3],
    },
    /// HLT, with interrupts enabled or not.
    Halt {
        enabled: bool,
    },
}

/// A guest's vCPU outside of the hypervisor.
#[derive(Clone, Default, Hash)]
struct Running {
    /// The processor that runs it.
    on: Option<usize>,
    request: Option<Request>,
    /// The vector that it was interrupted by.
    vector: Option<u8>,
    result: u64,
}

#[derive(Default)]
struct Guests {
    guests: RefCell<Vec<Running>>,
    /// Interrupts that each processor was sent since it last gave up the lock.
    calls: RefCell<Vec<u32>>,
}

std::thread_local! {
    static GUESTS: RefCell<Rc<Guests>> = RefCell::default();
}

fn guests() -> Rc<Guests> {
    GUESTS.with_borrow(Rc::clone)
}

/// A processor is interrupted to look around: once, until it has.
pub fn called(processor: usize) {
    if interleave::current().is_none() {
        return;
    }
    if let Some(calls) = guests().calls.borrow_mut().get_mut(processor) {
        *calls += 1;
        assert!(*calls <= 1, "processor {processor} was called twice");
    }
    interleave::interrupt(processor);
}

/// A vCPU's processor part: running it lets the guest's actor go on.
struct ModelCpu {
    guest: usize,
    injected: Option<u8>,
}

impl VirtualCpu for ModelCpu {
    fn run(&mut self, registers: &mut Registers, _: MachineAddress) -> Exit {
        let (guest, all) = (self.guest, guests());
        let here = interleave::current().expect("a processor runs it");
        {
            let running = &mut all.guests.borrow_mut()[guest];
            assert_eq!(running.on, None, "a vCPU runs in two places");
            (running.on, running.result) = (Some(here), registers.rax);
            if let Some(vector) = self.injected.take() {
                running.vector = Some(vector);
                registers.rflags &= !INTERRUPTS_ENABLED;
            }
        }
        let asks = all.clone();
        wait_until(move || interleave::has_interrupt(here) || asks.guests.borrow()[guest].request.is_some());
        let running = &mut all.guests.borrow_mut()[guest];
        running.on = None;
        let request = running.request.filter(|_| !interleave::has_interrupt(here));
        interleave::learn(request);
        match request {
            None => Exit::Interrupt,
            Some(Request::Call { number, arguments }) => {
                registers.rax = number;
                [registers.rdi, registers.rsi, registers.rdx] = arguments;
                Exit::Hypercall
            }
            Some(Request::Halt { enabled }) => {
                registers.rflags &= !INTERRUPTS_ENABLED;
                if enabled {
                    registers.rflags |= INTERRUPTS_ENABLED;
                }
                Exit::Halt
            }
        }
    }
    fn skip_instruction(&mut self, _: &mut Registers) {
        guests().guests.borrow_mut()[self.guest].request = None;
    }
    fn interruptible(&self, registers: &Registers) -> bool {
        self.injected.is_none() && registers.rflags & INTERRUPTS_ENABLED != 0
    }
    fn injection_pending(&self) -> bool {
        self.injected.is_some()
    }
    fn inject(&mut self, event: Injection) {
        if let Injection::Interrupt(vector) = event {
            self.injected = Some(vector);
        }
    }
    fn request_interrupt_window(&mut self, _: bool) -> bool {
        true
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn paging(&self) -> Paging {
        KERNEL
    }
    fn enter_pvh(&mut self, _: &mut Registers, _: GuestAddress, _: GuestAddress) {}
    fn enter_startup(&mut self, _: &mut Registers, _: u8) {}
    fn enter_at(&mut self, _: &StartState) {}
    fn read_msr(&self, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: u32, _: u64) -> Option<bool> {
        None
    }
    fn flush_translations(&mut self) {}
    fn set_tsc_offset(&mut self, _: u64) {}
    fn in_interrupt_shadow(&self, _: &Registers) -> bool {
        false
    }
    fn release(self: Box<Self>, _: &mut FrameAllocator) {}
}

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A processor takes the interrupts that are there before it halts.
    WindowBeforeHalt,
    /// A vCPU that blocks is put to sleep under a lock that was given up since its flag was looked at.
    SleepsLater,
}

/// One processor: the turns of the loop.
fn processor(world: &World, here: usize, seat: &Seat, wrong: Wrong) {
    let mut came: Option<(VcpuId, Stay, Exit)> = None;
    loop {
        settle((here, came.as_ref().map(|came| format!("{came:?}"))));
        if wrong == Wrong::SleepsLater
            && let Some((id, _, Exit::Hypercall)) = came
        {
            sleep_later(world, id);
        }
        let left: RefCell<Option<(Guest, MachineAddress, VcpuId, Stay)>> = RefCell::new(None);
        world.with(|hv| {
            let mut stays = None;
            if let Some((id, stay, exit)) = came.take() {
                let same = hv.arrive(here, id, stay, 0);
                if matches!(exit, Exit::Interrupt) {
                    interleave::take_interrupt();
                } else if same {
                    run::handle(hv, here, id, exit);
                }
                stays = same.then_some(id);
            } else {
                hv.scheduler.work(here);
            }
            timers::expire(hv, here, 0);
            hv.release_throttled(0);
            let id = stays.filter(|_| !hv.scheduler.should_switch(here, 0));
            let id = id.or_else(|| hv.next(here, 0));
            let departs = id.and_then(|id| {
                interrupts::deliver(hv, id);
                let (guest, root, stay) = hv.depart(here, id, alarm(hv, here))?;
                Some((guest, root, id, stay))
            });
            if departs.is_none() {
                hv.scheduler.idle(here, alarm(hv, here));
            }
            guests().calls.borrow_mut()[here] = 0;
            let learnt = departs
                .as_ref()
                .map(|(_, _, id, stay)| format!("{id:?} {stay:?}"));
            left.replace(departs);
            learnt
        });
        match left.into_inner() {
            Some((mut guest, root, id, stay)) => {
                let exit = guest.processor.run(&mut guest.registers, root);
                seat.leave(guest);
                came = Some((id, stay, exit));
            }
            None => {
                if wrong == Wrong::WindowBeforeHalt {
                    interleave::pause();
                    interleave::take_interrupt();
                }
                wait_for_interrupt();
            }
        }
    }
}

fn alarm(hv: &Hypervisor, here: usize) -> Option<u64> {
    let ends = [hv.next_timer(here), hv.scheduler.alarm(here)];
    ends.into_iter().flatten().min()
}

/// Looks at the flag of a vCPU that is about to block, gives up the lock, and puts it to sleep: what it must not do.
fn sleep_later(world: &World, id: VcpuId) {
    let idle = world.with(|hv| !event::upcall_pending(hv, id));
    if idle {
        world.with(|hv| {
            let info = hv.vcpu(id).unwrap().vcpu_info.unwrap();
            // The real call looks again, so what came since is hidden from it.
            hv.memory.write(info, &[0]);
        });
    }
}

/// A guest's vCPU as an actor.
#[derive(Clone)]
struct GuestActor {
    number: usize,
    words: GuestVcpu,
}

impl GuestActor {
    fn request(&self, request: Request) -> u64 {
        guests().guests.borrow_mut()[self.number].request = Some(request);
        let (number, all) = (self.number, guests());
        wait_until(move || all.guests.borrow()[number].request.is_none());
        let result = guests().guests.borrow()[self.number].result;
        interleave::learn(result);
        result
    }

    fn call<T: IntoBytes + Immutable>(&self, number: u64, operation: u64, argument: &T) -> u64 {
        let at = super::ARGUMENTS + u64::from(self.words.id.index) * 256;
        self.put(at, argument);
        self.request(Request::Call {
            number,
            arguments: [operation, at, 1],
        })
    }

    fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) {
        // RAM of a small domain is one run of frames.
        let first = self.words.ram;
        self.words
            .memory
            .write(MachineAddress(first.0 + at), value.as_bytes());
    }

    /// The end: with interrupts disabled it halts for good.
    fn end(&self) {
        guests().guests.borrow_mut()[self.number].request = Some(Request::Halt { enabled: false });
    }
}

/// Processors and the vCPUs of some domains, all up.
fn setup(
    scenario: &mut Scenario,
    processors: u32,
    vcpus: &[u32],
    wrong: Wrong,
) -> (Rc<World>, Vec<GuestActor>) {
    let specs = vcpus.iter().map(|vcpus| small("guest", *vcpus)).collect();
    let mut hv = hypervisor_on(processors, specs);
    let mut number = 0;
    let mut ids = Vec::new();
    for (domain, vcpus) in (1..).map(DomainId).zip(vcpus) {
        for index in 0..*vcpus {
            let id = VcpuId { domain, index };
            hv.bring_up(id);
            hv.vcpu_mut(id).unwrap().processor = Box::new(ModelCpu {
                guest: number,
                injected: None,
            });
            ids.push(id);
            number += 1;
        }
    }
    GUESTS.set(Rc::new(Guests {
        guests: RefCell::new(std::vec![Running::default(); number]),
        calls: RefCell::new(std::vec![0; processors as usize]),
    }));
    let all = guests();
    scenario.digest(move || {
        let mut hasher = DefaultHasher::new();
        (&*all.guests.borrow(), &*all.calls.borrow()).hash(&mut hasher);
        hasher.finish()
    });
    let world = World::new(hv, everything);
    for here in 0..processors as usize {
        let (world, seat) = (
            world.clone(),
            world.prepare(|hv| hv.processors[here].seat.clone()),
        );
        let name = ["first processor", "second processor"][here];
        scenario.server(name, move || processor(&world, here, &seat, wrong));
    }
    let at_end = world.clone();
    scenario.at_end(move || at_end.prepare(|hv| check_places(hv)));
    let actors = ids.into_iter().enumerate().map(|(number, id)| GuestActor {
        number,
        words: GuestVcpu::new(&world, id.domain.0, id.index),
    });
    let actors = actors.collect();
    (world, actors)
}

fn everything(hv: &Hypervisor) -> u64 {
    let mut hasher = DefaultHasher::new();
    events_and_vcpus(hv).hash(&mut hasher);
    format!("{:?} {:?}", hv.scheduler, hv.timers).hash(&mut hasher);
    hasher.finish()
}

/// Nobody is forgotten in a queue while a processor halts, and each vCPU is where the books say.
fn check_places(hv: &Hypervisor) {
    let mut running: Vec<Option<usize>> = guests().guests.borrow().iter().map(|guest| guest.on).collect();
    let vcpus = hv.domains.values().filter_map(|domain| domain.body.as_ref());
    for (vcpu, running) in vcpus.flat_map(|body| &body.vcpus).zip(&mut running) {
        assert_eq!(vcpu.on, *running, "{:?}", vcpu.id);
        let idles = (0..hv.processors.len()).any(|here| hv.scheduler.processor(here).doing == Doing::Idle);
        let waits = vcpu.status == VcpuStatus::Runnable && vcpu.on.is_none();
        assert!(!(waits && idles), "{:?} could run", vcpu.id);
    }
}

/// Adds a guest's actor. One that comes to its end without [`GuestActor::end`] computes from then on.
fn guest(
    scenario: &mut Scenario,
    name: &'static str,
    actor: &GuestActor,
    act: impl FnOnce(&GuestActor) + 'static,
) {
    let (number, all, actor) = (actor.number, guests(), actor.clone());
    let open = move || {
        let on = all.guests.borrow()[number].on;
        on.is_some_and(|processor| !interleave::has_interrupt(processor))
    };
    scenario.gated(name, open, move || {
        act(&actor);
    });
}

/// How the receiver waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Block,
    /// HLT, and an interrupt by a vector of its own.
    Halt,
    Poll,
}

/// A domain that waits for another's events; each on a processor of its own, or both on one.
fn events(processors: u32, rounds: u64, waits: Waits, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let (world, actors) = setup(scenario, processors, &[1, 1], wrong);
        let (receiver, sender) = (DomainId(1), DomainId(2));
        let (port, end) = world.prepare(|hv| {
            let port = event::alloc_unbound(hv, receiver, sender).unwrap();
            let end = event::bind_interdomain(hv, sender, receiver, port).unwrap();
            if waits == Waits::Halt {
                let vcpu = hv.vcpu_mut(testing::vcpu(1)).unwrap();
                vcpu.upcall_vector = Some(VECTOR);
                let _ = vcpu.machine.apic.write_memory(0xf0, 4, 0x1ff, Default::default());
            }
            (port, end)
        });
        actors[0].words.watch(scenario, 1);
        let sent = scenario.number();
        let counted = sent.clone();
        guest(scenario, "sender", &actors[1], move |actor| {
            for round in 0..rounds {
                settle(("send", round));
                counted.store(round + 1, Ordering::SeqCst);
                actor.call(
                    __HYPERVISOR_event_channel_op,
                    EVTCHNOP_send,
                    &EvtchnSend { port: end },
                );
            }
            // One that goes on occupies its processor, so nobody else can make up for one that sleeps too long.
            if processors == 1 {
                actor.end();
            }
        });
        guest(scenario, "receiver", &actors[0], move |actor| {
            let mut seen = 0;
            loop {
                settle(("serve", seen));
                serve(actor, port, &sent, &mut seen, waits);
                if seen == rounds {
                    return actor.end();
                }
                settle(("wait", seen));
                match waits {
                    Waits::Block => {
                        actor.call(__HYPERVISOR_sched_op, SCHEDOP_block, &0_u64);
                    }
                    Waits::Halt => {
                        actor.request(Request::Halt { enabled: true });
                    }
                    Waits::Poll => {
                        actor.put(0x9000, &port);
                        let poll = SchedPoll {
                            ports: 0x9000,
                            nr_ports: 1,
                            ..Default::default()
                        };
                        actor.call(__HYPERVISOR_sched_op, SCHEDOP_poll, &poll);
                    }
                }
            }
        });
    })
}

fn serve(actor: &GuestActor, port: u32, sent: &AtomicU64, seen: &mut u64, waits: Waits) {
    let bit = 1_u64 << port;
    let words = &actor.words;
    if waits == Waits::Poll {
        // Without upcalls: the port's bit says it all.
        if words.pending(0).fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            *seen = sent.load(Ordering::SeqCst);
        }
        words.upcall().store(0, Ordering::SeqCst);
        words.selector().swap(0, Ordering::SeqCst);
        return;
    }
    if waits == Waits::Halt && guests().guests.borrow_mut()[actor.number].vector.take().is_none() {
        return;
    }
    words.upcall().store(0, Ordering::SeqCst);
    if words.selector().swap(0, Ordering::SeqCst) != 0
        && words.pending(0).fetch_and(!bit, Ordering::SeqCst) & bit != 0
    {
        *seen = sent.load(Ordering::SeqCst);
    }
    if waits == Waits::Halt {
        // End of interrupt, as by the x2APIC without an exit.
        words.world.with(|hv| {
            let vcpu = hv.vcpu_mut(words.id).unwrap();
            let _ = vcpu.machine.apic.write_memory(0xb0, 4, 0, Default::default());
        });
    }
}

#[test]
fn who_waits_on_another_processor_is_woken() {
    let rounds = if interleave::deep() { 4 } else { 2 };
    events(2, rounds, Waits::Block, Wrong::Nothing).holds("blocks");
    events(2, rounds, Waits::Halt, Wrong::Nothing).holds("halts");
    events(2, rounds, Waits::Poll, Wrong::Nothing).holds("polls");
    // On one processor there is hardly a choice, but an end must come all the same.
    for waits in [Waits::Block, Waits::Halt, Waits::Poll] {
        assert_eq!(events(1, rounds, waits, Wrong::Nothing).failure, None);
    }
    events(2, 1, Waits::Block, Wrong::WindowBeforeHalt).fails("window before halt", "these wait");
    events(2, 1, Waits::Block, Wrong::SleepsLater).fails("sleeps later", "these wait");
}

/// A vCPU is taken down and brought up by another of its domain, wherever it is.
fn down_and_up(times: u64) -> Outcome {
    explore(move |scenario| {
        let (_, actors) = setup(scenario, 2, &[2], Wrong::Nothing);
        let number = scenario.number();
        let counts = number.clone();
        guest(scenario, "second vCPU", &actors[1], move |actor| {
            for step in 0..3 {
                settle(step);
                counts.fetch_add(1, Ordering::SeqCst);
            }
            actor.end();
        });
        guest(scenario, "first vCPU", &actors[0], move |actor| {
            for time in 0..times {
                settle(time);
                for operation in [VCPUOP_down, VCPUOP_up] {
                    let arguments = [operation, 1, 0];
                    actor.request(Request::Call {
                        number: __HYPERVISOR_vcpu_op,
                        arguments,
                    });
                }
            }
            actor.end();
        });
        scenario
            .at_end(move || assert_eq!(number.load(Ordering::SeqCst), 3, "steps were lost or taken twice"));
    })
}

#[test]
fn who_is_taken_down_comes_up_where_it_was() {
    down_and_up(if interleave::deep() { 2 } else { 1 }).holds("down and up");
}
