//! Machine checks: what the processor knows about hardware that failed (AMD64 volume 2, chapter 9), for the operator.
#![allow(unsafe_code)] // Model-specific registers.

use super::cpu;

const CAPABILITIES: u32 = 0x179;
const GLOBAL_STATUS: u32 = 0x17a;
/// Status of bank 0; its address follows, and each bank is four further.
const BANK_STATUS: u32 = 0x401;
const REGISTERS_EACH: u32 = 4;

const VALID: u64 = 1 << 63;
const OVERFLOW: u64 = 1 << 62;
const UNCORRECTED: u64 = 1 << 61;
const ADDRESS_VALID: u64 = 1 << 58;
const CONTEXT_CORRUPT: u64 = 1 << 57;

/// Logs what every bank of this processor holds, and empties them, so that the next machine check is one and not a shut-down. Call it where machine
/// checks are on, which is everywhere.
pub fn report() {
    // SAFETY: a processor that raises machine checks has the registers, and as many banks as it says; what is written clears them.
    unsafe {
        let banks = cpu::read_msr(CAPABILITIES) as u32 & 0xff;
        log::error!("machine check: global status {:#x}", cpu::read_msr(GLOBAL_STATUS));
        for bank in 0..banks {
            let register = BANK_STATUS + REGISTERS_EACH * bank;
            let status = cpu::read_msr(register);
            if status & VALID == 0 {
                continue;
            }
            let address = if status & ADDRESS_VALID == 0 {
                None
            } else {
                Some(cpu::read_msr(register + 1))
            };
            log::error!(
                "{}",
                Bank {
                    bank,
                    status,
                    address
                }
            );
            cpu::write_msr(register, 0);
        }
        cpu::write_msr(GLOBAL_STATUS, 0);
    }
}

/// What a bank holds.
struct Bank {
    bank: u32,
    status: u64,
    address: Option<u64>,
}

impl core::fmt::Display for Bank {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            bank,
            status,
            address,
        } = *self;
        write!(formatter, "machine check: bank {bank}, status {status:#018x}")?;
        for (bit, meaning) in [
            (UNCORRECTED, "not corrected"),
            (CONTEXT_CORRUPT, "the processor's state is lost"),
            (OVERFLOW, "more than one"),
        ] {
            if status & bit != 0 {
                write!(formatter, ", {meaning}")?;
            }
        }
        match address {
            Some(address) => write!(formatter, ", at machine address {address:#x}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_is_told_in_words() {
        let bank = Bank {
            bank: 4,
            status: VALID | UNCORRECTED | ADDRESS_VALID | 0x135,
            address: Some(0x1234_5000),
        };
        assert_eq!(
            std::format!("{bank}"),
            "machine check: bank 4, status 0xa400000000000135, not corrected, at machine address 0x12345000"
        );
    }
}
