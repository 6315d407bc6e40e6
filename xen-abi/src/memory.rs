//! Operations on a domain's physical memory, of `memory.h`: reservations, the physmap, the memory map, resources.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_memory_op`; bits above the low six carry the progress of a continued call." {
        XENMEM_increase_reservation = 0,
        XENMEM_decrease_reservation = 1,
        XENMEM_maximum_ram_page = 2,
        XENMEM_current_reservation = 3,
        XENMEM_maximum_reservation = 4,
        XENMEM_machphys_mfn_list = 5,
        XENMEM_populate_physmap = 6,
        XENMEM_add_to_physmap = 7,
        XENMEM_memory_map = 9,
        XENMEM_machine_memory_map = 10,
        XENMEM_exchange = 11,
        XENMEM_machphys_mapping = 12,
        XENMEM_set_memory_map = 13,
        XENMEM_maximum_gpfn = 14,
        XENMEM_remove_from_physmap = 15,
        XENMEM_set_pod_target = 16,
        XENMEM_get_pod_target = 17,
        XENMEM_get_sharing_freed_pages = 18,
        XENMEM_get_sharing_shared_pages = 19,
        XENMEM_paging_op = 20,
        XENMEM_access_op = 21,
        XENMEM_sharing_op = 22,
        XENMEM_add_to_physmap_batch = 23,
        XENMEM_claim_pages = 24,
        XENMEM_machphys_compat_mfn_list = 25,
        XENMEM_get_vnumainfo = 26,
        XENMEM_reserved_device_memory_map = 27,
        XENMEM_acquire_resource = 28,
    }

    u32, "Bit of [`MemoryReservation::mem_flags`]; the low byte limits the address width, the next names a node plus one." {
        XENMEMF_populate_on_demand = 1 << 16,
        XENMEMF_exact_node_request = 1 << 17,
        XENMEMF_vnode = 1 << 18,
    }

    u32, "What [`AddToPhysmap`] puts into the physmap." {
        XENMAPSPACE_shared_info = 0,
        XENMAPSPACE_grant_table = 1,
        XENMAPSPACE_gmfn = 2,
        XENMAPSPACE_gmfn_range = 3,
        XENMAPSPACE_gmfn_foreign = 4,
        XENMAPSPACE_dev_mmio = 5,
    }

    u64, "Bit of [`AddToPhysmap::idx`]: status frames instead of the grant table's own." {
        XENMAPIDX_grant_table_status = 0x8000_0000,
    }

    u16, "[`MemAcquireResource::type`](MemAcquireResource)." {
        XENMEM_resource_ioreq_server = 0,
        XENMEM_resource_grant_table = 1,
        XENMEM_resource_vmtrace_buf = 2,
    }

    u32, "[`MemAcquireResource::id`] of a grant table." {
        XENMEM_resource_grant_table_id_shared = 0,
        XENMEM_resource_grant_table_id_status = 1,
    }
}

/// [`MemoryReservation::mem_flags`] that limit addresses to so many bits.
pub const fn xenmemf_address_bits(bits: u8) -> u32 {
    bits as u32
}

/// The limit of address bits in [`MemoryReservation::mem_flags`]; 0 for none.
pub const fn xenmemf_get_address_bits(mem_flags: u32) -> u32 {
    mem_flags & 0xff
}

/// [`MemoryReservation::mem_flags`] that prefer a NUMA node.
pub const fn xenmemf_node(node: u8) -> u32 {
    (node as u32 + 1) << 8
}

/// The preferred NUMA node in [`MemoryReservation::mem_flags`]; 255 for none.
pub const fn xenmemf_get_node(mem_flags: u32) -> u32 {
    (mem_flags >> 8).wrapping_sub(1) & 0xff
}

/// Pages to add to, or take from, a domain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MemoryReservation {
    /// Handle of an array of frames, one per extent.
    pub extent_start: u64,
    /// Its length.
    pub nr_extents: u64,
    /// Binary logarithm of the pages in an extent.
    pub extent_order: u32,
    /// `XENMEMF_*`.
    pub mem_flags: u32,
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 6],
}

