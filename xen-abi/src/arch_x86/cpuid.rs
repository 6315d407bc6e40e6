//! The CPUID leaves by which a guest recognizes Xen, of `arch-x86/cpuid.h`.

consts! {
    u32, "First leaf of the hypervisor's range; the leaves may be moved up in steps of 0x100." {
        XEN_CPUID_FIRST_LEAF = 0x4000_0000,
    }

    u32, "Part of the signature that leaf 0 returns; the three spell XenVMMXenVMM." {
        XEN_CPUID_SIGNATURE_EBX = 0x566e_6558,
        XEN_CPUID_SIGNATURE_ECX = 0x6558_4d4d,
        XEN_CPUID_SIGNATURE_EDX = 0x4d4d_566e,
    }

    u32, "Bit of ECX of leaf 2." {
        /// A page-table update can preserve the accessed and dirty bits.
        XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD = 1 << 0,
    }

    u32, "Bit of EAX of leaf 4, what an HVM guest may rely on." {
        /// Accesses to the local APIC's page do not exit.
        XEN_HVM_CPUID_APIC_ACCESS_VIRT = 1 << 0,
        /// Accesses to the x2APIC's registers do not exit.
        XEN_HVM_CPUID_X2APIC_VIRT = 1 << 1,
        /// Mapped grants are reachable by the guest's devices.
        XEN_HVM_CPUID_IOMMU_MAPPINGS = 1 << 2,
        /// EBX is the vCPU's id.
        XEN_HVM_CPUID_VCPU_ID_PRESENT = 1 << 3,
        /// ECX is the domain's id.
        XEN_HVM_CPUID_DOMID_PRESENT = 1 << 4,
        /// Interrupt messages carry 15 bits of destination id.
        XEN_HVM_CPUID_EXT_DEST_ID = 1 << 5,
        /// Per-vCPU upcall vectors work together with physical interrupts bound to event channels.
        XEN_HVM_CPUID_UPCALL_VECTOR = 1 << 6,
    }

    u32, "Bits of EBX of leaf 5: the width of a machine address." {
        XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK = 0xff,
    }

    u32, "Highest leaf, relative to the first." {
        XEN_CPUID_MAX_NUM_LEAVES = 5,
    }
}

/// The leaf with number `index` of the range at its usual place.
pub const fn xen_cpuid_leaf(index: u32) -> u32 {
    XEN_CPUID_FIRST_LEAF + index
}
