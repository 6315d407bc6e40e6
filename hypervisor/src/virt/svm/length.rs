//! Lengths of the instructions that exits leave to be skipped, for processors (and TCG) that do not save the next instruction pointer.
//!
//! The guest's bytes are not fetched: each of these instructions has one encoding that assemblers write, and a guest that puts a meaningless
//! prefix before it resumes in its own last byte, which harms nobody else.

use super::vmcb::exit_code;

/// Bytes of the instruction behind an exit code; `None` if the exit is not one that an instruction of fixed length causes.
pub fn of(code: u64) -> Option<u64> {
    match code {
        exit_code::HLT => Some(1),                                            // F4
        exit_code::CPUID | exit_code::MSR | exit_code::RDPMC => Some(2),      // 0F A2, 0F 30, 0F 32, 0F 33
        exit_code::INVD | exit_code::WBINVD => Some(2),                       // 0F 08, 0F 09
        exit_code::VMMCALL | exit_code::XSETBV | exit_code::RDPRU => Some(3), // 0F 01 D9, D1, FD
        exit_code::VMRUN | exit_code::VMLOAD..=exit_code::SKINIT => Some(3),  // 0F 01 D8, DA–DE
        exit_code::INVLPGA | exit_code::MONITOR..=exit_code::MWAIT_CONDITIONAL => Some(3), // 0F 01 DF, C8, C9
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_the_loop_skips() {
        for (code, length) in [
            (0x78, 1),
            (0x72, 2),
            (0x7c, 2),
            (0x81, 3),
            (0x8d, 3),
            (0x76, 2),
            (0x89, 2),
            (0x8b, 3),
        ] {
            assert_eq!(of(code), Some(length), "{code:#x}");
        }
        assert_eq!(of(exit_code::NESTED_FAULT), None);
        assert_eq!(of(exit_code::PORT), None);
        assert_eq!(of(exit_code::INTERRUPT), None);
    }
}
