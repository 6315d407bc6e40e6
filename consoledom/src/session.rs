//! The operator's session: where keys go, and what the screen shows.
//!
//! Keys go to the shell until the operator attaches to a domain's console, and back after Ctrl-]. Everything that domains print and the
//! log are kept meanwhile, so that nothing is missed by looking elsewhere.

use alloc::{boxed::Box, collections::BTreeMap, format, string::String, vec::Vec};

use crate::{
    editor::{Editor, Event},
    kept::{LINE, Place},
    log_lines::{self, LogLines},
    scrollback::Scrollback,
    shell::{self, Command, DomainStatus, MachineStatus, PROMPT},
    terminal::Terminal,
    top::{self, Key, Rates, Sample, Size, Top},
};

/// Ctrl-], which leaves a console.
const LEAVE: u8 = 0x1d;
const CONSOLE_BYTES: usize = 16 * 1024;
const LOG_BYTES: usize = 64 * 1024;

/// What a session asks of the rest of the machine.
pub trait Operations {
    /// The state of every domain.
    fn domains(&mut self) -> Vec<DomainStatus>;
    /// Figures of the machine.
    fn machine(&mut self) -> MachineStatus;
    /// What everybody has done until now. `restart` begins anew with the longest recent stays in the hypervisor.
    fn sample(&mut self, restart: bool) -> Sample;
    /// The report of a domain's last crash, or of an earlier one; `None` if there is none.
    fn crash(&mut self, domain: u16, back: u16) -> Option<String>;
    /// Sends a command to controldom; its answer comes back by [`Session::reply`].
    fn control(&mut self, command: &str);
    /// Sends a key to a domain's console.
    fn key(&mut self, domain: u16, key: u8);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Focus {
    /// The appliance is not up yet: no prompt.
    Starting,
    Shell,
    /// A command is with controldom.
    Waiting,
    Attached(u16),
    /// `top` is up.
    Top,
    /// `top once` waits for its second to pass, from this sample on.
    Measuring,
}

/// The operator's session.
pub struct Session {
    terminal: Terminal,
    editor: Editor,
    focus: Focus,
    consoles: BTreeMap<u16, Scrollback>,
    names: BTreeMap<String, u16>,
    log: Scrollback,
    log_lines: LogLines,
    /// Of `top`.
    display: Box<Top>,
    before: Box<Sample>,
    /// When to take the next sample, in nanoseconds since power-on.
    due: Option<u64>,
}

impl Session {
    /// A session before the appliance is up. `names` gives the ids of domains that write to the log.
    pub fn new(names: BTreeMap<String, u16>) -> Self {
        Self {
            terminal: Terminal::new(128 * 1024),
            editor: Editor::default(),
            focus: Focus::Starting,
            consoles: BTreeMap::new(),
            names,
            log: Scrollback::new(LOG_BYTES),
            log_lines: LogLines::default(),
            display: Box::default(),
            before: Box::default(),
            due: None,
        }
    }

    /// When [`Session::tick`] is to be called, in nanoseconds since power-on.
    pub fn deadline(&self) -> Option<u64> {
        self.due
    }

    /// Time passes: what is due is done.
    pub fn tick(&mut self, now: u64, operations: &mut impl Operations) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let sample = operations.sample(true);
        match self.focus {
            Focus::Top => {
                self.due = Some(sample.now + top::PERIOD);
                self.display.look(sample);
                // On a line too slow for it, a screen is left out rather than queued.
                if self.terminal.is_empty() {
                    self.draw();
                }
            }
            Focus::Measuring => {
                let rates = Rates::between(&self.before, &sample);
                self.terminal.write_text(top::once::text(&rates).as_bytes());
                self.leave_top();
            }
            _ => self.due = None,
        }
    }

    fn enter_top(&mut self, once: bool, operations: &mut impl Operations) {
        let sample = operations.sample(true);
        self.due = Some(sample.now + top::PERIOD);
        if once {
            self.focus = Focus::Measuring;
            *self.before = sample;
        } else {
            self.focus = Focus::Top;
            *self.display = Top::default();
            self.display.look(sample);
            self.draw();
        }
    }

    fn leave_top(&mut self) {
        (self.focus, self.due) = (Focus::Shell, None);
        *self.before = Sample::default();
        self.prompt();
    }

    fn draw(&mut self) {
        let screen = self.display.draw(Size::USUAL);
        self.terminal.write(screen.as_bytes());
    }

