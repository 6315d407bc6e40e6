//! The operator's `top`: what it shows of a machine at work adds up, and is of those who work.

use std::collections::BTreeMap;

use tests::{Appliance, System, seconds};

const PROCESSORS: u32 = 2;

/// A line of `top once`: what it is about, and its names and values.
struct Line {
    kind: String,
    name: String,
    values: BTreeMap<String, String>,
}

impl Line {
    fn number(&self, name: &str) -> f64 {
        let value = self.values.get(name).map(String::as_str);
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| {
            panic!(
                "{} {} has no number {name}: {:?}",
                self.kind, self.name, self.values
            )
        })
    }
}

fn look(system: &mut System) -> Vec<Line> {
    let text = system.operator("top once");
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(String::from);
        let (kind, name) = (words.next()?, words.next()?);
        let mut values = BTreeMap::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            values.entry(name).or_insert(value);
        }
        Some(Line { kind, name, values })
    };
    text.lines().filter_map(line).collect()
}

fn of<'a>(lines: &'a [Line], kind: &str) -> impl Iterator<Item = &'a Line> {
    let kind = kind.to_string();
    lines.iter().filter(move |line| line.kind == kind)
}

fn sum<'a>(lines: impl Iterator<Item = &'a Line>, name: &str) -> f64 {
    lines.map(|line| line.number(name)).sum()
}

#[test]
fn shows_who_works_and_adds_up() {
    let mut system = Appliance::gateway("top")
        .build()
        .boot_machine(|machine| machine.cpus = PROCESSORS);
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("(while :; do :; done) & echo $! > /tmp/spins");
    linux.leave();

    let lines = look(&mut system);
    let busy = of(&lines, "domain").find(|line| line.name == "linux").unwrap();
    assert!(busy.number("cpu") > 70.0, "{:?}", busy.values);
    assert_eq!(busy.values["class"], "shr");
    let all = f64::from(100 * PROCESSORS);
    for processor in of(&lines, "processor") {
        let parts = ["guests", "hypervisor", "lock", "idle"].map(|part| processor.number(part));
        let whole: f64 = parts.iter().sum();
        // Each of the four is rounded to a tenth.
        assert!((whole - 100.0).abs() < 0.25, "{parts:?}");
        assert!(processor.number("longest") >= processor.number("stay"));
    }
    assert_eq!(of(&lines, "processor").count(), PROCESSORS as usize);
    let domains = sum(of(&lines, "domain"), "cpu");
    let idle = sum(of(&lines, "processor"), "idle");
    // What the hypervisor does between two vCPUs is no domain's time.
    assert!((domains + idle - all).abs() < 0.15 * all, "{domains} + {idle}");
    assert!(domains + 1.0 > sum(of(&lines, "processor"), "guests"));
    let exits = of(&lines, "exits").find(|line| line.name == "linux").unwrap();
    assert!(exits.number("interrupt") + exits.number("halt") + exits.number("hypercall") > 0.0);

    let mut linux = system.guest("linux");
    linux.run("kill $(cat /tmp/spins)");
    linux.run("(while :; do dd if=/dev/zero of=/data/zero bs=64k count=64 conv=fsync 2> /dev/null; done) & echo $! > /tmp/writes");
    linux.run_for("ping -c 3 10.0.2.2", seconds(60));
    linux.leave();
    // Backends publish once a second at most.
    let written = (0..10).find_map(|_| {
        let lines = look(&mut system);
        let disk = of(&lines, "disk").find(|line| line.name == "xvda")?;
        let copies = of(&lines, "domain").find(|line| line.name == "diskdom")?;
        let writes = disk.number("writes");
        (writes > 0.0).then(|| (writes, copies.number("events")))
    });
    assert!(
        written.is_some_and(|(_, events)| events > 0.0),
        "nothing was written: {written:?}"
    );
    let lines = look(&mut system);
    let network = of(&lines, "network").find(|line| line.name == "vif0");
    assert!(network.is_some(), "no network interface is shown");

    system.type_line("top");
    for (key, title) in [
        ("", "GUESTS%"),
        ("e", "EXITS/s BY"),
        ("p", "RECENT STAY"),
        ("h", "WAKE TO RUN"),
        ("d", "STEAL%"),
    ] {
        system.console().send(key);
        system.console().expect(title, seconds(30));
    }
    // It goes on by itself.
    system.console().expect("STEAL%", seconds(30));
    system.console().send("q");
    system.console().expect(tests::PROMPT, seconds(20));
    system.shut_down();
}
