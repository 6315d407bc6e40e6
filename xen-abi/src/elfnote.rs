//! Notes by which a kernel's ELF image tells its loader how it wants to start, of `elfnote.h`.

/// The owner's name in every one of these notes, without the NUL that the image has behind it.
pub const XEN_ELFNOTE_NAME: &str = "Xen";

consts! {
    u32, "Type of a note." {
        XEN_ELFNOTE_INFO = 0,
        XEN_ELFNOTE_ENTRY = 1,
        XEN_ELFNOTE_HYPERCALL_PAGE = 2,
        XEN_ELFNOTE_VIRT_BASE = 3,
        XEN_ELFNOTE_PADDR_OFFSET = 4,
        XEN_ELFNOTE_XEN_VERSION = 5,
        XEN_ELFNOTE_GUEST_OS = 6,
        XEN_ELFNOTE_GUEST_VERSION = 7,
        XEN_ELFNOTE_LOADER = 8,
        XEN_ELFNOTE_PAE_MODE = 9,
        XEN_ELFNOTE_FEATURES = 10,
        XEN_ELFNOTE_BSD_SYMTAB = 11,
        XEN_ELFNOTE_HV_START_LOW = 12,
        XEN_ELFNOTE_L1_MFN_VALID = 13,
        XEN_ELFNOTE_SUSPEND_CANCEL = 14,
        XEN_ELFNOTE_INIT_P2M = 15,
        XEN_ELFNOTE_MOD_START_PFN = 16,
        /// A word of `XENFEAT_*` bits.
        XEN_ELFNOTE_SUPPORTED_FEATURES = 17,
        /// The physical address of the 32-bit entry point: the mark of a PVH kernel.
        XEN_ELFNOTE_PHYS32_ENTRY = 18,
        /// The highest of the types that a kernel image may have.
        XEN_ELFNOTE_MAX = 18,
        XEN_ELFNOTE_CRASH_INFO = 0x100_0001,
        XEN_ELFNOTE_CRASH_REGS = 0x100_0002,
        XEN_ELFNOTE_DUMPCORE_NONE = 0x200_0000,
        XEN_ELFNOTE_DUMPCORE_HEADER = 0x200_0001,
        XEN_ELFNOTE_DUMPCORE_XEN_VERSION = 0x200_0002,
        XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION = 0x200_0003,
    }
}
