//! What a domain printed last: a bounded run of bytes that begins at the start of a line.

use alloc::collections::VecDeque;

/// The newest bytes of a stream.
pub struct Scrollback {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl Scrollback {
    /// Keeps up to `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
        }
    }

    /// Adds bytes; the oldest lines make room.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.capacity)..];
        self.bytes.extend(bytes);
        if self.bytes.len() > self.capacity {
            let excess = self.bytes.len() - self.capacity;
            self.bytes.drain(..excess);
            // Begin with a whole line, unless one line is all there is.
            if let Some(end) = self
                .bytes
                .iter()
                .position(|&byte| byte == b'\n')
                .filter(|&end| end + 1 < self.bytes.len())
            {
                self.bytes.drain(..=end);
            }
        }
    }

    /// The bytes kept, oldest first, in two runs.
    pub fn contents(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    /// Whether nothing was printed yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(scrollback: &Scrollback) -> Vec<u8> {
        let (first, second) = scrollback.contents();
        [first, second].concat()
    }

    #[test]
    fn keeps_whole_lines() {
        let mut scrollback = Scrollback::new(12);
        scrollback.push(b"one\ntwo\n");
        assert_eq!(text(&scrollback), b"one\ntwo\n");
        scrollback.push(b"three\n");
        assert_eq!(text(&scrollback), b"two\nthree\n");
    }

    #[test]
    fn a_line_longer_than_everything_keeps_its_end() {
        let mut scrollback = Scrollback::new(4);
        scrollback.push(b"abcdefgh");
        assert_eq!(text(&scrollback), b"efgh");
        scrollback.push(b"\n");
        assert_eq!(text(&scrollback), b"fgh\n");
    }

    proptest::proptest! {
        #[test]
        fn is_always_a_suffix_within_bounds(pieces: Vec<Vec<u8>>, capacity in 1usize..64) {
            let mut scrollback = Scrollback::new(capacity);
            let mut all = Vec::new();
            for piece in &pieces {
                scrollback.push(piece);
                all.extend_from_slice(piece);
            }
            let kept = text(&scrollback);
            proptest::prop_assert!(kept.len() <= capacity);
            proptest::prop_assert!(all.ends_with(&kept));
        }
    }
}
