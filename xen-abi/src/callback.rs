//! Entry points that a paravirtual kernel registers, of `callback.h`; HVM guests use
//! [`HVM_PARAM_CALLBACK_IRQ`](crate::hvm::params::HVM_PARAM_CALLBACK_IRQ) instead.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_callback_op`." {
        CALLBACKOP_register = 0,
        CALLBACKOP_unregister = 1,
    }

    u16, "Type of an entry point." {
        CALLBACKTYPE_event = 0,
        CALLBACKTYPE_failsafe = 1,
        CALLBACKTYPE_syscall = 2,
        CALLBACKTYPE_sysenter_deprecated = 3,
        CALLBACKTYPE_nmi = 4,
        CALLBACKTYPE_sysenter = 5,
        CALLBACKTYPE_syscall32 = 7,
    }

    u16, "Bit of [`CallbackRegister::flags`]: events are masked on entry." {
        CALLBACKF_mask_events = 1 << 0,
    }
}

/// Registers an entry point.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CallbackRegister {
    /// `CALLBACKTYPE_*`.
    pub r#type: u16,
    /// [`CALLBACKF_mask_events`].
    pub flags: u16,
    /// Padding.
    pub _pad0: [u8; 4],
    /// Its address.
    pub address: u64,
}

/// Removes an entry point.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CallbackUnregister {
    /// `CALLBACKTYPE_*`.
    pub r#type: u16,
    /// Padding.
    pub _unused: u16,
}
