//! Carrying out an [`Instruction`] on registers and its operand in memory.

use super::{
    Arithmetic, Instruction, Memory, Mode, Operation, Register, Source,
    flags::{self, CARRY, DIRECTION},
};
use crate::virt::Registers;

impl Register {
    fn whole(self, registers: &mut Registers) -> &mut u64 {
        match self.number & 15 {
            0 => &mut registers.rax,
            1 => &mut registers.rcx,
            2 => &mut registers.rdx,
            3 => &mut registers.rbx,
            4 => &mut registers.rsp,
            5 => &mut registers.rbp,
            6 => &mut registers.rsi,
            7 => &mut registers.rdi,
            8 => &mut registers.r8,
            9 => &mut registers.r9,
            10 => &mut registers.r10,
            11 => &mut registers.r11,
            12 => &mut registers.r12,
            13 => &mut registers.r13,
            14 => &mut registers.r14,
            _ => &mut registers.r15,
        }
    }

    /// Its lowest `size` bytes.
    fn read(self, registers: &mut Registers, size: u8) -> u64 {
        let whole = *self.whole(registers);
        (if self.second_byte { whole >> 8 } else { whole }) & flags::mask(size)
    }

    /// Replaces its lowest `size` bytes; 4 bytes clear the upper half.
    fn write(self, registers: &mut Registers, size: u8, value: u64) {
        let whole = self.whole(registers);
        let (mask, shift) = (flags::mask(size), if self.second_byte { 8 } else { 0 });
        *whole = match size {
            4 | 8 => value & mask,
            _ => *whole & !(mask << shift) | (value & mask) << shift,
        };
    }
}

impl Source {
    fn read(self, registers: &mut Registers, size: u8) -> u64 {
        match self {
            Self::Register(register) => register.read(registers, size),
            Self::Immediate(value) => value & flags::mask(size),
        }
    }
}

impl Instruction {
    /// Carries it out: reads and writes memory, updates registers and flags, and moves `rip` behind it (a repeated one is done once, and `rip` stays
    /// until its count is used up). An interrupt shadow is the caller's to end.
    pub fn execute(&self, registers: &mut Registers, memory: &mut impl Memory) {
        let size = self.size;
        match self.operation {
            Operation::Load {
                register,
                width,
                signed,
            } => {
                let unused = 64 - 8 * u32::from(size.min(8));
                let value = memory.read(size) << unused;
                let value = if signed {
                    ((value as i64) >> unused) as u64
                } else {
                    value >> unused
                };
                register.write(registers, width, value);
            }
            Operation::Store(source) => memory.write(size, source.read(registers, size)),
            Operation::Exchange(register) => {
                let old = memory.read(size);
                memory.write(size, register.read(registers, size));
                register.write(registers, size, old);
            }
            Operation::Modify(operation, source) => {
                let operand = source.read(registers, size);
                self.modify(registers, memory, operation, operand);
            }
            Operation::Combine(operation, register) => {
                let left = register.read(registers, size);
                let (result, flags) =
                    flags::arithmetic(operation, left, memory.read(size), size, registers.rflags);
                registers.rflags = flags;
                register.write(registers, size, result);
            }
            Operation::Compare(operation, source) => {
                let right = source.read(registers, size);
                (_, registers.rflags) =
                    flags::arithmetic(operation, memory.read(size), right, size, registers.rflags);
            }
            Operation::CompareRegister(register) => {
                let left = register.read(registers, size);
                (_, registers.rflags) = flags::arithmetic(
                    Arithmetic::Subtract,
                    left,
                    memory.read(size),
                    size,
                    registers.rflags,
                );
            }
            Operation::Complement => {
                let value = !memory.read(size) & flags::mask(size);
                memory.write(size, value);
            }
            Operation::Negate => {
                let (result, flags) =
                    flags::arithmetic(Arithmetic::Subtract, 0, memory.read(size), size, registers.rflags);
                registers.rflags = flags;
                memory.write(size, result);
            }
            Operation::Step { up } => {
                let carry = registers.rflags & CARRY;
                self.modify(
                    registers,
                    memory,
                    if up { Arithmetic::Add } else { Arithmetic::Subtract },
                    1,
                );
                registers.rflags = registers.rflags & !CARRY | carry;
            }
            Operation::StoreString { repeat, address_size } => {
                if !self.store_string(registers, memory, repeat, address_size) {
                    return;
                }
            }
        }
        let next = registers.rip.wrapping_add(self.length.into());
        registers.rip = match self.mode {
            Mode::Bits16 => next & 0xffff,
            Mode::Bits32 => next & 0xffff_ffff,
            Mode::Bits64 => next,
        };
    }

    fn modify(
        &self,
        registers: &mut Registers,
        memory: &mut impl Memory,
        operation: Arithmetic,
        operand: u64,
    ) {
        let (result, flags) = flags::arithmetic(
            operation,
            memory.read(self.size),
            operand,
            self.size,
            registers.rflags,
        );
        registers.rflags = flags;
        memory.write(self.size, result);
    }

    /// One store of a STOS; answers whether the instruction is done.
    fn store_string(
        &self,
        registers: &mut Registers,
        memory: &mut impl Memory,
        repeat: bool,
        address_size: u8,
    ) -> bool {
        const COUNT: Register = Register {
            number: 1,
            second_byte: false,
        };
        const ADDRESS: Register = Register {
            number: 7,
            second_byte: false,
        };
        let count = COUNT.read(registers, address_size);
        if repeat && count == 0 {
            return true;
        }
        memory.write(self.size, Register::ACCUMULATOR.read(registers, self.size));
        let address = ADDRESS.read(registers, address_size);
        let step = u64::from(self.size);
        let next = if registers.rflags & DIRECTION == 0 {
            address.wrapping_add(step)
        } else {
            address.wrapping_sub(step)
        };
        ADDRESS.write(registers, address_size, next);
        if !repeat {
            return true;
        }
        COUNT.write(registers, address_size, count - 1);
        count == 1
    }
}
