//! Models: small worlds in which real code of the hypervisor meets guests and other processors in every order of steps ([`super::interleave`]).
//!
//! A model drives a whole fake [`Hypervisor`] by what guests do to it, hypercalls and exits; guests' own steps are written down here, as stock Linux and
//! unikernels take them. Beside each model stand variants that are wrong on purpose: they show that the model would find such a bug.

mod events;
mod grants;
mod lock;
pub(crate) mod processors;

use core::{cell::RefCell, hash::Hash, hash::Hasher};
use std::{format, hash::DefaultHasher, rc::Rc};

use zerocopy::{Immutable, IntoBytes};

use super::interleave::{self, Scenario};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus},
    memory::{DirectMap, MachineAddress},
    run,
    virt::Exit,
};

/// A hypervisor that actors share, one at a time: the lock around it is a section.
pub struct World {
    hv: RefCell<Hypervisor>,
    digest: fn(&Hypervisor) -> u64,
}

impl World {
    /// Around a hypervisor. `digest` condenses all of it that the model's actors change and that is not watched.
    pub fn new(hv: Hypervisor, digest: fn(&Hypervisor) -> u64) -> Rc<Self> {
        Rc::new(Self {
            hv: RefCell::new(hv),
            digest,
        })
    }

    /// Does something with the lock; `R` is all that the actor learns by it.
    pub fn with<R: Hash>(&self, act: impl FnOnce(&mut Hypervisor) -> R) -> R {
        let section = interleave::section();
        let learnt = act(&mut self.hv.borrow_mut());
        let digest = (self.digest)(&self.hv.borrow());
        section.end(&learnt, Some(digest));
        learnt
    }

    /// Does something before any actor begins.
    pub fn prepare<R>(&self, act: impl FnOnce(&mut Hypervisor) -> R) -> R {
        act(&mut self.hv.borrow_mut())
    }

    /// Looks at it, if nobody has the lock.
    pub fn look<R>(&self, look: impl FnOnce(&Hypervisor) -> R) -> Option<R> {
        self.hv.try_borrow().ok().map(|hv| look(&hv))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        super::give_back(self.hv.get_mut().memory);
    }
}

/// A domain with little memory, which is quickly made.
pub fn small(name: &str, vcpus: u32) -> manifest::Domain {
    manifest::Domain {
        memory: 10 * crate::memory::PAGE_SIZE,
        ..super::spec(name, vcpus)
    }
}

/// A vCPU as its guest sees it: the words that it shares with the hypervisor, and its exits.
#[derive(Clone)]
pub struct GuestVcpu {
    pub world: Rc<World>,
    pub id: VcpuId,
    memory: DirectMap,
    shared_info: MachineAddress,
    info: MachineAddress,
    /// Where its memory begins.
    ram: MachineAddress,
}

/// Where guests put the structures of their hypercalls, a place each.
const ARGUMENTS: u64 = 0x8000;

impl GuestVcpu {
    pub fn new(world: &Rc<World>, domain: u16, index: u32) -> Self {
        let hv = world.hv.borrow();
        let id = VcpuId {
            domain: DomainId(domain),
            index,
        };
        Self {
            world: world.clone(),
            id,
            memory: hv.memory,
            shared_info: hv.body(id.domain).expect("it is built").shared_info.address(),
            info: hv.vcpu(id).expect("it exists").vcpu_info.expect("it has one"),
            ram: super::machine(&hv, domain, 0),
        }
    }

    /// Watches what this vCPU shares: its own flags and selector, and the bits of the ports of the first `words` words.
    pub fn watch(&self, scenario: &mut Scenario, words: u64) {
        let address =
            |at: u64, length: u64| self.memory.pointer(MachineAddress(at), length as usize) as usize;
        scenario.watch(address(self.info.0, 16), 16);
        if self.id.index == 0 {
            for array in [2048, 2048 + 512] {
                let at = self.shared_info.0 + array;
                scenario.watch(address(at, words * 8), words as usize * 8);
            }
        }
    }

