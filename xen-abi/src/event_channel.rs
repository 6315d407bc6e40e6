//! Event channels, the interrupts between domains, of `event_channel.h`: operations, and the two-level and FIFO ABIs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_event_channel_op`." {
        EVTCHNOP_bind_interdomain = 0,
        EVTCHNOP_bind_virq = 1,
        EVTCHNOP_bind_pirq = 2,
        EVTCHNOP_close = 3,
        EVTCHNOP_send = 4,
        EVTCHNOP_status = 5,
        EVTCHNOP_alloc_unbound = 6,
        EVTCHNOP_bind_ipi = 7,
        EVTCHNOP_bind_vcpu = 8,
        EVTCHNOP_unmask = 9,
        EVTCHNOP_reset = 10,
        EVTCHNOP_init_control = 11,
        EVTCHNOP_expand_array = 12,
        EVTCHNOP_set_priority = 13,
    }

    u32, "Bit of [`EvtchnBindPirq::flags`]." {
        BIND_PIRQ__WILL_SHARE = 1,
    }

    u32, "[`EvtchnStatus::status`]." {
        EVTCHNSTAT_closed = 0,
        EVTCHNSTAT_unbound = 1,
        EVTCHNSTAT_interdomain = 2,
        EVTCHNSTAT_pirq = 3,
        EVTCHNSTAT_virq = 4,
        EVTCHNSTAT_ipi = 5,
    }

    u32, "Number of ports that the two-level ABI can express." {
        EVTCHN_2L_NR_CHANNELS = 4096,
    }

    u32, "Priority of a port in the FIFO ABI; lower is more urgent." {
        EVTCHN_FIFO_PRIORITY_MAX = 0,
        EVTCHN_FIFO_PRIORITY_DEFAULT = 7,
        EVTCHN_FIFO_PRIORITY_MIN = 15,
    }

    usize, "Number of queues per vCPU in the FIFO ABI, one per priority." {
        EVTCHN_FIFO_MAX_QUEUES = 16,
    }

    u32, "Bit number in an event word of the FIFO ABI." {
        EVTCHN_FIFO_PENDING = 31,
        EVTCHN_FIFO_MASKED = 30,
        EVTCHN_FIFO_LINKED = 29,
        EVTCHN_FIFO_BUSY = 28,
    }

    u32, "The link field of an event word of the FIFO ABI: the next port in the queue." {
        /// Its width.
        EVTCHN_FIFO_LINK_BITS = 17,
        /// Its bits.
        EVTCHN_FIFO_LINK_MASK = (1 << EVTCHN_FIFO_LINK_BITS) - 1,
        /// The number of ports that it can express.
        EVTCHN_FIFO_NR_CHANNELS = 1 << EVTCHN_FIFO_LINK_BITS,
    }
}

/// Allocates a port of `dom` to which `remote_dom` may bind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnAllocUnbound {
    /// In: whose port it will be.
    pub dom: u16,
    /// In: who may bind to it.
    pub remote_dom: u16,
    /// Out: the port.
    pub port: u32,
}

/// Connects a new local port with an unbound port of another domain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnBindInterdomain {
    /// In: the other domain.
    pub remote_dom: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// In: its port.
    pub remote_port: u32,
    /// Out: the caller's port.
    pub local_port: u32,
}

/// Binds a virtual interrupt to a new port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnBindVirq {
    /// In: `VIRQ_*`.
    pub virq: u32,
    /// In: the vCPU that it belongs to; 0 for a global one.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}

/// Binds a physical interrupt to a new port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnBindPirq {
    /// In: the interrupt.
    pub pirq: u32,
    /// In: [`BIND_PIRQ__WILL_SHARE`].
    pub flags: u32,
    /// Out: the port.
    pub port: u32,
}

/// Makes a port by which one vCPU of the caller interrupts another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnBindIpi {
    /// In: the vCPU that is interrupted.
    pub vcpu: u32,
    /// Out: the port.
    pub port: u32,
}

