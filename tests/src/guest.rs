//! A guest's shell, by the console that the operator is attached to.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Console, seconds, system::PROMPT};

/// Marks have to differ over all consoles, since a console shows its past when it is attached.
static NEXT_MARK: AtomicU64 = AtomicU64::new(1);

/// What leaves a console.
const LEAVE: &str = "\x1d";

/// A guest whose shell answers.
pub struct Guest<'a> {
    console: &'a mut Console,
    name: String,
    attached: bool,
}

impl<'a> Guest<'a> {
    /// The shell on a console that was just attached, as soon as it answers.
    #[track_caller]
    pub(crate) fn attach(console: &'a mut Console, name: &str) -> Self {
        let guest = Self {
            console,
            name: name.into(),
            attached: true,
        };
        guest.wait_for_shell()
    }

    /// The shell of a machine without an operator, whose serial line it is.
    #[track_caller]
    pub fn on_serial_line(console: &'a mut Console) -> Self {
        let guest = Self {
            console,
            name: "guest".into(),
            attached: false,
        };
        guest.wait_for_shell()
    }

    #[track_caller]
    fn wait_for_shell(self) -> Self {
        // What is typed before the shell is there may be lost, so it is typed again.
        for _ in 0..60 {
            let mark = next_mark();
            self.console.send(&format!("echo \"here\"'{mark}'\r"));
            if self
                .console
                .wait_any(&[&format!("here{mark}")], seconds(3))
                .is_some()
            {
                return self;
            }
        }
        self.console
            .expect(&format!("the shell of {}", self.name), Duration::ZERO);
        self
    }

    /// Runs a command that has to succeed, and returns what it prints.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        self.run_for(command, seconds(60))
    }

    /// The same for a command that takes longer.
    #[track_caller]
    pub fn run_for(&mut self, command: &str, limit: Duration) -> String {
        let (status, output) = self.try_run(command, limit);
        assert_eq!(status, 0, "{}: {command}\n{output}", self.name);
        output
    }

    /// Runs a command; its exit status, and what it prints.
    #[track_caller]
    pub fn try_run(&mut self, command: &str, limit: Duration) -> (i32, String) {
        let mark = next_mark();
        // The quotes keep the marks apart from the echo of the line that prints them.
        self.console.send(&format!(
            "echo \"begin\"'{mark}'; {command}; echo \"end\"'{mark}' $?\r"
        ));
        self.console.expect(&format!("begin{mark}\n"), limit);
        let output = self.console.expect(&format!("end{mark} "), limit);
        let status = self.console.expect("\n", seconds(10));
        let status = status
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{}: no exit status: {status}", self.name));
        (status, output)
    }

    /// Types a line and does not wait for anything.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        self.console.send(&format!("{line}\r"));
    }

    /// The console, as it is.
    pub fn console(&mut self) -> &mut Console {
        self.console
    }

    /// Leaves the console for the operator's prompt.
    #[track_caller]
    pub fn leave(mut self) {
        self.attached = false;
        self.console.send(LEAVE);
        self.console.expect(PROMPT, seconds(20));
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if self.attached && !std::thread::panicking() && !self.console.has_ended() {
            self.console.send(LEAVE);
            self.console.expect(PROMPT, seconds(20));
        }
    }
}

fn next_mark() -> u64 {
    NEXT_MARK.fetch_add(1, Ordering::Relaxed) + 1000
}
