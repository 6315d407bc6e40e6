//! Where interrupts and exceptions arrive: a stub for each vector saves the registers and calls one function.
//!
//! An interrupt is noted and acknowledged ([`super::interrupts`]). An exception is a bug of ours or broken hardware, and is reported; there is none that
//! the hypervisor expects.
#![allow(unsafe_code)] // Assembly.

/// Vectors of the processor.
pub const VECTORS: usize = 256;
/// The non-maskable interrupt.
pub const NON_MASKABLE: u8 = 2;
/// An exception while another was being delivered.
pub const DOUBLE_FAULT: u8 = 8;
/// A page fault; CR2 has the address.
pub const PAGE_FAULT: u8 = 14;
/// Broken hardware.
pub const MACHINE_CHECK: u8 = 18;
/// The first vector that is not an exception's.
pub const FIRST_INTERRUPT: u8 = 32;

/// What was interrupted, as the stub leaves it on the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // The registers' names say it.
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Name of an exception.
pub fn name(vector: u8) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "floating-point error",
        17 => "misaligned access",
        18 => "machine check",
        19 => "vector floating-point error",
        21 => "control protection fault",
        28 => "hypervisor injection exception",
        29 => "VMM communication exception",
        30 => "security exception",
        _ => "reserved exception",
    }
}

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.pushsection .text.traps, "ax"
.balign 16
atoll_trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21 && vector != 29 && vector != 30
    push $0                                         // where the processor pushes no error code
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
.endr

trap_common:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call {arrive}
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq
.popsection
"#,
    arrive = sym arrive,
    options(att_syntax)
);

/// Address of the stub of a vector.
#[cfg(target_os = "none")]
pub fn stub(vector: usize) -> u64 {
    unsafe extern "C" {
        static atoll_trap_stubs: u8;
    }
    assert!(vector < VECTORS);
    &raw const atoll_trap_stubs as u64 + 16 * vector as u64
}

/// Address of the stub of a vector.
#[cfg(not(target_os = "none"))]
pub fn stub(_vector: usize) -> u64 {
    unreachable!("only the machine has stubs")
}

/// Every trap comes here, with interrupts off.
#[cfg(target_os = "none")]
extern "C" fn arrive(frame: &Frame) {
    use core::sync::atomic::Ordering;
    match frame.vector as u8 {
        NON_MASKABLE if super::smp::is_stopped() => super::cpu::halt(),
        NON_MASKABLE => super::cpu::current().non_maskable.store(true, Ordering::Relaxed),
        vector @ FIRST_INTERRUPT.. => super::interrupts::arrived(vector),
        _ => super::panic::exception(frame),
    }
}