/// Closes a port of the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnClose {
    /// In: the port.
    pub port: u32,
}

/// Raises an event at the other end of a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnSend {
    /// In: the caller's port.
    pub port: u32,
}

/// Tells what a port is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnStatus {
    /// In: whose port.
    pub dom: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// In: the port.
    pub port: u32,
    /// Out: `EVTCHNSTAT_*`.
    pub status: u32,
    /// Out: the vCPU that receives its events.
    pub vcpu: u32,
    /// Out: a union that `status` selects; see the methods.
    pub u: [u32; 2],
}

impl EvtchnStatus {
    /// The domain that may bind (unbound) or that is connected (interdomain).
    pub const fn peer(&self) -> u16 {
        self.u[0] as u16
    }

    /// The peer's port, if interdomain.
    pub const fn peer_port(&self) -> u32 {
        self.u[1]
    }

    /// The physical or virtual interrupt's number.
    pub const fn irq(&self) -> u32 {
        self.u[0]
    }

    /// Answers that the port waits for `dom`.
    pub const fn set_unbound(&mut self, dom: u16) {
        self.status = EVTCHNSTAT_unbound;
        self.u = [dom as u32, 0];
    }

    /// Answers that the port is connected with `port` of `dom`.
    pub const fn set_interdomain(&mut self, dom: u16, port: u32) {
        self.status = EVTCHNSTAT_interdomain;
        self.u = [dom as u32, port];
    }

    /// Answers that the port carries a physical interrupt.
    pub const fn set_pirq(&mut self, pirq: u32) {
        self.status = EVTCHNSTAT_pirq;
        self.u = [pirq, 0];
    }

    /// Answers that the port carries a virtual interrupt.
    pub const fn set_virq(&mut self, virq: u32) {
        self.status = EVTCHNSTAT_virq;
        self.u = [virq, 0];
    }
}

/// Chooses the vCPU that receives a port's events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnBindVcpu {
    /// In: the port.
    pub port: u32,
    /// In: the vCPU.
    pub vcpu: u32,
}

/// Unmasks a port and delivers what is pending.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnUnmask {
    /// In: the port.
    pub port: u32,
}

/// Closes all ports of a domain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnReset {
    /// In: the domain.
    pub dom: u16,
}

/// Switches a vCPU to the FIFO ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnInitControl {
    /// In: frame of its control block.
    pub control_gfn: u64,
    /// In: where in the frame.
    pub offset: u32,
    /// In: the vCPU.
    pub vcpu: u32,
    /// Out: the width of the link field that the hypervisor uses.
    pub link_bits: u8,
    /// Padding.
    pub _pad: [u8; 7],
}

/// Adds a page to the event array of the FIFO ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnExpandArray {
    /// In: its frame.
    pub array_gfn: u64,
}

/// Sets a port's priority in the FIFO ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnSetPriority {
    /// In: the port.
    pub port: u32,
    /// In: `EVTCHN_FIFO_PRIORITY_*` or any number between.
    pub priority: u32,
}

/// The argument of the old `__HYPERVISOR_event_channel_op_compat`: an operation with its structure in line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnOp {
    /// `EVTCHNOP_*`.
    pub cmd: u32,
    /// A union of the operations' structures.
    pub u: [u32; 6],
}

impl EvtchnOp {
    /// Reads the union as the structure of an operation.
    pub fn argument<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.u.as_bytes())
            .ok()
            .map(|(value, _)| value)
    }

    /// Writes an operation's structure to the start of the union; says whether it fits.
    pub fn set_argument<T: IntoBytes + Immutable>(&mut self, value: &T) -> bool {
        value.write_to_prefix(self.u.as_mut_bytes()).is_ok()
    }
}

/// The control block of one vCPU in the FIFO ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EvtchnFifoControlBlock {
    /// Bit `n`: the queue of priority `n` is not empty.
    pub ready: u32,
    /// Padding.
    pub _rsvd: u32,
    /// First port in the queue of each priority.
    pub head: [u32; EVTCHN_FIFO_MAX_QUEUES],
}
