//! The core of the ABI, of `xen.h` and `arch-x86/xen.h`: hypercall numbers, reserved domain ids, virtual interrupts, and
//! the pages in which hypervisor and guest share event bits and time.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Hypercall number." {
        __HYPERVISOR_set_trap_table = 0,
        __HYPERVISOR_mmu_update = 1,
        __HYPERVISOR_set_gdt = 2,
        __HYPERVISOR_stack_switch = 3,
        __HYPERVISOR_set_callbacks = 4,
        __HYPERVISOR_fpu_taskswitch = 5,
        __HYPERVISOR_sched_op_compat = 6,
        __HYPERVISOR_platform_op = 7,
        __HYPERVISOR_set_debugreg = 8,
        __HYPERVISOR_get_debugreg = 9,
        __HYPERVISOR_update_descriptor = 10,
        __HYPERVISOR_memory_op = 12,
        __HYPERVISOR_multicall = 13,
        __HYPERVISOR_update_va_mapping = 14,
        __HYPERVISOR_set_timer_op = 15,
        __HYPERVISOR_event_channel_op_compat = 16,
        __HYPERVISOR_xen_version = 17,
        __HYPERVISOR_console_io = 18,
        __HYPERVISOR_physdev_op_compat = 19,
        __HYPERVISOR_grant_table_op = 20,
        __HYPERVISOR_vm_assist = 21,
        __HYPERVISOR_update_va_mapping_otherdomain = 22,
        __HYPERVISOR_iret = 23,
        __HYPERVISOR_vcpu_op = 24,
        __HYPERVISOR_set_segment_base = 25,
        __HYPERVISOR_mmuext_op = 26,
        __HYPERVISOR_xsm_op = 27,
        __HYPERVISOR_nmi_op = 28,
        __HYPERVISOR_sched_op = 29,
        __HYPERVISOR_callback_op = 30,
        __HYPERVISOR_xenoprof_op = 31,
        __HYPERVISOR_event_channel_op = 32,
        __HYPERVISOR_physdev_op = 33,
        __HYPERVISOR_hvm_op = 34,
        __HYPERVISOR_sysctl = 35,
        __HYPERVISOR_domctl = 36,
        __HYPERVISOR_kexec_op = 37,
        __HYPERVISOR_tmem_op = 38,
        __HYPERVISOR_argo_op = 39,
        __HYPERVISOR_xenpmu_op = 40,
        __HYPERVISOR_dm_op = 41,
        __HYPERVISOR_hypfs_op = 42,
        __HYPERVISOR_arch_0 = 48,
        __HYPERVISOR_arch_1 = 49,
        __HYPERVISOR_arch_2 = 50,
        __HYPERVISOR_arch_3 = 51,
        __HYPERVISOR_arch_4 = 52,
        __HYPERVISOR_arch_5 = 53,
        __HYPERVISOR_arch_6 = 54,
        __HYPERVISOR_arch_7 = 55,
    }

    u64, "Operation of `__HYPERVISOR_console_io`." {
        CONSOLEIO_write = 0,
        CONSOLEIO_read = 1,
    }

    u64, "Operation of `__HYPERVISOR_vm_assist`." {
        VMASST_CMD_enable = 0,
        VMASST_CMD_disable = 1,
    }

    u64, "Behaviour that `__HYPERVISOR_vm_assist` turns on or off." {
        VMASST_TYPE_4gb_segments = 0,
        VMASST_TYPE_4gb_segments_notify = 1,
        VMASST_TYPE_writable_pagetables = 2,
        VMASST_TYPE_pae_extended_cr3 = 3,
        VMASST_TYPE_architectural_iopl = 4,
        /// Marks a registered runstate area as being updated by `XEN_RUNSTATE_UPDATE`.
        VMASST_TYPE_runstate_update_flag = 5,
        VMASST_TYPE_m2p_strict = 32,
    }

    u32, "Virtual interrupt of the hypervisor itself, bound to a port by `EVTCHNOP_bind_virq`." {
        /// One per vCPU: its timer has fired.
        VIRQ_TIMER = 0,
        /// One per vCPU: asks the guest to dump its state.
        VIRQ_DEBUG = 1,
        /// Input for the hypervisor's console.
        VIRQ_CONSOLE = 2,
        /// A domain died, or otherwise changed its state.
        VIRQ_DOM_EXC = 3,
        VIRQ_TBUF = 4,
        VIRQ_DEBUGGER = 6,
        VIRQ_XENOPROF = 7,
        /// New bytes in the hypervisor's log.
        VIRQ_CON_RING = 8,
        VIRQ_PCPU_STATE = 9,
        VIRQ_MEM_EVENT = 10,
        VIRQ_ARGO = 11,
        VIRQ_ENOMEM = 12,
        VIRQ_XENPMU = 13,
        VIRQ_ARCH_0 = 16,
        VIRQ_ARCH_1 = 17,
        VIRQ_ARCH_2 = 18,
        VIRQ_ARCH_3 = 19,
        VIRQ_ARCH_4 = 20,
        VIRQ_ARCH_5 = 21,
        VIRQ_ARCH_6 = 22,
        VIRQ_ARCH_7 = 23,
        /// How many there are.
        NR_VIRQS = 24,
    }

    u16, "Domain id with a meaning of its own." {
        /// The first id that no domain can have.
        DOMID_FIRST_RESERVED = 0x7ff0,
        /// The caller.
        DOMID_SELF = 0x7ff0,
        /// The owner of memory-mapped I/O.
        DOMID_IO = 0x7ff1,
        /// The owner of memory that the hypervisor shares.
        DOMID_XEN = 0x7ff2,
        DOMID_COW = 0x7ff3,
        /// No domain.
        DOMID_INVALID = 0x7ff4,
        DOMID_IDLE = 0x7fff,
        /// The bits that carry an id.
        DOMID_MASK = 0x7fff,
    }

    u8, "Bit of [`VcpuTimeInfo::flags`]." {
        /// Time never goes backwards between vCPUs, so a guest may read it without a global lock.
        XEN_PVCLOCK_TSC_STABLE_BIT = 1 << 0,
        /// The guest was stopped; its watchdogs should not bark.
        XEN_PVCLOCK_GUEST_STOPPED = 1 << 1,
    }

    u32, "Bit of the flags of a start info." {
        /// The domain may use privileged operations.
        SIF_PRIVILEGED = 1 << 0,
        /// The domain is the first one.
        SIF_INITDOMAIN = 1 << 1,
        SIF_MULTIBOOT_MOD = 1 << 2,
        SIF_MOD_START_PFN = 1 << 3,
        SIF_VIRT_P2M_4TOOLS = 1 << 4,
        SIF_PM_MASK = 0xff << 8,
    }

    usize, "Count of [`VcpuInfo`] that live in the shared info page; later vCPUs must register theirs." {
        XEN_LEGACY_MAX_VCPUS = 32,
    }

    u16, "I/O port at which an HVM guest writes single characters to the hypervisor's log." {
        XEN_HVM_DEBUGCONS_IOPORT = 0xe9,
    }
}

