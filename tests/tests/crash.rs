//! Domains that panic or hang: they are noticed, a report stays, and the manifest says what follows. Time is counted in instructions.

use tests::{Appliance, System, seconds};

/// A probe with what `lines` say.
fn appliance(name: &str, task: &str, lines: &str) -> Appliance {
    let domain = format!(
        "[[domain]]\nname = \"victim\"\nkind = \"unikernel\"\nprogram = \"probe\"\nmemory = \"4M\"\ncommand-line = \"{task}\"\n{lines}\n"
    );
    Appliance::small(name).with(&domain)
}

fn start(appliance: Appliance) -> System {
    appliance.build().boot_machine(|machine| machine.counted = true)
}

/// How often the log says something.
fn count(system: &mut System, what: &str) -> usize {
    system.operator("dmesg").matches(what).count()
}

#[test]
fn a_panic_leaves_a_report_and_a_crash_loop_ends() {
    let limits = "restart-limit = 3\nrestart-rest = \"10ms\"";
    let mut system = start(appliance("panic", "panic start=300", limits));
    let end = "victim crashed 3 times in a row and stays down";
    system.console().expect(end, seconds(120));
    system.wait_until_up();
    let report = system.operator("crash victim");
    for part in [
        "(crash 3, of life 3)",
        "rip 0x",
        "this probe was told to give up",
        "last lines of its log",
    ] {
        assert!(report.contains(part), "{part} is missing in {report}");
    }
    let calls = report
        .lines()
        .find(|line| line.starts_with("calls: "))
        .expect("a backtrace");
    // The panic's machinery, four calls of the probe's own, and what called them.
    assert!(calls.split_whitespace().count() > 6, "{calls}");
    let before = system.operator("crash victim 1");
    assert!(before.contains("(crash 2, of life 2)"), "{before}");
    assert!(
        system
            .operator("crash controldom")
            .contains("controldom has not crashed")
    );
    assert!(
        system
            .operator("crash nobody")
            .contains("there is no domain nobody")
    );
    assert!(system.operator("restart victim").contains("victim is started"));
    system.console().expect(end, seconds(60));
    // Lines of the log that come meanwhile bring the prompt early.
    let known = (0..5).any(|_| system.operator("crash victim").contains("of life 6)"));
    assert!(known, "{}", system.console().history());
}

#[test]
fn a_loop_that_stands_still_is_noticed_and_the_domain_is_built_anew() {
    let mut system = start(appliance(
        "stall",
        "stall start=300",
        "watchdog = \"1s\"\nrestart-rest = \"10ms\"",
    ));
    for _ in 0..2 {
        system.console().expect("victim: stalls", seconds(120));
        system
            .console()
            .expect("victim stopped: its watchdog expired", seconds(120));
    }
    system.wait_until_up();
    let report = system.operator("crash victim");
    assert!(
        report.contains("its watchdog expired") && report.contains("  stalls"),
        "{report}"
    );
    assert_eq!(count(&mut system, "controldom stopped"), 0);
    assert_eq!(count(&mut system, "consoledom stopped"), 0);
}

#[test]
fn a_domain_that_gets_no_processor_is_not_taken_for_hung() {
    // Its processor belongs to somebody of higher rank nine tenths of the time, and of the rest it gets a hundredth.
    let greedy = "class = \"realtime\"\nbudget = \"90ms\"\nperiod = \"100ms\"\nwatchdog = \"off\"";
    let starved = "class = \"shared\"\nweight = 1\nwatchdog = \"1s\"";
    let mut system = start(
        appliance("starved", "wake count=300 after=10000", starved)
            .replace("[emulator]\n", "[emulator]\ncpus = 1\n")
            .probe("neighbour", "spin", "class = \"shared\"\nweight = 256")
            .with(&format!(
                "[[domain]]\nname = \"greedy\"\nkind = \"unikernel\"\nprogram = \"probe\"\nmemory = \"4M\"\ncommand-line = \"spin\"\n{greedy}\n"
            )),
    );
    system.console().expect("victim: done", seconds(240));
    assert!(!system.console().history().contains("its watchdog expired"));
}
