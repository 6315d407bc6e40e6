//! The bits of event channels: hypervisor and guest set and clear them at the same time, and no event may be forgotten.
//!
//! What is sent is told beside the event, by a number that the sender counts up before it sends: a receiver is done when it has seen the last number
//! after an event, so that one that sleeps for ever has lost a wake-up.

use std::rc::Rc;

use xen_abi::{
    event_channel::*,
    hvm::params::HVM_PARAM_CALLBACK_IRQ,
    sched::SCHEDOP_block,
    vcpu::{VCPUOP_register_vcpu_info, VcpuRegisterVcpuInfo},
    xen::*,
};

use super::{GuestVcpu, World, events_and_vcpus, small};
use crate::{
    domain::{DomainId, VcpuId},
    event::{self, Binding},
    run::interrupts,
    sync::{AtomicU64, Ordering},
    testing::{
        self, FakeCpu, KERNEL, hypervisor_with,
        interleave::{self, Outcome, Scenario, explore, settle},
    },
    virt::Exit,
};

const RECEIVER: u16 = 1;
const FIRST_SENDER: u16 = 2;
/// The vector of upcalls.
const VECTOR: u8 = 0x40;

/// One channel to the receiver.
struct Channel {
    /// The receiver's end.
    port: u32,
    /// What the sender has counted to.
    sent: Rc<AtomicU64>,
}

impl Channel {
    fn word(&self) -> u64 {
        u64::from(self.port / 64)
    }

    fn bit(&self) -> u64 {
        1 << (self.port % 64)
    }
}

struct Setup {
    world: Rc<World>,
    vcpus: Vec<GuestVcpu>,
    channels: Rc<Vec<Channel>>,
}

/// A receiver with some vCPUs, and for each of `ports` a sender that sends so many events.
fn setup(scenario: &mut Scenario, vcpus: u32, ports: &[(u32, u64)], wrong: Wrong) -> Setup {
    let mut specs = std::vec![small("receiver", vcpus)];
    specs.extend(ports.iter().map(|_| small("sender", 1)));
    let mut hv = hypervisor_with(specs);
    let receiver = DomainId(RECEIVER);
    for index in 1..vcpus {
        hv.bring_up(VcpuId {
            domain: receiver,
            index,
        });
    }
    let mut ends = Vec::new();
    for (&(wanted, _), number) in ports.iter().zip(FIRST_SENDER..) {
        let sender = DomainId(number);
        let mut spare = Vec::new();
        let port = loop {
            let port = event::alloc_unbound(&mut hv, receiver, sender).unwrap();
            if port >= wanted {
                break port;
            }
            spare.push(port);
        };
        spare
            .into_iter()
            .for_each(|port| event::close(&mut hv, receiver, port).unwrap());
        ends.push((
            port,
            event::bind_interdomain(&mut hv, sender, receiver, port).unwrap(),
        ));
    }
    let world = World::new(hv, events_and_vcpus);
    let vcpus: Vec<GuestVcpu> = (0..vcpus)
        .map(|index| GuestVcpu::new(&world, RECEIVER, index))
        .collect();
    let words = u64::from(ports.iter().map(|(port, _)| port / 64).max().unwrap()) + 1;
    vcpus.iter().for_each(|vcpu| vcpu.watch(scenario, words));
    let mut channels = Vec::new();
    for (((port, end), (_, rounds)), number) in
        ends.into_iter().zip(ports.iter().copied()).zip(FIRST_SENDER..)
    {
        let sent = scenario.number();
        channels.push(Channel {
            port,
            sent: sent.clone(),
        });
        let (sender, first) = (GuestVcpu::new(&world, number, 0), vcpus[0].clone());
        scenario.actor(
            ["sender", "another sender"][usize::from(number - FIRST_SENDER)],
            move || {
                for round in 0..rounds {
                    settle(("send", round));
                    sent.store(round + 1, Ordering::SeqCst);
                    if wrong == Wrong::SendOutside {
                        send_in_two_steps(&sender, end, &first);
                    } else {
                        sender.call(
                            __HYPERVISOR_event_channel_op,
                            EVTCHNOP_send,
                            &EvtchnSend { port: end },
                        );
                    }
                }
            },
        );
    }
    Setup {
        world,
        vcpus,
        channels: Rc::new(channels),
    }
}

