//! What a PVH guest finds at the address in EBX when it starts, of `arch-x86/hvm/start_info.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u32, "[`HvmStartInfo::magic`]." {
        XEN_HVM_START_MAGIC_VALUE = 0x336e_c578,
    }

    u32, "[`HvmMemmapTableEntry::type`](HvmMemmapTableEntry), the numbers of an E820 map." {
        XEN_HVM_MEMMAP_TYPE_RAM = 1,
        XEN_HVM_MEMMAP_TYPE_RESERVED = 2,
        XEN_HVM_MEMMAP_TYPE_ACPI = 3,
        XEN_HVM_MEMMAP_TYPE_NVS = 4,
        XEN_HVM_MEMMAP_TYPE_UNUSABLE = 5,
        XEN_HVM_MEMMAP_TYPE_DISABLED = 6,
        XEN_HVM_MEMMAP_TYPE_PMEM = 7,
    }
}

/// The root of the boot information. All addresses are guest-physical.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmStartInfo {
    /// [`XEN_HVM_START_MAGIC_VALUE`].
    pub magic: u32,
    /// 1 if the memory map is there, 0 if the structure ends before it.
    pub version: u32,
    /// `SIF_*`.
    pub flags: u32,
    /// Entries in the module list.
    pub nr_modules: u32,
    /// Address of an array of [`HvmModlistEntry`].
    pub modlist_paddr: u64,
    /// Address of the command line, ended by NUL; 0 if there is none.
    pub cmdline_paddr: u64,
    /// Address of the ACPI root pointer; 0 if there is none.
    pub rsdp_paddr: u64,
    /// Address of an array of [`HvmMemmapTableEntry`].
    pub memmap_paddr: u64,
    /// Entries in the memory map.
    pub memmap_entries: u32,
    /// Zero.
    pub reserved: u32,
}

/// A module that was loaded with the kernel; the first is the initial RAM disk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmModlistEntry {
    /// Address.
    pub paddr: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address of its command line; 0 if there is none.
    pub cmdline_paddr: u64,
    /// Zero.
    pub reserved: u64,
}

/// A range of the memory map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HvmMemmapTableEntry {
    /// First address.
    pub addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// `XEN_HVM_MEMMAP_TYPE_*`.
    pub r#type: u32,
    /// Zero.
    pub reserved: u32,
}
