//! Hostile unikernels beside a stock Linux: whatever they do, hypervisor, control domain and backends stay as they are, and the guest's disk and network
//! carry what it put there. `ATOLL_CHAOS` says how many operations of each class there are (`just soak`), `ATOLL_SEED` what chance follows from.

use std::fmt::Write as _;

use tests::{Appliance, Finding, System, Web, health::assert_healthy, seconds, setting};

/// Classes, and how many domains do it.
const CLASSES: [(&str, &str); 5] = [
    ("chaos-calls", "hypercalls"),
    ("chaos-grants", "grants"),
    ("chaos-peer", "grants"),
    ("chaos-hardware", "hardware"),
    ("chaos-rights", "privileged"),
];
/// The id of the first of them: those of the gateway go before.
const FIRST: usize = 6;

/// A gateway with all hostile domains, which weigh as much as the guest together.
fn boot(name: &str, processors: u32) -> System {
    let (count, seed) = (setting("ATOLL_CHAOS", 10_000), setting("ATOLL_SEED", 1));
    let mut domains = String::new();
    for (index, (name, class)) in CLASSES.iter().enumerate() {
        let peer = match *name {
            "chaos-grants" => format!(" peer={}", FIRST + index + 1),
            "chaos-peer" => format!(" peer={}", FIRST + index - 1),
            _ => String::new(),
        };
        let seed = seed + index as u64;
        write!(
            domains,
            "[[domain]]\nname = \"{name}\"\nkind = \"unikernel\"\nprogram = \"chaosdom\"\nmemory = \"4M\"\nclass = \"shared\"\nweight = 64\n\
             command-line = \"class={class} seed={seed} count={count}{peer}\"\n\n"
        )
        .expect("a text takes what is written to it");
    }
    let mut system = Appliance::gateway(name)
        .with(&domains)
        .build()
        .boot_machine(|machine| machine.cpus = processors);
    system.wait_until_up();
    system
}

/// Which life a domain is in, and what it does.
fn state(list: &str, name: &str) -> String {
    list.lines()
        .find(|line| line.split_whitespace().nth(1) == Some(name))
        .unwrap_or_else(|| panic!("no {name} in\n{list}"))
        .to_string()
}

fn chaos_on(name: &str, processors: u32) {
    let web = Web::serve(256 << 10);
    let mut system = boot(name, processors);
    let mut linux = system.guest("linux");
    linux.run("dd if=/dev/urandom of=/tmp/source bs=64k count=16 2>/dev/null");
    let work = format!(
        "dd if=/tmp/source of=/data/copy bs=64k oflag=direct && dd if=/data/copy bs=64k iflag=direct | cmp - /tmp/source \
         && wget -q -O - {} | sha256sum | grep -q {}",
        web.address(),
        web.sha256()
    );
    linux.run(&format!(
        "(while ! test -e /tmp/stop; do if {work}; then echo good; else echo bad; fi; done > /tmp/outcomes 2>/tmp/errors; touch /tmp/over) & true"
    ));
    linux.leave();

    // Each ends by itself when it is done; one that crashed begins anew.
    let patience = seconds(300 + setting("ATOLL_CHAOS", 10_000) / 100);
    for (name, _) in CLASSES {
        system.type_line(&format!("console {name}"));
        let said = system.console().expect("finished done=", patience);
        assert!(!said.contains("violation:"), "{name}: {said}");
        let rest = system.console().expect("seed=", seconds(20));
        println!("{name}: done={rest}");
        assert!(rest.contains("violations=0 "), "{name}: {rest}");
        system.console().send("\x1d");
        system.console().expect(tests::PROMPT, seconds(20));
        let begun = Finding::all(&said, name, "begins");
        assert!(!begun.is_empty(), "{name}: {said}");
    }

    let mut linux = system.guest("linux");
    linux.run("touch /tmp/stop");
    linux.run_for("while ! test -e /tmp/over; do sleep 1; done", seconds(240));
    let outcomes = linux.run("sort /tmp/outcomes | uniq -c");
    println!("linux: {}", outcomes.trim());
    if outcomes.contains("bad") {
        println!(
            "{}",
            linux.run("cat /tmp/errors | tail -n 20; mount; ip addr; dmesg | tail -n 20; true")
        );
    }
    assert!(
        outcomes.contains("good") && !outcomes.contains("bad"),
        "{outcomes}"
    );
    assert_healthy(&mut linux);
    linux.leave();

    let list = system.operator("list");
    for name in ["controldom", "consoledom", "diskdom", "netdom", "linux"] {
        assert!(state(&list, name).contains("running"), "{list}");
    }
    // None of them has had another life.
    let history = system.console().history();
    for name in ["controldom", "consoledom", "diskdom", "netdom", "linux"] {
        assert!(!history.contains(&format!("{name} crashed")), "{name} crashed");
    }
    assert!(!history.contains("panic"), "{list}");
    system.shut_down();
}

#[test]
fn hostile_domains_get_nowhere_on_one_processor() {
    chaos_on("chaos-1", 1);
}

#[test]
#[ignore = "once in eight runs the guest's work failed from its first round on, for a reason not found yet"]
fn hostile_domains_get_nowhere_on_two_processors() {
    chaos_on("chaos-2", 2);
}
