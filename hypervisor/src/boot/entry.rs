//! The first instructions: what a loader jumps to, in 32-bit protected mode without paging, up to the call of `atoll_start`.
//!
//! Two doors lead to one path. A Multiboot2 loader (GRUB) finds the header at the start of the image and enters with the loader's magic in EAX; a PVH
//! loader (QEMU, Xen) finds the note and enters another address. Both pass the place of their information in EBX, below 4 GiB, and load the image
//! where its program headers say, with `.bss` zeroed. There is no Multiboot1 header: QEMU would prefer it to the note and refuse the ELF64.
//!
//! The tables built here only carry the processor into 64-bit mode; [`crate::platform::paging`] replaces them. They map the first 4 GiB
//! writable and executable at 0 and at the direct map's address, and the first 2 GiB at the image's.
//!
//! A processor without 64-bit mode gets a message on the first serial port and on the text screen, and stops.
#![allow(unsafe_code)] // Assembly.

core::arch::global_asm!(
    r#"
.set OFFSET, {image_offset}
.set MULTIBOOT2_MAGIC, 0xe85250d6
.set MULTIBOOT2_LOADED, 0x36d76289

.pushsection .boot.header, "a"
.balign 8
multiboot_header:
    .long MULTIBOOT2_MAGIC
    .long 0                                         // i386 protected mode
    .long multiboot_header_end - multiboot_header
    .long -(MULTIBOOT2_MAGIC + (multiboot_header_end - multiboot_header))
.balign 8
    .word 1, 0                                      // information request: must have
    .long 8 + 4 * 4
    .long 1, 3, 6, 8                                // command line, modules, memory map, framebuffer
.balign 8
    .word 3, 0                                      // entry address
    .long 12
    .long atoll_multiboot_entry - OFFSET
.balign 8
    .word 5, 1                                      // framebuffer: optional, this one preferred, which all screens know
    .long 20
    .long 1024, 768, 32
.balign 8
    .word 6, 0                                      // modules at page boundaries
    .long 8
.balign 8
    .word 0, 0
    .long 8
multiboot_header_end:
.popsection

.pushsection .note.xen, "a", @note
.balign 4
    .long 4, 8, 18                                  // name length, content length, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad atoll_pvh_entry - OFFSET
.popsection

.pushsection .boot.text, "ax"
.code32
.globl atoll_multiboot_entry
atoll_multiboot_entry:
    mov %eax, %esi
    jmp 1f
.globl atoll_pvh_entry
atoll_pvh_entry:
    xor %esi, %esi
1:  cli
    cld
    mov %ebx, %edi                                  // ESI: magic, EDI: information; the arguments of atoll_start
    mov $(atoll_boot_stack_top - OFFSET), %esp

    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb no_long_mode
    mov $0x80000001, %eax
    cpuid
    bt $29, %edx
    jnc no_long_mode

    // Four directories of 2 MiB pages cover 4 GiB; present, writable, large.
    mov $(early_directories - OFFSET), %ebp
    mov $0x83, %eax
    xor %ecx, %ecx
2:  mov %eax, (%ebp, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 2b

    mov $(early_pointers - OFFSET), %ebp
    mov $(early_directories - OFFSET + 3), %eax
    xor %ecx, %ecx
3:  mov %eax, (%ebp, %ecx, 8)
    add $0x1000, %eax
    inc %ecx
    cmp $4, %ecx
    jne 3b

    movl $(early_directories - OFFSET + 3), early_image_pointers - OFFSET + 510 * 8
    movl $(early_directories - OFFSET + 0x1003), early_image_pointers - OFFSET + 511 * 8
    movl $(early_pointers - OFFSET + 3), atoll_early_root - OFFSET
    movl $(early_pointers - OFFSET + 3), atoll_early_root - OFFSET + {direct_map_slot} * 8
    movl $(early_image_pointers - OFFSET + 3), atoll_early_root - OFFSET + 511 * 8

    mov $(atoll_early_root - OFFSET), %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax                                  // physical address extension
    mov %eax, %cr4
    mov $0xc0000080, %ecx                           // EFER
    rdmsr
    or $0x100, %eax                                 // long mode
    wrmsr
    mov %cr0, %eax
    and $0x9fffffff, %eax                           // caches on, whatever the loader left
    or $0x80010001, %eax                            // paging, write protection, protected mode
    mov %eax, %cr0

    lgdt early_gdt_pointer - OFFSET
    ljmp $8, $(long_mode - OFFSET)

.code64
long_mode:
    movabs $7f, %rax                                // from the identity mapping to the image's
    jmp *%rax
7:
    mov $16, %eax
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    movabs $atoll_boot_stack_top, %rsp
    xor %ebp, %ebp
    push %rbp                                       // the end of every backtrace
    push %rbp
    xchg %rdi, %rsi                                 // atoll_start(magic, information)
    mov %edi, %edi
    mov %esi, %esi
    movabs $atoll_start, %rax
    call *%rax
    ud2

.code32
no_long_mode:
    mov $(no_long_mode_text - OFFSET), %esi
    mov $0xb8000, %edi
4:  lodsb
    test %al, %al
    jz 6f
    mov %al, (%edi)
    movb $0x4f, 1(%edi)
    add $2, %edi
    mov %al, %bl
    mov $0x10000, %ecx
5:  mov $0x3fd, %dx                                 // line status of COM1
    in %dx, %al
    test $0x20, %al
    loopz 5b
    mov $0x3f8, %dx
    mov %bl, %al
    out %al, %dx
    jmp 4b
6:  hlt
    jmp 6b
.code64
.popsection

.pushsection .boot.text, "ax"
.balign 8
early_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                        // 64-bit code
    .quad 0x00cf93000000ffff                        // data
early_gdt_pointer:
    .word early_gdt_pointer - early_gdt - 1
    .quad early_gdt - OFFSET
no_long_mode_text:
    .asciz "atoll: this processor has no 64-bit mode; Atoll needs an x86_64 machine with AMD-V (SVM). Halted. "
.popsection

.pushsection .bss.boot, "aw", @nobits
.balign 4096
.globl atoll_early_root
atoll_early_root:       .skip 4096
early_pointers:         .skip 4096
early_image_pointers:   .skip 4096
early_directories:      .skip 4 * 4096
.globl atoll_boot_stack_guard
atoll_boot_stack_guard: .skip 4096
    .skip {stack_size}
.globl atoll_boot_stack_top
atoll_boot_stack_top:
.popsection
"#,
    image_offset = const super::layout::IMAGE_OFFSET,
    direct_map_slot = const super::layout::DIRECT_MAP_SLOT,
    stack_size = const super::layout::BOOT_STACK_SIZE,
    options(att_syntax)
);
