//! Who gets how much of the processors, on whole systems: probes that compute compete with each other under the settings of the manifest.
//!
//! Time is counted in instructions, so every run is like the other, and a busy host changes nothing.

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
}

impl Window {
    /// Boots on so many processors, and waits until the watcher has looked for the last time.
    fn of(appliance: Appliance, processors: u32) -> (Self, System) {
        let built = appliance.build();
        let mut system = built.boot_machine(|machine| {
            machine.cpus = processors;
            machine.counted = true;
        });
        system.console().expect("] watcher: done", seconds(120));
        let looks = Finding::all(&system.console().history(), "watcher", "watch");
        let [first, .., last] = &looks[..] else {
            panic!("the watcher has not looked twice")
        };
        let (first, last) = (first.clone(), last.clone());
        (Self { first, last }, system)
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

/// The part of a processor, in percent, that is left for domains of the class `shared` while nothing else happens: the hypervisor, the control domain and the
/// console take less than the rest.
const LEFT: f64 = 100.0;

#[test]
fn weights_on_one_processor() {
    let mut appliance = Appliance::small("weights-1").probe("watcher", "watch every=3000", WATCHER);
    for (name, weight) in [("one", 128), ("two", 256), ("four", 512)] {
        appliance = shared(appliance, name, weight);
    }
    let (window, _system) = Window::of(appliance, 1);
    assert_shares(
        &window,
        &[
            ("one", LEFT / 7.0),
            ("two", LEFT * 2.0 / 7.0),
            ("four", LEFT * 4.0 / 7.0),
        ],
    );
}
