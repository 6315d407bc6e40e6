//! Several processors: the machine's, which run domains side by side, and a guest's.

use tests::{Appliance, Guest, System, Web, seconds};

/// A gateway whose guest has two vCPUs, on so many processors.
fn boot(name: &str, processors: u32) -> System {
    let built = Appliance::gateway(name).in_domain("linux", "vcpus = 2").build();
    let mut system = built.boot_machine(|machine| machine.cpus = processors);
    system.wait_until_up();
    let history = system.console().history();
    assert!(
        history.contains(&format!("{processors} processors ({processors} in use)")),
        "{history}"
    );
    system
}

/// Nothing in the guest's log that speaks of clocks or processors that were lost.
fn assert_healthy(linux: &mut Guest<'_>) {
    let log = linux.run("dmesg");
    for complaint in [
        "clocksource: timekeeping watchdog",
        "Marking clocksource",
        "unstable",
        "rcu: INFO",
        "soft lockup",
        "hung_task",
        "time went backwards",
        "I/O error",
        "BUG:",
        "WARNING: CPU",
    ] {
        assert!(!log.contains(complaint), "{complaint}:\n{log}");
    }
    let clock = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    assert_eq!(linux.run(clock).trim(), "xen");
}

/// Writes 16 MiB, reads them back from the disk, and fetches 16 MiB from outside at the same time.
fn work(linux: &mut Guest<'_>, web: &Web) {
    linux.run_for(
        "dd if=/dev/urandom of=/tmp/random bs=1M count=16; sha256sum < /tmp/random > /tmp/sum",
        seconds(120),
    );
    let fetch = format!(
        "(wget -q -O - {} | sha256sum > /tmp/fetched) & true",
        web.address()
    );
    linux.run(&fetch);
    linux.run_for(
        "dd if=/tmp/random of=/data/random bs=64k conv=fsync; echo 3 > /proc/sys/vm/drop_caches; sha256sum < /data/random | cmp - /tmp/sum; rm /tmp/random",
        seconds(180),
    );
    let fetched = linux.run_for("wait; cat /tmp/fetched", seconds(300));
    assert_eq!(
        fetched.split_whitespace().next(),
        Some(web.sha256().as_str()),
        "{fetched}"
    );
}

/// Takes the second vCPU down and up again, under load.
fn toggle(linux: &mut Guest<'_>, times: u32) {
    let online = "/sys/devices/system/cpu/cpu1/online";
    linux.run("(while :; do :; done) & echo $! > /tmp/spins");
    for _ in 0..times {
        linux.run(&format!("echo 0 > {online}"));
        assert_eq!(linux.run("nproc").trim(), "1");
        linux.run(&format!("echo 1 > {online}"));
        assert_eq!(linux.run("nproc").trim(), "2");
    }
    linux.run("kill $(cat /tmp/spins)");
}

fn runs_on(name: &str, processors: u32) {
    let web = Web::serve(16 << 20);
    let mut system = boot(name, processors);
    let mut linux = system.guest("linux");
    assert_eq!(linux.run("nproc").trim(), "2");
    work(&mut linux, &web);
    toggle(&mut linux, 5);
    assert_healthy(&mut linux);
    linux.leave();
    system.shut_down();
}

#[test]
fn two_vcpus_on_two_processors() {
    runs_on("smp-2", 2);
}

#[test]
fn two_vcpus_on_four_processors() {
    runs_on("smp-4", 4);
}

#[test]
fn a_driver_domain_is_replaced_while_two_processors_work() {
    let mut system = boot("smp-restart", 2);
    let mut linux = system.guest("linux");
    linux.type_line("dd if=/dev/zero of=/data/zero bs=64k count=256 conv=fsync && echo \"all\" written");
    linux.leave();
    for name in ["diskdom", "netdom", "diskdom"] {
        system.operator(&format!("restart {name}"));
    }
    let mut linux = system.guest("linux");
    assert_eq!(
        linux
            .run_for("wait; sync; wc -c < /data/zero", seconds(180))
            .trim(),
        (16 << 20).to_string()
    );
    assert_healthy(&mut linux);
}
