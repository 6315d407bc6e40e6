//! The log: every line goes into a ring in memory, and, as long as nobody has taken them over, to a serial port and the text screen.
//!
//! Serial ports and screens are slow: a line takes milliseconds of the one, and moving a screen up as long on the other. So once domains run, a line is
//! only put into the ring ([`defer`]), and shown bit by bit by the boot processor while it works for nobody ([`show_some`]).
//!
//! A line reads `[    1.234567] atoll: text`; a domain's has its name in place of `atoll`. Lines of the levels error and warning say so after the name.

mod font;
mod ring;
mod screen;
mod uart;

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use log::{Level, Log, Metadata, Record};
use spin::Mutex;

use super::time;
use crate::boot::{Framebuffer, options::Options};
use ring::Ring;
use screen::{Painter, Screen};
use uart::Uart;

/// Bytes of the log that are kept.
pub const CAPACITY: usize = 256 << 10;

struct Sink {
    ring: Ring<CAPACITY>,
}

/// Where the log is shown. Whoever has it may take the lock of [`SINK`], and not the other way round.
struct Output {
    /// Position in the log up to which it was shown.
    shown: u64,
    serial: Option<Uart>,
    /// Someone else drives the serial port.
    serial_taken: bool,
    screen: Option<Screen<Painter>>,
    /// Someone else drives the screen.
    screen_taken: bool,
}

/// Bytes that are shown at a time.
const PIECE: usize = 64;

/// What is logged is shown later.
static DEFERRED: AtomicBool = AtomicBool::new(false);
/// Something was logged that [`show_some`] has not shown.
static BEHIND: AtomicBool = AtomicBool::new(false);

static SINK: Mutex<Sink> = Mutex::new(Sink { ring: Ring::new() });

static OUTPUT: Mutex<Output> = Mutex::new(Output {
    shown: 0,
    serial: None,
    serial_taken: false,
    screen: None,
    screen_taken: false,
});

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let kind = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                _ => "",
            };
            log_lines("atoll", kind, record.args());
        }
    }

    fn flush(&self) {}
}

fn log_lines(name: &str, kind: &str, text: &dyn fmt::Display) {
    SINK.lock().lines(name, kind, text);
    if DEFERRED.load(Ordering::Relaxed) {
        BEHIND.store(true, Ordering::Relaxed);
    } else {
        show_all();
    }
}

/// From now on [`show_some`] is called again and again.
pub fn defer() {
    DEFERRED.store(true, Ordering::Relaxed);
}

/// Shows a piece of what has been logged since [`defer`]; false if there is nothing to show.
pub fn show_some() -> bool {
    if !BEHIND.swap(false, Ordering::Relaxed) {
        return false;
    }
    let more = OUTPUT.lock().show_some();
    if more {
        BEHIND.store(true, Ordering::Relaxed);
    }
    more
}

/// Shows all that has not been shown yet.
pub fn show_all() {
    while OUTPUT.lock().show_some() {}
}

