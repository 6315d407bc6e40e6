//! The calls themselves, on the machine.
//!
//! Arguments are addresses of our own memory, which the hypervisor reads or writes before the call returns. That memory is
//! identity-mapped, so guest-virtual and guest-physical are one.
#![allow(unsafe_code)] // The instruction, and memory that the hypervisor writes.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU8, Ordering};

use xen_abi::arch_x86::cpuid::{
    XEN_CPUID_FIRST_LEAF, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX, XEN_CPUID_SIGNATURE_EDX,
};
use xen_abi::hvm::hvm_op::{HVMOP_get_param, HvmParam};
use xen_abi::sched::{
    SCHEDOP_block, SCHEDOP_shutdown, SCHEDOP_watchdog, SCHEDOP_yield, SchedShutdown, SchedWatchdog,
};
use xen_abi::vcpu::{VCPUOP_get_runstate_info, VcpuRunstateInfo};
use xen_abi::version::XENVER_version;
use xen_abi::xen::*;
use zerocopy::{FromBytes, IntoBytes};

use super::Errno;
use crate::port;

/// How to call: not known yet or nobody there, or one of the two instructions.
static METHOD: AtomicU8 = AtomicU8::new(NOBODY);
const NOBODY: u8 = 0;
const VMMCALL: u8 = 1;
const VMCALL: u8 = 2;

/// Finds out whether there is a hypervisor of Xen's ABI, and which instruction reaches it. Without one, calls answer
/// [`Errno::ENOSYS`], and the log goes to the first serial port.
pub(crate) fn detect() -> bool {
    // Hypervisors may share the range; each has a place on a multiple of 0x100.
    let found = (0..0x10000).step_by(0x100).any(|offset| {
        let leaf = __cpuid(XEN_CPUID_FIRST_LEAF + offset);
        (leaf.ebx, leaf.ecx, leaf.edx)
            == (
                XEN_CPUID_SIGNATURE_EBX,
                XEN_CPUID_SIGNATURE_ECX,
                XEN_CPUID_SIGNATURE_EDX,
            )
    });
    // "AuthenticAMD" and "HygonGenuine" have VMMCALL, everybody else VMCALL.
    let amd = matches!(&__cpuid(0).ebx.to_le_bytes(), b"Auth" | b"Hygo");
    METHOD.store(
        if !found {
            NOBODY
        } else if amd {
            VMMCALL
        } else {
            VMCALL
        },
        Ordering::Relaxed,
    );
    found
}

/// Calls the hypervisor.
///
/// # Safety
/// What the call makes the hypervisor do with our memory must be sound: buffers valid for it, mappings and shutdowns of
/// nothing that Rust still uses.
pub(crate) unsafe fn raw(number: u64, arguments: [u64; 4]) -> Result<u64, Errno> {
    let [first, second, third, fourth] = arguments;
    let mut answer = number;
    macro_rules! enter {
        ($instruction:literal) => {
            // SAFETY: the contract covers the effects on memory; the ABI takes rax and the argument registers only.
            unsafe {
                asm!(
                    $instruction,
                    inout("rax") answer,
                    inout("rdi") first => _,
                    inout("rsi") second => _,
                    inout("rdx") third => _,
                    inout("r10") fourth => _,
                    options(nostack)
                )
            }
        };
    }
    match METHOD.load(Ordering::Relaxed) {
        VMMCALL => enter!("vmmcall"),
        VMCALL => enter!("vmcall"),
        _ => return Err(Errno::ENOSYS),
    }
    Errno::check(answer as i64)
}

/// A call `(operation, &mut argument)`: the form of most.
pub(crate) fn with<T: FromBytes + IntoBytes>(
    number: u64,
    operation: u64,
    argument: &mut T,
) -> Result<u64, Errno> {
    // SAFETY: the argument is ours alone while the call runs, any bytes are a value of it, and its structure has no pointer (those
    // that have one are called by `with_buffer` and `batch`).
    unsafe { raw(number, [operation, argument as *mut T as u64, 0, 0]) }
}

