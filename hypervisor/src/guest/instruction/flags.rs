//! Results and status flags of arithmetic (Intel SDM 1, 3.4.3.1).

use super::Arithmetic;

pub(super) const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
pub(super) const DIRECTION: u64 = 1 << 10;
const OVERFLOW: u64 = 1 << 11;
const STATUS: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// The bits of an operand of `size` bytes.
pub(super) fn mask(size: u8) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * size)) - 1
    }
}

/// The result of `left` and `right`, cut to `size` bytes, and the flags after it.
pub(super) fn arithmetic(operation: Arithmetic, left: u64, right: u64, size: u8, flags: u64) -> (u64, u64) {
    let mask = mask(size);
    let (left, right) = (left & mask, right & mask);
    let carry_in = match operation {
        Arithmetic::AddCarry | Arithmetic::SubtractBorrow => flags & CARRY,
        _ => 0,
    };
    // `Some` is the carry out of the highest bit.
    let (result, carry) = match operation {
        Arithmetic::Or => (left | right, None),
        Arithmetic::And => (left & right, None),
        Arithmetic::ExclusiveOr => (left ^ right, None),
        Arithmetic::Add | Arithmetic::AddCarry => {
            let sum = u128::from(left) + u128::from(right) + u128::from(carry_in);
            (sum as u64 & mask, Some(sum > u128::from(mask)))
        }
        Arithmetic::Subtract | Arithmetic::SubtractBorrow => {
            let result = left.wrapping_sub(right).wrapping_sub(carry_in) & mask;
            (
                result,
                Some(u128::from(left) < u128::from(right) + u128::from(carry_in)),
            )
        }
    };
    let subtracts = matches!(operation, Arithmetic::Subtract | Arithmetic::SubtractBorrow);
    let sign = (mask >> 1) + 1;
    let mut new = flags & !STATUS;
    if let Some(carry) = carry {
        // It overflows when the operands' signs (the second's turned, to subtract) agree and the result's differs.
        let same_sign = (left ^ right) & sign == if subtracts { sign } else { 0 };
        let overflow = same_sign && (left ^ result) & sign != 0;
        new |= if carry { CARRY } else { 0 };
        new |= if overflow { OVERFLOW } else { 0 };
        new |= (left ^ right ^ result) & ADJUST;
    }
    new |= if (result as u8).count_ones().is_multiple_of(2) {
        PARITY
    } else {
        0
    };
    new |= if result == 0 { ZERO } else { 0 };
    new |= if result & sign != 0 { SIGN } else { 0 };
    (result, new)
}
