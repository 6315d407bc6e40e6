//! Who gets how much of the processors, on whole systems: probes that compute compete with each other under the settings of the manifest.
//!
//! Time is counted in instructions, so every run is like the other, and a busy host changes nothing. Only where a stock guest takes part on two processors it
//! is not: QEMU 7.2, counting, would let the second one wait for as long as the first is busy.

use tests::{Appliance, Finding, System, seconds};

/// The probe that looks at the others; it runs at once when its time has come.
const WATCHER: &str = "capabilities = [\"observe\"]";

/// A spinning domain of the class `shared`.
fn shared(appliance: Appliance, name: &str, weight: u32) -> Appliance {
    appliance.probe(name, "spin", &format!("class = \"shared\"\nweight = {weight}"))
}

/// How the processors were used between two looks of the watcher.
struct Window {
    first: Finding,
    last: Finding,
    /// Of the processors, at the same two moments.
    processors: [Finding; 2],
}

/// Boots on so many processors.
fn start(appliance: Appliance, processors: u32, counted: bool) -> System {
    appliance.build().boot_machine(|machine| {
        machine.cpus = processors;
        machine.counted = counted;
    })
}

impl Window {
    /// Boots on so many processors, and waits until the watcher has looked for the last time.
    fn of(appliance: Appliance, processors: u32) -> (Self, System) {
        let mut system = start(appliance, processors, true);
        (Self::over(&mut system), system)
    }

    /// What the watcher has seen until it was done.
    #[track_caller]
    fn over(system: &mut System) -> Self {
        system.console().expect("] watcher: done", seconds(240));
        Self::of_log(&system.console().history())
    }

    #[track_caller]
    fn of_log(log: &str) -> Self {
        let ends = |what| {
            let looks = Finding::all(log, "watcher", what);
            let [first, .., last] = &looks[..] else {
                panic!("the watcher has not looked twice:\n{log}")
            };
            [first.clone(), last.clone()]
        };
        let [first, last] = ends("watch");
        Self {
            first,
            last,
            processors: ends("processors"),
        }
    }

    /// How much a number of a processor has grown.
    #[track_caller]
    fn processor(&self, number: u32, name: &str) -> u64 {
        let [first, last] = &self.processors;
        last.since(first, &format!("{number}.{name}"))
    }

    /// What a domain got, in hundredths of one processor.
    #[track_caller]
    fn percent(&self, domain: &str) -> f64 {
        let [ran, of] = [domain, "at"].map(|name| self.last.since(&self.first, name) as f64);
        100.0 * ran / of
    }
}

/// Whether what domains got is what they were to get: within a twentieth of it.
#[track_caller]
fn assert_shares(window: &Window, expected: &[(&str, f64)]) {
    let got: Vec<(&str, f64)> = expected
        .iter()
        .map(|(name, _)| (*name, window.percent(name)))
        .collect();
    println!("{got:.2?} where {expected:.2?} was expected");
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        let off = (got - expected).abs() / expected;
        assert!(off <= 0.05, "{name} got {got:.2} %, not {expected:.2} %");
    }
}

/// An appliance with a watcher and spinning domains of the class `shared`, with these names and weights.
fn spinning(name: &str, domains: &[(&str, u32)]) -> Appliance {
    let appliance = Appliance::small(name).probe("watcher", "watch every=3000", WATCHER);
    let add = |appliance, (name, weight): &(&str, u32)| shared(appliance, name, *weight);
    domains.iter().fold(appliance, add)
}

#[test]
fn weights_on_one_processor() {
    let appliance = spinning("weights-1", &[("one", 128), ("two", 256), ("four", 512)]);
    let (window, _system) = Window::of(appliance, 1);
    assert_shares(
        &window,
        &[("one", 100.0 / 7.0), ("two", 200.0 / 7.0), ("four", 400.0 / 7.0)],
    );
}

#[test]
fn three_equals_on_two_processors() {
    let appliance = spinning("equals", &[("one", 256), ("two", 256), ("three", 256)]);
    let (window, _system) = Window::of(appliance, 2);
    assert_shares(
        &window,
        &[("one", 200.0 / 3.0), ("two", 200.0 / 3.0), ("three", 200.0 / 3.0)],
    );
}

/// The heavy one has a processor for itself, which is all that it can use.
#[test]
fn weights_on_two_processors() {
    let appliance = spinning("weights-2", &[("one", 256), ("two", 256), ("heavy", 512)]);
    let (window, _system) = Window::of(appliance, 2);
    assert_shares(&window, &[("one", 50.0), ("two", 50.0), ("heavy", 100.0)]);
}

