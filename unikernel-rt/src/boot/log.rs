//! Log lines: whole ones, to the hypervisor, which adds time and name.

use core::fmt::{self, Write as _};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::hypercall::call;

/// The longest line; what is beyond is cut.
const LENGTH: usize = 512;

/// A line in the making.
pub(super) struct Line {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Line {
    pub fn new() -> Self {
        Self {
            bytes: [0; LENGTH],
            length: 0,
        }
    }

    /// Sends the line and begins the next one.
    pub fn emit(&mut self) {
        // One place is always left for the end.
        self.bytes[self.length] = b'\n';
        call::console_write(&self.bytes[..=self.length]);
        self.length = 0;
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A log line is one line: what would break it is shown as a space.
        for byte in text.bytes().map(|byte| {
            if byte == b'\n' || byte == b'\r' {
                b' '
            } else {
                byte
            }
        }) {
            if self.length < LENGTH - 1 {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let prefix = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
        };
        let mut line = Line::new();
        let _ = write!(line, "{prefix}{}", record.args());
        line.emit();
    }

    fn flush(&self) {}
}

/// Takes the log into service.
pub(super) fn install() {
    // Fails only if there is a logger already, and there is none before us.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// Sets the level that the command line asks for by `log=debug`.
pub(super) fn set_level(text: &str) {
    match text.parse() {
        Ok(level) => log::set_max_level(level),
        Err(_) => log::warn!("log={text} on the command line names no level"),
    }
}