/// A call `(operation, array, count)`.
pub(crate) fn batch<T: FromBytes + IntoBytes>(
    number: u64,
    operation: u64,
    arguments: &mut [T],
) -> Result<u64, Errno> {
    // SAFETY: as for `with`.
    unsafe {
        raw(
            number,
            [
                operation,
                arguments.as_mut_ptr() as u64,
                arguments.len() as u64,
                0,
            ],
        )
    }
}

/// A call whose structure carries a pointer to a buffer; `argument` is made from the buffer's address and length.
pub(crate) fn with_buffer<T: FromBytes + IntoBytes>(
    number: u64,
    operation: u64,
    buffer: &mut [u8],
    argument: impl FnOnce(u64, u64) -> T,
) -> Result<T, Errno> {
    let mut argument = argument(buffer.as_mut_ptr() as u64, buffer.len() as u64);
    with(number, operation, &mut argument)?;
    Ok(argument)
}

/// Gives the processor away until an event is pending.
pub(crate) fn block() {
    // SAFETY: the call touches no memory of ours.
    if unsafe { raw(__HYPERVISOR_sched_op, [SCHEDOP_block, 0, 0, 0]) }.is_err() {
        core::hint::spin_loop();
    }
}

/// Lets others run that wait for this processor.
pub fn give_way() {
    // SAFETY: as for `block`. A refusal is as good as an answer: nobody else ran.
    let _ = unsafe { raw(__HYPERVISOR_sched_op, [SCHEDOP_yield, 0, 0, 0]) };
}

/// The version of the interface (major << 16 | minor): the cheapest of all hypercalls.
pub fn version() -> Result<u64, Errno> {
    // SAFETY: as for `block`.
    unsafe { raw(__HYPERVISOR_xen_version, [XENVER_version, 0, 0, 0]) }
}

/// How long this vCPU has run, waited for a processor, slept and been down.
pub fn runstate() -> Result<VcpuRunstateInfo, Errno> {
    let mut info = VcpuRunstateInfo::default();
    // SAFETY: the hypervisor writes the structure, which is ours alone while the call runs, and any bytes are a value of it.
    unsafe {
        raw(
            __HYPERVISOR_vcpu_op,
            [VCPUOP_get_runstate_info, 0, &raw mut info as u64, 0],
        )?
    };
    Ok(info)
}

/// Ends this domain. Returns only an error.
pub(crate) fn shutdown(reason: u32) -> Result<u64, Errno> {
    with(
        __HYPERVISOR_sched_op,
        SCHEDOP_shutdown,
        &mut SchedShutdown { reason },
    )
}

/// Starts a watchdog (0), or feeds one that was started, for so many seconds. Answers its number when it was started.
pub(crate) fn watchdog(id: u32, seconds: u32) -> Result<u32, Errno> {
    let mut argument = SchedWatchdog { id, timeout: seconds };
    with(__HYPERVISOR_sched_op, SCHEDOP_watchdog, &mut argument).map(|number| number as u32)
}

/// Writes a line to the hypervisor's log.
pub(crate) fn console_write(line: &[u8]) {
    if METHOD.load(Ordering::Relaxed) == NOBODY {
        return serial_write(line);
    }
    // SAFETY: the hypervisor reads the line and nothing else. Its refusal has nowhere to be reported.
    let _ = unsafe {
        raw(
            __HYPERVISOR_console_io,
            [CONSOLEIO_write, line.len() as u64, line.as_ptr() as u64, 0],
        )
    };
}

/// Without a hypervisor (a unikernel started straight in an emulator) the first serial port is all there is.
fn serial_write(line: &[u8]) {
    const DATA: u16 = 0x3f8;
    const STATUS: u16 = 0x3fd;
    for &byte in line {
        // A port that never gets ready must not stop a crash report.
        let _ = (0..100_000).find(|_| port::read8(STATUS) & 0x20 != 0);
        port::write8(DATA, byte);
    }
}

/// Reads a parameter that the domain was built with.
pub(crate) fn parameter(index: u32) -> Result<u64, Errno> {
    let mut parameter = HvmParam {
        domid: DOMID_SELF,
        index,
        ..HvmParam::default()
    };
    with(__HYPERVISOR_hvm_op, HVMOP_get_param, &mut parameter)?;
    Ok(parameter.value)
}
