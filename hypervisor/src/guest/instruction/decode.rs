//! From bytes to an [`Instruction`].

use super::{Arithmetic, DecodeError, Instruction, MAXIMUM_LENGTH, Mode, Operation, Register, Source};

/// Decodes the instruction at the start of `bytes` (up to 15; fewer at the end of readable memory).
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, DecodeError> {
    let mut reader = Reader {
        bytes: &bytes[..bytes.len().min(MAXIMUM_LENGTH)],
        position: 0,
    };
    let (prefixes, opcode) = Prefixes::read(&mut reader, mode)?;
    let decoded = match opcode {
        0x0f => two_bytes(&mut reader, &prefixes)?,
        _ => one_byte(&mut reader, &prefixes, opcode)?,
    };
    let (reads, writes) = match decoded.operation {
        Operation::Load { .. }
        | Operation::Combine(..)
        | Operation::Compare(..)
        | Operation::CompareRegister(_) => (true, false),
        Operation::Store(_) | Operation::StoreString { .. } => (false, true),
        _ => (true, true),
    };
    Ok(Instruction {
        length: reader.position as u8,
        size: decoded.size,
        reads,
        writes,
        mode,
        operation: decoded.operation,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.position).ok_or(DecodeError::Incomplete)?;
        self.position += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        if self.bytes.len() - self.position < count {
            return Err(DecodeError::Incomplete);
        }
        self.position += count;
        Ok(())
    }

    /// An immediate of an operand of `size` bytes, extended by its sign; 8-byte operands have 4-byte immediates.
    fn immediate(&mut self, size: u8) -> Result<u64, DecodeError> {
        let length = size.min(4);
        let mut value = 0;
        for index in 0..length {
            value |= u64::from(self.byte()?) << (8 * index);
        }
        let unused = 64 - 8 * u32::from(length);
        Ok(((value << unused) as i64 >> unused) as u64)
    }
}

/// What stands before the opcode.
struct Prefixes {
    mode: Mode,
    operand_size: u8,
    address_size: u8,
    repeat: bool,
    /// The REX prefix, if there is one.
    rex: Option<u8>,
}

impl Prefixes {
    /// Reads them and the first byte of the opcode.
    fn read(reader: &mut Reader, mode: Mode) -> Result<(Self, u8), DecodeError> {
        let (mut operand, mut address, mut repeat, mut rex) = (false, false, false, None);
        let opcode = loop {
            let byte = reader.byte()?;
            match byte {
                0x66 => operand = true,
                0x67 => address = true,
                0xf2 | 0xf3 => repeat = true,
                // Segments and LOCK: neither matters here.
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 => {}
                0x40..=0x4f if mode == Mode::Bits64 => {
                    rex = Some(byte);
                    continue;
                }
                _ => break byte,
            }
            // A REX prefix counts only right before the opcode.
            rex = None;
        };
        let wide = rex.is_some_and(|rex| rex & 8 != 0);
        let operand_size = match mode {
            _ if wide => 8,
            Mode::Bits16 if !operand => 2,
            Mode::Bits32 | Mode::Bits64 if operand => 2,
            _ => 4,
        };
        let address_size = match (mode, address) {
            (Mode::Bits64, false) => 8,
            (Mode::Bits16, false) | (Mode::Bits32, true) => 2,
            _ => 4,
        };
        Ok((
            Self {
                mode,
                operand_size,
                address_size,
                repeat,
                rex,
            },
            opcode,
        ))
    }

    /// The register with this number in an operand of `size` bytes: without REX, byte registers 4 to 7 are second bytes.
    fn register(&self, number: u8, size: u8) -> Register {
        match self.rex {
            None if size == 1 && number >= 4 => Register {
                number: number - 4,
                second_byte: true,
            },
            _ => Register {
                number,
                second_byte: false,
            },
        }
    }
}

/// What the ModRM byte says, with the operand in memory.
struct ModRm {
    /// The register field with its extension, which is a part of the opcode for some.
    register: u8,
}

impl ModRm {
    /// The register field without its extension.
    fn opcode(&self) -> u8 {
        self.register & 7
    }

    /// Reads it, and skips the rest of the address.
    fn read(reader: &mut Reader, prefixes: &Prefixes) -> Result<Self, DecodeError> {
        let byte = reader.byte()?;
        let (form, base) = (byte >> 6, byte & 7);
        let displacement = match (form, prefixes.address_size) {
            (3, _) => return Err(DecodeError::Unsupported),
            (0, 2) => 2 * usize::from(base == 6),
            (1, 2) => 1,
            (_, 2) => 2,
            _ => {
                let base = if base == 4 { reader.byte()? & 7 } else { base };
                match form {
                    0 => 4 * usize::from(base == 5),
                    1 => 1,
                    _ => 4,
                }
            }
        };
        reader.skip(displacement)?;
        let extension = prefixes.rex.unwrap_or(0) << 1 & 8;
        Ok(Self {
            register: byte >> 3 & 7 | extension,
        })
    }
}

/// An operation and the size of its operand in memory.
struct Decoded {
    operation: Operation,
    size: u8,
}

