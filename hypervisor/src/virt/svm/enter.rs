//! The way into a guest and back: VMRUN and what must surround it (APM vol. 2, 15.5).
#![allow(unsafe_code)] // Exchanges the processor's whole state.

use core::mem::offset_of;

use crate::virt::Registers;

/// Runs the guest of `vmcb` (a machine address, as `host` is) until it exits. RAX, RSP, RIP and RFLAGS travel in the VMCB, the other registers in `registers`.
///
/// Interrupts are off before and after. Inside, with the global interrupt flag clear, IF is set: that is what lets a physical interrupt end the
/// guest's run while V_INTR_MASKING is on; it stays pending until the caller opens a window.
///
/// # Safety
/// SVM is enabled with a host save area; `vmcb` is a VMCB that nothing else uses, whose nested tables reach only memory that the guest may have;
/// `host` is a page that VMSAVE has filled on this processor.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter(registers: &mut Registers, vmcb: u64, host: u64) {
    core::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx", // host
        "push rdi", // registers
        "mov rax, rsi",
        "mov rbx, [rdi + {rbx}]",
        "mov rcx, [rdi + {rcx}]",
        "mov rdx, [rdi + {rdx}]",
        "mov rsi, [rdi + {rsi}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r8, [rdi + {r8}]",
        "mov r9, [rdi + {r9}]",
        "mov r10, [rdi + {r10}]",
        "mov r11, [rdi + {r11}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "mov rdi, [rdi + {rdi}]",
        "clgi",
        "sti",
        "vmload rax",
        "vmrun rax",
        "vmsave rax",
        "xchg rdi, [rsp]", // registers; the guest's RDI takes its place
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rsi}], rsi",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "pop rcx",
        "mov [rdi + {rdi}], rcx",
        "pop rax",
        "vmload rax", // our own FS, GS, TR, LDTR and SYSCALL registers
        "cli",
        "stgi",
        // No guest value survives in a register that our code might use speculatively.
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        rbx = const offset_of!(Registers, rbx),
        rcx = const offset_of!(Registers, rcx),
        rdx = const offset_of!(Registers, rdx),
        rsi = const offset_of!(Registers, rsi),
        rdi = const offset_of!(Registers, rdi),
        rbp = const offset_of!(Registers, rbp),
        r8 = const offset_of!(Registers, r8),
        r9 = const offset_of!(Registers, r9),
        r10 = const offset_of!(Registers, r10),
        r11 = const offset_of!(Registers, r11),
        r12 = const offset_of!(Registers, r12),
        r13 = const offset_of!(Registers, r13),
        r14 = const offset_of!(Registers, r14),
        r15 = const offset_of!(Registers, r15),
    )
}

/// Writes the state that VMLOAD brings back to the page at `host`.
///
/// # Safety
/// SVM is enabled and the page is the caller's.
pub unsafe fn save_host(host: u64) {
    // SAFETY: by the contract above VMSAVE is available and writes to a page of ours.
    unsafe { core::arch::asm!("vmsave rax", in("rax") host, options(nostack, preserves_flags)) }
}
