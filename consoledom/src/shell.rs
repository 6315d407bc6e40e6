//! The operator's commands: what a line means, and what the answers look like.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Write as _;

use thiserror::Error;

/// What the shell shows when it waits for a line.
pub const PROMPT: &str = "atoll> ";

/// What `help` prints.
pub const HELP: &str = "\
list            the domains: state, memory, processor time
console NAME    a domain's console; leave it with Ctrl-]
top             what domains and processors do, every second, until q; top once: one second
crash NAME      why a domain crashed last; crash NAME 1: the time before
dmesg           the log of the hypervisor and of the driver domains
restart NAME    take a domain down and build it anew
reconnect NAME  have a guest connect its disks and networks anew
vcpus NAME COUNT
                have a guest run on so many of its vCPUs
memory NAME SIZE
                have a guest give memory back, or take more, as in memory linux 128M
kill NAME [US], hang NAME [US], corrupt-keep NAME
                where the appliance has fault-injection: have a domain stop or hang, once it has run
                for so many microseconds, or find what it keeps garbled in its next life
shutdown        shut the guests down, then power off
reboot          shut the guests down, then start the machine again
help            this text
";

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    Empty,
    /// `list`
    List,
    /// `console NAME`
    Console(String),
    /// `top`, or `top once`
    Top {
        /// One second, as plain lines.
        once: bool,
    },
    /// `dmesg`
    Dmesg,
    /// `crash NAME`, or `crash NAME 1`
    Crash {
        /// The domain.
        name: String,
        /// 0 for its last crash, 1 for the one before …
        back: u16,
    },
    /// What controldom carries out, in the words that it expects.
    Control(String),
    /// `help`
    Help,
}

/// A line that means nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No such command.
    #[error("{0}: no such command; help lists them")]
    Unknown(String),
    /// A command without the argument that it needs.
    #[error("{0} what? Usage: {0} NAME; list shows the names")]
    NameMissing(&'static str),
    /// A command without all of the arguments that it needs.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// More words than the command takes.
    #[error("{0} takes no more than that; leave out {1}")]
    TooMuch(&'static str, String),
}

/// Understands a line.
pub fn parse(line: &str) -> Result<Command, Error> {
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else {
        return Ok(Command::Empty);
    };
    if word == "top" {
        return match (words.next(), words.next()) {
            (None, _) => Ok(Command::Top { once: false }),
            (Some("once"), None) => Ok(Command::Top { once: true }),
            (Some("once"), Some(word)) | (Some(word), _) => Err(Error::TooMuch("top", word.into())),
        };
    }
    let mut name = |command: &'static str| words.next().map(String::from).ok_or(Error::NameMissing(command));
    let (known, command) = match word {
        "list" => ("list", Command::List),
        "dmesg" => ("dmesg", Command::Dmesg),
        "help" | "?" => ("help", Command::Help),
        "shutdown" => ("shutdown", Command::Control("shutdown".into())),
        "reboot" => ("reboot", Command::Control("reboot".into())),
        "console" => ("console", Command::Console(name("console")?)),
        "restart" => (
            "restart",
            Command::Control(format!("restart {}", name("restart")?)),
        ),
        "kill" | "hang" | "corrupt-keep" => {
            let known = match word {
                "kill" => "kill",
                "hang" => "hang",
                _ => "corrupt-keep",
            };
            let name = name(known)?;
            let after = words.next().filter(|_| known != "corrupt-keep");
            let request = match after {
                Some(after) => format!("{known} {name} {after}"),
                None => format!("{known} {name}"),
            };
            (known, Command::Control(request))
        }
        "crash" => {
            let name = name("crash")?;
            let back = match words.next() {
                None => 0,
                Some(word) => word
                    .parse()
                    .map_err(|_| Error::Usage("crash NAME, or crash NAME 1 for the time before"))?,
            };
            ("crash", Command::Crash { name, back })
        }
        "reconnect" => (
            "reconnect",
            Command::Control(format!("reconnect {}", name("reconnect")?)),
        ),
        "vcpus" => {
            let (name, count) = (name("vcpus"), words.next());
            let (Ok(name), Some(count)) = (name, count) else {
                return Err(Error::Usage("vcpus NAME COUNT, such as vcpus linux 2"));
            };
            ("vcpus", Command::Control(format!("vcpus {name} {count}")))
        }
        "memory" => {
            let (name, size) = (name("memory"), words.next());
            let (Ok(name), Some(size)) = (name, size) else {
                return Err(Error::Usage("memory NAME SIZE, such as memory linux 128M"));
            };
            ("memory", Command::Control(format!("memory {name} {size}")))
        }
        other => return Err(Error::Unknown(other.into())),
    };
    match words.next() {
        None => Ok(command),
        Some(word) => Err(Error::TooMuch(known, word.into())),
    }
}

/// What `list` shows of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainStatus {
    /// Its id.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// A word for its state.
    pub state: &'static str,
    /// Memory that it owns, in 4 KiB pages.
    pub memory_pages: u64,
    /// Memory that it is to have.
    pub target_pages: u64,
    /// What the hypervisor holds for it beside.
    pub overhead_pages: u64,
    /// Its number of vCPUs.
    pub vcpus: u32,
    /// Nanoseconds that they have run.
    pub cpu_time: u64,
    /// Exits that they took.
    pub exits: u64,
    /// How many times it was built.
    pub generation: u32,
}

