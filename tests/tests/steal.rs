//! Steal time: a guest that has to share its processors is told for how long it waited for them. All is told by the guest's own counters, as ratios,
//! which hold however slow this host is.

use tests::{Appliance, Guest, System, seconds};

const SECOND: &str = r#"
[[domain]]
name = "second"
kind = "linux"
kernel = "debian:linux-image-cloud-amd64"
command-line = "console=hvc0 quiet"
memory = "160M"
"#;

/// The counters of `cpu`, `cpu0` … in /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn counters(linux: &mut Guest<'_>) -> Vec<[u64; 8]> {
    let text = linux.run("grep ^cpu /proc/stat");
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
        core::array::from_fn(|_| numbers.next().unwrap_or(0))
    };
    text.lines()
        .filter(|line| line.starts_with("cpu"))
        .map(line)
        .collect()
}

/// The share of steal time of each processor of a guest in a few seconds of its own, in percent; the first is that of all.
fn steal(linux: &mut Guest<'_>) -> Vec<u64> {
    let before = counters(linux);
    linux.run_for("sleep 3", seconds(240));
    let after = counters(linux);
    let share = |(before, after): (&[u64; 8], &[u64; 8])| {
        let spent: Vec<u64> = before
            .iter()
            .zip(after)
            .map(|(before, after)| after - before)
            .collect();
        spent[7] * 100 / spent.iter().sum::<u64>().max(1)
    };
    before.iter().zip(&after).map(share).collect()
}

fn spin(linux: &mut Guest<'_>, times: u32) {
    for _ in 0..times {
        linux.run("(while :; do :; done) & true");
    }
}

/// Windows in which a guest may work off what was stolen before its ticks began: it takes a tick's time of that a tick, and sees nothing but steal meanwhile.
const BACKLOG: usize = 10;

/// Every processor of a guest comes to be told that this share of its time is stolen, give or take what driver domains need, and is told so again.
#[track_caller]
fn assert_share(system: &mut System, guest: &str, share: u64) {
    let mut linux = system.guest(guest);
    let right = |told: &[u64]| told.iter().all(|told| told.abs_diff(share) <= 10);
    let mut told = Vec::new();
    let settled = (0..BACKLOG).any(|_| {
        told.push(steal(&mut linux));
        told.len() >= 2 && told[told.len() - 2..].iter().all(|told| right(told))
    });
    linux.leave();
    assert!(
        settled,
        "{guest} was told of {told:?} % steal, not {share}:\n{}",
        system.operator("top once")
    );
}

fn boot(appliance: Appliance, processors: u32) -> System {
    let mut system = appliance.build().boot_machine(|machine| {
        machine.cpus = processors;
    });
    system.wait_until_up();
    system.watch_start("linux");
    system
}

#[test]
fn two_busy_guests_see_each_other() {
    let mut system = boot(Appliance::gateway("steal").with(SECOND), 1);
    let mut linux = system.guest("linux");
    spin(&mut linux, 1);
    linux.leave();
    assert_share(&mut system, "linux", 0);
    let mut second = system.guest("second");
    spin(&mut second, 1);
    second.leave();
    assert_share(&mut system, "linux", 50);
    assert_share(&mut system, "second", 50);
}

#[test]
fn two_vcpus_on_one_processor_see_each_other() {
    let mut system = boot(
        Appliance::gateway("steal-vcpus").in_domain("linux", "vcpus = 2"),
        1,
    );
    let mut linux = system.guest("linux");
    spin(&mut linux, 2);
    linux.leave();
    assert_share(&mut system, "linux", 50);
}

#[test]
fn a_cap_is_steal_too() {
    let mut system = boot(Appliance::gateway("steal-cap").in_domain("linux", "cap = 50"), 1);
    let mut linux = system.guest("linux");
    spin(&mut linux, 1);
    linux.leave();
    assert_share(&mut system, "linux", 50);
}

#[test]
fn three_busy_vcpus_on_two_processors_see_a_third() {
    let mut system = boot(
        Appliance::gateway("steal-moved").in_domain("linux", "vcpus = 3"),
        2,
    );
    let mut linux = system.guest("linux");
    spin(&mut linux, 3);
    linux.leave();
    // They move from processor to processor, or two of them would have a half, and one all.
    assert_share(&mut system, "linux", 33);
}
