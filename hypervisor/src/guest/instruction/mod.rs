//! Decodes the instructions by which kernels reach the local APIC's page, and carries them out.
//!
//! The faulting address comes from the exit, so addressing modes matter for the length only.

use crate::virt::Registers;

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
}

/// What an instruction reads and writes.
pub trait Memory {
    /// The operand in memory.
    fn read(&mut self, size: u8) -> u64;
    /// Stores into it.
    fn write(&mut self, size: u8, value: u64);
}

/// Decodes the instruction at the start of `bytes` (up to 15; fewer at the end of readable memory).
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, DecodeError> {
    let _ = (bytes, mode);
    todo!()
}

impl Instruction {
    /// Carries it out: reads and writes memory, updates registers and flags, and moves `rip` behind it (a repeated one is done once, and `rip` stays
    /// until its count is used up).
    pub fn execute(&self, registers: &mut Registers, memory: &mut impl Memory) {
        let _ = (registers, memory);
        todo!()
    }
}
