//! Decodes the instructions by which kernels reach the local APIC's page, and carries them out: moves, exchanges, string stores, and arithmetic with one operand in
//! memory (Intel SDM 2, chapter 2 and appendix A).
//!
//! The faulting address comes from the exit, so addressing modes matter for the length only. Bytes are a guest's: whatever they are, decoding ends,
//! and what is not understood is an error.

mod decode;
mod execute;
mod flags;
#[cfg(test)]
mod tests;

pub use decode::decode;

/// How code is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit code.
    Bits16,
    /// 32-bit code.
    Bits32,
    /// 64-bit code.
    Bits64,
}

/// The most bytes that an instruction has.
pub const MAXIMUM_LENGTH: usize = 15;

/// Why bytes are not an instruction that is carried out here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes are needed (or there are more than 15).
    #[error("the instruction is not complete")]
    Incomplete,
    /// Not among the supported ones.
    #[error("the instruction is not one that devices' registers are accessed by")]
    Unsupported,
}

/// A decoded instruction with one operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes of the instruction.
    pub length: u8,
    /// Bytes of the operand in memory: 1, 2, 4 or 8.
    pub size: u8,
    /// It reads memory.
    pub reads: bool,
    /// It writes memory.
    pub writes: bool,
    mode: Mode,
    operation: Operation,
}

/// What an instruction reads and writes.
pub trait Memory {
    /// The operand in memory.
    fn read(&mut self, size: u8) -> u64;
    /// Stores into it.
    fn write(&mut self, size: u8, value: u64);
}

/// What an instruction does with its operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Into a register of `width` bytes, extended by zeros or by the sign.
    Load {
        register: Register,
        width: u8,
        signed: bool,
    },
    /// Into memory.
    Store(Source),
    /// Memory and register change places.
    Exchange(Register),
    /// Memory takes the result.
    Modify(Arithmetic, Source),
    /// The register takes the result of itself and memory.
    Combine(Arithmetic, Register),
    /// Only the flags change: the first operand is memory.
    Compare(Arithmetic, Source),
    /// Only the flags change: the first operand is the register.
    CompareRegister(Register),
    /// Memory takes its complement; no flags change.
    Complement,
    /// Memory takes its negative.
    Negate,
    /// Memory takes itself plus or minus one; carry stays.
    Step { up: bool },
    /// STOS: the accumulator into memory; `repeat` while the count lasts. Addresses and count have `address_size` bytes.
    StoreString { repeat: bool, address_size: u8 },
}

/// Arithmetic of two operands, in the order of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Or,
    AddCarry,
    SubtractBorrow,
    And,
    Subtract,
    ExclusiveOr,
}

/// An operand that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Register(Register),
    /// Extended by its sign.
    Immediate(u64),
}

/// A general register, or the second byte of one of the first four (AH, CH, DH, BH).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Register {
    /// 0 to 15: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 …
    number: u8,
    second_byte: bool,
}

impl Register {
    const ACCUMULATOR: Self = Self {
        number: 0,
        second_byte: false,
    };
}