/// A weight is that of each vCPU.
#[test]
fn a_guest_with_two_vcpus_among_probes() {
    let linux = "[[domain]]\nname = \"linux\"\nkind = \"linux\"\nmemory = \"160M\"\nvcpus = 2\nweight = 128\n\
        kernel = \"debian:linux-image-cloud-amd64\"\ncommand-line = \"console=hvc0 quiet\"\n";
    let appliance = Appliance::small("shares-guest")
        .replace("memory = \"192M\"", "memory = \"448M\"")
        .with(linux)
        .probe("watcher", "watch every=500 times=1000", WATCHER);
    let appliance = shared(shared(appliance, "one", 128), "two", 256);
    let mut system = start(appliance, 2, false);
    system.wait_until_up();
    let mut guest = system.guest("linux");
    guest.run("for cpu in 0 1; do (while :; do :; done) & done");
    guest.leave();
    // The look that comes next may show what was before.
    system.console().expect("] watcher: processors ", seconds(60));
    let before = system.console().history().len();
    for _ in 0..11 {
        system.console().expect("] watcher: processors ", seconds(60));
    }
    let window = Window::of_log(&system.console().history()[before..]);
    // The guest's devices and the hypervisor take a little of a host that may be busy; what is left is what is shared.
    let names = ["linux", "one", "two"];
    let all: f64 = names.iter().map(|name| window.percent(name)).sum();
    println!("they got {all:.1} % together");
    assert!(all > 150.0, "{all:.1} %");
    let shares = [0.4, 0.2, 0.4];
    let expected: Vec<(&str, f64)> = names.into_iter().zip(shares.map(|share| share * all)).collect();
    assert_shares(&window, &expected);
}

#[test]
fn a_budget_is_a_limit_and_a_promise() {
    let realtime = "class = \"realtime\"\nbudget = \"2ms\"\nperiod = \"10ms\"";
    let appliance = spinning("budget", &[("one", 256), ("three", 768)]).probe("tight", "spin", realtime);
    let (window, _system) = Window::of(appliance, 1);
    let tight = window.percent("tight");
    println!("the real-time domain got {tight:.3} %");
    assert!((19.0..=20.2).contains(&tight), "{tight:.3} %");
    assert_shares(&window, &[("one", 20.0), ("three", 60.0)]);
}

#[test]
fn a_cap_holds_where_nobody_else_wants_the_processor() {
    let appliance = Appliance::small("cap")
        .probe("watcher", "watch every=3000", WATCHER)
        .probe("capped", "spin", "class = \"shared\"\ncap = 30");
    let (window, _system) = Window::of(appliance, 1);
    assert_shares(&window, &[("capped", 30.0)]);
    let capped = window.percent("capped");
    assert!(capped <= 30.2, "{capped:.3} %");
}

#[test]
fn a_pinned_domain_stays_though_another_processor_is_idle() {
    let pinned = "class = \"shared\"\ncpus = [1]";
    let appliance = Appliance::small("pinned")
        .probe("watcher", "watch every=3000", WATCHER)
        .probe("one", "spin", pinned)
        .probe("two", "spin", pinned);
    let (window, _system) = Window::of(appliance, 2);
    assert_shares(&window, &[("one", 50.0), ("two", 50.0)]);
    let others = ["controldom", "consoledom", "watcher"];
    let ran: u64 = others
        .iter()
        .map(|name| window.last.since(&window.first, name))
        .sum();
    let guest = window.processor(0, "guest");
    assert!(
        guest <= ran,
        "processor 0 ran guests for {guest} ns, the others' {ran} ns"
    );
}

#[test]
fn an_exclusive_processor_sees_no_other_domain() {
    let appliance = spinning("exclusive", &[("one", 256), ("two", 256)]).probe(
        "owner",
        "spin",
        "class = \"shared\"\ncpus = [1]\nexclusive = true",
    );
    let (window, _system) = Window::of(appliance, 2);
    assert_shares(&window, &[("one", 50.0), ("two", 50.0), ("owner", 100.0)]);
    let owner = window.percent("owner");
    // The rest is between an exit and the next entry, which a busy host may draw out; how many there are is looked at below.
    assert!(owner >= 99.0, "{owner:.3} %");
    // It was there before and after, and nobody came between; nor does anything tick.
    for look in &window.processors {
        assert_eq!(look.get("1.domain"), 6);
    }
    assert_eq!(window.processor(1, "switches"), 0);
    let exits = window.processor(1, "exits");
    assert!(exits <= 3, "{exits} exits");
    assert!(window.processor(0, "switches") > 100);
}

#[test]
fn absent_processors_are_named_and_done_without() {
    let appliance = spinning("absent", &[("one", 256)])
        .probe("lost", "spin", "class = \"shared\"\ncpus = [7]")
        .probe(
            "alone",
            "spin",
            "class = \"shared\"\ncpus = [5]\nexclusive = true",
        );
    let (window, system) = Window::of(appliance, 1);
    let third = 100.0 / 3.0;
    assert_shares(&window, &[("one", third), ("lost", third), ("alone", third)]);
    let mut system = system;
    let log = system.console().history();
    for (name, number) in [("lost", 7), ("alone", 5)] {
        let named = |line: &str| {
            line.contains("] atoll: warning: ") && line.contains(name) && line.contains(&format!("{number}"))
        };
        assert!(log.lines().any(named), "{log}");
    }
}