    pub fn upcall(&self) -> &crate::sync::AtomicU8 {
        self.memory.atomic_u8(self.info)
    }

    pub fn selector(&self) -> &crate::sync::AtomicU64 {
        self.memory.atomic_u64(MachineAddress(self.info.0 + 8))
    }

    pub fn pending(&self, word: u64) -> &crate::sync::AtomicU64 {
        self.memory
            .atomic_u64(MachineAddress(self.shared_info.0 + 2048 + word * 8))
    }

    pub fn mask(&self, word: u64) -> &crate::sync::AtomicU64 {
        self.memory
            .atomic_u64(MachineAddress(self.shared_info.0 + 2560 + word * 8))
    }

    /// Makes a hypercall with a structure; answers its result.
    pub fn call<T: IntoBytes + Immutable>(&self, number: u64, operation: u64, argument: &T) -> i64 {
        let at = self.argument();
        self.raw_call(number, [operation, at, 1], argument)
    }

    /// Makes a hypercall that concerns this vCPU.
    pub fn vcpu_call<T: IntoBytes + Immutable>(&self, operation: u64, argument: &T) -> i64 {
        let arguments = [operation, self.id.index.into(), self.argument()];
        self.raw_call(xen_abi::xen::__HYPERVISOR_vcpu_op, arguments, argument)
    }

    /// Where its hypercalls' structures are.
    fn argument(&self) -> u64 {
        ARGUMENTS + u64::from(self.id.index) * 256
    }

    fn raw_call<T: IntoBytes + Immutable>(&self, number: u64, arguments: [u64; 3], argument: &T) -> i64 {
        self.world.with(|hv| {
            super::poke(hv, self.id.domain.0, self.argument(), argument.as_bytes());
            let registers = &mut hv.vcpu_mut(self.id).expect("it exists").registers;
            [registers.rdi, registers.rsi, registers.rdx] = arguments;
            registers.rax = number;
            run::handle(hv, 0, self.id, Exit::Hypercall);
            hv.vcpu(self.id).map_or(0, |vcpu| vcpu.registers.rax as i64)
        })
    }

    /// It exits otherwise.
    pub fn exit(&self, exit: Exit) {
        self.world.with(|hv| run::handle(hv, 0, self.id, exit));
    }

    /// The same vCPU with its flags elsewhere in its memory.
    pub fn with_info_at(&self, at: MachineAddress) -> Self {
        Self {
            info: at,
            ..self.clone()
        }
    }

    /// Waits until it may run.
    pub fn wait(&self) {
        let (world, id) = (self.world.clone(), self.id);
        interleave::wait_until(move || {
            let status = world.look(|hv| hv.vcpu(id).map(|vcpu| vcpu.status));
            status == Some(Some(VcpuStatus::Runnable))
        });
    }
}

/// Condenses ports, vCPUs and their timers: all that event channels and sleeping touch.
pub fn events_and_vcpus(hv: &Hypervisor) -> u64 {
    let mut hasher = DefaultHasher::new();
    for domain in hv.domains.values() {
        let Some(body) = &domain.body else { continue };
        (domain.id.0, domain.generation).hash(&mut hasher);
        let ports: std::vec::Vec<_> = body.events.allocated_ports().collect();
        format!("{ports:?}").hash(&mut hasher);
        for vcpu in &body.vcpus {
            let seen = (
                (vcpu.status, &vcpu.polling, vcpu.upcall_edge, vcpu.upcall_vector),
                (
                    vcpu.vcpu_info,
                    vcpu.non_maskable,
                    vcpu.oneshot,
                    vcpu.on,
                    vcpu.stops,
                ),
                (
                    vcpu.machine.apic.pending_vector(),
                    vcpu.machine.apic.processor_priority(),
                ),
                (vcpu.processor.injection_pending(), vcpu.awaits_startup),
            );
            format!("{seen:?}").hash(&mut hasher);
        }
    }
    hasher.finish()
}
