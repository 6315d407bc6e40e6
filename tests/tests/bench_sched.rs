//! What ways through the hypervisor cost, as `just bench sched` prints it: once counted in emulated instructions, which repeats exactly, and once in time
//! on this host. Nothing fails here for being slow.

use image_builder::emulator::INSTRUCTION;
use tests::{Appliance, Finding, seconds};

/// How often each is done.
const COUNT: u64 = 2000;

/// A way through the hypervisor.
struct Row {
    name: &'static str,
    /// Who finds it, about what, and which number it is.
    of: (&'static str, &'static str, &'static str),
    /// How many of it one measurement has.
    parts: u64,
}

/// What the probes of a machine found: counted in instructions, and in nanoseconds of this host.
struct Measured {
    counted: String,
    timed: String,
}

impl Measured {
    fn of(appliance: impl Fn(&str) -> Appliance, name: &str, processors: u32, last: &str) -> Self {
        let built = appliance(name).build();
        let run = |counted| {
            let mut system = built.boot_machine(|machine| {
                machine.cpus = processors;
                machine.counted = counted;
            });
            system.console().expect(&format!("] {last}: done"), seconds(120));
            system.console().history()
        };
        Self {
            counted: run(true),
            timed: run(false),
        }
    }

    fn print(&self, rows: &[Row]) {
        for row in rows {
            let (domain, what, number) = row.of;
            let read = |log: &str, number: &str| {
                let all = Finding::all(log, domain, what);
                let finding = all
                    .first()
                    .unwrap_or_else(|| panic!("{domain} found no {what}:\n{log}"));
                // The clock is read between two measurements; only the tallies of `each` know what that takes.
                let nothing = Finding::all(log, domain, "nothing");
                let less = nothing.first().map_or(0, |nothing| nothing.get("mean"));
                finding.get(number).saturating_sub(less) as f64 / row.parts as f64
            };
            let instructions = |number| read(&self.counted, number) / INSTRUCTION as f64;
            let exits = Finding::all(&self.counted, domain, what)[0]
                .find("exits")
                .map_or("".into(), |exits| {
                    format!("{:.1}", exits as f64 / (COUNT * row.parts) as f64)
                });
            println!(
                "{:<44} {:>12.0} {:>8} {:>12.0} {:>12.0}",
                row.name,
                instructions(number),
                exits,
                read(&self.timed, number),
                1e9 / read(&self.timed, number)
            );
        }
    }
}

fn alone(name: &str) -> Appliance {
    let yields = format!("yield count={COUNT} start=9000");
    Appliance::small(name)
        .probe("exits", &format!("exits count={COUNT}"), "")
        .probe("ping", &format!("ping peer=5 count={COUNT} start=4000"), "")
        .probe("pong", "pong peer=4", "")
        .probe("yield", &yields, "")
        .probe("partner", &yields, "")
        .probe("wake", "wake count=200 after=5000 start=13000", "")
}

fn busy(name: &str) -> Appliance {
    Appliance::small(name)
        .probe("wake", "wake count=200 after=5000", "")
        .probe("spin", "spin", "class = \"shared\"")
}

fn apart(name: &str) -> Appliance {
    Appliance::small(name)
        .probe(
            "ping",
            &format!("ping peer=4 count={COUNT} start=1000"),
            "cpus = [0]",
        )
        .probe("pong", "pong peer=3", "cpus = [1]")
}

#[test]
#[ignore = "measures; run by `just bench sched`"]
fn bench_sched() {
    println!(
        "{:<44} {:>12} {:>8} {:>12} {:>12}",
        "", "instructions", "exits", "ns here", "a second"
    );
    let row = |name, domain, what, number, parts| Row {
        name,
        of: (domain, what, number),
        parts,
    };
    Measured::of(alone, "bench-alone", 1, "wake").print(&[
        row(
            "hypercall (XENVER_version), round trip",
            "exits",
            "hypercall",
            "mean",
            1,
        ),
        row("CPUID, round trip", "exits", "cpuid", "mean", 1),
        row("port of no device, round trip", "exits", "port", "mean", 1),
        row(
            "switch between domains by SCHEDOP_yield",
            "yield",
            "yield",
            "mean",
            2,
        ),
        row(
            "event to a domain on the same processor",
            "ping",
            "ping",
            "mean",
            2,
        ),
        row(
            "timer to its domain, processor idle: mean",
            "wake",
            "wake",
            "mean",
            1,
        ),
        row(
            "timer to its domain, processor idle: most",
            "wake",
            "wake",
            "most",
            1,
        ),
    ]);
    Measured::of(busy, "bench-busy", 1, "wake").print(&[
        row(
            "timer to its domain, another computes: mean",
            "wake",
            "wake",
            "mean",
            1,
        ),
        row(
            "timer to its domain, another computes: most",
            "wake",
            "wake",
            "most",
            1,
        ),
    ]);
    Measured::of(apart, "bench-apart", 2, "ping").print(&[row(
        "event to a domain on another processor",
        "ping",
        "ping",
        "mean",
        2,
    )]);
}
