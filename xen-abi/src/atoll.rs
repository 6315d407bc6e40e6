//! Atoll's own control interface: what Xen keeps private to its toolstack (domctl, sysctl) and every hypervisor designs
//! for itself. It travels under [`__HYPERVISOR_atoll_op`]: `rdi` is one of the `ATOLLOP_*` numbers, `rsi` a guest pointer
//! to the operation's structure; the answer in `rax` is 0 or a negative `XEN_E*`.
//!
//! Each operation names the capability (given by the manifest) that its caller needs; without it the answer is `-EPERM`.

mod figures;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use figures::*;

/// The hypercall number: the first of those that Xen leaves to the architecture, unused on x86 for HVM guests.
#[allow(non_upper_case_globals)]
pub const __HYPERVISOR_atoll_op: u64 = 55;

/// Reads a [`DomainInfo`]. Capability: `observe`, except for a domain that asks about itself.
pub const ATOLLOP_DOMAIN_INFO: u64 = 0;
/// Builds (if need be) and starts the domain of a [`DomainReference`]. Capability: `control`. May take many milliseconds
/// and is continued transparently: the hypervisor re-executes the hypercall until it is done.
pub const ATOLLOP_DOMAIN_START: u64 = 1;
/// Stops the domain of a [`DomainReference`] at once and unwinds what it holds: grants, event channels, devices, memory.
/// Its id stays reserved; [`ATOLLOP_DOMAIN_START`] builds it anew from its pristine image. Capability: `control`.
pub const ATOLLOP_DOMAIN_DESTROY: u64 = 2;
/// Carries out a [`MachineControl`]. Capability: `control`.
pub const ATOLLOP_MACHINE_CONTROL: u64 = 3;
/// Reads the hypervisor's log by a [`LogRead`]. Capability: `console-log`.
pub const ATOLLOP_LOG_READ: u64 = 4;
/// Reads a [`DmaWindow`]: how a domain with devices turns its own addresses into those that its devices use.
pub const ATOLLOP_DMA_WINDOW: u64 = 5;
/// Reads a [`MachineInfo`]. Capability: `observe`.
pub const ATOLLOP_MACHINE_INFO: u64 = 6;

/// Reads a [`PciFunction`]: which functions the caller was given. An index behind the last one answers `-ENOENT`.
pub const ATOLLOP_PCI_FUNCTION: u64 = 7;

/// Reads a [`DomainFigures`]. Capability: `observe`, except for a domain that asks about itself.
pub const ATOLLOP_DOMAIN_FIGURES: u64 = 8;
/// Reads a [`ProcessorFigures`]. Capability: `observe`.
pub const ATOLLOP_PROCESSOR_FIGURES: u64 = 9;
/// Sets by a [`DomainMemory`] how much memory a domain may have from now on, as far as it wants it. The memory that it has
/// beyond stays until it gives it back. Capability: `control`. Below nothing and above the domain's maximum the answer is `-EINVAL`; a domain
/// that is not built answers `-ESRCH`.
pub const ATOLLOP_DOMAIN_MEMORY: u64 = 10;
/// Reads a [`KeepRegion`], and zeroes it first if that is asked for. Capability: `control`, except for a domain that asks about itself.
pub const ATOLLOP_KEEP_REGION: u64 = 11;
/// Does to a domain what a [`FaultInjection`] says. Capability: `control`; without `fault-injection` in the manifest the answer is `-EOPNOTSUPP`. A domain
/// that does not run answers `-ESRCH`.
pub const ATOLLOP_INJECT_FAULT: u64 = 12;

/// A domain's keep region: pages that are handed from one life of it to the next. What is in them is what the last life left there, whole or half; zeros
/// in the first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct KeepRegion {
    /// In: the domain's id; `DOMID_SELF` for the caller.
    pub domain: u16,
    /// In: [`KEEP_DISCARD`] or 0.
    pub flags: u16,
    /// Out: how many pages of 4 KiB it has; may be 0.
    pub pages: u32,
    /// Out: the guest-physical address of the first; they follow each other. No device reaches them, and they cannot be granted.
    pub address: u64,
}

