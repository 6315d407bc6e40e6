//! Processors: what this one can do, and what belongs to each.
//!
//! The state of the running processor is reached by GS, so a processor backend gives GS back its own base before it lets anything else run after
//! a guest.
#![allow(unsafe_code)] // CPUID, control registers, GS.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    arch::{asm, x86_64::__cpuid_count},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use super::{
    descriptors::{self, Descriptors},
    interrupts::Pending,
};

/// What a processor can do, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `AuthenticAMD`, `GenuineIntel` …
    pub vendor: String,
    /// Its name for people.
    pub name: String,
    /// Bits of a machine address.
    pub physical_bits: u8,
    /// Pages can be made not executable.
    pub no_execute: bool,
    /// Page tables know 1 GiB pages.
    pub gigabyte_pages: bool,
    /// SMEP.
    pub supervisor_execution_prevention: bool,
    /// SMAP.
    pub supervisor_access_prevention: bool,
    /// UMIP.
    pub user_instruction_prevention: bool,
    /// XSAVE.
    pub xsave: bool,
    /// The local APIC has an x2APIC mode.
    pub x2apic: bool,
    /// The local APIC's timer can compare with the time-stamp counter.
    pub tsc_deadline: bool,
    /// The time-stamp counter counts at one rate, whatever the processor does.
    pub invariant_tsc: bool,
    /// It is not a processor: an emulator or another hypervisor made it.
    pub emulated: bool,
    /// AMD-V.
    pub svm: Option<Svm>,
    /// Intel VT-x.
    pub vmx: bool,
}

/// What CPUID says about AMD-V (leaf 0x8000_000A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Svm {
    /// Revision.
    pub revision: u8,
    /// Number of address space identifiers.
    pub identifiers: u32,
    /// The feature bits (EDX), bit 0 nested paging.
    pub features: u32,
}

impl Svm {
    /// Whether guests can have page tables of their own below ours.
    pub const fn nested_paging(&self) -> bool {
        self.features & 1 != 0
    }
}

impl Features {
    /// Asks the running processor.
    pub fn detect() -> Self {
        Self::from_leaves(|leaf, subleaf| {
            let answer = __cpuid_count(leaf, subleaf);
            [answer.eax, answer.ebx, answer.ecx, answer.edx]
        })
    }

    /// Reads them from CPUID leaves (EAX, EBX, ECX, EDX).
    pub fn from_leaves(leaf: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let bit = |word: u32, number: u32| word >> number & 1 != 0;
        let [highest, vendor_b, vendor_c, vendor_d] = leaf(0, 0);
        let [highest_extended, ..] = leaf(0x8000_0000, 0);
        let basic = |number| {
            if number <= highest {
                leaf(number, 0)
            } else {
                [0; 4]
            }
        };
        let extended = |number| {
            if number <= highest_extended && highest_extended >= 0x8000_0000 {
                leaf(number, 0)
            } else {
                [0; 4]
            }
        };
        let [_, _, one_c, _] = basic(1);
        let [_, seven_b, seven_c, _] = basic(7);
        let [_, _, amd_c, amd_d] = extended(0x8000_0001);
        let [svm_revision, svm_identifiers, _, svm_features] = extended(0x8000_000a);
        let name: Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(extended).collect();
        Self {
            vendor: text(&[vendor_b, vendor_d, vendor_c]),
            name: text(&name),
            physical_bits: match extended(0x8000_0008)[0] as u8 {
                0 => 36,
                bits => bits,
            },
            no_execute: bit(amd_d, 20),
            gigabyte_pages: bit(amd_d, 26),
            supervisor_execution_prevention: bit(seven_b, 7),
            supervisor_access_prevention: bit(seven_b, 20),
            user_instruction_prevention: bit(seven_c, 2),
            xsave: bit(one_c, 26),
            x2apic: bit(one_c, 21),
            tsc_deadline: bit(one_c, 24),
            invariant_tsc: bit(extended(0x8000_0007)[3], 8),
            emulated: bit(one_c, 31),
            svm: bit(amd_c, 2).then_some(Svm {
                revision: svm_revision as u8,
                identifiers: svm_identifiers,
                features: svm_features,
            }),
            vmx: bit(one_c, 5),
        }
    }
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from(String::from_utf8_lossy(&bytes).trim())
}

