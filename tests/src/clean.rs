//! Takes the escape sequences of terminals out of what a console prints.

/// Where in a sequence the last byte was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    Escape,
    Sequence,
}

/// A filter that keeps text and line ends.
#[derive(Debug, Default)]
pub struct Cleaner {
    place: Place,
}

impl Cleaner {
    /// Appends the text in `bytes` to `text`.
    pub fn clean(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        for &byte in bytes {
            self.place = match (self.place, byte) {
                (Place::Text, 0x1b) => Place::Escape,
                (Place::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..) => {
                    text.push(byte);
                    Place::Text
                }
                (Place::Text, _) => Place::Text,
                (Place::Escape, b'[') => Place::Sequence,
                (Place::Sequence, 0x20..=0x3f) => Place::Sequence,
                (Place::Escape | Place::Sequence, _) => Place::Text,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text() {
        let mut cleaner = Cleaner::default();
        let mut text = Vec::new();
        for piece in [
            &b"\x1b[2J\x1b[1;1Hready\r\n"[..],
            b"~# \x1b",
            b"[6nls\x07\x1b[",
            b"?7l!",
        ] {
            cleaner.clean(piece, &mut text);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "ready\n~# ls!");
    }
}
