//! Memory moves between domains while they run: a guest gives it back and gets it again, others start from it, and it all adds up.

use tests::{Appliance, System, seconds};

const MIB: u64 = 1024;
/// A second guest for which there is no room beside the first.
const SECOND: &str = r#"
[[domain]]
name = "second"
kind = "linux"
kernel = "debian:linux-image-cloud-amd64"
command-line = "console=hvc0 quiet hostname=second"
memory = "512M"
"#;

/// A domain's line of `list`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    state: String,
    /// In KiB.
    memory: u64,
    target: u64,
    tables: u64,
}

/// What `list` says.
#[derive(Clone, Debug)]
struct List {
    lines: Vec<Line>,
    free: u64,
}

impl List {
    fn of(&self, name: &str) -> &Line {
        self.lines
            .iter()
            .find(|line| line.name == name)
            .expect("the domain is listed")
    }
}

/// Asks for the list, and holds what it says against itself.
#[track_caller]
fn list(system: &mut System) -> List {
    let text = system.operator("list");
    let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
    let lines: Vec<Line> = text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first()?.parse::<u16>().ok()?;
            Some(Line {
                name: words.get(1)?.to_string(),
                state: words.get(2)?.to_string(),
                memory: number(words.get(3).copied())?,
                target: number(words.get(4).copied())?,
                tables: number(words.get(5).copied())?,
            })
        })
        .collect();
    let sum = text
        .lines()
        .find_map(|line| line.split_once("memory KiB: ").map(|(_, sum)| sum))
        .unwrap_or_else(|| panic!("no sum in:\n{text}"));
    let (total, parts) = sum.split_once(" = ").expect("the sum has an equals sign");
    let parts: Vec<(u64, &str)> = parts
        .split(" + ")
        .map(|part| {
            let (number, what) = part.split_once(' ').expect("a part has a number");
            (number.parse().expect("a part has a number"), what.trim())
        })
        .collect();
    let whole: u64 = parts.iter().map(|(number, _)| number).sum();
    assert_eq!(total.parse(), Ok(whole), "{text}");
    let of_domains: u64 = lines.iter().map(|line| line.memory + line.tables).sum();
    assert!(parts.contains(&(of_domains, "domains")), "{text}");
    let free = parts
        .iter()
        .find(|(_, what)| *what == "free")
        .expect("free memory")
        .0;
    List { lines, free }
}

/// Asks a guest to have so much, and waits until `done` with the list that says so.
#[track_caller]
fn set(system: &mut System, mebibytes: u64, done: impl Fn(&List) -> bool) -> List {
    let answer = system.operator(&format!("memory linux {mebibytes}M"));
    assert!(answer.contains("linux is asked to have"), "{answer}");
    wait(system, done)
}

#[track_caller]
fn wait(system: &mut System, done: impl Fn(&List) -> bool) -> List {
    let end = std::time::Instant::now() + seconds(240);
    loop {
        let now = list(system);
        if done(&now) {
            return now;
        }
        assert!(std::time::Instant::now() < end, "it does not get there: {now:?}");
        std::thread::sleep(seconds(1));
    }
}

/// Whether the guest has what it was told, but for what its kernel keeps out of the balloon's reach.
fn has(mebibytes: u64) -> impl Fn(&List) -> bool {
    move |list| {
        let line = list.of("linux");
        line.target == mebibytes * MIB && (line.target - 64..=line.target + 8).contains(&line.memory)
    }
}

#[test]
fn a_guest_gives_memory_back_and_gets_it_again() {
    let mut system = Appliance::gateway("memory")
        .replace(
            "memory = \"256M\"",
            "memory = \"512M\"\nmemory-maximum = \"640M\"",
        )
        .with(SECOND)
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("dd if=/dev/urandom of=/tmp/data bs=1M count=48 2>/dev/null; sha256sum /tmp/data > /tmp/sum");
    linux.run("(while ! test -e /tmp/stop; do cp /tmp/data /tmp/copy; if cmp /tmp/data /tmp/copy && sha256sum -c -s /tmp/sum; then echo good; else echo bad; fi; done > /tmp/outcomes 2>&1; touch /tmp/over) & true");
    linux.leave();
    let before = list(&mut system);
    assert_eq!(before.of("second").state, "failed");
    assert!(has(512)(&before), "{before:?}");

    for (command, complaint) in [
        ("memory linux 63M", "linux can have 64M to 640M, not 63M"),
        ("memory linux 641M", "linux can have 64M to 640M, not 641M"),
        ("memory linux lots", "is no size"),
        ("memory diskdom 8M", "diskdom is a unikernel"),
        ("memory nobody 8M", "no domain"),
        ("memory linux", "usage: memory NAME SIZE"),
    ] {
        let answer = system.operator(command);
        assert!(answer.contains(complaint), "{answer}");
    }

    // What it gives back is free, to the page.
    let small = set(&mut system, 256, has(256));
    let held = |list: &List| list.of("linux").memory + list.of("linux").tables;
    assert_eq!(small.free - before.free, held(&before) - held(&small));
    // Somebody else starts from it; what is left is not enough to grow, and nobody is hurt by trying.
    let answer = system.operator("restart second");
    assert!(answer.contains("second is started"), "{answer}");
    let mut second = system.guest("second");
    second.run("dd if=/dev/zero of=/tmp/zero bs=1M count=64 2>/dev/null");
    second.leave();
    let tight = set(&mut system, 512, |list| list.free < 8 * MIB);
    assert!(tight.of("linux").memory < 500 * MIB, "{tight:?}");
    system.guest("second").run("cmp -n 67108864 /tmp/zero /dev/zero");
    // When the other goes, it gets what it wants; beyond what it began with, its kernel adds memory.
    system.guest("second").type_line("poweroff");
    wait(&mut system, |list| {
        has(512)(list) && list.of("second").memory == 0
    });
    set(&mut system, 640, has(640));
    let mut linux = system.guest("linux");
    let total = linux.run("grep MemTotal /proc/meminfo");
    let total: u64 = total
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    assert!(total > 560 * MIB, "{total}");
    linux.run("touch /tmp/stop");
    linux.run_for("while ! test -e /tmp/over; do sleep 1; done", seconds(240));
    assert_ne!(linux.run("grep -c good /tmp/outcomes; true").trim(), "0");
    assert_eq!(linux.run("grep -vc good /tmp/outcomes; true").trim(), "0");
    linux.leave();
    system.shut_down();
}
