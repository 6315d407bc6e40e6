//! The processors of the machine as the one [`Hypervisor`] value knows them, and how a vCPU that runs on one is reached from another.
//!
//! A processor holds the lock around the value while it works, and gives it up to run a guest or to idle. What a vCPU needs while it runs goes along
//! ([`Guest`]) and is nobody else's. After the exit, and before it asks for the lock again, the processor leaves it on its [`Seat`], where
//! whoever has the lock may take it. That makes [`Hypervisor::recall`] simple: interrupt the processor, and wait until the seat is filled, for
//! which it needs no lock. Guests are entered with the lock's consent alone, so once recalled, a vCPU stays out for as long as the caller
//! holds the lock; that is all there is to taking pages away from a running domain, and no counter of generations is needed.
//!
//! An exit of a vCPU that was stopped meanwhile is forgotten: its instruction is executed again, if ever.

use alloc::{boxed::Box, sync::Arc};

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus},
    figures::{Account, Phase},
    memory::MachineAddress,
    platform::{interrupts::WAKE, local_apic, time},
    sync::{Slot, spin_loop},
    virt::{self, Registers, VirtualCpu},
};

/// What a vCPU takes along while it runs.
pub struct Guest {
    /// The processor backend's part.
    pub processor: Box<dyn VirtualCpu>,
    /// General registers.
    pub registers: Registers,
}

/// Where a processor leaves the guest that it ran.
#[derive(Clone, Default)]
pub struct Seat(Arc<Slot<Guest>>);

impl Seat {
    /// Leaves a guest after its exit.
    pub fn leave(&self, guest: Guest) {
        self.0.put(guest);
    }

    fn take(&self) -> Option<Guest> {
        self.0.take()
    }

    fn is_filled(&self) -> bool {
        self.0.is_filled()
    }
}

/// A processor; what it does is for the [scheduler](crate::sched) to know.
pub struct Processor {
    /// Id of its local APIC.
    pub apic_id: u32,
    /// Whose extended state is in it.
    pub loaded: Option<VcpuId>,
    /// Where it leaves its guest.
    pub seat: Seat,
    /// Where its time goes.
    pub account: Account,
}

impl Processor {
    /// One that has not begun to work.
    pub fn new(apic_id: u32) -> Self {
        Self {
            account: Account::new(Phase::Idle),
            apic_id,
            loaded: None,
            seat: Seat::default(),
        }
    }
}

/// Tells whether a vCPU that comes back is still what it was when it left: which build of its domain, and how often it had been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    generation: u32,
    stops: u32,
}

impl Hypervisor {
    fn stay(&self, id: VcpuId) -> Option<Stay> {
        let generation = self.domain(id.domain)?.generation;
        let stops = self.vcpu(id)?.stops;
        Some(Stay { generation, stops })
    }

    /// A vCPU leaves to run on `processor`, which gives up the lock next: what it takes along, the root of its second stage, and what
    /// [`Self::arrive`] wants to know. `alarm` is when the processor will be interrupted in any case.
    pub fn depart(
        &mut self,
        processor: usize,
        id: VcpuId,
        alarm: Option<u64>,
    ) -> Option<(Guest, MachineAddress, Stay)> {
        let stay = self.stay(id)?;
        let body = self.body_mut(id.domain)?;
        let root = body.p2m.root();
        let vcpu = body.vcpus.get_mut(id.index as usize)?;
        vcpu.processor.set_task_priority(vcpu.machine.apic.cr8());
        vcpu.on = Some(processor);
        let guest = Guest {
            // Nothing is allocated for what has no size.
            processor: core::mem::replace(&mut vcpu.processor, Box::new(virt::Away)),
            registers: vcpu.registers,
        };
        self.scheduler.depart(processor, alarm);
        Some((guest, root, stay))
    }

    /// A processor has the lock again, for a reason ([`crate::figures::reason`]). Whether the vCPU that it ran is still the same, and may go on where
    /// it is.
    pub fn arrive(&mut self, processor: usize, id: VcpuId, stay: Stay, reason: usize) -> bool {
        self.scheduler.work(processor);
        if let Some(guest) = self.processors[processor].seat.take() {
            self.put_back(id, guest);
        }
        let same = self.stay(id) == Some(stay);
        let Some(vcpu) = self.vcpu_mut(id).filter(|_| same) else {
            return false;
        };
        vcpu.counts.exits[reason] += 1;
        vcpu.status == VcpuStatus::Runnable
    }

