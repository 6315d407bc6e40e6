//! Grants, by which a domain lets another use single pages of its memory, of `grant_table.h`: the entries of the table
//! that the granting domain writes, and the operations on them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

consts! {
    u32, "Entry of the grant table with a fixed use." {
        /// How many are reserved at the table's start.
        GNTTAB_NR_RESERVED_ENTRIES = 8,
        /// The console ring.
        GNTTAB_RESERVED_CONSOLE = 0,
        /// The xenstore ring.
        GNTTAB_RESERVED_XENSTORE = 1,
    }

    u16, "Type or flag of a grant entry." {
        /// Type: the entry grants nothing.
        GTF_invalid = 0,
        /// Type: the domain may map or copy the frame.
        GTF_permit_access = 1,
        /// Type: the domain may transfer a page into this entry.
        GTF_accept_transfer = 2,
        /// Type: the entry passes on a grant of a third domain.
        GTF_transitive = 3,
        /// The bits that hold the type.
        GTF_type_mask = 3,
        /// By the granter: no writes.
        GTF_readonly = 1 << 2,
        /// By the hypervisor: the grant is in use for reading.
        GTF_reading = 1 << 3,
        /// By the hypervisor: the grant is in use for writing.
        GTF_writing = 1 << 4,
        /// By the granter: cache attribute.
        GTF_PWT = 1 << 5,
        /// By the granter: cache attribute.
        GTF_PCD = 1 << 6,
        /// By the granter: cache attribute.
        GTF_PAT = 1 << 7,
        /// By the granter: the grant covers a part of the page (version 2).
        GTF_sub_page = 1 << 8,
        /// By the hypervisor: a page is on its way into this entry.
        GTF_transfer_committed = 1 << 2,
        /// By the hypervisor: the page has arrived.
        GTF_transfer_completed = 1 << 3,
    }

    u64, "Operation of `__HYPERVISOR_grant_table_op`." {
        GNTTABOP_map_grant_ref = 0,
        GNTTABOP_unmap_grant_ref = 1,
        GNTTABOP_setup_table = 2,
        GNTTABOP_dump_table = 3,
        GNTTABOP_transfer = 4,
        GNTTABOP_copy = 5,
        GNTTABOP_query_size = 6,
        GNTTABOP_unmap_and_replace = 7,
        GNTTABOP_set_version = 8,
        GNTTABOP_get_status_frames = 9,
        GNTTABOP_get_version = 10,
        GNTTABOP_swap_grant_ref = 11,
        GNTTABOP_cache_flush = 12,
    }

    u16, "Bit of [`GnttabCopy::flags`]: which ends are grant references instead of the caller's own frames." {
        GNTCOPY_source_gref = 1 << 0,
        GNTCOPY_dest_gref = 1 << 1,
    }

    u32, "Bit of [`GnttabCacheFlush::op`]." {
        GNTTAB_CACHE_CLEAN = 1 << 0,
        GNTTAB_CACHE_INVAL = 1 << 1,
        GNTTAB_CACHE_SOURCE_GREF = 1 << 31,
    }

    u32, "Bit of [`GnttabMapGrantRef::flags`]." {
        /// Map for the caller's devices.
        GNTMAP_device_map = 1 << 0,
        /// Map for the caller's processors.
        GNTMAP_host_map = 1 << 1,
        /// No writes.
        GNTMAP_readonly = 1 << 2,
        /// Accessible from user mode (paravirtual guests only).
        GNTMAP_application_map = 1 << 3,
        /// `host_addr` names a page-table entry (paravirtual guests only).
        GNTMAP_contains_pte = 1 << 4,
        /// Bits that the caller may use as it likes.
        GNTMAP_guest_avail_mask = u32::MAX << 16,
    }

    i16, "Outcome of a grant operation, in its `status` field." {
        /// Done.
        GNTST_okay = 0,
        /// Nothing more precise is known.
        GNTST_general_error = -1,
        /// No such domain.
        GNTST_bad_domain = -2,
        /// The reference is out of range or not granted to the caller.
        GNTST_bad_gntref = -3,
        /// No such mapping.
        GNTST_bad_handle = -4,
        /// The host address cannot be mapped or unmapped.
        GNTST_bad_virt_addr = -5,
        /// The device address cannot be unmapped.
        GNTST_bad_dev_addr = -6,
        /// The IOMMU has no room.
        GNTST_no_device_space = -7,
        /// The grant does not allow it.
        GNTST_permission_denied = -8,
        /// The page is of the wrong kind.
        GNTST_bad_page = -9,
        /// The copy crosses a page boundary.
        GNTST_bad_copy_arg = -10,
        /// The frame is beyond what the caller can use.
        GNTST_address_too_big = -11,
        /// Not now; try again.
        GNTST_eagain = -12,
        /// Out of space for the bookkeeping.
        GNTST_no_space = -13,
    }
}