/// What a receiver does wrong, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Reads the selector before it clears the flag.
    SelectorBeforeFlag,
    /// Clears a port's bit after it has served the port.
    ClearAfterServing,
    /// Looks at the flag, and sleeps later.
    LookThenSleep,
    /// Does not look again after unmasking.
    UnmaskWithoutLook,
    /// Moves a port while it is not masked.
    MoveUnmasked,
    /// Finds the receiver under the lock, and tells it later.
    SendOutside,
    /// Forgets at the end of an interrupt that another upcall was announced.
    ForgetEdge,
    /// Moves the flags without telling to look.
    MoveSilently,
}

/// A hypervisor that does not hold its lock while it sets the bits.
fn send_in_two_steps(sender: &GuestVcpu, port: u32, receiver: &GuestVcpu) {
    let to = sender.world.with(|hv| {
        let port = hv.body(sender.id.domain).unwrap().events.port(port);
        match port.binding {
            Binding::Interdomain { port, .. } => Some(port),
            _ => None,
        }
    });
    if let Some(port) = to {
        let word = u64::from(port / 64);
        receiver
            .pending(word)
            .fetch_or(1 << (port % 64), Ordering::AcqRel);
        receiver.selector().fetch_or(1 << word, Ordering::AcqRel);
        receiver.upcall().store(1, Ordering::SeqCst);
    }
}

/// Serves what is pending and meant for this vCPU, as far as it is not masked; `seen` is what it has seen of each channel.
fn serve(
    vcpu: &GuestVcpu,
    channels: &[Channel],
    seen: &mut [u64],
    mine: impl Fn(usize) -> bool,
    wrong: Wrong,
) {
    let selected = if wrong == Wrong::SelectorBeforeFlag {
        let selected = vcpu.selector().swap(0, Ordering::SeqCst);
        vcpu.upcall().store(0, Ordering::Release);
        selected
    } else {
        vcpu.upcall().store(0, Ordering::Release);
        vcpu.selector().swap(0, Ordering::SeqCst)
    };
    for word in (0..64).filter(|word| selected >> word & 1 != 0) {
        if !channels.iter().any(|channel| channel.word() == word) {
            continue;
        }
        let masked = vcpu.mask(word).load(Ordering::Acquire);
        let pending = vcpu.pending(word).load(Ordering::Acquire) & !masked;
        for (index, channel) in channels.iter().enumerate() {
            if channel.word() != word || pending & channel.bit() == 0 || !mine(index) {
                continue;
            }
            if wrong == Wrong::ClearAfterServing {
                seen[index] = channel.sent.load(Ordering::SeqCst);
                vcpu.pending(word).fetch_and(!channel.bit(), Ordering::AcqRel);
            } else {
                vcpu.pending(word).fetch_and(!channel.bit(), Ordering::AcqRel);
                seen[index] = channel.sent.load(Ordering::SeqCst);
            }
        }
    }
}

fn block(vcpu: &GuestVcpu, wrong: Wrong) {
    if wrong == Wrong::LookThenSleep {
        // A hypervisor that looks before it takes the lock.
        let pending = vcpu.upcall().load(Ordering::SeqCst) != 0;
        if !pending {
            vcpu.world.with(|hv| hv.sleep(vcpu.id));
        }
    } else {
        vcpu.call(__HYPERVISOR_sched_op, SCHEDOP_block, &0_u64);
    }
    vcpu.wait();
}

/// A unikernel: looks at what is pending, then blocks.
fn one_that_blocks(ports: &'static [(u32, u64)], wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let Setup { vcpus, channels, .. } = setup(scenario, 1, ports, wrong);
        let vcpu = vcpus[0].clone();
        scenario.actor("receiver", move || {
            let mut seen = std::vec![0; channels.len()];
            loop {
                settle(&seen);
                serve(&vcpu, &channels, &mut seen, |_| true, wrong);
                if ports.iter().zip(&seen).all(|((_, rounds), seen)| seen == rounds) {
                    return;
                }
                settle(&seen);
                block(&vcpu, wrong);
            }
        });
    })
}

