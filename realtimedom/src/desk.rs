//! What is done in the slack behind a turn: the console, the reports, xenstore. Each call of [`Desk::work`] does one bounded piece, and waits for
//! nobody: output that nobody takes is dropped, and what xenstore has no room for is tried again.

use alloc::{collections::VecDeque, format, rc::Rc, string::ToString};
use core::time::Duration;

use embedded_io::{Read, ReadReady, Write, WriteReady};
use unikernel_rt::{time::Instant, xenstore::Store};

use crate::{
    figures::{Figures, Short, Which},
    options::Options,
};

/// Bytes of output that wait for the console at most.
const OUTPUT: usize = 8192;
/// Bytes that one piece of work hands to the console.
const PIECE: usize = 256;
/// Between two looks of xenstore at the figures.
const PUBLISH: Duration = Duration::from_secs(1);
/// How long the loop spins when it is asked to.
const SPIN: Duration = Duration::from_secs(2);
const HELP: &str = "h: histograms, r: reset, f: figures, ?: this";

/// The nodes below the domain's home.
const NODES: [&str; 3] = ["data/latency", "data/interrupt-latency", "data/turns"];

/// What is to be done in the slack.
pub struct Desk<C> {
    console: Option<C>,
    store: Rc<dyn Store>,
    options: Options,
    output: VecDeque<u8>,
    /// The histogram that is being printed, and the bucket that is next.
    printing: Option<(Which, usize)>,
    /// Nodes that are to be published now.
    unpublished: usize,
    publish_at: Instant,
    report_at: Instant,
    log_at: Option<Instant>,
    settled_at: Option<Instant>,
    started: Instant,
}

impl<C: Read + ReadReady + Write + WriteReady> Desk<C> {
    /// A desk that begins its work now.
    pub fn new(console: Option<C>, store: Rc<dyn Store>, options: Options, now: Instant) -> Self {
        Self {
            console,
            store,
            options,
            output: VecDeque::with_capacity(OUTPUT),
            printing: None,
            unpublished: 0,
            publish_at: now + PUBLISH,
            report_at: now + options.report,
            log_at: options.log.map(|every| now + every),
            settled_at: options.settle.map(|length| now + length),
            started: now,
        }
    }

    /// Does one piece of what there is to do at `now`.
    pub fn work(&mut self, figures: &mut Figures, now: Instant) -> Next {
        if self.settled_at.is_some_and(|at| now >= at) {
            self.settled_at = None;
            figures.reset();
        }
        if let Some(key) = self.key() {
            return self.command(key, figures);
        }
        if !self.output.is_empty() && self.write() {
            return Next::GoOn;
        }
        if let Some((which, bucket)) = self.printing.take() {
            self.print(figures, which, bucket);
        } else if self.unpublished > 0 {
            self.publish(figures);
        } else if now >= self.publish_at {
            self.publish_at = next(self.publish_at, PUBLISH, now);
            self.unpublished = NODES.len();
        } else if now >= self.report_at {
            self.report_at = next(self.report_at, self.options.report, now);
            self.line(&format!("{} s: {figures}", now.since(self.started).as_secs()));
        } else if self.log_at.is_some_and(|at| now >= at) {
            self.log_at = self.options.log.map(|every| next(now, every, now));
            log::info!("{} s: {figures}", now.since(self.started).as_secs());
        } else if let Err(error) = self.answers() {
            log::error!("xenstore: {error}");
        }
        Next::GoOn
    }

    /// A letter that was typed.
    fn key(&mut self) -> Option<u8> {
        let console = self.console.as_mut()?;
        let mut key = [0];
        let ready = console.read_ready().unwrap_or(false);
        (ready && console.read(&mut key).is_ok_and(|count| count == 1)).then_some(key[0])
    }

    fn command(&mut self, key: u8, figures: &mut Figures) -> Next {
        match key {
            b'h' => self.printing = Some((Which::Wake, 0)),
            b'r' => {
                figures.reset();
                self.line("reset");
            }
            b'f' => self.line(&figures.to_string()),
            b's' if self.options.allow_spin => {
                self.line("spins");
                return Next::Spin(SPIN);
            }
            b'\r' | b'\n' => self.line(""),
            _ => self.line(HELP),
        }
        Next::GoOn
    }