/// An entry of a version 1 grant table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryV1 {
    /// `GTF_*`; written last.
    pub flags: u16,
    /// Who is granted.
    pub domid: u16,
    /// The granted frame.
    pub frame: u32,
}

/// What every version 2 entry starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryHeader {
    /// `GTF_*`; written last.
    pub flags: u16,
    /// Who is granted.
    pub domid: u16,
}

/// An entry of a version 2 grant table, of any type.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryV2 {
    /// Says what `body` is.
    pub hdr: GrantEntryHeader,
    /// A union; see the methods.
    pub body: [u32; 3],
}

impl GrantEntryV2 {
    /// The entry as a grant of a whole page.
    pub const fn full_page(self) -> GrantEntryV2FullPage {
        transmute!(self)
    }

    /// The entry as a grant of a part of a page.
    pub const fn sub_page(self) -> GrantEntryV2SubPage {
        transmute!(self)
    }

    /// The entry as a grant that is passed on.
    pub const fn transitive(self) -> GrantEntryV2Transitive {
        transmute!(self)
    }
}

impl From<GrantEntryV2FullPage> for GrantEntryV2 {
    fn from(entry: GrantEntryV2FullPage) -> Self {
        transmute!(entry)
    }
}

impl From<GrantEntryV2SubPage> for GrantEntryV2 {
    fn from(entry: GrantEntryV2SubPage) -> Self {
        transmute!(entry)
    }
}

impl From<GrantEntryV2Transitive> for GrantEntryV2 {
    fn from(entry: GrantEntryV2Transitive) -> Self {
        transmute!(entry)
    }
}

/// A version 2 entry of type [`GTF_permit_access`] without [`GTF_sub_page`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryV2FullPage {
    /// Flags and domain.
    pub hdr: GrantEntryHeader,
    /// Padding.
    pub pad0: u32,
    /// The granted frame.
    pub frame: u64,
}

/// A version 2 entry of type [`GTF_permit_access`] with [`GTF_sub_page`]; it can be copied but not mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryV2SubPage {
    /// Flags and domain.
    pub hdr: GrantEntryHeader,
    /// First granted byte of the page.
    pub page_off: u16,
    /// Number of granted bytes.
    pub length: u16,
    /// The granted frame.
    pub frame: u64,
}

/// A version 2 entry of type [`GTF_transitive`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GrantEntryV2Transitive {
    /// Flags and domain.
    pub hdr: GrantEntryHeader,
    /// The domain whose grant it passes on.
    pub trans_domid: u16,
    /// Padding.
    pub pad0: u16,
    /// That domain's grant reference.
    pub gref: u32,
    /// Padding.
    pub _pad1: u32,
}

/// Maps a granted page.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabMapGrantRef {
    /// In: guest-physical address to map at.
    pub host_addr: u64,
    /// In: `GNTMAP_*`.
    pub flags: u32,
    /// In: the granter's reference.
    pub r#ref: u32,
    /// In: the granter.
    pub dom: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Out: names the mapping from now on.
    pub handle: u32,
    /// Out: address of the page for the caller's devices.
    pub dev_bus_addr: u64,
}

