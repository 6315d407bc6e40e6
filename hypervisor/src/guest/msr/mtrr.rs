//! The memory-type range registers (Intel SDM 3A, 11.11). They decide nothing here, since the second stage and the guest's PAT choose memory types; a
//! guest may write and read them, and finds all memory write-back to begin with, as Xen's PVH guests do.

const CAPABILITIES: u32 = 0xfe;
const FIRST_VARIABLE: u32 = 0x200;
const LAST_VARIABLE: u32 = FIRST_VARIABLE + 2 * VARIABLE_COUNT as u32 - 1;
const FIXED: [u32; FIXED_COUNT] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
const DEFAULT_TYPE: u32 = 0x2ff;

const VARIABLE_COUNT: usize = 8;
const FIXED_COUNT: usize = 11;
/// Write-combining, fixed ranges, and the number of variable ones.
const CAPABILITIES_VALUE: u64 = 1 << 10 | 1 << 8 | VARIABLE_COUNT as u64;
const ENABLED: u64 = 1 << 11;
const FIXED_ENABLED: u64 = 1 << 10;
const VALID: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;
/// Bits of an address that no processor has.
const BEYOND_ADDRESSES: u64 = !((1 << 52) - 1);

/// The registers of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryTypes {
    default_type: u64,
    /// Base and mask of each range in turn.
    variable: [u64; 2 * VARIABLE_COUNT],
    fixed: [u64; FIXED_COUNT],
}

impl Default for MemoryTypes {
    fn default() -> Self {
        Self {
            default_type: ENABLED | WRITE_BACK,
            variable: [0; 2 * VARIABLE_COUNT],
            fixed: [0; FIXED_COUNT],
        }
    }
}

/// Whether `value` is a memory type: uncacheable, write-combining, write-through, write-protected, write-back.
fn is_type(value: u64) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

impl MemoryTypes {
    /// `None` if `msr` is none of them.
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            CAPABILITIES => Some(CAPABILITIES_VALUE),
            DEFAULT_TYPE => Some(self.default_type),
            FIRST_VARIABLE..=LAST_VARIABLE => self.variable.get((msr - FIRST_VARIABLE) as usize).copied(),
            _ => FIXED
                .iter()
                .position(|fixed| *fixed == msr)
                .map(|index| self.fixed[index]),
        }
    }

    /// False if `msr` is none of them, cannot be written, or refuses `value`.
    pub(super) fn write(&mut self, msr: u32, value: u64) -> bool {
        match msr {
            DEFAULT_TYPE if value & !(ENABLED | FIXED_ENABLED | 0xff) == 0 && is_type(value & 0xff) => {
                self.default_type = value;
                true
            }
            FIRST_VARIABLE..=LAST_VARIABLE => {
                let index = (msr - FIRST_VARIABLE) as usize;
                let accepted = value & BEYOND_ADDRESSES == 0
                    && match index % 2 {
                        0 => value & 0xf00 == 0 && is_type(value & 0xff),
                        _ => value & 0xfff & !VALID == 0,
                    };
                if accepted {
                    self.variable[index] = value;
                }
                accepted
            }
            _ => match FIXED.iter().position(|fixed| *fixed == msr) {
                Some(index) if value.to_le_bytes().into_iter().all(|kind| is_type(kind.into())) => {
                    self.fixed[index] = value;
                    true
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_is_write_back_at_first() {
        let types = MemoryTypes::default();
        assert_eq!(types.read(DEFAULT_TYPE), Some(0x806));
        assert_eq!(types.read(CAPABILITIES), Some(0x508));
        assert!((0x200..0x210).all(|msr| types.read(msr) == Some(0)));
        assert_eq!(types.read(0x210), None);
    }

    #[test]
    fn writes_are_checked() {
        let mut types = MemoryTypes::default();
        for (msr, value, accepted) in [
            (CAPABILITIES, 0x508, false),
            (DEFAULT_TYPE, 0xc06, true),
            (DEFAULT_TYPE, 0x802, false),
            (DEFAULT_TYPE, 0x1006, false),
            (0x200, 0xc000_0001, true),
            (0x200, 0xc000_0003, false),
            (0x201, 0xff_c000_0800, true),
            (0x201, 0xff_c000_0100, false),
            (0x201, 1 << 52, false),
            (0x250, 0x0606_0606_0505_0401, true),
            (0x250, 0x0606_0606_0505_0407, false),
            (0x251, 0, false),
        ] {
            let before = types.read(msr);
            assert_eq!(types.write(msr, value), accepted, "{msr:#x} = {value:#x}");
            assert_eq!(types.read(msr), if accepted { Some(value) } else { before });
        }
    }
}
