//! A console that is watched and typed on.

use std::{
    fs::File,
    io::{Read, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::clean::Cleaner;

/// Lines of a console that a failure shows.
const SHOWN_LINES: usize = 60;

/// After this line the hypervisor prints nothing more, so nobody needs to wait.
const HALTED: &str = "] atoll: error: halted";

/// What has arrived so far.
#[derive(Default)]
struct Received {
    text: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Received>,
    arrived: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A console: what it prints is collected as it comes, and read in order by [`Console::expect`].
pub struct Console {
    shared: Arc<Shared>,
    input: Box<dyn Write + Send>,
    /// Everything before this was read.
    position: usize,
}

impl Console {
    /// Watches `output`, keeps a copy of it in `transcript`, and types on `input`.
    pub fn new(
        mut output: impl Read + Send + 'static,
        input: impl Write + Send + 'static,
        mut transcript: Option<File>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let collected = shared.clone();
        thread::spawn(move || {
            let mut cleaner = Cleaner::default();
            let mut bytes = [0; 4096];
            loop {
                let count = output.read(&mut bytes).unwrap_or(0);
                if let Some(file) = &mut transcript {
                    let _ = file.write_all(&bytes[..count]);
                }
                let mut received = collected.lock();
                cleaner.clean(&bytes[..count], &mut received.text);
                received.ended = count == 0;
                collected.arrived.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self {
            shared,
            input: Box::new(input),
            position: 0,
        }
    }

    /// Types text as it is.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let written = self
            .input
            .write_all(text.as_bytes())
            .and_then(|()| self.input.flush());
        if let Err(error) = written {
            panic!("nobody takes what is typed ({error}); {}", self.last());
        }
    }

    /// Waits for `text` and returns what came before it. Panics where it does not come in time.
    #[track_caller]
    pub fn expect(&mut self, text: &str, limit: Duration) -> String {
        self.expect_any(&[text], limit).1
    }

    /// Waits for the first of `texts`; which one it is, and what came before it.
    #[track_caller]
    pub fn expect_any(&mut self, texts: &[&str], limit: Duration) -> (usize, String) {
        match self.wait_any(texts, limit) {
            Some(found) => found,
            None => {
                let ended = if self.has_ended() {
                    "the machine ended before"
                } else {
                    "waited in vain for"
                };
                panic!("{ended} {texts:?} (at most {limit:?}); {}", self.last());
            }
        }
    }

    /// Waits for the first of `texts`, and does not mind if none comes.
    pub fn wait_any(&mut self, texts: &[&str], limit: Duration) -> Option<(usize, String)> {
        let deadline = Instant::now() + limit;
        let mut received = self.shared.lock();
        loop {
            let unread = &received.text[self.position..];
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(index, text)| Some((find(unread, text.as_bytes())?, index)));
            if let Some((at, index)) = found.min() {
                let before = String::from_utf8_lossy(&unread[..at]).into_owned();
                self.position += at + texts[index].len();
                return Some((index, before));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if received.ended || left.is_zero() || find(unread, HALTED.as_bytes()).is_some() {
                return None;
            }
            received = self
                .shared
                .arrived
                .wait_timeout(received, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until nothing more comes because the machine has ended.
    #[track_caller]
    pub fn expect_end(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut received = self.shared.lock();
        while !received.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(received);
                panic!("the machine runs on after {limit:?}; {}", self.last());
            }
            received = self
                .shared
                .arrived
                .wait_timeout(received, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Everything that was printed since the start.
    pub fn history(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().text).into_owned()
    }

    /// Whether the machine has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// The end of what was printed, for messages.
    fn last(&self) -> String {
        let history = self.history();
        let lines: Vec<&str> = history.lines().collect();
        format!(
            "the console's end is:\n{}",
            lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
        )
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::pipe,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn reads_in_order() {
        let (output, mut machine) = pipe().unwrap();
        let mut console = Console::new(output, Vec::new(), None);
        machine.write_all(b"one two\x1b[0m three").unwrap();
        assert_eq!(console.expect("two", LONG), "one ");
        assert_eq!(console.wait_any(&["two"], SOON), None);
        assert_eq!(console.expect_any(&["five", "three"], LONG), (1, " ".to_string()));
        let later = thread::spawn(move || {
            thread::sleep(SOON);
            machine.write_all(b"four").unwrap();
        });
        console.expect("four", LONG);
        later.join().unwrap();
        console.expect_end(LONG);
        assert_eq!(console.history(), "one two threefour");
    }

    #[test]
    fn nobody_waits_for_a_hypervisor_that_halted() {
        let (output, mut machine) = pipe().unwrap();
        let mut console = Console::new(output, Vec::new(), None);
        machine.write_all(b"[    0.1] atoll: error: halted\n").unwrap();
        let since = Instant::now();
        assert_eq!(console.wait_any(&["prompt"], LONG), None);
        assert!(since.elapsed() < LONG / 2);
        console.expect("error: halted", LONG);
    }

    #[test]
    fn a_failure_shows_what_was_there() {
        let (output, mut machine) = pipe().unwrap();
        let mut console = Console::new(output, Vec::new(), None);
        machine.write_all(b"something else").unwrap();
        // A panic of dev builds aborts the process unless tests unwind, which cargo's test profile does.
        let failure = catch_unwind(AssertUnwindSafe(|| console.expect("prompt", SOON))).unwrap_err();
        let message = failure.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("prompt") && message.contains("something else"),
            "{message}"
        );
    }
}
