//! How a vCPU gives up the processor and how a domain ends, of `sched.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_sched_op`." {
        SCHEDOP_yield = 0,
        SCHEDOP_block = 1,
        SCHEDOP_shutdown = 2,
        SCHEDOP_poll = 3,
        SCHEDOP_remote_shutdown = 4,
        SCHEDOP_shutdown_code = 5,
        SCHEDOP_watchdog = 6,
        SCHEDOP_pin_override = 7,
    }

    u32, "Why a domain ended." {
        SHUTDOWN_poweroff = 0,
        SHUTDOWN_reboot = 1,
        SHUTDOWN_suspend = 2,
        SHUTDOWN_crash = 3,
        SHUTDOWN_watchdog = 4,
        SHUTDOWN_soft_reset = 5,
        /// The highest of these numbers.
        SHUTDOWN_MAX = 5,
    }
}

/// Ends the caller's domain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SchedShutdown {
    /// `SHUTDOWN_*`.
    pub reason: u32,
}

/// Blocks until one of a few ports has an event, even with upcalls masked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SchedPoll {
    /// Handle of an array of `u32`: the ports.
    pub ports: u64,
    /// Its length.
    pub nr_ports: u32,
    /// Padding.
    pub _pad0: [u8; 4],
    /// System time in nanoseconds at which to give up; 0 for never.
    pub timeout: u64,
}

/// Marks another domain as having ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SchedRemoteShutdown {
    /// The domain.
    pub domain_id: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// `SHUTDOWN_*`.
    pub reason: u32,
}

/// Starts, pokes or stops a watchdog timer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SchedWatchdog {
    /// 0 to start one; else which one.
    pub id: u32,
    /// Seconds; 0 stops it.
    pub timeout: u32,
}

/// Pins the calling vCPU to a processor for a while.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SchedPinOverride {
    /// The processor; negative to unpin.
    pub pcpu: i32,
}
