//! Numbers for people, in little room.

use alloc::{format, string::String};

/// Tenths of a percent as percent.
pub fn percent(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A count, in six places at most.
pub fn count(number: u64) -> String {
    scaled(number, 1_000_000, ["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes a second as MiB/s, with one place behind the point while there is room.
pub fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 / (1 << 20)) as u64;
    if tenths < 100_000 {
        percent(tenths)
    } else {
        count(tenths / 10)
    }
}

/// A time of so many nanoseconds, in six places at most.
pub fn time(nanoseconds: u64) -> String {
    scaled(nanoseconds, 1000, ["ns", "us", "ms", "s", "ks", "Ms", "Gs"])
}

/// `number` as it is if it is below `plain`; else in the first of the further units in which it is below 1000, with one place behind the point if it is
/// below 100.
fn scaled(number: u64, plain: u64, units: [&str; 7]) -> String {
    let [first, rest @ ..] = units;
    if number < plain {
        return format!("{number}{first}");
    }
    let (mut whole, mut fraction) = (number, 0);
    for unit in rest {
        (whole, fraction) = (whole / 1000, whole % 1000 / 100);
        if whole < 100 {
            return format!("{whole}.{fraction}{unit}");
        }
        if whole < 1000 {
            return format!("{whole}{unit}");
        }
    }
    // No 64-bit number is left.
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short_and_right() {
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(1_000_000), "1.0M");
        assert_eq!(count(123_456_789), "123M");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(time(999), "999ns");
        assert_eq!(time(12_345), "12.3us");
        assert_eq!(time(1_900_000), "1.9ms");
        assert_eq!(time(250_000_000), "250ms");
        assert_eq!(time(61_000_000_000), "61.0s");
        assert_eq!(percent(1000), "100.0");
        assert_eq!(mebibytes(3 << 19), "1.5");
        assert_eq!(mebibytes(20_000 << 20), "20000");
    }

    proptest! {
        #[test]
        fn numbers_keep_to_their_room(number: u64) {
            prop_assert!(count(number).len() <= 6);
            prop_assert!(time(number).len() <= 6);
            prop_assert!(mebibytes(number).len() <= 6);
        }
    }
}