/// [`KeepRegion::flags`]: zero it.
pub const KEEP_DISCARD: u16 = 1;

/// What is to be done to a domain, to see that nobody suffers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FaultInjection {
    /// The domain's id.
    pub domain: u16,
    /// One of the `FAULT_*` numbers.
    pub fault: u16,
    /// Zero.
    pub _pad0: u32,
    /// It happens once the domain has run for so long from now on, in nanoseconds: in the middle of its work. 0 is at once. Ignored by [`FAULT_CORRUPT_KEEP`].
    pub after: u64,
}

/// [`FaultInjection::fault`]: the domain stops as if it had crashed, at whatever instruction it is.
pub const FAULT_KILL: u16 = 0;
/// [`FaultInjection::fault`]: its vCPUs run no more, and nobody is told. A second fault of this domain can only be [`FAULT_KILL`].
pub const FAULT_HANG: u16 = 1;
/// [`FaultInjection::fault`]: its next life finds its keep region garbled.
pub const FAULT_CORRUPT_KEEP: u16 = 2;

/// Reads by a [`CrashRead`] why a domain crashed, as text. Capability: `console-log`. `-ENOENT` if it has not crashed so often.
pub const ATOLLOP_CRASH_READ: u64 = 13;

/// Length of the fixed field that holds a domain's name, padded with NUL.
pub const NAME_LENGTH: usize = 32;

/// Lets the domain of a [`DomainReference`] go on that has suspended itself (`SHUTDOWN_suspend`), as if it had come to another machine: its hypercall answers 0, and its event
/// channels but those of xenstore and the console are as new. `-EINVAL` if it is not suspended. Capability: `control`.
pub const ATOLLOP_DOMAIN_RESUME: u64 = 14;

/// The domain that an operation is about.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DomainReference {
    /// The domain's id.
    pub domain: u16,
    /// Zero.
    pub _pad0: [u16; 3],
}

/// In: which domain (its id). Out: the rest. An id that no domain of the manifest has answers `-ESRCH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DomainInfo {
    /// In: the domain's id; `DOMID_SELF` for the caller.
    pub domain: u16,
    /// One of the `DOMAIN_STATE_*` numbers.
    pub state: u16,
    /// Why it stopped: `SHUTDOWN_*` of sched.h once `state` is [`DOMAIN_STATE_STOPPED`].
    pub shutdown_reason: u32,
    /// The domain's end of its xenstore event channel, unbound towards the control domain until that binds it.
    pub store_port: u32,
    /// The domain's end of its console event channel, unbound towards the console domain until that binds it.
    pub console_port: u32,
    /// Guest frame of the xenstore ring.
    pub store_frame: u64,
    /// Guest frame of the console ring.
    pub console_frame: u64,
    /// Memory that the domain owns, in 4 KiB pages.
    pub memory_pages: u64,
    /// Time that its vCPUs have run, in nanoseconds.
    pub cpu_time: u64,
    /// Exits taken by its vCPUs.
    pub exits: u64,
    /// How many times it has been built since power-on.
    pub generation: u32,
    /// Its number of vCPUs.
    pub vcpus: u32,
    /// Its name, padded with NUL.
    pub name: [u8; NAME_LENGTH],
    /// Pages that the hypervisor holds for it beside its memory: second-stage tables, grant table, what its vCPUs need.
    pub overhead_pages: u64,
    /// Memory that it may have at this time, in 4 KiB pages; 0 while it is not built.
    pub target_pages: u64,
    /// Memory that it can be given at most, in 4 KiB pages.
    pub maximum_pages: u64,
    /// How many pages of 2 MiB its memory is mapped by; one of 1 GiB counts as 512.
    pub large_pages: u64,
    /// The longest that it may look for work before it sleeps, in nanoseconds; 0 is not at all.
    pub polling: u64,
    /// How long it may go without feeding its watchdog, in nanoseconds and whole seconds; 0 is for ever. A unikernel starts one of that length.
    pub watchdog: u64,
}