/// What `list` shows of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineStatus {
    /// Usable memory, in 4 KiB pages.
    pub total_pages: u64,
    /// Pages that nobody holds.
    pub free_pages: u64,
    /// Pages of the hypervisor.
    pub hypervisor_pages: u64,
    /// Pages of the boot bundle.
    pub bundle_pages: u64,
    /// Pages of domains that are gone, which others still have mapped.
    pub held_pages: u64,
    /// Nanoseconds since power-on.
    pub uptime: u64,
    /// Nanoseconds from the hypervisor's first instruction to the first guest's.
    pub first_guest: u64,
}

/// The table that `list` prints.
pub fn list(domains: &[DomainStatus], machine: &MachineStatus) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{:>3}  {:<16} {:<9} {:>10} {:>10} {:>8} {:>5} {:>10} {:>12} {:>5}",
        "ID", "NAME", "STATE", "MEMORY KiB", "TARGET", "TABLES", "VCPUS", "TIME s", "EXITS", "BUILT"
    );
    for domain in domains {
        let _ = writeln!(
            text,
            "{:>3}  {:<16} {:<9} {:>10} {:>10} {:>8} {:>5} {:>10} {:>12} {:>5}",
            domain.id,
            domain.name,
            domain.state,
            domain.memory_pages * 4,
            domain.target_pages * 4,
            domain.overhead_pages * 4,
            domain.vcpus,
            seconds(domain.cpu_time),
            domain.exits,
            domain.generation
        );
    }
    let of_domains: u64 = domains
        .iter()
        .map(|domain| domain.memory_pages + domain.overhead_pages)
        .sum();
    let _ = write!(
        text,
        "memory KiB: {} = {} domains + {} hypervisor + {} boot bundle + {} free",
        machine.total_pages * 4,
        of_domains * 4,
        machine.hypervisor_pages * 4,
        machine.bundle_pages * 4,
        machine.free_pages * 4
    );
    let _ = match machine.held_pages {
        0 => writeln!(text),
        held => writeln!(text, " + {} mapped by others", held * 4),
    };
    let _ = writeln!(
        text,
        "up {} s; first guest instruction after {} s",
        seconds(machine.uptime),
        seconds(machine.first_guest)
    );
    text
}

/// Nanoseconds as seconds with three places.
fn seconds(nanoseconds: u64) -> String {
    format!(
        "{}.{:03}",
        nanoseconds / 1_000_000_000,
        nanoseconds / 1_000_000 % 1000
    )
}

/// The names of domains, for an error about one that does not exist.
pub fn names(domains: &[DomainStatus]) -> String {
    domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_lines() {
        assert_eq!(parse("  "), Ok(Command::Empty));
        assert_eq!(parse(" list "), Ok(Command::List));
        assert_eq!(parse("console linux"), Ok(Command::Console("linux".into())));
        assert_eq!(
            parse("restart netdom"),
            Ok(Command::Control("restart netdom".into()))
        );
        assert_eq!(parse("top"), Ok(Command::Top { once: false }));
        assert_eq!(parse("top once "), Ok(Command::Top { once: true }));
        assert_eq!(
            parse("vcpus linux 2"),
            Ok(Command::Control("vcpus linux 2".into()))
        );
        assert_eq!(
            parse("memory linux 128M"),
            Ok(Command::Control("memory linux 128M".into()))
        );
        assert_eq!(
            parse("kill netdom 250"),
            Ok(Command::Control("kill netdom 250".into()))
        );
        assert_eq!(
            parse("corrupt-keep netdom"),
            Ok(Command::Control("corrupt-keep netdom".into()))
        );
        let crash = |back| {
            Ok(Command::Crash {
                name: "netdom".into(),
                back,
            })
        };
        assert_eq!(
            (parse("crash netdom"), parse("crash netdom 2")),
            (crash(0), crash(2))
        );
        assert!(matches!(parse("crash netdom x"), Err(Error::Usage(_))));
        assert_eq!(parse("reboot"), Ok(Command::Control("reboot".into())));
    }

    #[test]
    fn says_what_is_wrong_with_a_line() {
        assert_eq!(
            parse("lst").unwrap_err().to_string(),
            "lst: no such command; help lists them"
        );
        assert_eq!(
            parse("console").unwrap_err().to_string(),
            "console what? Usage: console NAME; list shows the names"
        );
        for (line, word) in [("top twice", "twice"), ("top once more", "more")] {
            assert_eq!(parse(line), Err(Error::TooMuch("top", word.into())));
        }
        assert_eq!(
            parse("vcpus linux").unwrap_err().to_string(),
            "usage: vcpus NAME COUNT, such as vcpus linux 2"
        );
        assert_eq!(
            parse("memory linux").unwrap_err().to_string(),
            "usage: memory NAME SIZE, such as memory linux 128M"
        );
        assert_eq!(
            parse("restart a b").unwrap_err().to_string(),
            "restart takes no more than that; leave out b"
        );
    }

    #[test]
    fn lists_domains_and_memory() {
        let domain = DomainStatus {
            id: 5,
            name: "linux".into(),
            state: "running",
            memory_pages: 65536,
            target_pages: 32768,
            overhead_pages: 11,
            vcpus: 1,
            cpu_time: 1_500_000_000,
            exits: 1234,
            generation: 1,
        };
        let machine = MachineStatus {
            total_pages: 262_144,
            free_pages: 100_000,
            ..Default::default()
        };
        let text = list(&[domain], &machine);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "  5  linux            running       262144     131072       44     1      1.500         1234     1"
        );
        assert!(text.contains("memory KiB: 1048576 = 262188 domains"));
        assert!(text.contains(" + 400000 free\n"));
    }
}