    /// The next line of a histogram.
    fn print(&mut self, figures: &Figures, which: Which, bucket: usize) {
        if self.output.len() > OUTPUT / 2 {
            // Nobody reads as fast as that; the rest comes when there is room.
            self.printing = Some((which, bucket));
            return;
        }
        if bucket == 0 {
            self.line(match which {
                Which::Wake => "from the deadline to the turn:",
                Which::Interrupt => "from the doorbell to the interrupt's handler:",
            });
        }
        self.printing = match figures.histogram(which).next(bucket) {
            Some((index, begin, end, count)) => {
                let (begin, end) = (Short(begin).to_string(), Short(end).to_string());
                self.line(&format!("{begin:>10} ..{end:>10} {count:>10}"));
                Some((which, index + 1))
            }
            None if which == Which::Wake => Some((Which::Interrupt, 0)),
            None => {
                self.line(&figures.to_string());
                None
            }
        };
    }

    fn publish(&mut self, figures: &Figures) {
        let index = NODES.len() - self.unpublished;
        let path = NODES[index];
        let value = match index {
            0 => figures.node(Which::Wake),
            1 => figures.node(Which::Interrupt),
            _ => figures.turns(),
        };
        match self.store.post(path, value.as_bytes()) {
            Ok(true) => self.unpublished -= 1,
            // The server is slow or away: the next second's figures are better than these.
            Ok(false) => self.unpublished = 0,
            Err(error) => {
                log::error!("{path} cannot be published: {error}");
                self.unpublished = 0;
            }
        }
        let _ = self.answers();
    }

    /// Takes what xenstore has to say. We watch nothing, so it is no more than answers to what was published.
    fn answers(&self) -> Result<(), unikernel_rt::xenstore::StoreError> {
        self.store.take_event().map(drop)
    }

    fn line(&mut self, text: &str) {
        if self.output.len() + text.len() + 2 <= OUTPUT {
            self.output.extend(text.bytes().chain(*b"\r\n"));
        }
    }

    /// Hands output to the console; whether it took some.
    fn write(&mut self) -> bool {
        let Some(console) = &mut self.console else {
            self.output.clear();
            return false;
        };
        if !console.write_ready().unwrap_or(false) {
            return false;
        }
        let (first, _) = self.output.as_slices();
        let taken = console.write(&first[..first.len().min(PIECE)]).unwrap_or(0);
        self.output.drain(..taken);
        taken > 0
    }
}

/// What the loop shall do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// What it does.
    GoOn,
    /// Nothing but use up time, for so long.
    Spin(Duration),
}