    /// What is to be sent to the terminal.
    pub fn terminal(&mut self) -> &mut Terminal {
        &mut self.terminal
    }

    /// The appliance is up, or `notice` says why it may not be: the prompt appears.
    pub fn ready(&mut self, notice: &str) {
        if self.focus == Focus::Starting {
            self.focus = Focus::Shell;
            self.terminal.write_text(notice.as_bytes());
            self.prompt();
        }
    }

    /// Where the operator is, for a successor; `waiting` is the number of the last command. `None` before the prompt.
    pub fn place(&self, waiting: u64) -> Option<Place> {
        let (line, cursor) = self.editor.typed();
        let mut place = Place {
            cursor: cursor as u16,
            length: line.len().min(LINE) as u16,
            ..Place::default()
        };
        match self.focus {
            Focus::Starting => return None,
            Focus::Attached(domain) => place.attached = domain,
            Focus::Waiting => place.waiting = waiting,
            Focus::Shell | Focus::Top | Focus::Measuring => {}
        }
        let length = usize::from(place.length);
        place.line[..length].copy_from_slice(&line[..length]);
        Some(place)
    }

    /// Goes on where a predecessor ended: with what domains had printed until then, and at the same place.
    pub fn resume(&mut self, place: Place, printed: BTreeMap<u16, Vec<u8>>) {
        for (domain, bytes) in printed {
            self.printed(domain, &bytes);
        }
        let (line, cursor) = place.typed();
        self.editor.resume(line, cursor);
        self.focus = match place {
            Place {
                attached: 0,
                waiting: 0,
                ..
            } => Focus::Shell,
            Place { attached: 0, .. } => Focus::Waiting,
            Place { attached, .. } => Focus::Attached(attached),
        };
        match self.focus {
            Focus::Shell => self.prompt(),
            Focus::Attached(domain) => self.show_place(domain),
            _ => {}
        }
    }

    /// What was on its way to the terminal is lost: says whose console this is, and shows the line at which that is.
    fn show_place(&mut self, domain: u16) {
        let name = self.names.iter().find(|(_, id)| **id == domain);
        let name = name.map_or("?", |(name, _)| name);
        let text = format!("\n[console of {name} goes on; leave with Ctrl-]]\n");
        self.terminal.write_text(text.as_bytes());
        if let Some(scrollback) = self.consoles.get(&domain) {
            let (first, second) = scrollback.contents();
            let printed = [first, second].concat();
            let line = printed.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            self.terminal.write_text(line);
        }
    }

    /// Whether [`Session::ready`] is still awaited.
    pub fn is_starting(&self) -> bool {
        self.focus == Focus::Starting
    }

    /// A key came.
    pub fn key(&mut self, key: u8, operations: &mut impl Operations) {
        match self.focus {
            Focus::Starting => {}
            // A command may hang for ever: Ctrl-C gives the prompt back.
            Focus::Waiting if key == 0x03 => {
                self.terminal.write_text(b"(still going on)\n");
                self.focus = Focus::Shell;
                self.prompt();
            }
            Focus::Waiting => {}
            Focus::Attached(_) if key == LEAVE => {
                self.terminal.write(b"\r\n");
                self.focus = Focus::Shell;
                self.prompt();
            }
            Focus::Attached(domain) => operations.key(domain, key),
            Focus::Measuring if key == 0x03 => {
                self.terminal.write_text(b"^C\n");
                self.leave_top();
            }
            Focus::Measuring => {}
            Focus::Top => match Key::of(key) {
                Key::Quit => {
                    self.terminal.write(b"\x1b[H\x1b[J");
                    self.leave_top();
                }
                Key::Show(view) => {
                    self.display.show(view);
                    self.draw();
                }
                Key::Nothing => {}
            },
            Focus::Shell => {
                let mut echo = String::new();
                let event = self.editor.key(key, PROMPT, &mut echo);
                self.terminal.write(echo.as_bytes());
                match event {
                    Event::Editing => {}
                    Event::Cancelled => self.prompt(),
                    Event::Line(line) => self.run(&line, operations),
                }
            }
        }
    }

    /// A domain printed.
    pub fn printed(&mut self, domain: u16, bytes: &[u8]) {
        self.consoles
            .entry(domain)
            .or_insert_with(|| Scrollback::new(CONSOLE_BYTES))
            .push(bytes);
        if self.focus == Focus::Attached(domain) {
            self.terminal.write_text(bytes);
        }
    }