/// Reads a model-specific register.
///
/// # Safety
/// The register exists on this processor; one that does not raises #GP, which ends the hypervisor.
pub unsafe fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: it exists, by the caller; reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register exists on this processor, takes the value, and what it then does is sound.
pub unsafe fn write_msr(number: u32, value: u64) {
    // SAFETY: by the caller.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Turns on what protects the hypervisor from itself, and the floating-point instructions that save and restore guests' state. Before this, no-execute bits in
/// page tables are reserved.
pub fn enable_protections(features: &Features) {
    const EFER: u32 = 0xc000_0080;
    const EFER_NO_EXECUTE: u64 = 1 << 11;
    const CR0_MONITOR_COPROCESSOR: u64 = 1 << 1;
    const CR0_EMULATION: u64 = 1 << 2;
    const CR0_TASK_SWITCHED: u64 = 1 << 3;
    const CR0_NUMERIC_ERROR: u64 = 1 << 5;
    const CR0_WRITE_PROTECT: u64 = 1 << 16;
    const CR4_MACHINE_CHECK: u64 = 1 << 6;
    const CR4_GLOBAL_PAGES: u64 = 1 << 7;
    const CR4_FXSR: u64 = 1 << 9 | 1 << 10;
    const CR4_UMIP: u64 = 1 << 11;
    const CR4_OSXSAVE: u64 = 1 << 18;
    const CR4_SMEP: u64 = 1 << 20;
    const CR4_SMAP: u64 = 1 << 21;
    let wanted = [
        (true, CR4_MACHINE_CHECK | CR4_GLOBAL_PAGES | CR4_FXSR),
        (features.user_instruction_prevention, CR4_UMIP),
        (features.xsave, CR4_OSXSAVE),
        (features.supervisor_execution_prevention, CR4_SMEP),
        (features.supervisor_access_prevention, CR4_SMAP),
    ];
    let set = wanted
        .iter()
        .filter(|(present, _)| *present)
        .fold(0, |set, (_, bits)| set | bits);
    // SAFETY: every bit that is set is one that the processor knows; none of the mappings in use is a user's, so SMEP and SMAP forbid nothing that
    // happens; write protection forbids what no code of ours does.
    unsafe {
        if features.no_execute {
            write_msr(EFER, read_msr(EFER) | EFER_NO_EXECUTE);
        }
        let (mut cr0, mut cr4): (u64, u64);
        asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack, preserves_flags));
        asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
        cr0 &= !(CR0_EMULATION | CR0_TASK_SWITCHED);
        cr0 |= CR0_MONITOR_COPROCESSOR | CR0_NUMERIC_ERROR | CR0_WRITE_PROTECT;
        cr4 |= set;
        asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
    }
}

/// Stops this processor for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing but a non-maskable interrupt continues here, and then it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Resets the machine the last way there is: an exception that cannot be delivered.
pub fn triple_fault() -> ! {
    let nothing = [0_u64; 2];
    // SAFETY: ends everything, which is what it is for.
    unsafe { asm!("lidt [{}]", "int3", in(reg) nothing.as_ptr(), options(nostack)) };
    halt()
}

/// The time-stamp counter, read after everything before it.
pub fn time_stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the instructions read a counter.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// A count that its own processor alone changes, with interrupts off, so that it needs no locked instruction.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What belongs to one processor.
#[repr(C)]
pub struct PerCpu {
    /// This structure's own address, which `current` reads.
    place: *const PerCpu,
    /// Its number, once it has one.
    index: AtomicUsize,
    /// Where its stacks are.
    place_of_stacks: usize,
    /// Interrupts that have arrived and wait to be handled.
    pub pending: Pending,
    /// The timer has fired since this was last cleared.
    pub timer_fired: AtomicBool,
    /// A non-maskable interrupt has arrived since this was last cleared.
    pub non_maskable: AtomicBool,
    /// Interrupts that it has taken.
    pub interrupts: Count,
    /// Interrupts that it has sent to other processors.
    pub messages: Count,
    descriptors: Descriptors,
}

