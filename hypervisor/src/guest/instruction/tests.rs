//! Instructions as assemblers write them, and bytes at random.

use proptest::prelude::*;

use super::*;
use crate::virt::Registers;

/// An operand in memory that remembers what was done to it.
#[derive(Default)]
struct Cell {
    value: u64,
    reads: Vec<u8>,
    writes: Vec<(u8, u64)>,
}

impl Memory for Cell {
    fn read(&mut self, size: u8) -> u64 {
        self.reads.push(size);
        self.value
    }

    fn write(&mut self, size: u8, value: u64) {
        self.writes.push((size, value));
    }
}

/// Registers with values that tell them apart.
fn registers() -> Registers {
    Registers {
        rax: 0x1111_2222_3333_4455,
        rbx: 0xbbbb_bbbb_bbbb_bbbb,
        rcx: 3,
        rdx: 0xdddd_dddd_dddd_dd0d,
        rdi: 0x1_0000_0000,
        r8: 0x8888_8888_8888_8888,
        rip: 0xffff_ffff_8000_0000,
        rflags: 2,
        ..Registers::default()
    }
}

/// Carries out `bytes` over an operand with `value`; answers registers and memory.
fn run(bytes: &[u8], mode: Mode, value: u64) -> (Registers, Cell) {
    let instruction = decode(bytes, mode).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"));
    assert_eq!(usize::from(instruction.length), bytes.len(), "{bytes:02x?}");
    let (mut registers, mut cell) = (
        registers(),
        Cell {
            value,
            ..Cell::default()
        },
    );
    instruction.execute(&mut registers, &mut cell);
    assert_eq!(
        (!cell.reads.is_empty(), !cell.writes.is_empty()),
        (instruction.reads, instruction.writes),
        "{bytes:02x?}"
    );
    (registers, cell)
}

#[test]
fn lengths_follow_the_addressing_mode() {
    let forms: &[(&[u8], Mode)] = &[
        (&[0x8b, 0x03], Mode::Bits64),                               // mov eax, [rbx]
        (&[0x8b, 0x43, 0x20], Mode::Bits64),                         // mov eax, [rbx+0x20]
        (&[0x8b, 0x83, 0x20, 0x03, 0, 0], Mode::Bits64),             // mov eax, [rbx+0x320]
        (&[0x8b, 0x05, 1, 2, 3, 4], Mode::Bits64),                   // mov eax, [rip+…]
        (&[0x8b, 0x04, 0x25, 0x20, 0xb0, 0x5f, 0xff], Mode::Bits64), // mov eax, [0xffffffffff5fb020]
        (&[0x8b, 0x04, 0x0b], Mode::Bits64),                         // mov eax, [rbx+rcx]
        (&[0x8b, 0x44, 0x0b, 8], Mode::Bits64),                      // mov eax, [rbx+rcx+8]
        (&[0x41, 0x8b, 0x45, 0], Mode::Bits64),                      // mov eax, [r13]
        (&[0x41, 0x8b, 0x04, 0x24], Mode::Bits64),                   // mov eax, [r12]
        (&[0x67, 0x8b, 0x03], Mode::Bits64),                         // mov eax, [ebx]
        (&[0x2e, 0x48, 0x8b, 0x03], Mode::Bits64),                   // mov rax, cs:[rbx]
        (&[0xa1, 1, 2, 3, 4, 5, 6, 7, 8], Mode::Bits64),             // movabs eax, …
        (&[0xa1, 0x20, 0, 0xe0, 0xfe], Mode::Bits32),                // mov eax, [0xfee00020]
        (&[0x8b, 0x0d, 0x20, 0, 0xe0, 0xfe], Mode::Bits32),          // mov ecx, [0xfee00020]
        (&[0x67, 0x8b, 0x0e, 0x20, 0], Mode::Bits32),                // mov ecx, [0x20] with 16 bits
        (&[0x8b, 0x0e, 0x20, 0], Mode::Bits16),                      // mov cx, [0x20]
        (&[0x8b, 0x47, 0x20], Mode::Bits16),                         // mov ax, [bx+0x20]
        (&[0x8b, 0x87, 0x20, 0], Mode::Bits16),                      // mov ax, [bx+0x20] with 16 bits
        (&[0x67, 0x8b, 0x83, 0, 0, 0, 0], Mode::Bits16),             // mov ax, [ebx+0]
        (
            &[0xc7, 0x04, 0x25, 0x80, 0xb0, 0x5f, 0xff, 1, 2, 3, 4],
            Mode::Bits64,
        ), // mov dword [0x…], imm
        (&[0x66, 0xc7, 0x03, 1, 2], Mode::Bits64),                   // mov word [rbx], imm
        (&[0xc6, 0x03, 1], Mode::Bits64),                            // mov byte [rbx], imm
        (&[0x81, 0x63, 0x10, 1, 2, 3, 4], Mode::Bits64),             // and dword [rbx+0x10], imm
        (&[0x83, 0x4b, 0x10, 1], Mode::Bits64),                      // or dword [rbx+0x10], imm
        (&[0xf7, 0x43, 0x10, 0, 0x10, 0, 0], Mode::Bits64),          // test dword [rbx+0x10], imm
        (&[0xf6, 0x43, 0x11, 0x10], Mode::Bits64),                   // test byte [rbx+0x11], imm
    ];
    for (bytes, mode) in forms {
        run(bytes, *mode, 0);
        for length in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..length], *mode),
                Err(DecodeError::Incomplete),
                "{bytes:02x?} cut to {length}"
            );
        }
    }
}