/// Reads the report of one crash of a domain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CrashRead {
    /// The domain's id.
    pub domain: u16,
    /// Which crash: 0 for the last one, 1 for the one before …
    pub back: u16,
    /// Zero.
    pub _pad0: u32,
    /// Guest pointer to the buffer.
    pub buffer: u64,
    /// In: the buffer's length; what does not fit is cut. Out: how many bytes were written.
    pub length: u64,
}

/// How much memory a domain may have from now on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DomainMemory {
    /// The domain's id.
    pub domain: u16,
    /// Zero.
    pub _pad0: [u16; 3],
    /// In 4 KiB pages. The pages of its xenstore and console rings do not count.
    pub pages: u64,
}

/// [`DomainInfo::state`]: not built yet, or taken down.
pub const DOMAIN_STATE_ABSENT: u16 = 0;
/// [`DomainInfo::state`]: its memory is being filled.
pub const DOMAIN_STATE_BUILDING: u16 = 1;
/// [`DomainInfo::state`]: its vCPUs may run.
pub const DOMAIN_STATE_RUNNING: u16 = 2;
/// [`DomainInfo::state`]: it shut itself down or crashed; `shutdown_reason` says which.
pub const DOMAIN_STATE_STOPPED: u16 = 3;
/// [`DomainInfo::state`]: it could not be built (a missing or corrupt image, too little memory); the log says why.
pub const DOMAIN_STATE_FAILED: u16 = 4;

/// What to do with the whole machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MachineControl {
    /// [`MACHINE_POWER_OFF`] or [`MACHINE_REBOOT`].
    pub action: u32,
    /// Zero.
    pub _pad0: u32,
}

/// [`MachineControl::action`]: power off by ACPI; halts where that fails.
pub const MACHINE_POWER_OFF: u32 = 0;
/// [`MachineControl::action`]: reset.
pub const MACHINE_REBOOT: u32 = 1;

/// Reads from the log, a byte stream with positions that only grow; the oldest bytes are lost first.
///
/// While a domain with the capability `console-log` has bound `VIRQ_CON_RING`, the hypervisor raises it for new bytes and
/// leaves the serial port to that domain; when that domain stops, the hypervisor writes to the port itself again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LogRead {
    /// In: the position to read from. Out: the position behind the last byte read. A position that is already lost is
    /// moved forward to the oldest byte.
    pub position: u64,
    /// In: guest pointer to the buffer.
    pub buffer: u64,
    /// In: the buffer's length. Out: how many bytes were read.
    pub length: u64,
}

/// A domain's own guest-physical addresses as its devices see them: `bus = guest-physical + offset` (wrapping). Addresses of mapped
/// grants come with the mapping (`dev_bus_addr`). With an IOMMU the offset is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DmaWindow {
    /// Bus address of guest-physical 0, wrapping.
    pub offset: u64,
}

/// A PCI function that was given to the caller. Finding them in configuration space would cost an exit for each place on the bus.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PciFunction {
    /// In: its index among those of the caller, from 0, in the order of their places.
    pub index: u32,
    /// Out: its segment group.
    pub segment: u16,
    /// Out: its bus.
    pub bus: u8,
    /// Out: its device (bits 3 to 7) and function (bits 0 to 2).
    pub devfn: u8,
}

/// Figures of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MachineInfo {
    /// Usable memory of the machine, in 4 KiB pages.
    pub total_pages: u64,
    /// Pages that nobody holds.
    pub free_pages: u64,
    /// Pages that the hypervisor holds for itself: image, heap, tables.
    pub hypervisor_pages: u64,
    /// Pages of the boot bundle, kept to rebuild domains from.
    pub bundle_pages: u64,
    /// Nanoseconds since the hypervisor's first instruction.
    pub uptime: u64,
    /// Nanoseconds from the hypervisor's first instruction to the first guest instruction.
    pub first_guest: u64,
    /// Rate of the time-stamp counter, in kHz.
    pub tsc_khz: u32,
    /// Processors in use.
    pub cpus: u32,
    /// Pages of domains that are gone, which others still have mapped.
    pub held_pages: u64,
}