/// The log begins, on the serial port at this I/O address if there is one.
pub fn initialize(serial: Option<u16>) {
    static LOGGER: Logger = Logger;
    OUTPUT.lock().serial = serial.and_then(Uart::new);
    // Fails only if a logger is set already, which is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// Does what the command line asks for.
pub fn configure(options: &Options) {
    let mut output = OUTPUT.lock();
    if output.serial.as_ref().map(Uart::base) != options.serial {
        output.serial = options.serial.and_then(Uart::new);
    }
    log::set_max_level(options.level);
}

/// Shows the log on the loader's screen too, beginning with what there is of it.
pub fn show_on(framebuffer: Option<&Framebuffer>) {
    let Some(screen) = framebuffer.and_then(Painter::new).and_then(Screen::new) else {
        return;
    };
    show_all();
    let mut output = OUTPUT.lock();
    let screen = output.screen.insert(screen);
    let from = SINK.lock().ring.last_lines(screen.rows());
    replay(from, |bytes| screen.write(bytes));
}

/// Whether the log goes to the serial port. It does not once a domain drives the port, and does again when that domain is gone.
pub fn serial(enabled: bool) {
    // What was logged before is for whoever had it until now.
    show_all();
    OUTPUT.lock().serial_taken = !enabled;
}

/// Whether the log goes to the screen; as [`serial`].
pub fn screen(enabled: bool) {
    show_all();
    OUTPUT.lock().screen_taken = !enabled;
}

/// I/O address of the serial port that the log goes to.
pub fn serial_port() -> Option<u16> {
    OUTPUT.lock().serial.as_ref().map(Uart::base)
}

/// Logs text of a domain; control characters are replaced, since a terminal would obey them.
pub fn domain_line(name: &str, text: &str) {
    log_lines(name, "", &Printable(text));
}

/// Copies out what follows `position` of the log (0 is its beginning): the position behind what was copied, and the number of bytes. What is no longer kept
/// is passed over.
pub fn read(position: u64, into: &mut [u8]) -> (u64, usize) {
    SINK.lock().ring.read(position, into)
}

/// Position behind the last byte of the log.
pub fn end() -> u64 {
    SINK.lock().ring.end()
}

/// For a report while everything is broken: frees the log from whoever held it, takes serial port and screen back from whoever had them, and shows the last
/// `lines` lines where they have not been seen.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
#[allow(unsafe_code)]
pub(super) fn seize(lines: usize) {
    if SINK.try_lock().is_none() {
        // SAFETY: the holder is this processor or one that was stopped, and never returns to it.
        unsafe { SINK.force_unlock() };
    }
    if OUTPUT.try_lock().is_none() {
        // SAFETY: as above.
        unsafe { OUTPUT.force_unlock() };
    }
    DEFERRED.store(false, Ordering::Relaxed);
    let output = &mut *OUTPUT.lock();
    let from = SINK.lock().ring.last_lines(lines);
    let unseen = output.shown;
    output.serial = output.serial.take().and_then(|uart| Uart::new(uart.base()));
    if let Some(uart) = &output.serial {
        output.shown = replay(if output.serial_taken { from } else { unseen }, |bytes| {
            uart.send(bytes);
        });
    }
    if let Some(screen) = &mut output.screen {
        if output.screen_taken {
            screen.clear();
        }
        output.shown = replay(if output.screen_taken { from } else { unseen }, |bytes| {
            screen.write(bytes);
        });
    }
    output.serial_taken = false;
    output.screen_taken = false;
}

/// Puts out what follows `position` of the log; the position of its end.
fn replay(mut position: u64, mut output: impl FnMut(&[u8])) -> u64 {
    let mut piece = [0; 128];
    loop {
        let (next, count) = SINK.lock().ring.read(position, &mut piece);
        if count == 0 {
            return next;
        }
        output(&piece[..count]);
        position = next;
    }
}

impl Sink {
    /// Writes `text` as one line or more.
    fn lines(&mut self, name: &str, kind: &str, text: &dyn fmt::Display) {
        let mut lines = Lines {
            sink: self,
            name,
            kind,
            open: false,
        };
        // The sink takes everything; only a broken Display fails.
        let _ = write!(lines, "{text}");
        if lines.open {
            lines.sink.bytes(b"\n");
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.ring.push(bytes);
    }
}

impl Output {
    /// Shows the next piece.
    fn show_some(&mut self) -> bool {
        let mut piece = [0; PIECE];
        let (position, count) = SINK.lock().ring.read(self.shown, &mut piece);
        self.shown = position;
        if count > 0 {
            self.bytes(&piece[..count]);
        }
        count > 0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if !self.serial_taken
            && let Some(uart) = &self.serial
            && !uart.send(bytes)
        {
            self.serial = None;
        }
        if !self.screen_taken
            && let Some(screen) = &mut self.screen
        {
            screen.write(bytes);
        }
    }
}

impl fmt::Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// Puts the head of a line before each line.
struct Lines<'a> {
    sink: &'a mut Sink,
    name: &'a str,
    kind: &'a str,
    open: bool,
}

impl fmt::Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            if !self.open {
                let microseconds = time::now() / 1000;
                let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
                write!(self.sink, "[{seconds:5}.{rest:06}] {}: {}", self.name, self.kind)?;
            }
            self.sink.bytes(piece.as_bytes());
            self.open = !piece.ends_with('\n');
        }
        Ok(())
    }
}

/// Text with control characters replaced.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harmful = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
        for (index, piece) in self.0.split(harmful).enumerate() {
            if index > 0 {
                formatter.write_str("?")?;
            }
            formatter.write_str(piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, string::String};

    fn logged(name: &str, kind: &str, text: &str) -> String {
        let mut sink = Box::new(Sink { ring: Ring::new() });
        sink.lines(name, kind, &Printable(text));
        let mut bytes = [0; 400];
        let (_, count) = sink.ring.read(0, &mut bytes);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn every_line_has_its_head_and_its_end() {
        assert_eq!(logged("diskdom", "", "ready"), "[    0.000000] diskdom: ready\n");
        assert_eq!(
            logged("atoll", "error: ", "a\nb\n"),
            "[    0.000000] atoll: error: a\n[    0.000000] atoll: error: b\n"
        );
        assert_eq!(
            logged("guest", "", "\x1b[2Jhello\r\tthere é"),
            "[    0.000000] guest: ?[2Jhello?\tthere é\n"
        );
    }
}
