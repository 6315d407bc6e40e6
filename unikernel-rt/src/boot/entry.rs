//! The first instructions: from 32-bit protected mode, where PVH leaves us, to Rust in long mode.
#![allow(unsafe_code)] // Assembly.

use core::arch::global_asm;

// The note by which a PVH loader finds the entry (XEN_ELFNOTE_PHYS32_ENTRY = 18).
global_asm!(
    r#"
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4
    .long 4
    .long 18
    .asciz "Xen"
    .long pvh_start
    .popsection
    "#
);

// Paging is off, the segments are flat, interrupts are off, ebx points to the start info. The first page tables map the first GiB
// with every right, in 2 MiB pages; `paging` replaces them before anything else runs. Nothing here may touch a
// vector register, and nothing later does: the target has none.
global_asm!(
    r#"
    .pushsection .text.entry, "ax", @progbits
    .code32
    .globl pvh_start
pvh_start:
    cld
    mov esp, offset stack_top
    mov ebp, ebx

    mov eax, offset boot_pdpt
    or eax, 3
    mov dword ptr [boot_pml4], eax
    mov eax, offset boot_pd
    or eax, 3
    mov dword ptr [boot_pdpt], eax
    mov edi, offset boot_pd
    mov eax, 0x83
2:
    mov dword ptr [edi], eax
    add eax, 0x200000
    add edi, 8
    cmp eax, 0x40000083
    jne 2b

    mov eax, cr4
    or eax, 0x20              /* PAE */
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080       /* EFER */
    rdmsr
    or eax, 0x900             /* LME, NXE */
    wrmsr
    mov eax, cr0
    or eax, 0x80010001        /* PG, WP, PE */
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    push 8
    mov eax, offset long_mode
    push eax
    retf

    .code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov edi, ebp              /* the start info */
    mov rsp, offset stack_top
    xor ebp, ebp              /* the end of every backtrace */
    call unikernel_start
    ud2
    .popsection

    .pushsection .rodata.entry, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff  /* code, 64 bits */
    .quad 0x00cf93000000ffff  /* data */
boot_gdt_pointer:
    .word 23
    .long boot_gdt
    .popsection

    .pushsection .bss.entry, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4096
    .popsection
    "#
);

// The addresses that the linker script defines. They are places, not variables: only their addresses are used.
unsafe extern "C" {
    static image_start: u8;
    static rodata_start: u8;
    static data_start: u8;
    static stack_guard: u8;
    static stack_bottom: u8;
    static stack_top: u8;
    static fault_stack_guard: u8;
    static fault_stack_top: u8;
    static image_end: u8;
}

/// Where the parts of our own image lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub start: u64,
    pub rodata: u64,
    pub data: u64,
    pub stack_guard: u64,
    pub stack_bottom: u64,
    pub stack_top: u64,
    pub fault_stack_guard: u64,
    pub fault_stack_top: u64,
    pub end: u64,
}

impl Image {
    /// Asks the linker.
    pub fn get() -> Self {
        Self {
            start: (&raw const image_start) as u64,
            rodata: (&raw const rodata_start) as u64,
            data: (&raw const data_start) as u64,
            stack_guard: (&raw const stack_guard) as u64,
            stack_bottom: (&raw const stack_bottom) as u64,
            stack_top: (&raw const stack_top) as u64,
            fault_stack_guard: (&raw const fault_stack_guard) as u64,
            fault_stack_top: (&raw const fault_stack_top) as u64,
            end: (&raw const image_end) as u64,
        }
    }
}