/// Takes a mapping down.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabUnmapGrantRef {
    /// In: where it was mapped; 0 if not for processors.
    pub host_addr: u64,
    /// In: its device address; 0 to leave the device mapping alone.
    pub dev_bus_addr: u64,
    /// In: the mapping.
    pub handle: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Sets the size of a domain's table and lists its frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabSetupTable {
    /// In: the domain.
    pub dom: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// In: frames that the table shall have at least.
    pub nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad1: [u8; 6],
    /// In: handle of an array of `u64`; out: the frames.
    pub frame_list: u64,
}

/// Prints a domain's table on the hypervisor's console.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabDumpTable {
    /// In: the domain.
    pub dom: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
}

/// Gives a page away to a domain that accepts it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabTransfer {
    /// In: the page.
    pub mfn: u64,
    /// In: who receives it.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// In: the receiver's entry.
    pub r#ref: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad1: [u8; 6],
}

/// One end of a [`GnttabCopy`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabCopyPtr {
    /// A grant reference (in the low half) or a frame of the caller, as the copy's flags say.
    pub u: u64,
    /// Whose memory.
    pub domid: u16,
    /// First byte in the page.
    pub offset: u16,
    /// Padding.
    pub _pad0: [u8; 4],
}

impl GnttabCopyPtr {
    /// The union as a grant reference; the upper half is not initialised by C callers.
    pub const fn gref(&self) -> u32 {
        self.u as u32
    }

    /// The union as a frame.
    pub const fn gmfn(&self) -> u64 {
        self.u
    }

    /// An end in a granted page.
    pub const fn of_grant(domid: u16, gref: u32, offset: u16) -> Self {
        Self {
            u: gref as u64,
            domid,
            offset,
            _pad0: [0; 4],
        }
    }

    /// An end in a frame of the caller's own.
    pub const fn of_frame(domid: u16, gmfn: u64, offset: u16) -> Self {
        Self {
            u: gmfn,
            domid,
            offset,
            _pad0: [0; 4],
        }
    }
}

/// Copies bytes between two pages of which either may be granted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabCopy {
    /// In: from where.
    pub source: GnttabCopyPtr,
    /// In: to where.
    pub dest: GnttabCopyPtr,
    /// In: how many bytes.
    pub len: u16,
    /// In: `GNTCOPY_*`.
    pub flags: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Tells the size of a domain's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabQuerySize {
    /// In: the domain.
    pub dom: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// Out: its frames now.
    pub nr_frames: u32,
    /// Out: how many it may have.
    pub max_nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad1: [u8; 2],
}

/// Takes a mapping down and puts the page of another address in its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabUnmapAndReplace {
    /// In: where the grant is mapped.
    pub host_addr: u64,
    /// In: address of the page that moves there.
    pub new_addr: u64,
    /// In: the mapping.
    pub handle: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Chooses the version of the caller's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabSetVersion {
    /// In: 1 or 2. Out: the version in force.
    pub version: u32,
}

/// Lists the status frames of a version 2 table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabGetStatusFrames {
    /// In: how many are wanted.
    pub nr_frames: u32,
    /// In: the domain.
    pub dom: u16,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// In: handle of an array of `u64`; out: the frames.
    pub frame_list: u64,
}

/// Tells the version of a domain's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabGetVersion {
    /// In: the domain.
    pub dom: u16,
    /// Padding.
    pub pad: u16,
    /// Out: 1 or 2.
    pub version: u32,
}

/// Swaps two entries of the caller's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabSwapGrantRef {
    /// In: one.
    pub ref_a: u32,
    /// In: the other.
    pub ref_b: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Cleans or invalidates caches over a part of a page.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct GnttabCacheFlush {
    /// In: a device address, or a grant reference (in the low half) with [`GNTTAB_CACHE_SOURCE_GREF`].
    pub a: u64,
    /// In: first byte in the page.
    pub offset: u16,
    /// In: how many bytes.
    pub length: u16,
    /// In: `GNTTAB_CACHE_*`.
    pub op: u32,
}