    /// The log grew. Lines of a domain also go to its console, which for a unikernel is all that it prints.
    pub fn logged(&mut self, bytes: &[u8]) {
        self.log.push(bytes);
        let mut lines = Vec::new();
        self.log_lines.push(bytes, |line| lines.push(line.to_vec()));
        for mut line in lines {
            let writer = log_lines::parse(&line).and_then(|(name, _)| self.names.get(name).copied());
            line.push(b'\n');
            if let Some(domain) = writer {
                self.printed(domain, &line);
            }
            match self.focus {
                Focus::Starting | Focus::Waiting | Focus::Measuring => self.terminal.write_text(&line),
                Focus::Shell => {
                    self.terminal.write(b"\r\x1b[K");
                    self.terminal.write_text(&line);
                    self.prompt();
                }
                Focus::Attached(_) | Focus::Top => {}
            }
        }
    }

    /// controldom answered a command.
    pub fn reply(&mut self, text: &str) {
        if self.focus == Focus::Waiting {
            self.focus = Focus::Shell;
            self.terminal.write_text(text.as_bytes());
            if !text.is_empty() {
                self.terminal.write(b"\r\n");
            }
            self.prompt();
        }
    }

    fn run(&mut self, line: &str, operations: &mut impl Operations) {
        match shell::parse(line) {
            Ok(Command::Empty) => {}
            Ok(Command::Help) => self.terminal.write_text(shell::HELP.as_bytes()),
            Ok(Command::List) => {
                let text = shell::list(&operations.domains(), &operations.machine());
                self.terminal.write_text(text.as_bytes());
            }
            Ok(Command::Top { once }) => self.enter_top(once, operations),
            Ok(Command::Dmesg) => {
                let (first, second) = self.log.contents();
                self.terminal.write_text(first);
                self.terminal.write_text(second);
            }
            Ok(Command::Crash { name, back }) => self.show_crash(&name, back, operations),
            Ok(Command::Control(command)) => {
                self.focus = Focus::Waiting;
                operations.control(&command);
            }
            Ok(Command::Console(name)) => self.attach(&name, operations),
            Err(error) => self.terminal.write_text(format!("{error}\n").as_bytes()),
        }
        if self.focus == Focus::Shell {
            self.prompt();
        }
    }

    fn show_crash(&mut self, name: &str, back: u16, operations: &mut impl Operations) {
        let Some(domain) = self.find(name, operations) else {
            return;
        };
        let text = match (operations.crash(domain, back), back) {
            (Some(report), _) => report,
            (None, 0) => format!("{name} has not crashed\n"),
            (None, _) => format!("no such crash of {name} is on record; the last few are\n"),
        };
        self.terminal.write_text(text.as_bytes());
    }

    /// The domain of a name, which is there, or else the operator learns which are.
    fn find(&mut self, name: &str, operations: &mut impl Operations) -> Option<u16> {
        let domains = operations.domains();
        let found = domains.iter().find(|domain| domain.name == name);
        if found.is_none() {
            let known = shell::names(&domains);
            let text = format!("there is no domain {name}; there are {known}\n");
            self.terminal.write_text(text.as_bytes());
        }
        found.map(|domain| domain.id)
    }

    fn attach(&mut self, name: &str, operations: &mut impl Operations) {
        let Some(domain) = self.find(name, operations) else {
            return;
        };
        self.focus = Focus::Attached(domain);
        self.terminal
            .write_text(format!("console of {name}; leave with Ctrl-]\n").as_bytes());
        if let Some(scrollback) = self.consoles.get(&domain) {
            let (first, second) = scrollback.contents();
            self.terminal.write_text(first);
            self.terminal.write_text(second);
        }
    }

