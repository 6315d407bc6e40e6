//! Line editing for the operator's shell: keys in, lines out, with the usual control keys, cursor movement and a history.

use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::fmt::Write as _;

const LONGEST_LINE: usize = crate::kept::LINE;
const HISTORY: usize = 32;

/// What a key led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The line goes on.
    Editing,
    /// A line is complete.
    Line(String),
    /// The line was given up (Ctrl-C).
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Started,
    Sequence(u8),
}

/// A line being typed.
pub struct Editor {
    line: Vec<u8>,
    cursor: usize,
    history: VecDeque<Vec<u8>>,
    /// Index into `history` while it is being browsed, and the line that was being typed before.
    browsing: Option<(usize, Vec<u8>)>,
    escape: Escape,
    after_return: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            cursor: 0,
            history: VecDeque::new(),
            browsing: None,
            escape: Escape::None,
            after_return: false,
        }
    }
}

impl Editor {
    /// Takes a key; what the terminal must show is appended to `echo`.
    pub fn key(&mut self, key: u8, prompt: &str, echo: &mut String) -> Event {
        let after_return = core::mem::replace(&mut self.after_return, key == b'\r');
        match self.escape {
            Escape::Started => {
                self.escape = if key == b'[' || key == b'O' {
                    Escape::Sequence(0)
                } else {
                    Escape::None
                };
                return Event::Editing;
            }
            Escape::Sequence(parameter) => {
                self.escape = Escape::None;
                match key {
                    b'0'..=b'9' => {
                        self.escape = Escape::Sequence(parameter.wrapping_mul(10).wrapping_add(key - b'0'))
                    }
                    b'A' => self.browse(true),
                    b'B' => self.browse(false),
                    b'C' => self.cursor = (self.cursor + 1).min(self.line.len()),
                    b'D' => self.cursor = self.cursor.saturating_sub(1),
                    b'H' => self.cursor = 0,
                    b'F' => self.cursor = self.line.len(),
                    b'~' if parameter == 3 => self.delete_forward(),
                    b'~' if parameter == 1 => self.cursor = 0,
                    b'~' if parameter == 4 => self.cursor = self.line.len(),
                    _ => {}
                }
                self.redraw(prompt, echo);
                return Event::Editing;
            }
            Escape::None => {}
        }
        match key {
            0x1b => self.escape = Escape::Started,
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                echo.push_str("\r\n");
                return Event::Line(self.finish());
            }
            0x03 => {
                echo.push_str("^C\r\n");
                self.clear();
                return Event::Cancelled;
            }
            0x08 | 0x7f if self.cursor > 0 => {
                self.cursor -= 1;
                self.line.remove(self.cursor);
                if self.cursor == self.line.len() {
                    echo.push_str("\x08 \x08");
                } else {
                    self.redraw(prompt, echo);
                }
            }
            0x01 | 0x05 => {
                self.cursor = if key == 0x01 { 0 } else { self.line.len() };
                self.redraw(prompt, echo);
            }
            0x04 => {
                self.delete_forward();
                self.redraw(prompt, echo);
            }
            0x0b => {
                self.line.truncate(self.cursor);
                self.redraw(prompt, echo);
            }
            0x15 => {
                self.line.drain(..self.cursor);
                self.cursor = 0;
                self.redraw(prompt, echo);
            }
            0x17 => {
                let end = self.line[..self.cursor]
                    .iter()
                    .rposition(|&byte| byte != b' ')
                    .map_or(0, |at| at + 1);
                let start = self.line[..end]
                    .iter()
                    .rposition(|&byte| byte == b' ')
                    .map_or(0, |at| at + 1);
                self.line.drain(start..self.cursor);
                self.cursor = start;
                self.redraw(prompt, echo);
            }
            0x0c => {
                echo.push_str("\x1b[2J\x1b[H");
                self.redraw(prompt, echo);
            }
            b' '..=b'~' if self.line.len() < LONGEST_LINE => {
                self.line.insert(self.cursor, key);
                self.cursor += 1;
                if self.cursor == self.line.len() {
                    echo.push(char::from(key));
                } else {
                    self.redraw(prompt, echo);
                }
            }
            _ => {}
        }
        Event::Editing
    }

    /// Shows prompt and line anew, for a terminal on which something else was printed.
    pub fn redraw(&self, prompt: &str, echo: &mut String) {
        echo.push_str("\r\x1b[K");
        echo.push_str(prompt);
        echo.extend(self.line.iter().map(|&byte| char::from(byte)));
        let back = self.line.len() - self.cursor;
        if back > 0 {
            // Writing to a String does not fail.
            let _ = write!(echo, "\x1b[{back}D");
        }
    }

    /// The line that is being typed, and where the cursor is.
    pub fn typed(&self) -> (&[u8], usize) {
        (&self.line, self.cursor)
    }

    /// Goes on with a line; what cannot be typed is left out.
    pub fn resume(&mut self, line: &[u8], cursor: usize) {
        let printable = |byte: &&u8| matches!(byte, b' '..=b'~');
        self.line = line
            .iter()
            .filter(printable)
            .take(LONGEST_LINE)
            .copied()
            .collect();
        self.cursor = cursor.min(self.line.len());
    }

    fn finish(&mut self) -> String {
        let text: String = self.line.iter().map(|&byte| char::from(byte)).collect();
        if !text.trim().is_empty() && self.history.back() != Some(&self.line) {
            self.history.push_back(self.line.clone());
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.clear();
        text
    }

    fn clear(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.browsing = None;
    }

    fn delete_forward(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
        }
    }

    fn browse(&mut self, older: bool) {
        let next = match (&self.browsing, older) {
            (None, true) => self.history.len().checked_sub(1),
            (Some((index, _)), true) => index.checked_sub(1),
            (Some((index, _)), false) => Some(index + 1),
            (None, false) => None,
        };
        let Some(next) = next else { return };
        let (_, typed) = self.browsing.take().unwrap_or_else(|| (0, self.line.clone()));
        match self.history.get(next) {
            Some(line) => {
                self.line = line.clone();
                self.browsing = Some((next, typed));
            }
            None => self.line = typed,
        }
        self.cursor = self.line.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keys: &[u8]) -> Vec<String> {
        let (mut editor, mut echo) = (Editor::default(), String::new());
        keys.iter()
            .filter_map(|&key| match editor.key(key, "> ", &mut echo) {
                Event::Line(line) => Some(line),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn edits_as_a_shell_does() {
        assert_eq!(lines(b"list\r"), ["list"]);
        assert_eq!(lines(b"lisx\x7ft\r\n"), ["list"]);
        assert_eq!(lines(b"junk\x15help\n"), ["help"]);
        assert_eq!(lines(b"console foo\x17bar\r"), ["console bar"]);
        assert_eq!(lines(b"ist\x01l\x05!\r"), ["list!"]);
        assert_eq!(lines(b"lst\x1b[D\x1b[Di\r"), ["list"]);
        assert_eq!(lines(b"nope\x03list\r"), ["list"]);
        assert_eq!(lines(b"xlist\x01\x1b[3~\r"), ["list"]);
    }

    #[test]
    fn remembers_lines() {
        assert_eq!(lines(b"one\rtwo\r\x1b[A\x1b[A\r"), ["one", "two", "one"]);
        assert_eq!(lines(b"one\rty\x1b[A\x1b[Bped\r"), ["one", "typed"]);
    }

    #[test]
    fn shows_the_line_again() {
        let (mut editor, mut echo) = (Editor::default(), String::new());
        for key in *b"abc\x1b[D" {
            editor.key(key, "> ", &mut echo);
        }
        echo.clear();
        editor.redraw("> ", &mut echo);
        assert_eq!(echo, "\r\x1b[K> abc\x1b[1D");
    }

    proptest::proptest! {
        #[test]
        fn any_keys_are_survived(keys: Vec<u8>) {
            proptest::prop_assert!(lines(&keys).iter().all(|line| line.len() <= LONGEST_LINE));
        }
    }
}
