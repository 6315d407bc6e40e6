//! What a guest can ask about the hypervisor's version and features, of `version.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_xen_version`." {
        /// Returns major << 16 | minor.
        XENVER_version = 0,
        /// Fills a buffer of [`XEN_EXTRAVERSION_LEN`] bytes.
        XENVER_extraversion = 1,
        /// Fills a [`CompileInfo`].
        XENVER_compile_info = 2,
        /// Fills a buffer of [`XEN_CAPABILITIES_INFO_LEN`] bytes.
        XENVER_capabilities = 3,
        /// Fills a buffer of [`XEN_CHANGESET_INFO_LEN`] bytes.
        XENVER_changeset = 4,
        /// Fills a [`PlatformParameters`].
        XENVER_platform_parameters = 5,
        /// Fills a [`FeatureInfo`].
        XENVER_get_features = 6,
        /// Returns the page size.
        XENVER_pagesize = 7,
        /// Fills 16 bytes with the domain's UUID.
        XENVER_guest_handle = 8,
        /// Fills a buffer of [`XEN_COMMANDLINE_LEN`] bytes.
        XENVER_commandline = 9,
        /// Fills a [`BuildIdHeader`] and the bytes behind it; returns the length.
        XENVER_build_id = 10,
    }

    usize, "Length of a text that a version query fills." {
        XEN_EXTRAVERSION_LEN = 16,
        XEN_CAPABILITIES_INFO_LEN = 1024,
        XEN_CHANGESET_INFO_LEN = 64,
    }
}

/// Length of the hypervisor's command line as [`XENVER_commandline`] fills it; the header gives it no name.
pub const XEN_COMMANDLINE_LEN: usize = 1024;

/// How the hypervisor was built; each text is ended by NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct CompileInfo {
    /// The compiler and its version.
    pub compiler: [u8; 64],
    /// Who built it.
    pub compile_by: [u8; 16],
    /// On what machine.
    pub compile_domain: [u8; 32],
    /// When.
    pub compile_date: [u8; 32],
}

zeroed_default!(CompileInfo);

/// Where the hypervisor lives in a paravirtual guest's address space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PlatformParameters {
    /// Its first address.
    pub virt_start: u64,
}

/// Asks for 32 feature bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FeatureInfo {
    /// In: which 32.
    pub submap_idx: u32,
    /// Out: bit `n`: the feature 32 * `submap_idx` + `n` is there. See [`crate::features`].
    pub submap: u32,
}

/// The head of the answer to [`XENVER_build_id`]; the id follows. `xen_build_id` in C.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BuildIdHeader {
    /// In: bytes that the buffer holds.
    pub len: u32,
}