#[test]
fn who_blocks_misses_no_event() {
    one_that_blocks(&[(1, 3)], Wrong::Nothing).holds("one port");
    one_that_blocks(&[(1, 1), (2, 1)], Wrong::Nothing).holds("two ports in a word");
    one_that_blocks(&[(1, 2), (70, 1)], Wrong::Nothing).holds("two words");
    if interleave::deep() {
        one_that_blocks(&[(1, 6)], Wrong::Nothing).holds("one port, six events");
        one_that_blocks(&[(1, 3), (2, 3)], Wrong::Nothing).holds("two ports in a word, three each");
        one_that_blocks(&[(1, 2), (70, 3)], Wrong::Nothing).holds("two words, five events");
    }
    one_that_blocks(&[(1, 2)], Wrong::SelectorBeforeFlag).fails("selector before flag", "receiver");
    one_that_blocks(&[(1, 2)], Wrong::ClearAfterServing).fails("clear after serving", "receiver");
    one_that_blocks(&[(1, 2)], Wrong::LookThenSleep).fails("look, then sleep", "receiver");
}

/// A guest that masks a port while it serves it, as Linux does, and unmasks it by hypercall or by itself.
fn one_that_masks(by_hypercall: bool, rounds: u64, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let Setup { vcpus, channels, .. } = setup(scenario, 1, &[(1, rounds)], wrong);
        let vcpu = vcpus[0].clone();
        scenario.actor("receiver", move || {
            let (port, bit) = (channels[0].port, channels[0].bit());
            let mut seen = [0];
            loop {
                settle(seen);
                let before = seen;
                serve(&vcpu, &channels, &mut seen, |_| true, wrong);
                if seen != before {
                    // Another event may come while the port is masked and its bit clear.
                    vcpu.mask(0).fetch_or(bit, Ordering::SeqCst);
                    seen = [channels[0].sent.load(Ordering::SeqCst)];
                    unmask(&vcpu, port, by_hypercall, wrong);
                }
                if seen == [rounds] {
                    return;
                }
                settle(seen);
                block(&vcpu, wrong);
            }
        });
    })
}

fn unmask(vcpu: &GuestVcpu, port: u32, by_hypercall: bool, wrong: Wrong) {
    if by_hypercall {
        vcpu.call(
            __HYPERVISOR_event_channel_op,
            EVTCHNOP_unmask,
            &EvtchnUnmask { port },
        );
        return;
    }
    let (word, bit) = (u64::from(port / 64), 1 << (port % 64));
    vcpu.mask(word).fetch_and(!bit, Ordering::SeqCst);
    if wrong != Wrong::UnmaskWithoutLook && vcpu.pending(word).load(Ordering::SeqCst) & bit != 0 {
        // The hypervisor announces it, which it does only for a port that is masked.
        vcpu.mask(word).fetch_or(bit, Ordering::SeqCst);
        vcpu.call(
            __HYPERVISOR_event_channel_op,
            EVTCHNOP_unmask,
            &EvtchnUnmask { port },
        );
    }
}

#[test]
fn an_event_of_a_masked_port_comes_when_it_is_unmasked() {
    let rounds = if interleave::deep() { 5 } else { 3 };
    one_that_masks(true, rounds, Wrong::Nothing).holds("by hypercall");
    one_that_masks(false, rounds, Wrong::Nothing).holds("by itself");
    one_that_masks(false, rounds, Wrong::UnmaskWithoutLook).fails("without a look", "receiver");
}