#[test]
fn loads_extend_and_merge() {
    for (bytes, value, rax) in [
        (&[0x8b, 0x03][..], 0xffff_ffff_8765_4321, 0x8765_4321), // mov eax
        (&[0x48, 0x8b, 0x03], 0xffff_ffff_8765_4321, 0xffff_ffff_8765_4321), // mov rax
        (&[0x66, 0x8b, 0x03], 0x8765, 0x1111_2222_3333_8765),    // mov ax
        (&[0x8a, 0x03], 0x99, 0x1111_2222_3333_4499),            // mov al
        (&[0x8a, 0x23], 0x99, 0x1111_2222_3333_9955),            // mov ah
        (&[0x0f, 0xb6, 0x03], 0xf9, 0xf9),                       // movzx eax, byte
        (&[0x0f, 0xb7, 0x03], 0x1_f999, 0xf999),                 // movzx eax, word
        (&[0x0f, 0xbe, 0x03], 0xf9, 0xffff_fff9),                // movsx eax, byte
        (&[0x48, 0x0f, 0xbf, 0x03], 0x8000, 0xffff_ffff_ffff_8000), // movsx rax, word
        (&[0x48, 0x63, 0x03], 0x8000_0000, 0xffff_ffff_8000_0000), // movsxd rax, dword
        (&[0x66, 0x0f, 0xbe, 0x03], 0x80, 0x1111_2222_3333_ff80), // movsx ax, byte
    ] {
        assert_eq!(run(bytes, Mode::Bits64, value).0.rax, rax, "{bytes:02x?}");
    }
    assert_eq!(run(&[0x44, 0x8b, 0x03], Mode::Bits64, 7).0.r8, 7); // mov r8d
    assert_eq!(run(&[0x40, 0x8a, 0x23], Mode::Bits64, 7).0.rsp, 7); // mov spl
    assert_eq!(
        run(&[0x48, 0x26, 0x8b, 0x03], Mode::Bits64, u64::MAX).0.rax,
        0xffff_ffff,
        "REX before a prefix is void"
    );
}

