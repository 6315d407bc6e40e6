//! Parameters of an HVM domain, of `hvm/params.h`, and how the callback parameter encodes the interrupt that it names.

consts! {
    u32, "Parameter number." {
        /// How events interrupt the guest; see [`CallbackVia`].
        HVM_PARAM_CALLBACK_IRQ = 0,
        /// Frame of the xenstore ring.
        HVM_PARAM_STORE_PFN = 1,
        /// The guest's port for xenstore.
        HVM_PARAM_STORE_EVTCHN = 2,
        HVM_PARAM_PAE_ENABLED = 4,
        HVM_PARAM_IOREQ_PFN = 5,
        HVM_PARAM_BUFIOREQ_PFN = 6,
        HVM_PARAM_VIRIDIAN = 9,
        HVM_PARAM_TIMER_MODE = 10,
        HVM_PARAM_HPET_ENABLED = 11,
        HVM_PARAM_IDENT_PT = 12,
        HVM_PARAM_DM_DOMAIN = 13,
        HVM_PARAM_ACPI_S_STATE = 14,
        HVM_PARAM_VM86_TSS = 15,
        HVM_PARAM_VPT_ALIGN = 16,
        /// Frame of the console ring.
        HVM_PARAM_CONSOLE_PFN = 17,
        /// The guest's port for the console.
        HVM_PARAM_CONSOLE_EVTCHN = 18,
        HVM_PARAM_ACPI_IOPORTS_LOCATION = 19,
        HVM_PARAM_MEMORY_EVENT_CR0 = 20,
        HVM_PARAM_MEMORY_EVENT_CR3 = 21,
        HVM_PARAM_MEMORY_EVENT_CR4 = 22,
        HVM_PARAM_MEMORY_EVENT_INT3 = 23,
        HVM_PARAM_NESTEDHVM = 24,
        HVM_PARAM_MEMORY_EVENT_SINGLE_STEP = 25,
        HVM_PARAM_BUFIOREQ_EVTCHN = 26,
        HVM_PARAM_PAGING_RING_PFN = 27,
        HVM_PARAM_MONITOR_RING_PFN = 28,
        HVM_PARAM_SHARING_RING_PFN = 29,
        HVM_PARAM_MEMORY_EVENT_MSR = 30,
        /// `SHUTDOWN_*` to report after a triple fault.
        HVM_PARAM_TRIPLE_FAULT_REASON = 31,
        HVM_PARAM_IOREQ_SERVER_PFN = 32,
        HVM_PARAM_NR_IOREQ_SERVER_PAGES = 33,
        HVM_PARAM_VM_GENERATION_ID_ADDR = 34,
        HVM_PARAM_ALTP2M = 35,
        HVM_PARAM_X87_FIP_WIDTH = 36,
        HVM_PARAM_VM86_TSS_SIZED = 37,
        HVM_PARAM_MCA_CAP = 38,
        /// How many there are.
        HVM_NR_PARAMS = 39,
    }

    u64, "Part of the value of [`HVM_PARAM_CALLBACK_IRQ`]." {
        /// The bits that hold the type.
        HVM_PARAM_CALLBACK_IRQ_TYPE_MASK = 0xff00_0000_0000_0000,
        /// Type, to be shifted to the top byte: an interrupt line.
        HVM_PARAM_CALLBACK_TYPE_GSI = 0,
        /// Type, to be shifted to the top byte: a PCI interrupt pin.
        HVM_PARAM_CALLBACK_TYPE_PCI_INTX = 1,
        /// Type, to be shifted to the top byte: a vector, the same on every vCPU.
        HVM_PARAM_CALLBACK_TYPE_VECTOR = 2,
    }

    u64, "Value of [`HVM_PARAM_TIMER_MODE`]." {
        HVMPTM_delay_for_missed_ticks = 0,
        HVMPTM_no_delay_for_missed_ticks = 1,
        HVMPTM_no_missed_ticks_pending = 2,
        HVMPTM_one_missed_tick_pending = 3,
    }
}

/// How events interrupt a guest: the value of [`HVM_PARAM_CALLBACK_IRQ`], decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackVia {
    /// Not at all.
    None,
    /// By an interrupt line.
    Gsi(u32),
    /// By a PCI interrupt pin.
    PciIntx {
        /// PCI segment.
        domain: u16,
        /// Bus.
        bus: u16,
        /// Device and function.
        devfn: u8,
        /// Pin: 0 is INTA.
        pin: u8,
    },
    /// By a vector, the same on every vCPU.
    Vector(u8),
}

impl CallbackVia {
    const TYPE_SHIFT: u32 = 56;

    /// Reads a parameter's value; `None` if its type is unknown or a number does not fit.
    pub fn from_param(value: u64) -> Option<Self> {
        let number = value & !HVM_PARAM_CALLBACK_IRQ_TYPE_MASK;
        match value >> Self::TYPE_SHIFT {
            HVM_PARAM_CALLBACK_TYPE_GSI if number == 0 => Some(Self::None),
            HVM_PARAM_CALLBACK_TYPE_GSI => u32::try_from(number).ok().map(Self::Gsi),
            HVM_PARAM_CALLBACK_TYPE_PCI_INTX => Some(Self::PciIntx {
                domain: (number >> 32) as u16,
                bus: (number >> 16) as u16,
                devfn: (number >> 8) as u8,
                pin: (number & 3) as u8,
            }),
            HVM_PARAM_CALLBACK_TYPE_VECTOR => Some(Self::Vector(number as u8)),
            _ => None,
        }
    }

    /// The parameter's value.
    pub fn to_param(self) -> u64 {
        let (kind, number) = match self {
            Self::None => (HVM_PARAM_CALLBACK_TYPE_GSI, 0),
            Self::Gsi(gsi) => (HVM_PARAM_CALLBACK_TYPE_GSI, u64::from(gsi)),
            Self::PciIntx {
                domain,
                bus,
                devfn,
                pin,
            } => (
                HVM_PARAM_CALLBACK_TYPE_PCI_INTX,
                u64::from(domain) << 32 | u64::from(bus) << 16 | u64::from(devfn) << 8 | u64::from(pin & 3),
            ),
            Self::Vector(vector) => (HVM_PARAM_CALLBACK_TYPE_VECTOR, u64::from(vector)),
        };
        kind << Self::TYPE_SHIFT | number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_values_round_trip() {
        for via in [
            CallbackVia::None,
            CallbackVia::Gsi(9),
            CallbackVia::PciIntx {
                domain: 1,
                bus: 2,
                devfn: 0x18,
                pin: 3,
            },
            CallbackVia::Vector(0xf3),
        ] {
            assert_eq!(CallbackVia::from_param(via.to_param()), Some(via));
        }
    }

    #[test]
    fn linux_asks_for_a_vector_like_this() {
        assert_eq!(
            CallbackVia::from_param(0x0200_0000_0000_00f3),
            Some(CallbackVia::Vector(0xf3))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(CallbackVia::from_param(0x0300_0000_0000_0001), None);
        assert_eq!(CallbackVia::from_param(0x0000_0001_0000_0000), None);
    }
}
