//! The model: one [`Manifest`] an appliance, one [`Domain`] a domain, in the order in which they start. It is encoded with postcard;
//! both ends are built together, and the bundle's version guards against mixing.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// A whole appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The appliance's name: its folder below `appliances/`.
    pub name: String,
    /// Reboot when the hypervisor panics, instead of halting with the report on screen.
    pub reboot_on_panic: bool,
    /// The operator may kill and hang domains, to see that they come back: for tests.
    pub fault_injection: bool,
    /// Accept devices of driver domains that no IOMMU confines.
    pub allow_unconfined_dma: bool,
    /// The domains, in the order in which controldom starts them. The domain at index `i` has the id `i + 1`.
    pub domains: Vec<Domain>,
}

/// Bytes of memory below which no stock kernel reaches its initial RAM disk, nor goes on with when it gives memory back.
pub const LEAST_LINUX_MEMORY: u64 = 64 << 20;

/// The most that a domain's keep region can have, in bytes.
pub const MOST_KEEP: u64 = 768 << 10;

/// One domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Unique; letters, digits and dashes, at most 31 bytes.
    pub name: String,
    /// What runs in it.
    pub kind: Kind,
    /// Bytes of memory; a multiple of 4 KiB.
    pub memory: u64,
    /// The most memory that the operator can give it while it runs, in bytes; at least `memory`, and a multiple of 4 KiB.
    pub memory_maximum: u64,
    /// Number of vCPUs, at least 1.
    pub vcpus: u32,
    /// How it competes for processors.
    pub scheduling: Scheduling,
    /// What it may do beyond running.
    pub capabilities: Capabilities,
    /// Hardware that it drives.
    pub devices: Vec<Device>,
    /// Block devices that it is served.
    pub disks: Vec<Disk>,
    /// Network interfaces that it is served.
    pub networks: Vec<Network>,
    /// Bytes that are handed from one life of it to the next; a multiple of 4 KiB, at most [`MOST_KEEP`].
    pub keep: u64,
    /// Whether it is started again when it ends, and how soon.
    pub restarts: Restarts,
    /// How long a unikernel may go without a turn of its loop before it counts as hung, in nanoseconds and whole seconds; 0 is for ever.
    pub watchdog: u64,
    /// Free settings of the domain's program, published below `options/` of its xenstore home.
    pub options: Vec<(String, String)>,
}

/// What runs in a domain. Files are named by their entry in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A PVH ELF64 of our own, linked against `unikernel-rt`.
    Unikernel {
        /// Bundle entry of the ELF file.
        image: String,
        /// Its command line.
        command_line: String,
    },
    /// A guest kernel with a PVH entry.
    Linux {
        /// Bundle entry of the kernel: an ELF64 `vmlinux` with the PVH note, or a bzImage.
        kernel: String,
        /// Bundle entry of the initial RAM disk.
        initrd: Option<String>,
        /// The kernel's command line.
        command_line: String,
    },
}

/// How a domain competes for processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// Before and after whom its vCPUs run.
    pub class: Class,
    /// The processors that it may run on, by number from 0, in rising order; empty is all of them.
    pub processors: Vec<u32>,
    /// No other domain runs on `processors`.
    pub exclusive: bool,
    /// The most that all its vCPUs together may take, in hundredths of one processor.
    pub cap: Option<u32>,
    /// The longest that a unikernel looks for work before it sleeps, in nanoseconds; 0 is not at all.
    pub polling: u64,
}

/// Before and after whom a vCPU runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Before every other class, for `budget` out of each `period`.
    Realtime {
        /// Who goes first among them: the higher one.
        priority: u8,
        /// Nanoseconds a period, at most `period`.
        budget: u64,
        /// Nanoseconds.
        period: u64,
    },
    /// Runs as soon as an event arrives, before every shared domain: driver domains.
    #[default]
    Interactive,
    /// Shares what is left in proportion to its weight (256 is the usual one).
    Shared {
        /// The weight.
        weight: u32,
    },
}

/// What a domain may do beyond running: exactly what the manifest gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Start, stop and rebuild domains; power off. Serves xenstore. Exactly one domain has it.
    pub control: bool,
    /// Read figures of other domains and of the machine.
    pub observe: bool,
    /// Read the hypervisor's log and own the operator's console. At most one domain has it; it serves every console ring.
    pub console_log: bool,
}

/// A selector of hardware: it takes every matching function that no earlier domain took. One that matches nothing is reported,
/// and the domain starts without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A PC serial port by its number, 1 for COM1: its I/O ports and its interrupt.
    SerialPort(u8),
    /// PCI functions of a class, and of a programming interface where given.
    PciClass {
        /// Base class.
        class: u8,
        /// Subclass; `None` is any.
        subclass: Option<u8>,
        /// Programming interface; `None` is any.
        interface: Option<u8>,
    },
    /// PCI functions of a vendor and device id.
    PciId {
        /// Vendor.
        vendor: u16,
        /// Device.
        device: u16,
    },
    /// One PCI function by its place.
    PciAddress {
        /// Segment.
        segment: u16,
        /// Bus.
        bus: u8,
        /// Device, below 32.
        device: u8,
        /// Function, below 8.
        function: u8,
    },
}

/// A block device that a domain is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name in the guest: `xvda`, `xvdb` …
    pub name: String,
    /// Name of the domain that serves it.
    pub backend: String,
    /// What it is, in the backend's words: `nvme0` (a whole disk, numbered as found), `nvme0:2` (its second GPT partition),
    /// `nvme0:data` (the GPT partition of that name), `virtio0` …
    pub volume: String,
    /// Refuse writes.
    pub read_only: bool,
}

/// A network interface that a domain is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the domain that serves it.
    pub backend: String,
    /// Its Ethernet address; the host derives one from the names where the source gives none.
    pub mac: [u8; 6],
}

/// What happens when a domain ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// After which ends it is started again.
    pub policy: Restart,
    /// As many failures in a row, and it stays down.
    pub limit: u32,
    /// How long it rests before the second start in a row, in nanoseconds; each further rest is twice as long. The first start comes at once.
    pub rest: u64,
    /// The longest rest, in nanoseconds.
    pub longest_rest: u64,
    /// One that has run for so long, in nanoseconds, has recovered: what failed before no longer counts.
    pub healthy_after: u64,
}

impl Default for Restarts {
    /// After failures, ten in a row at most, with rests from 100 ms to 10 s.
    fn default() -> Self {
        Self {
            policy: Restart::OnFailure,
            limit: 10,
            rest: 100_000_000,
            longest_rest: 10_000_000_000,
            healthy_after: 60_000_000_000,
        }
    }
}

/// After which ends a domain is started again from its pristine image. One that asks for a reboot always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// After each.
    Always,
    /// After a crash, and when its watchdog has expired.
    OnFailure,
    /// After none. One that crashed stays as it is, for inspection.
    Never,
}
