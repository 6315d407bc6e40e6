//! The control domain dies, or hangs, at any moment while stock xenstore programs in a Linux run transactions and others are at work: the hypervisor builds it anew, nobody loses a node,
//! and everybody else runs on. `ATOLL_KILLS` says how often (`just soak`), `ATOLL_SEED` at which moments.

use tests::{Appliance, Guest, Moments, System, seconds, setting};

/// How often it is killed.
fn kills() -> u32 {
    setting("ATOLL_KILLS", 8)
}

fn boot(name: &str) -> System {
    let mut system = Appliance::gateway(name)
        .with_faults()
        .in_domain(
            "controldom",
            "watchdog = \"1s\"\nrestart-limit = 1000000\nrestart-longest-rest = \"100ms\"",
        )
        .in_domain("linux", "packages = [\"xenstore-utils\"]")
        .build()
        .boot();
    system.wait_until_up();
    system
}

/// Writes two nodes in one transaction again and again, and one more each time; looks whether they are there together. Until [`stop`].
fn start(linux: &mut Guest<'_>) {
    linux.run("xenstore-write data/a 0 data/b 0");
    linux.run("(xenstore-watch data/a > /tmp/events 2>&1 &) ; sleep 1");
    let turn = "i=$((i + 1)); xenstore-write data/a $i data/b $i data/n$((i % 500)) $i || echo \"bad write $i\"; \
        a=$(xenstore-read data/a) && b=$(xenstore-read data/b) && [ \"$a\" = $i ] && [ \"$b\" = $i ] || echo \"bad read $i $a $b\"; \
        echo $i > /tmp/turn";
    linux.run(&format!(
        "(i=0; while ! test -e /tmp/stop; do {turn}; done > /tmp/outcome 2>&1; echo $i > /tmp/turns; touch /tmp/over) & true"
    ));
}

/// How many turns there were; every one was right.
fn stop(linux: &mut Guest<'_>) -> u32 {
    linux.run("touch /tmp/stop");
    linux.run_for("until [ -e /tmp/over ]; do sleep 1; done", seconds(120));
    assert_eq!(linux.run("cat /tmp/outcome"), "");
    let turns: u32 = linux.run("cat /tmp/turns").trim().parse().expect("a number");
    assert!(turns > 2, "{turns}");
    // No node is lost.
    for number in 0..turns.min(500) + 1 {
        let last = turns - (turns + 500 - number) % 500;
        if last > 0 && number % 37 == 1 {
            assert_eq!(
                linux.run(&format!("xenstore-read data/n{number}")).trim(),
                last.to_string()
            );
        }
    }
    linux.run("sleep 2");
    // Each transaction fires the watch once; the first event comes when the watch is set.
    let events: u32 = linux.run("wc -l < /tmp/events").trim().parse().expect("a number");
    println!("{turns} transactions, {events} events");
    assert!(events > turns / 2, "{events} of {turns}");
    turns
}

/// What `list` says of how often everybody was built.
fn built(system: &mut System) -> Vec<(String, u32)> {
    let list = system.operator("list");
    let lines = list.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first()?.parse::<u16>().ok()?;
        Some((words.get(1)?.to_string(), words.last()?.parse().ok()?))
    });
    lines.collect()
}

fn survives(name: &str, count: u32, mut fault: impl FnMut(&mut System, &mut Moments)) {
    let mut moments = Moments::new();
    let mut system = boot(name);
    start(&mut system.guest("linux"));
    for _ in 0..count {
        fault(&mut system, &mut moments);
        let wait = "turn=$(cat /tmp/turn); until [ $(cat /tmp/turn) -ge $((turn + 2)) ]; do sleep 0.1; done";
        system.guest("linux").run(wait);
    }
    let mut linux = system.guest("linux");
    stop(&mut linux);
    linux.run_for(
        "dd if=/dev/zero of=/data/x bs=64k count=16 conv=fsync 2>/dev/null && ping -c 1 10.0.2.2",
        seconds(60),
    );
    linux.leave();
    for (name, built) in built(&mut system) {
        let expected = if name == "controldom" { count + 1 } else { 1 };
        assert_eq!(built, expected, "{name}");
    }
    // It still does what it is there for.
    assert!(system.operator("restart netdom").contains("netdom is started"));
    let mut linux = system.guest("linux");
    linux.run_for("until ping -c 1 10.0.2.2; do sleep 1; done", seconds(60));
    linux.leave();
    system.shut_down();
}

#[test]
fn transactions_go_on_while_the_control_domain_is_killed() {
    survives("kill-control", kills(), |system, moments| {
        let longest = [50, 1_000, 10_000][moments.below(3) as usize];
        let after = moments.below(longest);
        system.kill_and_go_on("controldom", after);
        system
            .console()
            .expect("controldom: goes on where the last life ended", seconds(60));
    });
}

#[test]
fn transactions_go_on_after_the_control_domain_has_hung() {
    survives("hang-control", 1, |system, _| {
        system.type_line("hang controldom 1000");
        system
            .console()
            .expect("controldom stopped: its watchdog expired", seconds(60));
        system
            .console()
            .expect("controldom: goes on where the last life ended", seconds(60));
    });
}
