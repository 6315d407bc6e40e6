//! Sizes of memory as people write them.

use alloc::{format, string::String};

/// Reads a size such as `256M`: a number and K, M, G or T, in powers of 1024; without a letter it is bytes.
pub fn read(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => Some(0),
        "K" | "KIB" => Some(10),
        "M" | "MIB" => Some(20),
        "G" | "GIB" => Some(30),
        "T" | "TIB" => Some(40),
        _ => None,
    };
    let number = digits.trim_end().parse::<u64>().ok();
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("\"{text}\" is no size; write a number and K, M or G, such as \"256M\""))
}

/// Shows a size the way that [`read`] reads it.
pub fn show(bytes: u64) -> String {
    let (shift, letter) = [(30, "G"), (20, "M"), (10, "K")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .unwrap_or((0, ""));
    format!("{}{letter}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_shows() {
        for bytes in [0, 4096, 12 << 10, 96 << 20, 3 << 30, 1000] {
            assert_eq!(read(&show(bytes)), Ok(bytes));
        }
        assert_eq!((read("64m"), read("1 GiB")), (Ok(64 << 20), Ok(1 << 30)));
        for text in ["", "M", "-1M", "99999999999G", "1.5G"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
