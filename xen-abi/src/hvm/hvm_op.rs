//! Operations for HVM guests, of `hvm/hvm_op.h`; those of Xen's toolstack and of altp2m are left out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_hvm_op`." {
        HVMOP_set_param = 0,
        HVMOP_get_param = 1,
        HVMOP_flush_tlbs = 5,
        HVMOP_pagetable_dying = 9,
        HVMOP_get_time = 10,
        HVMOP_xentrace = 11,
        HVMOP_set_mem_access = 12,
        HVMOP_get_mem_access = 13,
        HVMOP_get_mem_type = 15,
        HVMOP_set_evtchn_upcall_vector = 23,
        HVMOP_guest_request_vm_event = 24,
        HVMOP_altp2m = 25,
    }

    u16, "[`HvmGetMemType::mem_type`]." {
        HVMMEM_ram_rw = 0,
        HVMMEM_ram_ro = 1,
        HVMMEM_mmio_dm = 2,
        HVMMEM_unused = 3,
        HVMMEM_ioreq_server = 4,
    }
}

/// Sets or reads a parameter of a domain; see [`crate::hvm::params`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmParam {
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub pad: u16,
    /// `HVM_PARAM_*`.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// Hints that a page table will not be used again.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmPagetableDying {
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub pad: [u16; 3],
    /// Address of the table.
    pub gpa: u64,
}

/// Asks for the hypervisor's time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmGetTime {
    /// Out: nanoseconds.
    pub now: u64,
}

/// Adds a record to the hypervisor's trace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmXentrace {
    /// What happened.
    pub event: u16,
    /// How much of `extra` counts.
    pub extra_bytes: u16,
    /// Details.
    pub extra: [u8; 28],
}

/// Asks what a frame is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmGetMemType {
    /// In: the domain.
    pub domid: u16,
    /// Out: `HVMMEM_*`.
    pub mem_type: u16,
    /// Padding.
    pub pad: [u16; 2],
    /// In: the frame.
    pub pfn: u64,
}

/// Chooses the interrupt vector by which a vCPU learns of events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmEvtchnUpcallVector {
    /// The vCPU.
    pub vcpu: u32,
    /// The vector, at least 16.
    pub vector: u8,
    /// Padding.
    pub _pad0: [u8; 3],
}