/// Bytes in a page of this ABI; every frame number counts these.
pub const PAGE_SIZE: usize = 4096;
/// Binary logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// One call of a batch given to `__HYPERVISOR_multicall`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MulticallEntry {
    /// Hypercall number.
    pub op: u64,
    /// Out: what the hypercall returned.
    pub result: u64,
    /// Arguments in register order.
    pub args: [u64; 6],
}

/// How a guest turns its time-stamp counter into nanoseconds: the paravirtual clock of one vCPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuTimeInfo {
    /// Odd while an update is in progress; a reader retries until it sees the same even number before and after.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// Counter value at which `system_time` held.
    pub tsc_timestamp: u64,
    /// Nanoseconds since the domain's start at `tsc_timestamp`.
    pub system_time: u64,
    /// Multiplier of the shifted counter delta, as a fraction of 2^32.
    pub tsc_to_system_mul: u32,
    /// Left shift (right if negative) of the counter delta before the multiplication.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}

/// The x86 part of [`VcpuInfo`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ArchVcpuInfo {
    /// Fault address of a paravirtual guest; unused otherwise.
    pub cr2: u64,
    /// Padding.
    pub pad: u64,
}

/// What hypervisor and guest share about one vCPU: upcall flags and time. 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuInfo {
    /// Not zero: some event waits. Set by the hypervisor, cleared by the guest before it looks for events.
    pub evtchn_upcall_pending: u8,
    /// Not zero: the guest wants no upcalls. Unused by HVM guests.
    pub evtchn_upcall_mask: u8,
    /// Padding.
    pub _pad0: [u8; 6],
    /// Bit `n`: word `n` of the pending bits deserves a look.
    pub evtchn_pending_sel: u64,
    /// The x86 part.
    pub arch: ArchVcpuInfo,
    /// The clock.
    pub time: VcpuTimeInfo,
}

/// The x86 part of [`SharedInfo`]; meaningful for paravirtual guests only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ArchSharedInfo {
    /// Highest frame number plus one.
    pub max_pfn: u64,
    /// Frame of the three-level table of machine frames.
    pub pfn_to_mfn_frame_list_list: u64,
    /// Why the last NMI came.
    pub nmi_reason: u64,
    /// Page-table root of the linear frame table.
    pub p2m_cr3: u64,
    /// Where the linear frame table is mapped.
    pub p2m_vaddr: u64,
    /// Odd while the linear frame table changes.
    pub p2m_generation: u64,
}

/// The page that hypervisor and guest share: event bits of the two-level ABI and the wall clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SharedInfo {
    /// Per vCPU, unless it registered its own.
    pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
    /// One bit per port: an event is pending.
    pub evtchn_pending: [u64; 64],
    /// One bit per port: the guest wants no upcall for it.
    pub evtchn_mask: [u64; 64],
    /// Odd while the wall clock is being updated.
    pub wc_version: u32,
    /// Unix time at the domain's time zero, seconds, low half.
    pub wc_sec: u32,
    /// Its nanoseconds.
    pub wc_nsec: u32,
    /// Its seconds, high half.
    pub wc_sec_hi: u32,
    /// The x86 part.
    pub arch: ArchSharedInfo,
}

zeroed_default!(SharedInfo);
