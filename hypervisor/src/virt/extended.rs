//! What a vCPU keeps in the processor while the hypervisor works for it, and what is exchanged only when another vCPU takes its place:
//! floating-point and vector registers, XCR0, and the debug address registers. The hypervisor itself uses none of them.
//!
//! The exchange is eager and complete: no guest ever meets another's values, not even speculatively.
#![allow(unsafe_code)] // XSAVE, XRSTOR and their kin.

use alloc::boxed::Box;
use core::{
    arch::asm,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use raw_cpuid::{CpuId, native_cpuid::CpuIdReaderNative};
use x86_64::registers::{
    control::{Cr4, Cr4Flags},
    model_specific::Msr,
};

/// x87, SSE, AVX, the three parts of AVX-512, and the rights of protection keys (PKRU).
const KNOWN: u64 = 0x2e7;
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0b111 << 5;
/// More than the parts of [`KNOWN`] take in the standard format (2696 bytes).
const AREA: usize = 4096;
const PREDICTION_COMMAND: u32 = 0x49;

/// XCR0 with everything that is kept: found once at boot, the same on all processors. 0: the processor has no XSAVE.
static FULL: AtomicU64 = AtomicU64::new(0);
/// Whether the processor offers the indirect branch prediction barrier.
static BARRIER: AtomicBool = AtomicBool::new(false);

/// Finds out what there is to keep and lets this processor keep it. Once a processor, before the first vCPU is loaded.
pub fn enable() {
    let cpuid = CpuId::with_cpuid_reader(CpuIdReaderNative);
    let has_xsave = cpuid
        .get_feature_info()
        .is_some_and(|features| features.has_xsave());
    // SAFETY: enables instructions that the processor has; OSFXSR is architectural in long mode.
    unsafe {
        Cr4::update(|flags| {
            flags.insert(Cr4Flags::OSFXSR);
            flags.set(Cr4Flags::OSXSAVE, has_xsave);
        });
    }
    if has_xsave {
        let leaf = core::arch::x86_64::__cpuid_count(0xd, 0);
        FULL.store(
            (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & KNOWN | X87,
            Ordering::Relaxed,
        );
    }
    let capacities = 0x8000_0008;
    let has_capacities = core::arch::x86_64::__cpuid(0x8000_0000).eax >= capacities;
    // EBX bit 12: the indirect branch prediction barrier (APM vol. 3, E.4.7).
    let barrier = has_capacities && core::arch::x86_64::__cpuid(capacities).ebx & 1 << 12 != 0;
    BARRIER.store(barrier, Ordering::Relaxed);
}

/// Parts of the extended state that guests may enable in XCR0; 0 where the processor has no XSAVE.
pub fn offered() -> u64 {
    FULL.load(Ordering::Relaxed)
}

#[repr(C, align(64))]
struct Area([u8; AREA]);

/// Extended state of a vCPU while it is not loaded.
pub struct ExtendedState {
    area: Box<Area>,
    xcr0: u64,
    debug: [u64; 4],
}

impl Default for ExtendedState {
    fn default() -> Self {
        let mut area = Box::new(Area([0; AREA]));
        // The FXSAVE part: control word and MXCSR as after FNINIT; in the XSAVE header nothing is present, so the rest is initial too.
        area.0[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        Self {
            area,
            xcr0: X87,
            debug: [0; 4],
        }
    }
}

impl ExtendedState {
    /// Takes the state out of the processor.
    pub fn save(&mut self) {
        let area = self.area.0.as_mut_ptr();
        let full = offered();
        // SAFETY: the area is aligned and large enough for `full`; with XSAVE enabled XCR0 may take any value that contains `full`'s parts.
        unsafe {
            if full != 0 {
                self.xcr0 = read_xcr0();
                write_xcr0(full);
                asm!("xsave64 [{}]", in(reg) area, in("eax") full as u32, in("edx") (full >> 32) as u32, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack));
            }
            asm!("mov {}, dr0", out(reg) self.debug[0], options(nostack, nomem));
            asm!("mov {}, dr1", out(reg) self.debug[1], options(nostack, nomem));
            asm!("mov {}, dr2", out(reg) self.debug[2], options(nostack, nomem));
            asm!("mov {}, dr3", out(reg) self.debug[3], options(nostack, nomem));
        }
    }

    /// Puts the state into the processor.
    pub fn load(&mut self) {
        let area = self.area.0.as_ptr();
        let full = offered();
        // SAFETY: as in `save`; the area holds what `save` or `default` wrote, which the processor accepts. DR7 is clear while the hypervisor runs, so
        // the addresses trap nothing.
        unsafe {
            if full != 0 {
                write_xcr0(full);
                asm!("xrstor64 [{}]", in(reg) area, in("eax") full as u32, in("edx") (full >> 32) as u32, options(nostack));
                write_xcr0(self.xcr0);
            } else {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack));
            }
            asm!("mov dr0, {}", in(reg) self.debug[0], options(nostack, nomem));
            asm!("mov dr1, {}", in(reg) self.debug[1], options(nostack, nomem));
            asm!("mov dr2, {}", in(reg) self.debug[2], options(nostack, nomem));
            asm!("mov dr3, {}", in(reg) self.debug[3], options(nostack, nomem));
        }
    }
}

/// XCR0 of the vCPU that is loaded now; `None` where the processor has no XSAVE.
pub fn loaded_xcr0() -> Option<u64> {
    // SAFETY: XSAVE is enabled where something is offered.
    (offered() != 0).then(|| unsafe { read_xcr0() })
}

/// Carries out an XSETBV of the vCPU that is loaded now. False: the guest gets #GP.
pub fn set_loaded_xcr0(register: u32, value: u64) -> bool {
    if register != 0 || !acceptable(value, offered()) {
        return false;
    }
    // SAFETY: `acceptable` holds what the processor demands of the value.
    unsafe { write_xcr0(value) };
    true
}

/// What XSETBV demands (APM vol. 2, 11.5.2).
fn acceptable(value: u64, offered: u64) -> bool {
    value & X87 != 0
        && value & !offered == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (value & AVX512 == 0 || value & AVX512 == AVX512 && value & AVX != 0)
}

/// Forgets what indirect branches the last guest took; between vCPUs of different domains.
pub fn forget_branches() {
    if BARRIER.load(Ordering::Relaxed) {
        // SAFETY: the processor offers the command, which changes nothing but predictions.
        unsafe { Msr::new(PREDICTION_COMMAND).write(1) };
    }
}

unsafe fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by the caller's contract XSAVE is enabled.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack, nomem)) };
    u64::from(high) << 32 | u64::from(low)
}

unsafe fn write_xcr0(value: u64) {
    // SAFETY: by the caller's contract XSAVE is enabled and the value acceptable.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_consistent_values_pass() {
        for (value, good) in [
            (1, true),
            (3, true),
            (7, true),
            (5, false),
            (0, false),
            (0xe7, true),
            (0x201, true),
            (0x2e7, true),
            (0x2000_0001, false),
            (0x67, false),
            (0x11, false),
        ] {
            assert_eq!(acceptable(value, KNOWN), good, "{value:#x}");
        }
        assert!(!acceptable(7, 3));
    }
}