/// The first vCPU moves a port to the second while events come, as Linux does: it masks the port, binds it, notes whose it is, unmasks it.
fn one_that_moves(rounds: u64, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let Setup { vcpus, channels, .. } = setup(scenario, 2, &[(1, rounds)], wrong);
        let owner = scenario.number();
        let seen = [scenario.number(), scenario.number()];
        for vcpu in vcpus {
            let (channels, owner) = (channels.clone(), owner.clone());
            let index = vcpu.id.index;
            let told = seen[index as usize].clone();
            scenario.server(["first vCPU", "second vCPU"][index as usize], move || {
                if index == 0 {
                    move_port(&vcpu, &channels[0], &owner, wrong);
                }
                loop {
                    settle(index);
                    let mut now = [0];
                    let mine = |_| owner.load(Ordering::SeqCst) == u64::from(index);
                    serve(&vcpu, &channels, &mut now, mine, wrong);
                    if now != [0] {
                        told.store(now[0], Ordering::SeqCst);
                    }
                    settle(index);
                    block(&vcpu, wrong);
                }
            });
        }
        scenario.at_end(move || {
            let seen = seen.iter().map(|seen| seen.load(Ordering::SeqCst)).max();
            assert_eq!(seen, Some(rounds), "an event was lost");
        });
    })
}

fn move_port(vcpu: &GuestVcpu, channel: &Channel, owner: &AtomicU64, wrong: Wrong) {
    let moves = wrong == Wrong::MoveUnmasked;
    if !moves {
        vcpu.mask(0).fetch_or(channel.bit(), Ordering::SeqCst);
    }
    let port = channel.port;
    vcpu.call(
        __HYPERVISOR_event_channel_op,
        EVTCHNOP_bind_vcpu,
        &EvtchnBindVcpu { port, vcpu: 1 },
    );
    owner.store(1, Ordering::SeqCst);
    if !moves {
        unmask(vcpu, port, true, Wrong::Nothing);
    }
}

#[test]
fn a_port_that_moves_loses_no_event() {
    one_that_moves(if interleave::deep() { 3 } else { 1 }, Wrong::Nothing).holds("masked");
    one_that_moves(1, Wrong::MoveUnmasked).fails("not masked", "lost");
}

/// A receiver that closes its port, and gets the same number for something else.
fn one_that_closes(wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let Setup { vcpus, channels, .. } = setup(scenario, 1, &[(1, 2)], wrong);
        let vcpu = vcpus[0].clone();
        scenario.actor("receiver", move || {
            let port = channels[0].port;
            let pending = || vcpu.pending(0).load(Ordering::SeqCst) & channels[0].bit() != 0;
            vcpu.call(
                __HYPERVISOR_event_channel_op,
                EVTCHNOP_close,
                &EvtchnClose { port },
            );
            assert!(!pending(), "an event at a closed port");
            let mut seen = [0];
            serve(&vcpu, &channels, &mut seen, |_| true, wrong);
            let again = vcpu
                .world
                .with(|hv| event::bind_ipi(hv, vcpu.id.domain, 0).unwrap());
            assert_eq!(again, port);
            interleave::pause();
            assert!(!pending(), "an event of another's channel");
        });
    })
}

#[test]
fn a_closed_port_has_no_events() {
    one_that_closes(Wrong::Nothing).holds("closed");
    one_that_closes(Wrong::SendOutside).fails("sent outside", "an event ");
}

