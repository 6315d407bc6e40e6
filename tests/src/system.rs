//! A machine under the emulator, its serial line watched, ended with its test.

use std::{
    any::Any,
    fs::File,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use image_builder::{Progress, Workspace, command, emulator::Machine, files, program};
use tempfile::TempDir;

use crate::{Console, Guest, seconds, slot::Slot};

/// What the operator's shell shows when it waits for a command.
pub const PROMPT: &str = "atoll> ";
/// The longest that any machine runs, whatever its test does.
const LIFETIME: &str = "1200";

/// A running machine.
pub struct System {
    console: Console,
    child: Child,
    folder: TempDir,
    /// Disks and images, for as long as the machine may use them.
    _kept: Box<dyn Any>,
    _slot: Slot,
}

impl System {
    /// Starts a machine, and drops `kept` when it has ended. What it prints is kept in `build/tests/NAME.log`.
    pub fn start(workspace: &Workspace, name: &str, machine: &Machine, kept: impl Any) -> Self {
        let start = move || -> image_builder::Result<Self> {
            program::ensure(program::EMULATOR, Progress::hidden())?;
            let slot = Slot::take(workspace);
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let mut emulator = machine.command();
            emulator.args(["-serial", "stdio", "-chardev"]);
            emulator.arg(format!(
                "socket,id=monitor,server=on,wait=off,path={}",
                monitor_path(&folder).display()
            ));
            emulator.args(["-mon", "chardev=monitor,mode=readline"]);
            let mut watched = watched(&emulator);
            let errors = folder.path().join("errors");
            let errors = files::context(File::create(&errors), "create", &errors)?;
            watched
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(errors);
            let mut child = watched
                .spawn()
                .map_err(|cause| command::not_started(&watched, &cause))?;
            let (output, input) = (
                child.stdout.take().expect("it is piped"),
                child.stdin.take().expect("it is piped"),
            );
            let transcript = workspace.build().join("tests").join(format!("{name}.log"));
            files::create_folder(&workspace.build().join("tests"))?;
            let transcript = files::context(File::create(&transcript), "create", &transcript)?;
            let console = Console::new(output, input, Some(transcript));
            Ok(Self {
                console,
                child,
                folder,
                _kept: Box::new(kept),
                _slot: slot,
            })
        };
        start().unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
    }

    /// The serial line, as it is.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// Waits for the operator's prompt after the start.
    #[track_caller]
    pub fn wait_until_up(&mut self) {
        self.console.expect(PROMPT, seconds(90));
    }

    /// Types a command at the operator's prompt and returns what it prints.
    #[track_caller]
    pub fn operator(&mut self, line: &str) -> String {
        self.type_line(line);
        self.console.expect(PROMPT, seconds(60))
    }

    /// Types a command that does not return to the prompt.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        self.console.send(&format!("{line}\r"));
        self.console.expect(&format!("{line}\n"), seconds(20));
    }

    /// Attaches to a guest's console and waits until its shell answers. Dropping the guest leaves its console.
    #[track_caller]
    pub fn guest(&mut self, name: &str) -> Guest<'_> {
        self.type_line(&format!("console {name}"));
        Guest::attach(&mut self.console, name)
    }

    /// Waits for the line of a guest's console that says that it is up, and returns what its console has shown until then.
    #[track_caller]
    pub fn watch_start(&mut self, name: &str) -> String {
        self.type_line(&format!("console {name}"));
        let shown = self.console.expect("linux ready", seconds(180));
        self.leave_console();
        shown
    }

    /// Attaches to a guest's console, and returns what it shows of the past.
    #[track_caller]
    pub fn watch(&mut self, name: &str) -> String {
        self.type_line(&format!("console {name}"));
        self.console.send("\x1d");
        self.console.expect(PROMPT, seconds(20))
    }

    /// Back from a guest's console to the operator's prompt.
    #[track_caller]
    fn leave_console(&mut self) {
        self.console.send("\x1d");
        self.console.expect(PROMPT, seconds(20));
    }

    /// Shuts everything down in order, as the operator would, and waits until the machine is off.
    #[track_caller]
    pub fn shut_down(mut self) {
        self.type_line("shutdown");
        self.console.expect_end(seconds(90));
    }

    /// Waits until the machine has switched itself off.
    #[track_caller]
    pub fn wait_until_off(&mut self, limit: Duration) {
        self.console.expect_end(limit);
    }

    /// Pulls the plug.
    pub fn pull_the_plug(self) {
        drop(self);
    }

    /// The text on the screen, while that is in VGA's text mode.
    pub fn screen(&mut self) -> std::io::Result<String> {
        const CELLS: usize = 80 * 25;
        let dump = self.monitor(&format!("xp /{}xb 0xb8000", 2 * CELLS))?;
        let bytes = dump
            .lines()
            .filter_map(|line| line.split_once(": "))
            .flat_map(|(_, bytes)| bytes.split_whitespace());
        let cells: Vec<char> = bytes
            .step_by(2)
            .filter_map(|byte| u8::from_str_radix(byte.strip_prefix("0x")?, 16).ok())
            .map(char::from)
            .collect();
        Ok(cells
            .chunks(80)
            .map(|line| line.iter().collect::<String>() + "\n")
            .collect())
    }

    /// Says something to the emulator's monitor and returns the answer.
    pub fn monitor(&mut self, line: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(monitor_path(&self.folder))?;
        stream.set_read_timeout(Some(seconds(20)))?;
        let until_prompt = |stream: &mut UnixStream| -> std::io::Result<String> {
            let mut text = Vec::new();
            let mut byte = [0];
            while !text.ends_with(b"(qemu) ") && stream.read(&mut byte)? == 1 {
                text.push(byte[0]);
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        until_prompt(&mut stream)?;
        writeln!(stream, "{line}")?;
        until_prompt(&mut stream)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Only our own child; the emulator below it follows.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let errors = std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
            if !errors.is_empty() {
                eprintln!("the emulator said:\n{errors}");
            }
        }
    }
}

fn monitor_path(folder: &TempDir) -> PathBuf {
    folder.path().join("monitor")
}

/// The same command so that it ends with the thread that starts it, and after its longest time in any case.
fn watched(emulator: &Command) -> Command {
    let leash = ["--pdeathsig", "KILL", "--"];
    let mut command = program::new("setpriv");
    command
        .args(leash)
        .args(["timeout", "--foreground", "--signal", "KILL", LIFETIME, "setpriv"])
        .args(leash);
    command.arg(emulator.get_program()).args(emulator.get_args());
    command
}
