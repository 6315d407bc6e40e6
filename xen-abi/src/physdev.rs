//! Physical interrupts and PCI devices as guests see them, of `physdev.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u64, "Operation of `__HYPERVISOR_physdev_op`." {
        PHYSDEVOP_IRQ_UNMASK_NOTIFY = 4,
        PHYSDEVOP_irq_status_query = 5,
        PHYSDEVOP_set_iopl = 6,
        PHYSDEVOP_set_iobitmap = 7,
        PHYSDEVOP_apic_read = 8,
        PHYSDEVOP_apic_write = 9,
        PHYSDEVOP_alloc_irq_vector = 10,
        PHYSDEVOP_free_irq_vector = 11,
        PHYSDEVOP_eoi = 12,
        PHYSDEVOP_map_pirq = 13,
        PHYSDEVOP_unmap_pirq = 14,
        PHYSDEVOP_manage_pci_add = 15,
        PHYSDEVOP_manage_pci_remove = 16,
        PHYSDEVOP_pirq_eoi_gmfn_v1 = 17,
        PHYSDEVOP_restore_msi = 19,
        PHYSDEVOP_manage_pci_add_ext = 20,
        PHYSDEVOP_setup_gsi = 21,
        PHYSDEVOP_get_free_pirq = 23,
        PHYSDEVOP_pci_mmcfg_reserved = 24,
        PHYSDEVOP_pci_device_add = 25,
        PHYSDEVOP_pci_device_remove = 26,
        PHYSDEVOP_restore_msi_ext = 27,
        PHYSDEVOP_pirq_eoi_gmfn_v2 = 28,
        PHYSDEVOP_dbgp_op = 29,
        PHYSDEVOP_prepare_msix = 30,
        PHYSDEVOP_release_msix = 31,
    }

    u32, "Bit of [`PhysdevIrqStatusQuery::flags`]." {
        /// The guest must end the interrupt by [`PHYSDEVOP_eoi`].
        XENIRQSTAT_needs_eoi = 1 << 0,
        /// Other guests share the interrupt.
        XENIRQSTAT_shared = 1 << 1,
    }

    i32, "[`PhysdevMapPirq::type`](PhysdevMapPirq)." {
        MAP_PIRQ_TYPE_MSI = 0,
        MAP_PIRQ_TYPE_GSI = 1,
        MAP_PIRQ_TYPE_UNKNOWN = 2,
        MAP_PIRQ_TYPE_MSI_SEG = 3,
        MAP_PIRQ_TYPE_MULTI_MSI = 4,
    }

    u32, "Bit of [`PhysdevPciMmcfgReserved::flags`]." {
        XEN_PCI_MMCFG_RESERVED = 1,
    }

    u32, "Bit of [`PhysdevPciDeviceAdd::flags`]." {
        XEN_PCI_DEV_EXTFN = 1,
        XEN_PCI_DEV_VIRTFN = 2,
        XEN_PCI_DEV_PXM = 4,
    }

    u8, "[`PhysdevDbgpOp::op`]." {
        PHYSDEVOP_DBGP_RESET_PREPARE = 1,
        PHYSDEVOP_DBGP_RESET_DONE = 2,
    }

    u8, "[`PhysdevDbgpOp::bus`]." {
        PHYSDEVOP_DBGP_BUS_UNKNOWN = 0,
        PHYSDEVOP_DBGP_BUS_PCI = 1,
    }
}

/// Ends a physical interrupt.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevEoi {
    /// The interrupt.
    pub irq: u32,
}

/// Registers a page of bits that say which interrupts need an end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevPirqEoiGmfn {
    /// Its frame.
    pub gmfn: u64,
}

/// Asks how an interrupt must be handled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevIrqStatusQuery {
    /// In: the interrupt.
    pub irq: u32,
    /// Out: `XENIRQSTAT_*`.
    pub flags: u32,
}

/// Sets the I/O privilege level of a paravirtual guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevSetIopl {
    /// The level.
    pub iopl: u32,
}