    fn put_back(&mut self, id: VcpuId, guest: Guest) {
        match self.vcpu_mut(id) {
            Some(vcpu) => {
                (vcpu.processor, vcpu.registers, vcpu.on) = (guest.processor, guest.registers, None);
                vcpu.machine.apic.set_cr8(vcpu.processor.task_priority());
            }
            // Whoever takes a domain down recalls its vCPUs first.
            None => guest.processor.release(&mut self.frames),
        }
    }

    /// Makes a processor ask for the lock soon, if it does not have it: it leaves its guest, or wakes up.
    pub fn call(&mut self, processor: usize) {
        let this = &self.processors[processor];
        if self.scheduler.call(processor) && !this.seat.is_filled() {
            local_apic::send(this.apic_id, WAKE);
        }
    }

    /// Takes a vCPU back from the processor that runs it, if one does. It does not run again before the caller gives up the lock.
    ///
    /// The wait is bounded: a guest cannot hold an interrupt of the machine off, so its processor leaves it as soon as the call arrives, at its first instruction
    /// if it is just being entered; on its way to the seat that processor takes no lock but the seat's, which is held for a move.
    pub fn recall(&mut self, id: VcpuId) {
        let Some(processor) = self.vcpu(id).and_then(|vcpu| vcpu.on) else {
            return;
        };
        self.call(processor);
        let seat = self.processors[processor].seat.clone();
        let guest = loop {
            if let Some(guest) = seat.take() {
                break guest;
            }
            spin_loop();
        };
        self.put_back(id, guest);
    }

    /// Takes all vCPUs of a domain back: before its memory, or what it knows of it, changes under its feet. Its processors are interrupted at once,
    /// and waited for one after the other.
    pub fn recall_domain(&mut self, domain: DomainId) {
        let Some(count) = self.body(domain).map(|body| body.vcpus.len() as u32) else {
            return;
        };
        let vcpus = (0..count).map(|index| VcpuId { domain, index });
        for id in vcpus.clone() {
            if let Some(processor) = self.vcpu(id).and_then(|vcpu| vcpu.on) {
                self.call(processor);
            }
        }
        vcpus.for_each(|id| self.recall(id));
    }

    /// Lets a vCPU that may run compete.
    pub fn enqueue(&mut self, id: VcpuId) {
        if let Some(processor) = self.scheduler.ready(id, time::now()) {
            self.call(processor);
        }
    }

    /// Who runs on a processor from now on.
    pub fn next(&mut self, processor: usize, now: u64) -> Option<VcpuId> {
        let picked = self.scheduler.pick(processor, now);
        if let Some(other) = picked.call {
            self.call(other);
        }
        picked.id
    }

    /// Lets those compete whose budget or credit is there again at `now`.
    pub fn release_throttled(&mut self, now: u64) {
        while let Some(call) = self.scheduler.release(now) {
            if let Some(processor) = call {
                self.call(processor);
            }
        }
    }

    /// When the next timer of the vCPUs at home on a processor is due, or the control domain is to live again, which is for whoever comes first.
    pub fn next_timer(&self, processor: usize) -> Option<u64> {
        self.timers
            .next(processor)
            .into_iter()
            .chain(self.revival.deadline())
            .min()
    }

    /// Puts a vCPU's extended state into the running processor, in place of whose is there. Its timers are this processor's too from now on.
    pub fn load(&mut self, processor: usize, id: VcpuId) {
        self.timers.move_to(id, processor);
        if self.processors[processor].loaded == Some(id) {
            return;
        }
        self.processors[processor].account.switches += 1;
        let last = self.processors[processor].loaded.take();
        if let Some(vcpu) = last.and_then(|last| self.vcpu_mut(last)) {
            vcpu.extended.save();
            vcpu.loaded_on = None;
        }
        // The last one may also have been of a domain that was destroyed meanwhile.
        if last.is_none_or(|last| last.domain != id.domain) {
            virt::forget_branches();
        }
        if let Some(vcpu) = self.vcpu_mut(id) {
            assert!(
                vcpu.loaded_on.is_none(),
                "a vCPU stays where its extended state is"
            );
            vcpu.extended.load();
            vcpu.loaded_on = Some(processor);
            self.processors[processor].loaded = Some(id);
            self.scheduler.loaded(id, processor);
        }
    }

    /// Forgets the extended state of a domain's vCPUs, wherever it is: the domain goes.
    pub fn unload(&mut self, domain: DomainId) {
        for processor in &mut self.processors {
            processor.loaded = processor.loaded.filter(|id| id.domain != domain);
        }
    }
}

#[cfg(test)]
mod tests;
