//! Domains: what one is made of, and how it is built, stopped and built again.
//!
//! A domain of the manifest always exists; what it owns while it is built is its [`Body`]. [`build`] makes one piece by piece from the pristine images of
//! the bundle, [`life`] stops and takes down.

pub mod accounts;
pub mod build;
pub mod crash;
pub mod devices;
pub mod fault;
pub mod images;
pub mod keep;
pub mod layout;
pub mod life;
pub mod revival;
pub mod suspend;
mod table;
mod vcpu;
pub mod watchdog;

use alloc::{boxed::Box, string::String, vec::Vec};

use xen_abi::vcpu::RUNSTATE_runnable;

pub use table::Domains;
pub use vcpu::{Polling, Runstate, Vcpu, VcpuStatus, legacy_vcpu_info};

use crate::{
    event::EventChannels,
    grant::GrantTable,
    guest::{cpuid::Policy, pci},
    iommu::IoTables,
    memory::{Frame, MachineAddress, P2m},
    platform::pci::PciAddress,
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
    /// When its life began, in nanoseconds of the machine's clock.
    pub started: u64,
    /// The PCI functions that are assigned to it, found once at boot.
    pub devices: Vec<PciAddress>,
    /// I/O ports that are assigned to it beside those of its functions (serial ports): first and count.
    pub ports: Vec<(u16, u16)>,
    /// GSIs that are assigned to it (serial ports).
    pub interrupts: Vec<u32>,
    /// The functions of `devices`, with what the domain sees and reaches of them.
    pub functions: Vec<pci::Function>,
    /// Memory that firmware wants its devices to reach: first address and bytes.
    pub reserved: Vec<(MachineAddress, u64)>,
    /// Accesses of its devices that an IOMMU has refused, in all its lives.
    pub refused_accesses: u64,
    /// The reason of the last failure to build, for the operator.
    pub failure: Option<String>,
    /// What it hands from one life to the next.
    pub keep: keep::Keep,
    /// Its last crashes, for the operator.
    pub crashes: crash::Crashes,
    /// What has been made of it so far while its state is [`State::Building`].
    pub building: Option<Box<build::Build>>,
    /// What has not been given back of its last life.
    pub remains: Option<Box<life::Remains>>,
    /// What it owns; `None` until it is built and after it is destroyed.
    pub body: Option<Body>,
}

impl Domain {
    /// A domain of the manifest before it is built for the first time, without devices.
    pub fn new(id: DomainId, spec: manifest::Domain) -> Self {
        Self {
            id,
            spec,
            state: State::Absent,
            generation: 0,
            started: 0,
            devices: Vec::new(),
            ports: Vec::new(),
            interrupts: Vec::new(),
            functions: Vec::new(),
            reserved: Vec::new(),
            refused_accesses: 0,
            failure: None,
            keep: keep::Keep::default(),
            crashes: Default::default(),
            building: None,
            remains: None,
            body: None,
        }
    }
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
    /// Machine address of guest-physical 0 where the memory is contiguous (domains with devices that no IOMMU confines); the offset of `ATOLLOP_DMA_WINDOW`.
    pub contiguous_base: Option<MachineAddress>,
    /// What its devices reach, where an IOMMU confines them.
    pub io: Option<IoTables>,
    /// Frames that are its memory.
    pub pages: u64,
    /// How many it may have, beside its two rings.
    pub target: u64,
    /// Frames that its vCPUs need.
    pub processor_pages: u64,
    /// What CPUID answers.
    pub cpuid: Policy,
    /// What hypercalls remember of it.
    pub calls: crate::hypercall::DomainCalls,
    /// What it sees of PCI configuration space.
    pub pci: pci::PciView,
    /// What it wrote to the debug port since the last end of line.
    pub debug_line: String,
    /// What it did.
    pub counts: crate::figures::DomainCounts,
    /// A fault that is to befall it.
    pub fault: Option<fault::Fault>,
    /// Its watchdogs (SCHEDOP_watchdog).
    pub watchdogs: [watchdog::Watchdog; 2],
    /// What it logged last.
    pub last_lines: crash::LastLines,
}

impl Body {
    /// Whether its memory stays as it is because its devices use it.
    pub fn is_fixed(&self) -> bool {
        self.contiguous_base.is_some() || self.io.is_some()
    }

    /// How long it has lived by `now`, in nanoseconds, as watchdogs count it: time in which one of its vCPUs waited for a processor is no life.
    pub fn life(&self, now: u64) -> u64 {
        let waited = |vcpu: &Vcpu| vcpu.runstate.totals(now)[RUNSTATE_runnable as usize];
        now.saturating_sub(self.vcpus.iter().map(waited).sum())
    }

    /// Whether the domain may map more pages that it places itself. Pages far apart take a second-stage table each, from everybody's memory; a domain may
    /// have so many for what it has and can have mapped, and no more.
    pub fn within_table_budget(&self) -> bool {
        self.p2m.table_pages() <= 1024 + self.pages / 64
    }
}

/// How many HVM parameters there are (HVM_NR_PARAMS, rounded up).
pub const PARAMETERS: usize = 48;