/// A guest that sleeps by HLT and is interrupted: by a vector of its vCPU's own, at each edge of the flag and ended at its local APIC, or by
/// the domain's vector for as long as the flag is set.
fn one_that_is_interrupted(own_vector: bool, rounds: u64, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let Setup {
            world,
            vcpus,
            channels,
        } = setup(scenario, 1, &[(1, rounds)], wrong);
        let vcpu = vcpus[0].clone();
        world.prepare(|hv| {
            let receiver = hv.vcpu_mut(vcpu.id).unwrap();
            receiver.registers.rflags |= 1 << 9;
            let time = Default::default();
            let _ = receiver.machine.apic.write_memory(0xf0, 4, 0x1ff, time);
            receiver.upcall_vector = own_vector.then_some(VECTOR);
            if !own_vector {
                let by_vector = 2 << 56 | u64::from(VECTOR);
                hv.body_mut(vcpu.id.domain).unwrap().parameters[HVM_PARAM_CALLBACK_IRQ as usize] = by_vector;
            }
        });
        scenario.actor("receiver", move || {
            let mut seen = [0];
            while seen != [rounds] {
                settle(seen);
                let interrupted = vcpu.world.with(|hv| {
                    interrupts::deliver(hv, vcpu.id);
                    take_injected(hv, vcpu.id)
                });
                if interrupted {
                    if own_vector {
                        end_of_interrupt(&vcpu, wrong);
                    }
                    loop {
                        serve(&vcpu, &channels, &mut seen, |_| true, wrong);
                        if vcpu.upcall().load(Ordering::Acquire) == 0 {
                            break;
                        }
                    }
                    if wrong == Wrong::ForgetEdge {
                        end_of_interrupt(&vcpu, wrong);
                    }
                }
                if seen != [rounds] {
                    settle((seen, "halts"));
                    vcpu.exit(Exit::Halt);
                    vcpu.wait();
                }
            }
        });
    })
}

/// The guest takes what was injected.
fn take_injected(hv: &mut crate::Hypervisor, id: VcpuId) -> bool {
    let processor = &mut hv.vcpu_mut(id).unwrap().processor;
    let pending = processor.injection_pending();
    if pending {
        *processor = Box::new(FakeCpu {
            paging: KERNEL,
            injected: None,
        });
    }
    pending
}

fn end_of_interrupt(vcpu: &GuestVcpu, wrong: Wrong) {
    vcpu.world.with(|hv| {
        let vcpu = hv.vcpu_mut(vcpu.id).unwrap();
        let _ = vcpu.machine.apic.write_memory(0xb0, 4, 0, Default::default());
        if wrong == Wrong::ForgetEdge {
            vcpu.upcall_edge = false;
        }
    });
}

#[test]
fn who_halts_is_interrupted_for_each_event() {
    let rounds = if interleave::deep() { 4 } else { 2 };
    one_that_is_interrupted(true, rounds, Wrong::Nothing).holds("a vector of its own");
    one_that_is_interrupted(false, rounds, Wrong::Nothing).holds("the domain's vector");
    one_that_is_interrupted(true, 3, Wrong::ForgetEdge).fails("forgotten edge", "receiver");
}

/// A guest that has its flags moved to a page of its own while events come.
fn one_that_moves_its_flags(rounds: u64, wrong: Wrong) -> Outcome {
    const FRAME: u64 = 2;
    const OFFSET: u32 = 0x40;
    explore(move |scenario| {
        let Setup {
            world,
            vcpus,
            channels,
        } = setup(scenario, 1, &[(1, rounds)], wrong);
        let vcpu = vcpus[0].clone();
        let to = world.prepare(|hv| testing::machine(hv, RECEIVER, (FRAME << 12) + u64::from(OFFSET)));
        let moved = vcpu.with_info_at(to);
        moved.watch(scenario, 0);
        scenario.actor("receiver", move || {
            let mut seen = [0];
            serve(&vcpu, &channels, &mut seen, |_| true, wrong);
            if wrong == Wrong::MoveSilently {
                vcpu.world
                    .with(|hv| hv.vcpu_mut(vcpu.id).unwrap().vcpu_info = Some(to));
            } else {
                let place = VcpuRegisterVcpuInfo {
                    mfn: FRAME,
                    offset: OFFSET,
                    rsvd: 0,
                };
                assert_eq!(vcpu.vcpu_call(VCPUOP_register_vcpu_info, &place), 0);
            }
            while seen != [rounds] {
                settle(seen);
                serve(&moved, &channels, &mut seen, |_| true, wrong);
                if seen != [rounds] {
                    settle((seen, "blocks"));
                    block(&moved, wrong);
                }
            }
        });
    })
}

#[test]
fn flags_that_move_take_along_what_is_pending() {
    one_that_moves_its_flags(if interleave::deep() { 4 } else { 2 }, Wrong::Nothing).holds("announced");
    one_that_moves_its_flags(1, Wrong::MoveSilently).fails("silently", "receiver");
}
