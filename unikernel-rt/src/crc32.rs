//! The CRC-32 of IEEE 802.3, reflected: that of GPT, and of records in the keep region.

/// The remainders of all bytes.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = remainder >> 1 ^ if remainder & 1 != 0 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
}

/// The checksum of bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    extend(0, bytes)
}

/// The checksum of what `checksum` is of, followed by `bytes`.
pub fn extend(checksum: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!checksum, |remainder, &byte| {
        remainder >> 8 ^ TABLE[usize::from(remainder as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_the_standard_one() {
        assert_eq!(super::checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::extend(super::checksum(b"1234"), b"56789"), 0xcbf4_3926);
    }
}
