//! The last bytes of the log, each with a position that never repeats.

/// `N` bytes; older ones are overwritten.
pub struct Ring<const N: usize> {
    bytes: [u8; N],
    end: u64,
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            end: 0,
        }
    }

    /// Appends.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes[(self.end % N as u64) as usize] = byte;
            self.end += 1;
        }
    }

    /// Position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Position of the first whole line that is still here.
    pub fn start(&self) -> u64 {
        let oldest = self.end.saturating_sub(N as u64);
        match oldest {
            0 => 0,
            _ => (oldest..self.end)
                .find(|&at| self.at(at) == b'\n')
                .map_or(self.end, |newline| newline + 1),
        }
    }

    /// Position from which the last `lines` lines follow.
    pub fn last_lines(&self, lines: usize) -> u64 {
        let oldest = self.end.saturating_sub(N as u64);
        let newlines = (oldest..self.end).rev().filter(|&at| self.at(at) == b'\n');
        newlines
            .skip(lines)
            .map(|newline| newline + 1)
            .next()
            .unwrap_or_else(|| self.start())
    }

    /// Copies out what follows `position`; the position behind what was copied, and how much it was. What is gone already is passed over.
    pub fn read(&self, position: u64, into: &mut [u8]) -> (u64, usize) {
        let oldest = self.end.saturating_sub(N as u64);
        let from = if position < oldest {
            self.start()
        } else {
            position.min(self.end)
        };
        let count = into.len().min((self.end - from) as usize);
        for (offset, byte) in into[..count].iter_mut().enumerate() {
            *byte = self.at(from + offset as u64);
        }
        (from + count as u64, count)
    }

    fn at(&self, position: u64) -> u8 {
        self.bytes[(position % N as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn all<const N: usize>(ring: &Ring<N>, mut position: u64, piece: usize) -> Vec<u8> {
        let mut found = Vec::new();
        loop {
            let mut buffer = vec![0; piece];
            let (next, count) = ring.read(position, &mut buffer);
            if count == 0 {
                return found;
            }
            found.extend_from_slice(&buffer[..count]);
            position = next;
        }
    }

    #[test]
    fn a_late_reader_begins_with_a_whole_line() {
        let mut ring = Ring::<16>::new();
        ring.push(b"first\nsecond\n");
        assert_eq!(all(&ring, 0, 5), b"first\nsecond\n");
        ring.push(b"third\n");
        assert_eq!(all(&ring, 0, 5), b"second\nthird\n");
        assert_eq!(all(&ring, 13, 100), b"third\n");
        assert_eq!(all(&ring, u64::MAX, 100), b"");
        assert_eq!(all(&ring, ring.last_lines(1), 100), b"third\n");
        assert_eq!(all(&ring, ring.last_lines(9), 100), b"second\nthird\n");
    }

    proptest! {
        #[test]
        fn reads_a_suffix_of_what_was_written(lines in proptest::collection::vec("[a-z]{0,9}\n", 0..20), position in 0u64..200, piece in 1usize..9) {
            let mut ring = Ring::<32>::new();
            let text = lines.concat();
            ring.push(text.as_bytes());
            prop_assert!(text.as_bytes().ends_with(&all(&ring, position, piece)));
            prop_assert!(text.as_bytes().ends_with(&all(&ring, ring.last_lines(3), piece)));
        }
    }
}