fn one_byte(reader: &mut Reader, prefixes: &Prefixes, opcode: u8) -> Result<Decoded, DecodeError> {
    // In most opcodes the lowest bit tells byte operands from others.
    let size = if opcode & 1 == 0 { 1 } else { prefixes.operand_size };
    let operation = match opcode {
        0x00..=0x3f if opcode & 7 < 4 => {
            let register = prefixes.register(ModRm::read(reader, prefixes)?.register, size);
            let to_register = opcode & 2 != 0;
            match (arithmetic(opcode >> 3 & 7), to_register) {
                (Some(arithmetic), false) => Operation::Modify(arithmetic, Source::Register(register)),
                (Some(arithmetic), true) => Operation::Combine(arithmetic, register),
                (None, false) => Operation::Compare(Arithmetic::Subtract, Source::Register(register)),
                (None, true) => Operation::CompareRegister(register),
            }
        }
        // MOVSXD.
        0x63 if prefixes.mode == Mode::Bits64 => {
            let register = prefixes.register(ModRm::read(reader, prefixes)?.register, 4);
            let width = prefixes.operand_size;
            return Ok(Decoded {
                operation: Operation::Load {
                    register,
                    width,
                    signed: true,
                },
                size: width.min(4),
            });
        }
        0x80 | 0x81 | 0x83 => {
            let modrm = ModRm::read(reader, prefixes)?;
            let value = Source::Immediate(reader.immediate(if opcode == 0x81 { size } else { 1 })?);
            match arithmetic(modrm.opcode()) {
                Some(arithmetic) => Operation::Modify(arithmetic, value),
                None => Operation::Compare(Arithmetic::Subtract, value),
            }
        }
        0x84 | 0x85 => {
            let register = prefixes.register(ModRm::read(reader, prefixes)?.register, size);
            Operation::Compare(Arithmetic::And, Source::Register(register))
        }
        0x86 | 0x87 => Operation::Exchange(prefixes.register(ModRm::read(reader, prefixes)?.register, size)),
        0x88 | 0x89 => Operation::Store(Source::Register(
            prefixes.register(ModRm::read(reader, prefixes)?.register, size),
        )),
        0x8a | 0x8b => {
            let register = prefixes.register(ModRm::read(reader, prefixes)?.register, size);
            Operation::Load {
                register,
                width: size,
                signed: false,
            }
        }
        // The accumulator and an address that the instruction carries.
        0xa0 | 0xa1 => {
            reader.skip(prefixes.address_size.into())?;
            Operation::Load {
                register: Register::ACCUMULATOR,
                width: size,
                signed: false,
            }
        }
        0xa2 | 0xa3 => {
            reader.skip(prefixes.address_size.into())?;
            Operation::Store(Source::Register(Register::ACCUMULATOR))
        }
        0xaa | 0xab => Operation::StoreString {
            repeat: prefixes.repeat,
            address_size: prefixes.address_size,
        },
        0xc6 | 0xc7 => {
            if ModRm::read(reader, prefixes)?.opcode() != 0 {
                return Err(DecodeError::Unsupported);
            }
            Operation::Store(Source::Immediate(reader.immediate(size)?))
        }
        0xf6 | 0xf7 => match ModRm::read(reader, prefixes)?.opcode() {
            0 | 1 => Operation::Compare(Arithmetic::And, Source::Immediate(reader.immediate(size)?)),
            2 => Operation::Complement,
            3 => Operation::Negate,
            _ => return Err(DecodeError::Unsupported),
        },
        0xfe | 0xff => match ModRm::read(reader, prefixes)?.opcode() {
            0 => Operation::Step { up: true },
            1 => Operation::Step { up: false },
            _ => return Err(DecodeError::Unsupported),
        },
        _ => return Err(DecodeError::Unsupported),
    };
    Ok(Decoded { operation, size })
}

/// MOVZX and MOVSX.
fn two_bytes(reader: &mut Reader, prefixes: &Prefixes) -> Result<Decoded, DecodeError> {
    let opcode = reader.byte()?;
    if !matches!(opcode, 0xb6 | 0xb7 | 0xbe | 0xbf) {
        return Err(DecodeError::Unsupported);
    }
    let register = ModRm::read(reader, prefixes)?.register;
    let operation = Operation::Load {
        register: Register {
            number: register,
            second_byte: false,
        },
        width: prefixes.operand_size,
        signed: opcode >= 0xbe,
    };
    Ok(Decoded {
        operation,
        size: if opcode & 1 == 0 { 1 } else { 2 },
    })
}

/// The arithmetic with this number; 7 is the comparison, which is none.
fn arithmetic(number: u8) -> Option<Arithmetic> {
    Some(match number {
        0 => Arithmetic::Add,
        1 => Arithmetic::Or,
        2 => Arithmetic::AddCarry,
        3 => Arithmetic::SubtractBorrow,
        4 => Arithmetic::And,
        5 => Arithmetic::Subtract,
        6 => Arithmetic::ExclusiveOr,
        _ => return None,
    })
}