// SAFETY: `place` never changes; the descriptors are only written before the structure is shared; the rest is atomic.
unsafe impl Sync for PerCpu {}

/// The running processor's state. Call after [`initialize`].
pub fn current() -> &'static PerCpu {
    let place: *const PerCpu;
    // SAFETY: `initialize` set GS to a structure that is never freed, and whoever lets a guest change GS restores it, as the head of this
    // module asks.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) place, options(nostack, readonly, preserves_flags));
        &*place
    }
}

impl PerCpu {
    /// Its number: 0 for the boot processor, then in the order of firmware's list. One that was not given a number yet has 0.
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    /// Gives it its number.
    pub(super) fn set_index(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Where its stacks are.
    #[cfg_attr(not(target_os = "none"), expect(dead_code))]
    pub(super) fn place_of_stacks(&self) -> usize {
        self.place_of_stacks
    }
}

/// The running processor's state; `None` as long as nothing has been initialized.
pub(super) fn try_current() -> Option<&'static PerCpu> {
    // SAFETY: reads a register that every 64-bit processor has.
    (unsafe { read_msr(GS_BASE) } != 0).then(current)
}

const GS_BASE: u32 = 0xc000_0101;

/// Gives the running processor its state and descriptor tables, with the exception stacks in this place.
pub fn initialize(place_of_stacks: usize) {
    let state = Box::leak(Box::new(PerCpu {
        place: core::ptr::null(),
        index: AtomicUsize::new(0),
        place_of_stacks,
        pending: Pending::default(),
        timer_fired: AtomicBool::new(false),
        non_maskable: AtomicBool::new(false),
        interrupts: Count::default(),
        messages: Count::default(),
        descriptors: Descriptors::new(place_of_stacks),
    }));
    state.place = state;
    descriptors::load(&mut state.descriptors);
    // SAFETY: the register exists on every 64-bit processor; after the descriptors, whose loading cleared GS. The structure is never freed.
    unsafe { write_msr(GS_BASE, state.place as u64) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_amd_processor() {
        let features = Features::from_leaves(|leaf, _| match leaf {
            0 => [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
            1 => [0, 0, 1 << 26 | 1 << 21, 0],
            7 => [0, 1 << 7 | 1 << 20, 1 << 2, 0],
            0x8000_0000 => [0x8000_000a, 0, 0, 0],
            0x8000_0001 => [0, 0, 1 << 2, 1 << 20 | 1 << 26],
            0x8000_0002 => [0x2044_4d41, 0x4359_5045, 0, 0],
            0x8000_0008 => [48, 0, 0, 0],
            0x8000_000a => [1, 16, 0, 1],
            _ => [0; 4],
        });
        assert_eq!(
            (features.vendor.as_str(), features.name.as_str()),
            ("AuthenticAMD", "AMD EPYC")
        );
        assert!(features.no_execute && features.gigabyte_pages && features.xsave && features.x2apic);
        assert!(features.supervisor_execution_prevention && features.supervisor_access_prevention);
        assert_eq!(features.physical_bits, 48);
        assert!(features.svm.unwrap().nested_paging());
        assert!(!features.vmx && !features.tsc_deadline);
    }

    #[test]
    fn leaves_beyond_the_highest_are_not_believed() {
        // An old Intel processor answers leaves that it does not have with those of its highest one.
        let features = Features::from_leaves(|leaf, _| if leaf == 0 { [1, 0, 0, 0] } else { [u32::MAX; 4] });
        assert!(!features.supervisor_access_prevention);
        let features = Features::from_leaves(|leaf, _| {
            if leaf == 0x8000_0000 {
                [1, 0, 0, 0]
            } else {
                [u32::MAX; 4]
            }
        });
        assert_eq!((features.svm, features.no_execute), (None, false));
    }
}
