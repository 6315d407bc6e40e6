//! Operations on a single vCPU, of `vcpu.h`: bringing it up and down, its timers, and the areas that it registers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_vcpu_op`." {
        VCPUOP_initialise = 0,
        VCPUOP_up = 1,
        VCPUOP_down = 2,
        VCPUOP_is_up = 3,
        VCPUOP_get_runstate_info = 4,
        VCPUOP_register_runstate_memory_area = 5,
        VCPUOP_set_periodic_timer = 6,
        VCPUOP_stop_periodic_timer = 7,
        VCPUOP_set_singleshot_timer = 8,
        VCPUOP_stop_singleshot_timer = 9,
        VCPUOP_register_vcpu_info = 10,
        VCPUOP_send_nmi = 11,
        VCPUOP_get_physid = 12,
        VCPUOP_register_vcpu_time_memory_area = 13,
    }

    i32, "[`VcpuRunstateInfo::state`], and index into its times." {
        /// On a processor.
        RUNSTATE_running = 0,
        /// Waiting for a processor.
        RUNSTATE_runnable = 1,
        /// Waiting for an event.
        RUNSTATE_blocked = 2,
        /// Down, or paused.
        RUNSTATE_offline = 3,
    }

    u64, "Bit of [`VcpuRunstateInfo::state_entry_time`]: the area is being updated." {
        XEN_RUNSTATE_UPDATE = 1 << 63,
    }

    u32, "Bit of [`VcpuSetSingleshotTimer::flags`]: fail with `-ETIME` if the time has passed." {
        VCPU_SSHOTTMR_future = 1 << 0,
    }
}

/// What a vCPU does and has done with its time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuRunstateInfo {
    /// `RUNSTATE_*`.
    pub state: i32,
    /// Padding.
    pub _pad0: [u8; 4],
    /// System time at which it entered `state`.
    pub state_entry_time: u64,
    /// Nanoseconds spent in each state.
    pub time: [u64; 4],
}

/// Registers an area that the hypervisor keeps up to date with the [`VcpuRunstateInfo`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuRegisterRunstateMemoryArea {
    /// Its guest-virtual address.
    pub addr: u64,
}

/// Starts the vCPU's periodic timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuSetPeriodicTimer {
    /// Its period in nanoseconds.
    pub period_ns: u64,
}

/// Arms the vCPU's one-shot timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuSetSingleshotTimer {
    /// System time in nanoseconds at which it fires.
    pub timeout_abs_ns: u64,
    /// [`VCPU_SSHOTTMR_future`].
    pub flags: u32,
    /// Padding.
    pub _pad0: [u8; 4],
}

/// Moves the vCPU's [`VcpuInfo`](crate::xen::VcpuInfo) out of the shared info page, once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuRegisterVcpuInfo {
    /// Guest frame.
    pub mfn: u64,
    /// Where in the frame.
    pub offset: u32,
    /// Zero.
    pub rsvd: u32,
}

/// Tells a pinned vCPU on which processor it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuGetPhysid {
    /// Out: APIC id in the low half, ACPI id in the high half.
    pub phys_id: u64,
}

/// Registers a second copy of the vCPU's [`VcpuTimeInfo`](crate::xen::VcpuTimeInfo), for user mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuRegisterTimeMemoryArea {
    /// Its guest-virtual address.
    pub addr: u64,
}
