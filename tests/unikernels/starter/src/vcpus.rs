//! Starting vCPUs, and what they run.
#![allow(unsafe_code)] // Hypercalls and registers of the processor, and code for other modes than ours.

use core::{
    arch::{asm, global_asm, x86_64::__cpuid},
    sync::atomic::{AtomicU64, Ordering},
};

use xen_abi::{
    hvm::hvm_vcpu::{VcpuHvmContext, VcpuHvmX8632, VcpuHvmX8664},
    vcpu::{VCPUOP_initialise, VCPUOP_is_up, VCPUOP_up},
    xen::__HYPERVISOR_vcpu_op,
};

const EINVAL: i64 = -22;
const EEXIST: i64 = -17;
/// What a vCPU leaves in its word at first; it adds one each time that it goes on.
const MARK: u64 = 0x1234;
/// Looks at a vCPU before it is given up.
const PATIENCE: u64 = 1_000_000;

/// A word for each vCPU.
static WORDS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

// The address of the word is in (r)di, or there in the data segment in real mode, and the mark in (r)si. They need no stack.
global_asm!(
    ".pushsection .text.starter, \"ax\"",
    ".code64",
    ".global starter_64",
    "starter_64:",
    "mov [rdi], rsi",
    "2: hlt",
    "inc qword ptr [rdi]",
    "jmp 2b",
    ".code32",
    ".global starter_32",
    "starter_32:",
    "mov [edi], esi",
    "2: hlt",
    "inc dword ptr [edi]",
    "jmp 2b",
    ".code16",
    ".global starter_16",
    "starter_16:",
    "mov [di], si",
    "2: hlt",
    "inc word ptr [di]",
    "jmp 2b",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    fn starter_64();
    fn starter_32();
    fn starter_16();
}

/// Starts them one after the other.
pub(super) fn start_all() {
    let word = |index: usize| (&raw const WORDS[index]) as u64;
    let code = |function: unsafe extern "C" fn()| function as usize as u32;
    let long = VcpuHvmX8664 {
        rdi: word(1),
        rsi: MARK,
        rip: code(starter_64).into(),
        ..own_mode()
    };
    let flat = VcpuHvmX8632 {
        edi: word(2) as u32,
        esi: MARK as u32,
        eip: code(starter_32),
        cr0: 1,
        cs_limit: u32::MAX,
        ds_limit: u32::MAX,
        ss_limit: u32::MAX,
        es_limit: u32::MAX,
        tr_limit: 0x67,
        cs_ar: 0xc9b,
        ds_ar: 0xc93,
        ss_ar: 0xc93,
        es_ar: 0xc93,
        tr_ar: 0x8b,
        ..Default::default()
    };
    let real = VcpuHvmX8632 {
        edi: 0,
        eip: 0,
        cr0: 0,
        cs_base: code(starter_16),
        ds_base: word(3) as u32,
        cs_limit: 0xffff,
        ds_limit: 0xffff,
        ss_limit: 0xffff,
        es_limit: 0xffff,
        cs_ar: 0x9b,
        ds_ar: 0x93,
        ss_ar: 0x93,
        es_ar: 0x93,
        ..flat
    };
    for (index, mode, context) in [
        (1, "64-bit code", VcpuHvmContext::from(long)),
        (2, "32-bit code", flat.into()),
        (3, "real mode", real.into()),
    ] {
        match start(index, &context) {
            Ok(()) => log::info!("vCPU {index} ran in {mode}, and again"),
            Err((what, answer)) => log::error!("vCPU {index}, in {mode}: {what} answers {answer}"),
        }
    }
    log::info!("all were tried");
}

/// Starts a vCPU twice; which step did not answer as it should, and how it did.
fn start(index: u64, context: &VcpuHvmContext) -> Result<(), (&'static str, i64)> {
    let at = (&raw const *context) as u64;
    let expect = |what, answer: i64, wanted: i64| {
        if answer == wanted {
            Ok(())
        } else {
            Err((what, answer))
        }
    };
    let up = || call(VCPUOP_up, index, 0);
    expect("VCPUOP_up before all", up(), EINVAL)?;
    expect("VCPUOP_initialise", call(VCPUOP_initialise, index, at), 0)?;
    expect(
        "VCPUOP_initialise again",
        call(VCPUOP_initialise, index, at),
        EEXIST,
    )?;
    expect("VCPUOP_up", up(), 0)?;
    expect("its word", left(index, MARK), MARK as i64)?;
    expect("VCPUOP_up again", up(), 0)?;
    expect("its word then", left(index, MARK + 1), MARK as i64 + 1)
}

/// Waits until a vCPU has left this in its word and is down again; what is there in the end.
fn left(index: u64, wanted: u64) -> i64 {
    let word = &WORDS[index as usize];
    for _ in 0..PATIENCE {
        if word.load(Ordering::SeqCst) == wanted && call(VCPUOP_is_up, index, 0) == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    word.load(Ordering::SeqCst) as i64
}

/// The mode that this program runs in.
fn own_mode() -> VcpuHvmX8664 {
    const EFER: u32 = 0xc000_0080;
    let (cr0, cr3, cr4): (u64, u64, u64);
    let (low, high): (u32, u32);
    // SAFETY: reads registers that every kernel may read.
    unsafe {
        asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack));
        asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack));
        asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack));
        asm!("rdmsr", in("ecx") EFER, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    VcpuHvmX8664 {
        cr0,
        cr3,
        cr4,
        efer: u64::from(high) << 32 | u64::from(low),
        ..Default::default()
    }
}

/// A hypercall about a vCPU. `at` is the address of what the call reads, or 0.
fn call(operation: u64, index: u64, at: u64) -> i64 {
    let mut answer: u64 = __HYPERVISOR_vcpu_op;
    let amd = matches!(&__cpuid(0).ebx.to_le_bytes(), b"Auth" | b"Hygo");
    // SAFETY: the calls made here read a structure that is borrowed meanwhile, and start vCPUs at code that touches its own word alone.
    unsafe {
        if amd {
            asm!("vmmcall", inout("rax") answer, in("rdi") operation, in("rsi") index, in("rdx") at, options(nostack));
        } else {
            asm!("vmcall", inout("rax") answer, in("rdi") operation, in("rsi") index, in("rdx") at, options(nostack));
        }
    }
    answer as i64
}