/// Sets the I/O bitmap of a paravirtual guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevSetIobitmap {
    /// Handle of its bytes.
    pub bitmap: u64,
    /// Number of ports that it covers.
    pub nr_ports: u32,
    /// Padding.
    pub _pad0: [u8; 4],
}

/// Reads or writes a register of an I/O APIC.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevApic {
    /// The I/O APIC's address.
    pub apic_physbase: u64,
    /// The register.
    pub reg: u32,
    /// Its value.
    pub value: u32,
}

/// Allocates or frees a vector.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevIrq {
    /// The interrupt.
    pub irq: u32,
    /// The vector.
    pub vector: u32,
}

/// Makes a hardware interrupt available under a number of the guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevMapPirq {
    /// In: the domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// In: `MAP_PIRQ_TYPE_*`. For a multi-message MSI also out.
    pub r#type: i32,
    /// In: the GSI, or negative. For a multi-message MSI, out.
    pub index: i32,
    /// In: the wanted number, or negative. Out: the number.
    pub pirq: i32,
    /// In: the device's bus, with the segment in the high half.
    pub bus: i32,
    /// In: the device and function.
    pub devfn: i32,
    /// In: the MSI-X entry, or the number of messages.
    pub entry_nr: i32,
    /// Padding.
    pub _pad1: [u8; 4],
    /// In: address of the MSI-X table; 0 for MSI.
    pub table_base: u64,
}

/// Takes back what [`PhysdevMapPirq`] made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevUnmapPirq {
    /// The domain.
    pub domid: u16,
    /// Padding.
    pub _pad0: [u8; 2],
    /// The number.
    pub pirq: i32,
}

/// Reports that a device came or went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevManagePci {
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
}

/// Writes a device's interrupt messages again after it lost them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevRestoreMsi {
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
}

/// The physical function behind a virtual one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevPhysfn {
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
}

/// Reports that a device came, with more detail.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevManagePciExt {
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
    /// Padding.
    pub _pad0: [u8; 2],
    /// Not zero: an extended function.
    pub is_extfn: u32,
    /// Not zero: a virtual function.
    pub is_virtfn: u32,
    /// The physical function, if virtual.
    pub physfn: PhysdevPhysfn,
    /// Padding.
    pub _pad1: [u8; 2],
}

/// Sets trigger mode and polarity of an interrupt line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevSetupGsi {
    /// The line.
    pub gsi: i32,
    /// 0 edge, 1 level.
    pub triggering: u8,
    /// 0 active high, 1 active low.
    pub polarity: u8,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Asks for a free interrupt number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevGetFreePirq {
    /// In: `MAP_PIRQ_TYPE_*`.
    pub r#type: i32,
    /// Out: the number.
    pub pirq: u32,
}

/// Reports whether the firmware reserves a range of PCI configuration space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevPciMmcfgReserved {
    /// Its address.
    pub address: u64,
    /// Its PCI segment.
    pub segment: u16,
    /// Its first bus.
    pub start_bus: u8,
    /// Its last bus.
    pub end_bus: u8,
    /// [`XEN_PCI_MMCFG_RESERVED`].
    pub flags: u32,
}

/// Reports that a device came, in any segment. Optional words may follow, as `flags` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevPciDeviceAdd {
    /// Its segment.
    pub seg: u16,
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
    /// `XEN_PCI_DEV_*`.
    pub flags: u32,
    /// The physical function, if virtual.
    pub physfn: PhysdevPhysfn,
    /// Padding.
    pub _pad0: [u8; 2],
}

/// Names a device in any segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevPciDevice {
    /// Its segment.
    pub seg: u16,
    /// Its bus.
    pub bus: u8,
    /// Its device and function.
    pub devfn: u8,
}

/// Announces the reset of a controller that may carry a debug port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PhysdevDbgpOp {
    /// `PHYSDEVOP_DBGP_RESET_*`.
    pub op: u8,
    /// `PHYSDEVOP_DBGP_BUS_*`.
    pub bus: u8,
    /// The controller, if on PCI.
    pub pci: PhysdevPciDevice,
}
