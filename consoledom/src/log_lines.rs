//! Cuts the hypervisor's log, a stream of bytes, into lines and finds who wrote each: `[    1.234567] diskdom: text`.

use alloc::vec::Vec;

const LONGEST_LINE: usize = 1024;

/// Collects bytes until lines are whole.
#[derive(Default)]
pub struct LogLines {
    partial: Vec<u8>,
}

impl LogLines {
    /// Takes bytes, and calls `line` with each line that they complete, without its line feed. A line beyond all measure is cut.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() == LONGEST_LINE {
                line(&self.partial);
                self.partial.clear();
            }
        }
    }
}

/// The writer of a line and what it says; `None` for a line of another form.
pub fn parse(line: &[u8]) -> Option<(&str, &[u8])> {
    let end = line
        .strip_prefix(b"[")
        .and_then(|_| line.iter().position(|&byte| byte == b']'))?;
    let rest = line.get(end + 1..)?.strip_prefix(b" ")?;
    let colon = rest.iter().position(|&byte| byte == b':')?;
    let writer = core::str::from_utf8(&rest[..colon]).ok()?;
    let text = &rest[colon + 1..];
    Some((writer, text.strip_prefix(b" ").unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_writer() {
        assert_eq!(
            parse(b"[    1.234567] diskdom: nvme0: 256 MiB"),
            Some(("diskdom", &b"nvme0: 256 MiB"[..]))
        );
        assert_eq!(parse(b"[    1.2] atoll:"), Some(("atoll", &b""[..])));
        assert_eq!(parse(b"no stamp: at all"), None);
        assert_eq!(parse(b"[ never ends"), None);
        assert_eq!(parse(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn lines_come_out_whatever_the_cuts(text in "[a-z\n]{0,200}", cut in 0usize..200) {
            let mut lines = Vec::new();
            let mut collector = LogLines::default();
            let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
            collector.push(first, |line| lines.push(line.to_vec()));
            collector.push(second, |line| lines.push(line.to_vec()));
            let mut expected: Vec<Vec<u8>> = text.split('\n').map(|line| line.into()).collect();
            expected.pop();
            proptest::prop_assert_eq!(lines, expected);
        }

        #[test]
        fn any_line_is_survived(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