    fn prompt(&mut self) {
        let mut text = String::new();
        self.editor.redraw(PROMPT, &mut text);
        self.terminal.write(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_abi::atoll::ProcessorFigures;

    #[derive(Default)]
    struct Fake {
        commands: Vec<String>,
        keys: Vec<(u16, u8)>,
        now: u64,
        samples: u32,
    }

    impl Operations for Fake {
        fn domains(&mut self) -> Vec<DomainStatus> {
            let domain = |id, name: &str| DomainStatus {
                id,
                name: name.into(),
                state: "running",
                ..Default::default()
            };
            vec![domain(1, "controldom"), domain(5, "linux")]
        }

        fn machine(&mut self) -> MachineStatus {
            MachineStatus::default()
        }

        fn sample(&mut self, _: bool) -> Sample {
            self.samples += 1;
            let processor = ProcessorFigures {
                now: self.now,
                guest: self.now,
                ..Default::default()
            };
            Sample {
                now: self.now,
                processors: vec![processor],
                ..Default::default()
            }
        }

        fn control(&mut self, command: &str) {
            self.commands.push(command.into());
        }

        fn crash(&mut self, domain: u16, back: u16) -> Option<String> {
            (domain == 5 && back == 0).then(|| "linux crashed\n".into())
        }

        fn key(&mut self, domain: u16, key: u8) {
            self.keys.push((domain, key));
        }
    }

    struct Bench {
        session: Session,
        fake: Fake,
    }

    impl Bench {
        fn new() -> Self {
            let mut session = Session::new([("diskdom".into(), 3)].into());
            session.ready("");
            Self {
                session,
                fake: Fake::default(),
            }
        }

        fn types(&mut self, keys: &str) -> &mut Self {
            keys.bytes().for_each(|key| self.session.key(key, &mut self.fake));
            self
        }

        fn screen(&mut self) -> String {
            let bytes: Vec<u8> = core::iter::from_fn(|| self.session.terminal().take()).collect();
            String::from_utf8(bytes)
                .unwrap()
                .replace("\r\x1b[K", "")
                .replace('\r', "")
        }
    }

    #[test]
    fn the_prompt_waits_for_the_appliance() {
        let mut session = Session::new(BTreeMap::new());
        let mut fake = Fake::default();
        session.key(b'x', &mut fake);
        assert!(session.terminal().is_empty());
        session.logged(b"[    0.1] atoll: hello\n");
        session.ready("up\n");
        let mut bench = Bench { session, fake };
        assert_eq!(bench.screen(), "[    0.1] atoll: hello\nup\natoll> ");
    }

    #[test]
    fn a_console_shows_what_was_missed_and_takes_keys() {
        let mut bench = Bench::new();
        bench.session.printed(5, b"login: ");
        assert_eq!(bench.screen(), "atoll> ");
        bench.types("console linux\r");
        assert_eq!(
            bench.screen(),
            "console linux\nconsole of linux; leave with Ctrl-]\nlogin: "
        );
        bench.types("me");
        assert_eq!(bench.fake.keys, [(5, b'm'), (5, b'e')]);
        bench.session.printed(5, b"me\n");
        bench.types("\u{1d}");
        bench.session.printed(5, b"unseen");
        assert_eq!(bench.screen(), "me\n\natoll> ");
    }

    #[test]
    fn a_successor_goes_on_where_the_operator_was() {
        let mut bench = Bench::new();
        bench.types("lisx\u{1b}[D");
        let place = bench.session.place(7).unwrap();
        let mut next = Bench {
            session: Session::new(BTreeMap::new()),
            fake: Fake::default(),
        };
        next.session.resume(place, [(5, b"login: ".to_vec())].into());
        assert_eq!(next.screen(), "atoll> lisx\u{1b}[1D");
        next.types("t\u{4}\rconsole linux\r");
        assert!(
            next.screen()
                .ends_with("console of linux; leave with Ctrl-]\nlogin: ")
        );
        let place = next.session.place(7).unwrap();
        let mut last = Bench {
            session: Session::new([("linux".into(), 5)].into()),
            fake: Fake::default(),
        };
        last.session
            .resume(place, [(5, b"hello\nlogin: ".to_vec())].into());
        assert_eq!(
            last.screen(),
            "\n[console of linux goes on; leave with Ctrl-]]\nlogin: "
        );
        last.types("me");
        last.session.printed(5, b"me");
        assert_eq!(
            (last.screen().as_str(), &last.fake.keys[..]),
            ("me", &[(5, b'm'), (5, b'e')][..])
        );
    }

    #[test]
    fn a_successor_waits_for_the_answer_that_was_waited_for() {
        let mut bench = Bench::new();
        bench.types("restart netdom\r");
        let place = bench.session.place(7).unwrap();
        assert_eq!(place.waiting, 7);
        let mut next = Bench::new();
        next.screen();
        next.session.resume(place, BTreeMap::new());
        next.session.reply("netdom is started");
        assert_eq!(next.screen(), "netdom is started\natoll> ");
    }

    #[test]
    fn a_crash_is_shown_as_it_was_reported() {
        let mut bench = Bench::new();
        bench.types("crash linux\rcrash linux 1\rcrash controldom\r");
        let screen = bench.screen();
        assert!(screen.contains("crash linux\nlinux crashed\natoll> "), "{screen}");
        assert!(screen.contains("no such crash of linux") && screen.contains("controldom has not crashed\n"));
    }

    #[test]
    fn a_domain_that_is_not_there_is_named() {
        let mut bench = Bench::new();
        bench.types("console nobody\r");
        assert!(
            bench
                .screen()
                .contains("there is no domain nobody; there are controldom, linux\n")
        );
    }

    #[test]
    fn commands_wait_for_their_answer() {
        let mut bench = Bench::new();
        bench.types("restart linux\rignored");
        assert_eq!(bench.fake.commands, ["restart linux"]);
        bench.screen();
        bench.session.reply("linux is up again");
        assert_eq!(bench.screen(), "linux is up again\natoll> ");
    }

    #[test]
    fn a_command_that_hangs_gives_the_prompt_back() {
        let mut bench = Bench::new();
        bench.types("restart linux\r");
        bench.screen();
        bench.types("\u{3}");
        assert_eq!(bench.screen(), "(still going on)\natoll> ");
        bench.session.reply("too late to show");
        bench.types("restart netdom\r");
        assert_eq!(bench.fake.commands, ["restart linux", "restart netdom"]);
    }

    #[test]
    fn the_log_keeps_the_line_that_is_being_typed() {
        let mut bench = Bench::new();
        bench.types("lis");
        bench.screen();
        bench.session.logged(b"[    1.5] diskdom: nvme0\n");
        assert_eq!(bench.screen(), "[    1.5] diskdom: nvme0\natoll> lis");
        bench.types("\x15console controldom\r");
        bench.types("\u{1d}dmesg\r");
        assert!(bench.screen().contains("[    1.5] diskdom: nvme0"));
    }

    #[test]
    fn top_looks_once_a_second_until_it_is_left() {
        let mut bench = Bench::new();
        bench.fake.now = 5 * top::PERIOD;
        bench.types("top\r");
        assert!(bench.screen().contains("\x1b[Htop  up 5.0s"));
        assert_eq!(bench.session.deadline(), Some(6 * top::PERIOD));
        bench.session.tick(6 * top::PERIOD - 1, &mut bench.fake);
        assert_eq!(bench.fake.samples, 1);
        bench.fake.now = 6 * top::PERIOD + 1000;
        bench.session.tick(6 * top::PERIOD + 1000, &mut bench.fake);
        assert!(bench.screen().contains("  0   100.0"));
        bench.session.logged(b"[    1.5] diskdom: nvme0\n");
        assert_eq!(bench.screen(), "");
        bench.types("e");
        assert!(bench.screen().contains("EXITS/s BY"));
        assert_eq!(bench.fake.samples, 2);
        bench.types("q");
        assert!(bench.screen().ends_with("atoll> "));
        assert_eq!(bench.session.deadline(), None);
        assert!(bench.fake.keys.is_empty());
    }

    #[test]
    fn a_screen_that_the_line_has_not_taken_is_left_out() {
        let mut bench = Bench::new();
        bench.types("top\r");
        bench.fake.now = top::PERIOD;
        bench.session.tick(top::PERIOD, &mut bench.fake);
        assert_eq!(bench.screen().matches("\x1b[H").count(), 1);
        bench.session.tick(2 * top::PERIOD, &mut bench.fake);
        assert_eq!(bench.screen().matches("\x1b[H").count(), 1);
    }

    #[test]
    fn a_single_look_takes_a_second_and_can_be_given_up() {
        let mut bench = Bench::new();
        bench.types("top once\r");
        bench.screen();
        bench.fake.now = top::PERIOD;
        bench.session.tick(top::PERIOD, &mut bench.fake);
        let text = bench.screen();
        assert!(
            text.starts_with("top over 1000000000 ns") && text.contains("processor 0 guests 100.0"),
            "{text}"
        );
        assert!(text.ends_with("\natoll> "));
        bench.types("top once\r\u{3}");
        bench.session.tick(9 * top::PERIOD, &mut bench.fake);
        assert_eq!(bench.screen(), "top once\n^C\natoll> ");
    }
}