#[test]
fn stores_take_registers_and_immediates() {
    for (bytes, write) in [
        (&[0x89, 0x03][..], (4, 0x3333_4455)),             // mov [rbx], eax
        (&[0x48, 0x89, 0x03], (8, 0x1111_2222_3333_4455)), // mov [rbx], rax
        (&[0x66, 0x89, 0x03], (2, 0x4455)),                // mov [rbx], ax
        (&[0x88, 0x03], (1, 0x55)),                        // mov [rbx], al
        (&[0x88, 0x23], (1, 0x44)),                        // mov [rbx], ah
        (&[0x44, 0x88, 0x03], (1, 0x88)),                  // mov [rbx], r8b
        (&[0xc7, 0x03, 0, 0, 0, 0x80], (4, 0x8000_0000)),  // mov dword [rbx], imm
        (&[0x48, 0xc7, 0x03, 0, 0, 0, 0x80], (8, 0xffff_ffff_8000_0000)), // mov qword [rbx], imm
        (&[0xa3, 0, 0, 0, 0, 0, 0, 0, 0], (4, 0x3333_4455)), // movabs […], eax
    ] {
        let (registers, cell) = run(bytes, Mode::Bits64, 0);
        assert_eq!(cell.writes, [write], "{bytes:02x?}");
        assert_eq!(registers.rip, 0xffff_ffff_8000_0000 + bytes.len() as u64);
    }
}

/// Linux exchanges instead of storing on processors with erratum 11AP, and ends interrupts by `movl`.
#[test]
fn exchanges_go_both_ways() {
    let (registers, cell) = run(&[0x87, 0x83, 0xb0, 0, 0, 0], Mode::Bits64, 0x7);
    assert_eq!(
        (registers.rax, cell.reads, cell.writes),
        (7, vec![4], vec![(4, 0x3333_4455)])
    );
}

#[test]
fn arithmetic_sets_flags() {
    const CF: u64 = 1;
    const PF: u64 = 4;
    const AF: u64 = 0x10;
    const ZF: u64 = 0x40;
    const SF: u64 = 0x80;
    const OF: u64 = 0x800;
    for (bytes, value, write, flags) in [
        (&[0x83, 0x23, 0][..], 5, Some(0), ZF | PF), // and dword [rbx], 0
        (&[0x83, 0x0b, 0xff], 5, Some(0xffff_ffff), SF | PF), // or dword [rbx], -1
        (&[0x83, 0x33, 5], 5, Some(0), ZF | PF),     // xor
        (&[0x83, 0x03, 1], 0xffff_ffff, Some(0), CF | ZF | PF | AF), // add
        (
            &[0x83, 0x03, 1],
            0x7fff_ffff,
            Some(0x8000_0000),
            OF | SF | PF | AF,
        ), // add
        (&[0x83, 0x2b, 1], 0, Some(0xffff_ffff), CF | SF | PF | AF), // sub
        (&[0x83, 0x2b, 1], 0x8000_0000, Some(0x7fff_ffff), OF | PF | AF), // sub
        (&[0x83, 0x3b, 5], 5, None, ZF | PF),        // cmp dword [rbx], 5
        (&[0x3b, 0x0b], 5, None, CF | SF | AF),      // cmp ecx, [rbx]: 3 - 5 = …fe
        (&[0xf7, 0x03, 0, 0x10, 0, 0], 0x1000, None, PF), // test dword [rbx], 0x1000
        (&[0x85, 0x0b], 4, None, ZF | PF),           // test [rbx], ecx
        (&[0xf7, 0x1b], 1, Some(0xffff_ffff), CF | SF | PF | AF), // neg
        (&[0xf7, 0x13], 1, Some(0xffff_fffe), 0),    // not: flags stay
        (&[0xff, 0x03], 0xffff_ffff, Some(0), ZF | PF | AF), // inc: carry stays
        (&[0xfe, 0x0b], 1, Some(0), ZF | PF),        // dec byte
        (&[0x01, 0x0b], 4, Some(7), 0),              // add [rbx], ecx
    ] {
        let (registers, cell) = run(bytes, Mode::Bits64, value);
        assert_eq!(cell.writes.first().map(|write| write.1), write, "{bytes:02x?}");
        assert_eq!(
            registers.rflags & !2,
            flags,
            "{bytes:02x?}: {:#x}",
            registers.rflags
        );
    }
    assert_eq!(run(&[0x23, 0x0b], Mode::Bits64, 6).0.rcx, 2); // and ecx, [rbx]
    assert_eq!(run(&[0x0b, 0x0b], Mode::Bits64, 4).0.rcx, 7); // or ecx, [rbx]
    let (mut with_carry, mut cell) = (
        Registers {
            rflags: 1,
            ..registers()
        },
        Cell::default(),
    );
    decode(&[0x83, 0x13, 0], Mode::Bits64)
        .unwrap()
        .execute(&mut with_carry, &mut cell); // adc dword [rbx], 0
    assert_eq!((cell.writes, with_carry.rflags & 1), (vec![(4, 1)], 0));
}

