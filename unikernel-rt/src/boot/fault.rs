//! Processor exceptions: each one is a bug, ends the domain, and leaves a report.
#![allow(unsafe_code)] // Descriptor tables, and the stubs in assembly.

use core::arch::global_asm;
use core::fmt::{self, Write as _};

use spin::{LazyLock, Once};
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::Cr2;
use x86_64::registers::segmentation::{CS, Segment as _};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::{Entry, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::entry::Image;
use super::report::{Report, crash};

/// The size that every stub is padded to.
const STUB: u64 = 16;

// A stub for each vector, 16 bytes apart, makes all frames alike: vector and error code on top of what the processor pushed.
global_asm!(
    r#"
    .macro exception_stub vector, has_code
    .balign 16
    .if \has_code == 0
    push 0
    .endif
    push \vector
    jmp exception_common
    .endm

    .pushsection .text.exceptions, "ax", @progbits
    .balign 16
    .globl exception_stubs
exception_stubs:
    exception_stub 0, 0
    exception_stub 1, 0
    exception_stub 2, 0
    exception_stub 3, 0
    exception_stub 4, 0
    exception_stub 5, 0
    exception_stub 6, 0
    exception_stub 7, 0
    exception_stub 8, 1
    exception_stub 9, 0
    exception_stub 10, 1
    exception_stub 11, 1
    exception_stub 12, 1
    exception_stub 13, 1
    exception_stub 14, 1
    exception_stub 15, 0
    exception_stub 16, 0
    exception_stub 17, 1
    exception_stub 18, 0
    exception_stub 19, 0
    exception_stub 20, 0
    exception_stub 21, 1
    exception_stub 22, 0
    exception_stub 23, 0
    exception_stub 24, 0
    exception_stub 25, 0
    exception_stub 26, 0
    exception_stub 27, 0
    exception_stub 28, 0
    exception_stub 29, 1
    exception_stub 30, 1
    exception_stub 31, 0

exception_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    and rsp, -16
    call unikernel_exception
    ud2
    .popsection
    "#
);

unsafe extern "C" {
    static exception_stubs: u8;
}

/// What the stubs leave on the stack.
#[repr(C)]
pub(super) struct Frame {
    /// r15 … r8, rdi, rsi, rbp, rbx, rdx, rcx, rax: last pushed first.
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const REGISTER_NAMES: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9 ", "r8 ", "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax",
];
/// Where rbp stands among the registers.
const RBP: usize = 10;

static TSS: LazyLock<TaskStateSegment> = LazyLock::new(|| {
    let mut tss = TaskStateSegment::new();
    // Every exception gets a stack of its own: the one in use may be what is broken.
    tss.interrupt_stack_table[0] = VirtAddr::new(Image::get().fault_stack_top);
    tss
});
static GDT: Once<GlobalDescriptorTable> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the descriptor tables.
pub(super) fn install() {
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let task = gdt.append(Descriptor::tss_segment(&TSS));
    GDT.call_once(|| gdt).load();
    // SAFETY: both selectors name entries of the table that was just loaded, of the right kinds.
    unsafe {
        CS::set_reg(code);
        load_tss(task);
    }
    IDT.call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        let base = (&raw const exception_stubs) as u64;
        let stub = |vector: u64| VirtAddr::new(base + vector * STUB);
        set(&mut idt.divide_error, stub(0));
        set(&mut idt.debug, stub(1));
        set(&mut idt.non_maskable_interrupt, stub(2));
        set(&mut idt.breakpoint, stub(3));
        set(&mut idt.overflow, stub(4));
        set(&mut idt.bound_range_exceeded, stub(5));
        set(&mut idt.invalid_opcode, stub(6));
        set(&mut idt.device_not_available, stub(7));
        set(&mut idt.double_fault, stub(8));
        set(&mut idt.invalid_tss, stub(10));
        set(&mut idt.segment_not_present, stub(11));
        set(&mut idt.stack_segment_fault, stub(12));
        set(&mut idt.general_protection_fault, stub(13));
        set(&mut idt.page_fault, stub(14));
        set(&mut idt.x87_floating_point, stub(16));
        set(&mut idt.alignment_check, stub(17));
        set(&mut idt.machine_check, stub(18));
        set(&mut idt.simd_floating_point, stub(19));
        set(&mut idt.virtualization, stub(20));
        set(&mut idt.cp_protection_exception, stub(21));
        idt
    })
    .load();
}

fn set<F>(entry: &mut Entry<F>, stub: VirtAddr) {
    // SAFETY: the stub is code that takes the frame of this vector, with or without an error code, and does not return; stack 0 of
    // the task state segment is set.
    unsafe {
        entry.set_handler_addr(stub).set_stack_index(0);
    }
}

/// Where every stub ends.
#[unsafe(no_mangle)]
extern "C" fn unikernel_exception(frame: &Frame) -> ! {
    let mut report = Report::begin();
    let _ = writeln!(report, "crash: {}", Name(frame.vector));
    let _ = writeln!(
        report,
        "  at {:#018x}, error code {:#x}, cs {:#x}, rflags {:#x}, rsp {:#018x}, ss {:#x}",
        frame.rip, frame.error, frame.cs, frame.rflags, frame.rsp, frame.ss
    );
    if frame.vector == 14 {
        let address = Cr2::read_raw();
        let what = if frame.error & 16 != 0 {
            "execute"
        } else if frame.error & 2 != 0 {
            "write"
        } else {
            "read"
        };
        let _ = writeln!(report, "  tried to {what} at {address:#018x}{}", Place(address));
    }
    for (names, values) in REGISTER_NAMES.chunks(3).zip(frame.registers.chunks(3)) {
        for (name, value) in names.iter().zip(values) {
            let _ = write!(report, "  {name} {value:016x}");
        }
        let _ = writeln!(report);
    }
    report.backtrace(frame.rip, frame.registers[RBP]);
    crash()
}

/// A vector's name.
struct Name(u64);

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "division error",
            1 => "debug exception",
            2 => "non-maskable interrupt",
            3 => "breakpoint",
            6 => "invalid instruction",
            7 => "floating point is off",
            8 => "double fault",
            11 => "segment not present",
            12 => "stack fault",
            13 => "general protection fault",
            14 => "page fault",
            17 => "misaligned access",
            18 => "machine check",
            _ => return write!(formatter, "exception {}", self.0),
        };
        formatter.write_str(name)
    }
}

/// What lies at an address, where that explains a fault.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = Image::get();
        formatter.write_str(if self.0 < 4096 {
            " (null pointer)"
        } else if (image.stack_guard..image.stack_bottom).contains(&self.0) {
            " (stack overflow)"
        } else if (image.start..image.data).contains(&self.0) {
            " (code or constants)"
        } else {
            ""
        })
    }
}
