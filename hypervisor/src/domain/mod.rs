//! Domains: what one is made of, and how it is built, stopped and built again.

use alloc::{boxed::Box, string::String, vec::Vec};

use crate::{
    event::EventChannels,
    grant::GrantTable,
    guest::VcpuMachine,
    memory::{Frame, MachineAddress, P2m},
    platform::pci::PciAddress,
    virt::{Registers, VirtualCpu},
};

/// A domain's id: 1 + its index in the manifest, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainId(
    /// The number.
    pub u16,
);

/// One vCPU of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuId {
    /// The domain.
    pub domain: DomainId,
    /// Its index in the domain.
    pub index: u32,
}

/// A domain of the manifest. What it owns while it is built is in `body`; the rest survives a rebuild.
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Its part of the manifest.
    pub spec: manifest::Domain,
    /// Where it is in its life.
    pub state: State,
    /// How many times it has been built.
    pub generation: u32,
    /// The PCI functions and interrupts that are assigned to it, found once at boot.
    pub devices: Vec<PciAddress>,
    /// Numbers of legacy I/O ports and GSIs that are assigned to it (serial ports).
    pub ports: Vec<(u16, u16)>,
    /// GSIs that are assigned to it.
    pub interrupts: Vec<u32>,
    /// The reason of the last failure to build, for the operator.
    pub failure: Option<String>,
    /// What it owns; `None` until it is built and after it is destroyed.
    pub body: Option<Body>,
}

/// Where a domain is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not built.
    Absent,
    /// Memory is being filled, piece by piece.
    Building,
    /// vCPUs may run.
    Running,
    /// Stopped by itself; holds its memory until it is destroyed. The reason is one of `SHUTDOWN_*` (sched.h).
    Stopped {
        /// Why.
        reason: u32,
    },
    /// Could not be built; `failure` says why.
    Failed,
}

/// What a built domain owns.
pub struct Body {
    /// Its guest-physical memory.
    pub p2m: P2m,
    /// Its event channels.
    pub events: EventChannels,
    /// Its grants to others, and its maps of others' grants.
    pub grants: GrantTable,
    /// The shared-info page.
    pub shared_info: Frame,
    /// HVM parameters, by number.
    pub parameters: [u64; PARAMETERS],
    /// Its vCPUs, by index.
    pub vcpus: Vec<Vcpu>,
    /// Machine address of guest-physical 0 where the memory is contiguous (domains with devices); the offset of `ATOLLOP_DMA_WINDOW`.
    pub contiguous_base: Option<MachineAddress>,
    /// Frames that it owns.
    pub pages: u64,
    /// What hypercalls remember of it.
    pub calls: crate::hypercall::DomainCalls,
    /// What its first watchdogs (SCHEDOP_watchdog) expire at, in nanoseconds of the machine's clock; 0 is free.
    pub watchdogs: [u64; 2],
}

/// How many HVM parameters there are (HVM_NR_PARAMS, rounded up).
pub const PARAMETERS: usize = 48;

/// A vCPU.
pub struct Vcpu {
    /// Whose, and which.
    pub id: VcpuId,
    /// Whether it may run.
    pub status: VcpuStatus,
    /// General registers.
    pub registers: Registers,
    /// The processor backend's part.
    pub processor: Box<dyn VirtualCpu>,
    /// The machine that it sees: local APIC, clocks, model-specific registers.
    pub machine: VcpuMachine,
    /// Floating-point and vector state while it is not loaded.
    pub extended: crate::virt::ExtendedState,
    /// Machine address of its `vcpu_info`; in the shared-info page until it registers another place.
    pub vcpu_info: MachineAddress,
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
    /// Exits taken.
    pub exits: u64,
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
    pub current: u32,
    /// When it entered that state.
    pub since: u64,
    /// Nanoseconds in each.
    pub total: [u64; 4],
}
