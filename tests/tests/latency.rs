//! How late a real-time loop wakes up beside a Linux that is busy with processor, disk and network; and how late the same loop wakes up in that Linux.
//!
//! Time is counted in instructions of the emulated machine, so a busy host changes next to nothing: only the moment at which the emulated disk answers
//! is the host's. Nobody types anything before the measurement is over, and nothing comes in from outside.

use tests::{Appliance, Built, System, seconds, setting, system::PROMPT};

/// Seconds until Linux is up and busy.
const SETTLE: u64 = 28;

/// Turns of the loop in Linux, and milliseconds.
fn turns() -> u64 {
    setting("ATOLL_TURNS", 3000)
}

/// How often all of it is measured.
fn rounds() -> u32 {
    setting("ATOLL_ROUNDS", 1)
}

/// What goes into the guest besides.
fn files() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");
    format!(
        "packages = [\"libnuma1\"]\nfiles = {{ \"/etc/inittab\" = \"{folder}/latency.inittab\", \"/usr/bin/latency\" = \"{folder}/latency\", \"/usr/bin/cyclictest\" = \"debian:rt-tests:/usr/bin/cyclictest\" }}\n"
    )
}

/// What both loops found.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The line of the real-time domain, since its start.
    realtime: String,
    /// Its histograms.
    histograms: String,
    /// Linux's: microseconds, and how often.
    linux: Vec<(u64, u64)>,
    /// What Linux was busy with meanwhile: bytes received, sectors read and written.
    load: [u64; 3],
}

impl Found {
    /// Microseconds that a part of Linux's turns does not exceed.
    fn linux(&self, part: u64, whole: u64) -> u64 {
        let all: u64 = self.linux.iter().map(|(_, count)| count).sum();
        let wanted = (all * part).div_ceil(whole);
        let mut seen = 0;
        let found = self.linux.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.expect("it has turns").0
    }

    /// The number before a word of the real-time domain's line.
    fn count(&self, word: &str) -> u64 {
        let before = self.realtime.split(word).next().expect("there is a part");
        let number = before.split_whitespace().last().expect(word);
        number.parse().expect("it is a number")
    }

    /// The worst case of the real-time domain, in nanoseconds.
    fn worst(&self) -> u64 {
        let (_, behind) = self.realtime.split_once(" most ").expect("it has one");
        nanoseconds(behind.split(';').next().expect("there is a part"))
    }
}

/// A length of time as the real-time domain writes it.
fn nanoseconds(text: &str) -> u64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        unit => panic!("{text}: what is {unit}?"),
    };
    (digits.parse::<f64>().expect("it is a number") * unit).round() as u64
}

/// One processor for everybody: of two, the emulator would decide whose turn it is, and not only by what it counted.
fn appliance() -> Appliance {
    let built = Appliance::of("realtime", "latency")
        .replace("cpus = [1]\nexclusive = true\n", "")
        .replace(
            "quiet atoll.data=/dev/xvda\"",
            &format!("quiet atoll.data=/dev/xvda LOOPS={}\"", turns()),
        )
        .in_domain("linux", &files())
        .replace("address = \"dhcp\"", "address = \"10.77.0.9/24\"");
    let log = SETTLE + turns() / 1000 + 8;
    built.replace(
        "loopback = \"true\"",
        &format!("loopback = \"true\"\nsettle = \"{SETTLE}s\"\nlog = \"{log}s\"\nreport = \"{log}s\""),
    )
}

/// Waits until all is over, then asks both.
fn measure(mut system: System) -> Found {
    const END: &str = "turns without an input";
    system.wait_until_up();
    let line = system.console().expect(END, seconds(1100));
    let realtime = line.rsplit("realtime: ").next().unwrap_or_default().to_string();
    system.type_line("console linux");
    let shown = system.console().expect("linux done", seconds(120));
    system.console().send("\x1d");
    system.console().expect(PROMPT, seconds(60));
    system.type_line("console realtime");
    system.console().send("h");
    system.console().expect("from the deadline", seconds(120));
    let histograms = system.console().expect(END, seconds(120));
    let lines = |head: &'static str| shown.lines().filter_map(move |line| line.strip_prefix(head));
    let pairs = lines("linux latency ").filter_map(|line| {
        let (late, count) = line.trim().split_once(' ')?;
        Some((late.parse().ok()?, count.parse().ok()?))
    });
    let load = lines("linux load ").next().unwrap_or_else(|| panic!("{shown}"));
    let mut load = load.split_whitespace().map(|number| number.parse().unwrap());
    Found {
        realtime,
        histograms,
        linux: pairs.collect(),
        load: std::array::from_fn(|_| load.next().unwrap()),
    }
}

fn check(found: &Found) {
    let [received, read, written] = found.load;
    println!("realtime: {}", found.realtime);
    println!("{}", found.histograms);
    println!(
        "the loop in Linux: {} turns; late by median {}us 99% {}us 99.9% {}us most {}us",
        found.linux.iter().map(|(_, count)| count).sum::<u64>(),
        found.linux(1, 2),
        found.linux(99, 100),
        found.linux(999, 1000),
        found.linux(1, 1)
    );
    println!("meanwhile {received} bytes received, {read} sectors read, {written} written");
    assert!(
        received > 1 << 20 && read > 1 << 11 && written > 1 << 11,
        "Linux was not busy"
    );
    assert!(found.count(" turns, ") >= turns(), "it began too late");
    assert_eq!(found.count(" missed;"), 0, "deadlines had no turn");
    let (worst, linux) = (found.worst(), 1000 * found.linux(1, 1));
    assert!(10 * worst <= linux, "{worst} ns against {linux} ns");
}

#[test]
fn the_loop_is_ten_times_closer_to_its_deadline_than_in_linux() {
    let built = appliance().build();
    for _ in 0..rounds() {
        check(&measure(boot(&built)));
    }
}

fn boot(built: &Built) -> System {
    built.boot_machine(|machine| {
        machine.cpus = 1;
        machine.counted = true;
        machine.nic = None;
    })
}
