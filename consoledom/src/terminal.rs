//! The queue towards the operator's terminal. Writers never wait: what does not fit is dropped and said so, once, when there is room again.

use alloc::collections::VecDeque;

const LOST: &[u8] = b"\r\n[output lost: the line is too slow]\r\n";

/// Bytes on their way to the terminal.
pub struct Terminal {
    queue: VecDeque<u8>,
    capacity: usize,
    lost: bool,
    after_return: bool,
}

impl Terminal {
    /// Holds up to `capacity` bytes that the line has not taken yet.
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            capacity: capacity.max(2 * LOST.len()),
            lost: false,
            after_return: false,
        }
    }

    /// Queues bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.lost && self.queue.len() <= self.capacity / 2 {
            self.lost = false;
            self.queue.extend(LOST);
        }
        let room = self.capacity.saturating_sub(self.queue.len());
        self.lost |= bytes.len() > room;
        self.queue.extend(&bytes[..bytes.len().min(room)]);
        if let Some(&last) = bytes.last() {
            self.after_return = last == b'\r';
        }
    }

    /// Queues text: every line feed becomes a carriage return and a line feed.
    pub fn write_text(&mut self, text: &[u8]) {
        for piece in text.split_inclusive(|&byte| byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) => {
                    self.write(line);
                    let returned = if line.is_empty() {
                        self.after_return
                    } else {
                        line.ends_with(b"\r")
                    };
                    self.write(if returned { b"\n" } else { b"\r\n" });
                }
                None => self.write(piece),
            }
        }
    }

    /// Takes the next byte for the line.
    pub fn take(&mut self) -> Option<u8> {
        self.queue.pop_front()
    }

    /// Whether bytes wait.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that can be queued without loss.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(terminal: &mut Terminal) -> Vec<u8> {
        core::iter::from_fn(|| terminal.take()).collect()
    }

    #[test]
    fn text_gets_carriage_returns_once() {
        let mut terminal = Terminal::new(1000);
        terminal.write_text(b"a\nb\r\n");
        terminal.write_text(b"c\r");
        terminal.write_text(b"\nd");
        assert_eq!(drain(&mut terminal), b"a\r\nb\r\nc\r\nd");
    }

    #[test]
    fn loss_is_said_once() {
        let mut terminal = Terminal::new(100);
        terminal.write(&[b'x'; 300]);
        terminal.write(b"more");
        assert_eq!(drain(&mut terminal), [b'x'; 100]);
        terminal.write(b"again");
        assert_eq!(drain(&mut terminal), [LOST, b"again"].concat());
    }
}
