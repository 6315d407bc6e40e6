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

use spin::Mutex;

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId, VcpuStatus},
    memory::MachineAddress,
    platform::{interrupts::WAKE, local_apic, time},
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
pub struct Seat(Arc<Mutex<Option<Guest>>>);

impl Seat {
    /// Leaves a guest after its exit.
    pub fn leave(&self, guest: Guest) {
        *self.0.lock() = Some(guest);
    }

    fn take(&self) -> Option<Guest> {
        self.0.lock().take()
    }

    fn is_filled(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// What a processor does without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: it has the lock, or has not begun.
    Work,
    /// Runs a guest, or waits for the lock after that.
    Guest,
    /// Sleeps, or waits for the lock after that.
    Idle,
}

/// A processor.
pub struct Processor {
    /// Id of its local APIC.
    pub apic_id: u32,
    /// Without the lock.
    pub doing: Doing,
    /// It was sent an interrupt since it gave up the lock, and will ask for it.
    pub called: bool,
    /// Whose extended state is in it.
    pub loaded: Option<VcpuId>,
    /// What its timer is set to.
    pub alarm: Option<u64>,
    /// Where it leaves its guest.
    pub seat: Seat,
}

impl Processor {
    /// One that has not begun to work.
    pub fn new(apic_id: u32) -> Self {
        Self {
            apic_id,
            doing: Doing::Work,
            called: false,
            loaded: None,
            alarm: None,
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
        self.let_go(processor, Doing::Guest, alarm);
        Some((guest, root, stay))
    }

    /// A processor gives up the lock.
    pub fn let_go(&mut self, processor: usize, doing: Doing, alarm: Option<u64>) {
        let this = &mut self.processors[processor];
        (this.doing, this.called, this.alarm) = (doing, false, alarm);
    }

    /// A processor has the lock again. Whether the vCPU that it ran is still the same, and may go on where it is.
    pub fn arrive(&mut self, processor: usize, id: VcpuId, stay: Stay) -> bool {
        self.processors[processor].doing = Doing::Work;
        if let Some(guest) = self.processors[processor].seat.take() {
            self.put_back(id, guest);
        }
        let same = self.stay(id) == Some(stay);
        let Some(vcpu) = self.vcpu_mut(id).filter(|_| same) else {
            return false;
        };
        vcpu.exits += 1;
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
        let this = &mut self.processors[processor];
        if this.doing == Doing::Work || core::mem::replace(&mut this.called, true) {
            return;
        }
        if !this.seat.is_filled() {
            local_apic::send(this.apic_id, WAKE);
        }
    }

    /// Takes a vCPU back from the processor that runs it, if one does. It does not run again before the caller gives up the lock.
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
            core::hint::spin_loop();
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

    /// Lets a vCPU that may run compete: on its own processor, or on one that has nothing to do if that is busy.
    pub fn enqueue(&mut self, id: VcpuId) {
        let free = |this: &Processor| this.doing == Doing::Idle && !this.called;
        let home = self.scheduler.home(id);
        let fixed =
            self.scheduler.is_current(id) || self.vcpu(id).is_none_or(|vcpu| vcpu.loaded_on.is_some());
        if !fixed
            && !free(&self.processors[home])
            && let Some(other) = self.processors.iter().position(free)
        {
            self.migrate(id, other);
        }
        self.scheduler.ready(id);
        let home = self.scheduler.home(id);
        let this = &self.processors[home];
        let earlier = |end: u64| this.alarm.is_none_or(|alarm| end < alarm);
        let needed = match this.doing {
            Doing::Work => false,
            Doing::Idle => true,
            Doing::Guest => {
                self.scheduler.should_switch(home, time::now())
                    || self.scheduler.slice_end(home).is_some_and(earlier)
            }
        };
        if needed {
            self.call(home);
        }
    }

    /// Who runs on a processor from now on: of those that wait for it, or, if there is none, of those that wait for others which are busy.
    pub fn next(&mut self, processor: usize, now: u64) -> Option<VcpuId> {
        if let Some(id) = self.scheduler.pick(processor, now) {
            return Some(id);
        }
        let movable = |id: &VcpuId| {
            let busy = self.processors[self.scheduler.home(*id)].doing == Doing::Guest;
            busy && self.vcpu(*id).is_some_and(|vcpu| vcpu.loaded_on.is_none())
        };
        let id = self.scheduler.waiting().find(movable)?;
        self.migrate(id, processor);
        self.scheduler.pick(processor, now)
    }

    /// A vCPU that does not run has its home on another processor from now on, and its timers and its devices' interrupts go there.
    fn migrate(&mut self, id: VcpuId, to: usize) {
        self.scheduler.migrate(id, to);
        self.timers.move_to(id, to);
    }

    /// When the next timer of the vCPUs at home on a processor is due.
    pub fn next_timer(&self, processor: usize) -> Option<u64> {
        self.timers.next(processor)
    }

    /// Puts a vCPU's extended state into the running processor, in place of whose is there. Its timers are this processor's too from now on.
    pub fn load(&mut self, processor: usize, id: VcpuId) {
        self.timers.move_to(id, processor);
        if self.processors[processor].loaded == Some(id) {
            return;
        }
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