/// The first of the times `at`, `at + every`, … that is yet to come.
fn next(at: Instant, every: Duration, now: Instant) -> Instant {
    let next = at + every;
    if next > now { next } else { now + every }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, convert::Infallible};

    use embedded_io::ErrorType;
    use unikernel_rt::{DomainId, fake::FakeStore};

    use super::*;

    #[derive(Default)]
    struct Line {
        typed: VecDeque<u8>,
        shown: Vec<u8>,
        room: usize,
    }

    #[derive(Clone, Default)]
    struct FakeConsole(Rc<RefCell<Line>>);

    impl FakeConsole {
        fn shown(&self) -> String {
            String::from_utf8(core::mem::take(&mut self.0.borrow_mut().shown)).unwrap()
        }
    }

    impl ErrorType for FakeConsole {
        type Error = Infallible;
    }
    impl ReadReady for FakeConsole {
        fn read_ready(&mut self) -> Result<bool, Infallible> {
            Ok(!self.0.borrow().typed.is_empty())
        }
    }
    impl Read for FakeConsole {
        fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
            into[0] = self.0.borrow_mut().typed.pop_front().expect("it is asked first");
            Ok(1)
        }
    }
    impl WriteReady for FakeConsole {
        fn write_ready(&mut self) -> Result<bool, Infallible> {
            Ok(self.0.borrow().room > 0)
        }
    }
    impl Write for FakeConsole {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
            let mut line = self.0.borrow_mut();
            let length = bytes.len().min(line.room);
            assert!(length > 0, "it is asked first");
            line.shown.extend(&bytes[..length]);
            line.room -= length;
            Ok(length)
        }
        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    fn bench(options: Options) -> (Desk<FakeConsole>, FakeConsole, FakeStore, Figures) {
        let (console, store) = (FakeConsole::default(), FakeStore::new(DomainId(5)));
        console.0.borrow_mut().room = 1 << 20;
        let handle: Rc<dyn Store> = Rc::new(store.clone());
        let desk = Desk::new(Some(console.clone()), handle, options, Instant::from_nanos(0));
        let mut figures = Figures::default();
        figures.wake.record(Duration::from_nanos(5_000));
        figures.wake.record(Duration::from_nanos(90_000));
        figures.interrupt.record(Duration::from_nanos(7_000));
        (desk, console, store, figures)
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn figures_are_published_every_second_and_shown_every_few() {
        let (mut desk, console, store, mut figures) = bench(Options::default());
        for millisecond in 0..6_000 {
            desk.work(&mut figures, at(millisecond));
        }
        let node = store.get("/local/domain/5/data/latency");
        assert!(node.starts_with("2 5000 "), "{node}");
        let other = store.get("/local/domain/5/data/interrupt-latency");
        assert!(other.starts_with("1 7000 "), "{other}");
        assert_eq!(store.get("/local/domain/5/data/turns"), "2 0 90000 0 0");
        let shown = console.shown();
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.starts_with("5 s: 2 turns, 0 missed;"), "{shown}");
    }

    #[test]
    fn letters_are_commands() {
        let (mut desk, console, _, mut figures) = bench(Options::default());
        console.0.borrow_mut().typed.extend(*b"h");
        for _ in 0..20 {
            assert_eq!(desk.work(&mut figures, at(1)), Next::GoOn);
        }
        let shown = console.shown();
        assert!(shown.contains("4.99us ..    5.12us          1\r\n"), "{shown}");
        assert!(shown.contains("doorbell"), "{shown}");
        assert!(shown.ends_with("turns without an input\r\n"), "{shown}");
        console.0.borrow_mut().typed.extend(*b"rs");
        for _ in 0..10 {
            assert_eq!(
                desk.work(&mut figures, at(1)),
                Next::GoOn,
                "it is not allowed to spin"
            );
        }
        assert_eq!(figures.wake.summary().count, 0);
        assert_eq!(console.shown(), format!("reset\r\n{HELP}\r\n"));
    }

    #[test]
    fn the_loop_spins_where_that_is_allowed() {
        let (mut desk, console, _, mut figures) = bench(Options {
            allow_spin: true,
            ..Options::default()
        });
        console.0.borrow_mut().typed.extend(*b"s");
        assert_eq!(desk.work(&mut figures, at(1)), Next::Spin(SPIN));
    }

    #[test]
    fn the_time_of_settling_is_forgotten_once() {
        let (mut desk, _, _, mut figures) = bench(Options {
            settle: Some(Duration::from_millis(5)),
            ..Options::default()
        });
        figures.reset();
        for (time, left) in [(1, 1), (5, 0), (6, 1), (7, 2)] {
            if time != 5 {
                figures.wake.record(Duration::from_nanos(100));
            }
            desk.work(&mut figures, at(time));
            assert_eq!(figures.wake.summary().count, left, "at {time} ms");
        }
    }

    #[test]
    fn a_console_that_nobody_reads_costs_bounded_memory() {
        let (mut desk, console, _, mut figures) = bench(Options::default());
        console.0.borrow_mut().room = 0;
        for round in 0..2_000 {
            console.0.borrow_mut().typed.extend(*b"?");
            desk.work(&mut figures, at(round));
        }
        assert!(desk.output.len() <= OUTPUT && desk.output.capacity() <= OUTPUT + 1);
        console.0.borrow_mut().room = 1 << 20;
        for _ in 0..200 {
            desk.work(&mut figures, at(1));
        }
        assert!(console.shown().starts_with(HELP));
    }
}