#[test]
fn strings_are_stored_one_at_a_time() {
    let mut registers = registers();
    let mut cell = Cell::default();
    let instruction = decode(&[0xf3, 0xab], Mode::Bits64).unwrap();
    for left in [2, 1, 0] {
        assert_eq!(registers.rip, 0xffff_ffff_8000_0000);
        instruction.execute(&mut registers, &mut cell);
        assert_eq!(registers.rcx, left);
    }
    assert_eq!(
        (registers.rip, registers.rdi),
        (0xffff_ffff_8000_0002, 0x1_0000_000c)
    );
    assert_eq!(cell.writes, [(4, 0x3333_4455); 3]);
    let (registers, cell) = run(&[0xaa], Mode::Bits64, 0);
    assert_eq!(
        (registers.rcx, registers.rdi, cell.writes),
        (3, 0x1_0000_0001, vec![(1, 0x55)])
    );
}

#[test]
fn the_instruction_pointer_wraps_as_the_mode_says() {
    for (mode, rip) in [
        (Mode::Bits16, 1),
        (Mode::Bits32, 1),
        (Mode::Bits64, 0x1_0000_0001),
    ] {
        let mut registers = Registers {
            rip: 0xffff_ffff,
            ..registers()
        };
        decode(&[0x8b, 0x03], mode)
            .unwrap()
            .execute(&mut registers, &mut Cell::default());
        assert_eq!(registers.rip, rip);
    }
}

#[test]
fn others_are_not_understood() {
    let others: [(&[u8], Mode); 12] = [
        (&[0x8b, 0xc3], Mode::Bits64),       // mov eax, ebx
        (&[0x90], Mode::Bits64),             // nop
        (&[0x0f, 0x05], Mode::Bits64),       // syscall
        (&[0x0f, 0xb0, 0x03], Mode::Bits64), // cmpxchg
        (&[0xa5], Mode::Bits64),             // movs
        (&[0x82, 0x03, 0], Mode::Bits64),
        (&[0xc7, 0x0b], Mode::Bits64),
        (&[0xff, 0x13], Mode::Bits64), // call
        (&[0xf7, 0x23], Mode::Bits64), // mul
        (&[0x63, 0x03], Mode::Bits32), // arpl
        (&[0x40], Mode::Bits32),       // inc eax
        (&[0xc5, 0xf8, 0x28, 0x03], Mode::Bits64),
    ];
    for (bytes, mode) in others {
        assert_eq!(decode(bytes, mode), Err(DecodeError::Unsupported), "{bytes:02x?}");
    }
    assert_eq!(decode(&[0x66; 20], Mode::Bits64), Err(DecodeError::Incomplete));
    let mut long = [0x66; 16];
    long[14..].copy_from_slice(&[0x8b, 0x03]);
    assert_eq!(
        decode(&long, Mode::Bits64),
        Err(DecodeError::Incomplete),
        "16 bytes are too many"
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..20), mode in 0usize..3, value: u64, rcx: u64, rflags: u64) {
        let mode = [Mode::Bits16, Mode::Bits32, Mode::Bits64][mode];
        if let Ok(instruction) = decode(&bytes, mode) {
            prop_assert!(instruction.length >= 1 && usize::from(instruction.length) <= bytes.len().min(MAXIMUM_LENGTH));
            prop_assert!([1, 2, 4, 8].contains(&instruction.size));
            // What follows an instruction does not matter to it.
            prop_assert_eq!(decode(&bytes[..instruction.length.into()], mode), Ok(instruction));
            let mut cell = Cell { value, ..Cell::default() };
            let mut registers = Registers { rcx, rflags, ..registers() };
            instruction.execute(&mut registers, &mut cell);
            for (size, value) in cell.writes {
                prop_assert!(size == 8 || value >> (8 * size) == 0);
            }
        }
    }
}