/// Pages to give back in exchange for others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MemoryExchange {
    /// What is given.
    pub r#in: MemoryReservation,
    /// What is wanted.
    pub out: MemoryReservation,
    /// Extents exchanged so far; 0 at first.
    pub nr_exchanged: u64,
}

/// The domain that a query is about.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MemoryDomain {
    /// Its id.
    pub domid: u16,
}

/// Puts a page at a place of a domain's guest-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct AddToPhysmap {
    /// The domain.
    pub domid: u16,
    /// Number of pages, for [`XENMAPSPACE_gmfn_range`].
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    /// Which page of the space.
    pub idx: u64,
    /// Where it goes.
    pub gpfn: u64,
}

/// Puts several pages at places of a domain's guest-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct AddToPhysmapBatch {
    /// The domain.
    pub domid: u16,
    /// `XENMAPSPACE_*`.
    pub space: u16,
    /// Number of pages.
    pub size: u16,
    /// Whose pages, for [`XENMAPSPACE_gmfn_foreign`]; 0 otherwise.
    pub foreign_domid: u16,
    /// Handle of an array of `u64`: which pages of the space.
    pub idxs: u64,
    /// Handle of an array of `u64`: where they go.
    pub gpfns: u64,
    /// Handle of an array of `i32`: the outcome of each.
    pub errs: u64,
}

/// Takes a page out of a domain's guest-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct RemoveFromPhysmap {
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 6],
    /// The frame.
    pub gpfn: u64,
}

/// Asks for the memory map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MemoryMap {
    /// In: entries that the buffer holds. Out: entries written.
    pub nr_entries: u32,
    /// Padding.
    pub _pad0: [u8; 4],
    /// Handle of an array of [`E820Entry`].
    pub buffer: u64,
}

/// An entry of the memory map, as the firmware call E820 gives it.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct E820Entry {
    /// First address.
    pub addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// `XEN_HVM_MEMMAP_TYPE_*`.
    pub r#type: u32,
}

/// Sets the memory map that a domain will be told.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ForeignMemoryMap {
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 6],
    /// Its map.
    pub map: MemoryMap,
}

/// Sets or reads the target of a domain that is populated on demand.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PodTarget {
    /// In: pages that it shall have.
    pub target_pages: u64,
    /// Out: pages that it has.
    pub tot_pages: u64,
    /// Out: pages in its cache.
    pub pod_cache_pages: u64,
    /// Out: entries not populated yet.
    pub pod_entries: u64,
    /// In: the domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 6],
}

/// A range that a device needs mapped at its own address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ReservedDeviceMemory {
    /// First frame.
    pub start_pfn: u64,
    /// Number of pages.
    pub nr_pages: u64,
}

/// Maps frames that belong to a domain but not to its guest-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MemAcquireResource {
    /// In: the domain.
    pub domid: u16,
    /// In: `XENMEM_resource_*`.
    pub r#type: u16,
    /// In: which of that type.
    pub id: u32,
    /// In: how many frames. Out, if 0 came in: how many there are.
    pub nr_frames: u32,
    /// Zero.
    pub pad: u32,
    /// In: the first frame.
    pub frame: u64,
    /// In: handle of an array of `u64`, where the caller wants the frames.
    pub frame_list: u64,
}

/// A range of memory and the virtual NUMA node that it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Vmemrange {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// None defined.
    pub flags: u32,
    /// The node.
    pub nid: u32,
}

/// Asks for a domain's virtual NUMA topology.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VnumaTopologyInfo {
    /// In: the domain.
    pub domid: u16,
    /// Zero.
    pub pad: u16,
    /// In: nodes that the arrays hold. Out: nodes.
    pub nr_vnodes: u32,
    /// The same for vCPUs.
    pub nr_vcpus: u32,
    /// The same for ranges.
    pub nr_vmemranges: u32,
    /// Handle of an array of `u32`: distances between nodes.
    pub vdistance: u64,
    /// Handle of an array of `u32`: each vCPU's node.
    pub vcpu_to_vnode: u64,
    /// Handle of an array of [`Vmemrange`].
    pub vmemrange: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_map_entry_has_no_padding() {
        assert_eq!(size_of::<E820Entry>(), 20);
    }
}
