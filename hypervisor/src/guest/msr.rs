//! Model-specific registers of guests: an allow-list. What is not on it costs the guest a #GP.
//!
//! Registers that the processor holds per vCPU (EFER, SYSCALL, FS/GS bases, PAT, SYSENTER …) are the backend's
//! ([`VirtualCpu::read_msr`](crate::virt::VirtualCpu::read_msr)); ask it first, and [`VcpuMachine`] when it answers `None`.
//!
//! Listed is what the CPUID policy promises and what kernels touch without being ready for a fault: Linux reads, on AMD families 17h and 19h,
//! HWCR (is the counter's rate fixed?), NB_CFG, SYSCFG, TOP_MEM and MMIO_CONF_BASE unguarded, and sets LFENCE serializing in DE_CFG. (Intel
//! SDM 4; AMD APM 2, appendix A; the PPR of family 17h.)

mod mtrr;

use super::{
    VcpuMachine,
    apic::{Ipi, Time},
};
use crate::memory::{GuestAddress, PAGE_SIZE};
use mtrr::MemoryTypes;

/// The register into which a guest writes the address of its hypercall page; CPUID says its number.
pub const HYPERCALL_PAGE: u32 = 0x4000_0000;

const TSC: u32 = 0x10;
const PLATFORM_ID: u32 = 0x17;
const APIC_BASE: u32 = 0x1b;
const UPDATE_TRIGGER: u32 = 0x79;
const PATCH_LEVEL: u32 = 0x8b;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MISC_ENABLE: u32 = 0x1a0;
const DEBUG_CONTROL: u32 = 0x1d9;
const LAST_BRANCH_FROM: u32 = 0x1db;
const LAST_INTERRUPT_TO: u32 = 0x1de;
const TSC_DEADLINE: u32 = 0x6e0;
const FIRST_X2APIC: u32 = 0x800;
const LAST_X2APIC: u32 = 0x8ff;
const TSC_AUX: u32 = 0xc000_0103;
const SYSTEM_CONFIGURATION: u32 = 0xc001_0010;
const HARDWARE_CONFIGURATION: u32 = 0xc001_0015;
const FIRST_IO_RANGE: u32 = 0xc001_0016;
const TOP_OF_MEMORY_2: u32 = 0xc001_001d;
const NORTHBRIDGE_CONFIGURATION: u32 = 0xc001_001f;
const PATCH_LOADER: u32 = 0xc001_0020;
const INTERRUPT_PENDING: u32 = 0xc001_0055;
const MMIO_CONFIGURATION_BASE: u32 = 0xc001_0058;
const VM_CONTROL: u32 = 0xc001_0114;
const DECODE_CONFIGURATION: u32 = 0xc001_1029;

/// MISC_ENABLE: fast strings; no branch trace store, no PEBS.
const MISC_ENABLE_VALUE: u64 = 1 << 0 | 1 << 11 | 1 << 12;
/// HWCR: the counter counts at the rate of P0.
const HWCR_VALUE: u64 = 1 << 24;
/// VM_CR: SVM is disabled, and that is locked.
const VM_CONTROL_VALUE: u64 = 1 << 3 | 1 << 4;
/// DE_CFG: LFENCE is serializing.
const DECODE_VALUE: u64 = 1 << 1;

/// What a write asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    Done,
    /// The guest gets #GP.
    Fault,
    /// Fill the page at this guest-physical address with the hypercall stubs.
    HypercallPage(GuestAddress),
    /// The offset of the time-stamp counter changed: hand [`VcpuMachine::tsc_offset`] to the backend.
    TscOffset,
    /// Deliver an interrupt message to the domain's vCPUs ([`super::apic::Ipi`]). The APIC's deadline may have changed too.
    Send(Ipi),
    /// Something of the local APIC changed: its deadline, its pending interrupts or its mode.
    Apic,
}

/// The registers kept here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// TSC_AUX, where the backend does not keep it. RDTSCP and RDPID read the processor's own.
    tsc_aux: u64,
    memory_types: MemoryTypes,
}

impl VcpuMachine {
    /// RDMSR; `None` costs the guest a #GP. `time` is now.
    pub fn read_msr(&self, msr: u32, time: Time) -> Option<u64> {
        match msr {
            TSC => Some(time.guest_tsc),
            APIC_BASE => Some(self.apic.base()),
            TSC_DEADLINE => Some(self.apic.tsc_deadline()),
            FIRST_X2APIC..=LAST_X2APIC => self.apic.read_x2apic(msr, time).ok(),
            TSC_AUX => Some(self.registers.tsc_aux),
            MISC_ENABLE => Some(MISC_ENABLE_VALUE),
            HARDWARE_CONFIGURATION => Some(HWCR_VALUE),
            VM_CONTROL => Some(VM_CONTROL_VALUE),
            DECODE_CONFIGURATION => Some(DECODE_VALUE),
            HYPERCALL_PAGE | PLATFORM_ID | PATCH_LEVEL | MCG_CAP | MCG_STATUS | DEBUG_CONTROL => Some(0),
            LAST_BRANCH_FROM..=LAST_INTERRUPT_TO => Some(0),
            SYSTEM_CONFIGURATION
            | NORTHBRIDGE_CONFIGURATION
            | INTERRUPT_PENDING
            | MMIO_CONFIGURATION_BASE => Some(0),
            FIRST_IO_RANGE..=TOP_OF_MEMORY_2 => Some(0),
            _ => self.registers.memory_types.read(msr),
        }
    }

