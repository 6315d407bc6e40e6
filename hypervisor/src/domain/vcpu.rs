//! A vCPU: its processor's state, the machine that it sees, its timers and what it waits for.

use alloc::{boxed::Box, vec::Vec};

use xen_abi::vcpu::RUNSTATE_offline;

use super::VcpuId;
use crate::{
    guest::VcpuMachine,
    memory::{Frame, MachineAddress},
    virt::{ExtendedState, Registers, VirtualCpu},
};

/// A vCPU.
pub struct Vcpu {
    /// Whose, and which.
    pub id: VcpuId,
    /// Whether it may run.
    pub status: VcpuStatus,
    /// General registers; not those of now while it runs ([`Vcpu::on`]).
    pub registers: Registers,
    /// The processor backend's part; another stands in its place while it runs.
    pub processor: Box<dyn VirtualCpu>,
    /// The machine that it sees: local APIC, clocks, model-specific registers.
    pub machine: VcpuMachine,
    /// Floating-point and vector state while it is not loaded.
    pub extended: crate::virt::ExtendedState,
    /// Machine address of its `vcpu_info`: in the shared-info page if that has room for it, until it registers another place; see [`legacy_vcpu_info`].
    pub vcpu_info: Option<MachineAddress>,
    /// Vector that an upcall is injected as; `None` until the guest sets one.
    pub upcall_vector: Option<u8>,
    /// When its one-shot timer fires, in nanoseconds of the machine's clock.
    pub oneshot: Option<u64>,
    /// Period of its periodic timer and when it fires next, in nanoseconds.
    pub periodic: Option<(u64, u64)>,
    /// What it polls for (SCHEDOP_poll): ports, and when it gives up.
    pub polling: Option<Polling>,
    /// Where it keeps its runstate, if it asked: guest-virtual address.
    pub runstate_area: Option<u64>,
    /// Nanoseconds spent in each runstate: running, runnable, blocked, offline; and since when it is in the current one.
    pub runstate: Runstate,
    /// What it did.
    pub counts: crate::figures::VcpuCounts,
    /// The upcall flag was set since an upcall was last handed to the local APIC: an edge, as `HVMOP_set_evtchn_upcall_vector` has it.
    pub upcall_edge: bool,
    /// A non-maskable interrupt is to be injected.
    pub non_maskable: bool,
    /// Offline after an INIT, until a start-up message arrives.
    pub awaits_startup: bool,
    /// The processor that runs it now; its registers and `processor` are there.
    pub on: Option<usize>,
    /// The processor that its extended state is in.
    pub loaded_on: Option<usize>,
    /// How often it was stopped from outside its own exits.
    pub stops: u32,
    /// It was up when its domain stopped.
    pub resumes: bool,
}

impl Vcpu {
    /// A vCPU that has not been started. The first of a domain is its bootstrap processor; the others wait for a start-up message.
    pub fn new(
        id: VcpuId,
        processor: Box<dyn VirtualCpu>,
        vcpu_info: Option<MachineAddress>,
        now: u64,
    ) -> Self {
        Self {
            id,
            status: VcpuStatus::Offline,
            registers: Registers::default(),
            processor,
            machine: VcpuMachine::new(id.index),
            extended: ExtendedState::default(),
            vcpu_info,
            upcall_vector: None,
            oneshot: None,
            periodic: None,
            polling: None,
            runstate_area: None,
            runstate: Runstate {
                current: RUNSTATE_offline,
                since: now,
                total: [0; 4],
            },
            counts: Default::default(),
            upcall_edge: false,
            non_maskable: false,
            awaits_startup: id.index != 0,
            on: None,
            loaded_on: None,
            stops: 0,
            resumes: false,
        }
    }

    /// When the next of its timers expires.
    pub fn deadline(&self) -> Option<u64> {
        let polling = self.polling.as_ref().and_then(|polling| polling.deadline);
        let periodic = self.periodic.map(|(_, next)| next);
        [self.oneshot, periodic, polling, self.machine.apic.deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Where a vCPU's `vcpu_info` is before it has registered another place: one of the first 32 (XEN_LEGACY_MAX_VCPUS) has one in the shared-info page, the
/// others have none, and learn of no event until they have registered one.
pub fn legacy_vcpu_info(shared_info: Frame, index: u32) -> Option<MachineAddress> {
    const COUNT: u64 = 32;
    let index = u64::from(index);
    let length = size_of::<xen_abi::xen::VcpuInfo>() as u64;
    (index < COUNT).then(|| MachineAddress(shared_info.address().0 + index * length))
}

/// Whether a vCPU may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuStatus {
    /// Not brought up, or taken down.
    Offline,
    /// May run.
    Runnable,
    /// Waits for an event, an interrupt or a timer.
    Blocked,
}

/// What SCHEDOP_poll waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polling {
    /// The ports.
    pub ports: Vec<u32>,
    /// When to give up, in nanoseconds of the machine's clock.
    pub deadline: Option<u64>,
}

/// Time accounting as `VCPUOP_get_runstate_info` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runstate {
    /// RUNSTATE_* of vcpu.h.
    pub current: i32,
    /// When it entered that state.
    pub since: u64,
    /// Nanoseconds in each.
    pub total: [u64; 4],
}

impl Runstate {
    /// Nanoseconds in each, up to `now`.
    pub fn totals(&self, now: u64) -> [u64; 4] {
        let mut upto = *self;
        upto.enter(self.current, now);
        upto.total
    }

    /// Goes to another state at `now`.
    pub fn enter(&mut self, state: i32, now: u64) {
        let spent = now.saturating_sub(self.since);
        if let Some(total) = self.total.get_mut(self.current as usize) {
            *total += spent;
        }
        (self.current, self.since) = (state, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_state_that_it_was_spent_in() {
        let mut runstate = Runstate {
            current: 3,
            since: 100,
            total: [0; 4],
        };
        runstate.enter(1, 150);
        runstate.enter(0, 175);
        runstate.enter(2, 1175);
        assert_eq!(
            (runstate.current, runstate.since, runstate.total),
            (2, 1175, [1000, 25, 0, 50])
        );
    }
}