    /// WRMSR. `time` is now.
    pub fn write_msr(&mut self, msr: u32, value: u64, time: Time) -> Written {
        match msr {
            TSC => {
                self.tsc_offset = self.tsc_offset.wrapping_add(value).wrapping_sub(time.guest_tsc);
                Written::TscOffset
            }
            APIC_BASE => self
                .apic
                .set_base(value)
                .map_or(Written::Fault, |()| Written::Apic),
            TSC_DEADLINE => {
                self.apic.set_tsc_deadline(value, time);
                Written::Apic
            }
            FIRST_X2APIC..=LAST_X2APIC => match self.apic.write_x2apic(msr, value, time) {
                Ok(Some(ipi)) => Written::Send(ipi),
                Ok(None) => Written::Apic,
                Err(_) => Written::Fault,
            },
            TSC_AUX if value >> 32 == 0 => {
                self.registers.tsc_aux = value;
                Written::Done
            }
            HYPERCALL_PAGE if value.is_multiple_of(PAGE_SIZE) => Written::HypercallPage(GuestAddress(value)),
            MCG_STATUS | DEBUG_CONTROL if value == 0 => Written::Done,
            // What a kernel sets here is not for it to decide, and it does not look again.
            UPDATE_TRIGGER
            | PATCH_LEVEL
            | PATCH_LOADER
            | MISC_ENABLE
            | HARDWARE_CONFIGURATION
            | DECODE_CONFIGURATION => Written::Done,
            SYSTEM_CONFIGURATION | NORTHBRIDGE_CONFIGURATION | INTERRUPT_PENDING => Written::Done,
            _ => match self.registers.memory_types.write(msr, value) {
                true => Written::Done,
                false => Written::Fault,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: Time = Time {
        nanoseconds: 1000,
        guest_tsc: 5000,
        tsc_khz: 1_000_000,
    };

    #[test]
    fn what_linux_reads_unguarded_is_there() {
        let machine = VcpuMachine::new(0);
        for msr in [
            0x10, 0x1b, 0x8b, 0xfe, 0x179, 0x17a, 0x1a0, 0x200, 0x20f, 0x250, 0x26f, 0x2ff,
        ] {
            assert!(machine.read_msr(msr, TIME).is_some(), "{msr:#x}");
        }
        for msr in [
            0xc001_0010,
            0xc001_0015,
            0xc001_001a,
            0xc001_001d,
            0xc001_001f,
            0xc001_0058,
            0xc001_1029,
            0xc000_0103,
        ] {
            assert!(machine.read_msr(msr, TIME).is_some(), "{msr:#x}");
        }
        assert_eq!(machine.read_msr(0xc001_0015, TIME), Some(1 << 24));
        assert_eq!(machine.read_msr(0xc001_1029, TIME), Some(2));
    }

    #[test]
    fn the_rest_faults() {
        let mut machine = VcpuMachine::new(0);
        for msr in [
            0,
            0x3a,
            0x3b,
            0x48,
            0x49,
            0xc1,
            0xce,
            0x10a,
            0x186,
            0x400,
            0x480,
            0x4000_0001,
            0xc001_1020,
            0xc001_0117,
            0xc001_0140,
        ] {
            assert_eq!(machine.read_msr(msr, TIME), None, "{msr:#x}");
            assert_eq!(machine.write_msr(msr, 0, TIME), Written::Fault, "{msr:#x}");
        }
        assert_eq!(
            machine.write_msr(0x179, 0, TIME),
            Written::Fault,
            "MCG_CAP is read-only"
        );
        assert_eq!(machine.write_msr(0xc000_0103, 1 << 32, TIME), Written::Fault);
    }

    #[test]
    fn the_hypercall_page_is_a_page() {
        let mut machine = VcpuMachine::new(0);
        assert_eq!(
            machine.write_msr(HYPERCALL_PAGE, 0x20_3000, TIME),
            Written::HypercallPage(GuestAddress(0x20_3000))
        );
        assert_eq!(machine.write_msr(HYPERCALL_PAGE, 0x20_3001, TIME), Written::Fault);
        assert_eq!(machine.read_msr(HYPERCALL_PAGE, TIME), Some(0));
    }

    #[test]
    fn writing_the_counter_moves_the_offset() {
        let mut machine = VcpuMachine {
            tsc_offset: 100,
            ..VcpuMachine::new(0)
        };
        // The machine's counter is at 4900.
        assert_eq!(machine.write_msr(TSC, 10, TIME), Written::TscOffset);
        assert_eq!(machine.tsc_offset.wrapping_add(4900), 10);
    }

    /// Where registers are: first and count.
    const RANGES: [(u32, u32); 6] = [
        (0, u32::MAX),
        (0, 0x400),
        (0x800, 0x100),
        (0xc000_0000, 0x200),
        (0xc001_0000, 0x2000),
        (0x6e0, 1),
    ];

    proptest! {
        #[test]
        fn nothing_panics(accesses in prop::collection::vec((any::<u32>(), any::<u64>(), any::<u64>(), 0usize..RANGES.len()), 0..100)) {
            let mut machine = VcpuMachine::new(1);
            for (msr, value, now, range) in accesses {
                let (start, count) = RANGES[range];
                let msr = start + msr % count;
                let time = Time { nanoseconds: now, guest_tsc: now.rotate_left(7), tsc_khz: now as u32 };
                machine.write_msr(msr, value, time);
                machine.read_msr(msr, time);
            }
        }
    }
}
