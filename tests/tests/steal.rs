//! Steal time: a guest that has to share its processors is told for how long it waited for them. All is told by the guest's own counters, as ratios.

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
    linux.run_for("sleep 5", seconds(120));
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

fn assert_half(system: &mut System, guest: &str) {
    let mut linux = system.guest(guest);
    for share in steal(&mut linux) {
        assert!((38..=62).contains(&share), "{guest} was told of {share} % steal");
    }
    linux.leave();
}

#[test]
fn two_busy_guests_see_each_other() {
    let mut system = Appliance::gateway("steal").with(SECOND).build().boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    spin(&mut linux, 1);
    let alone = steal(&mut linux)[0];
    linux.leave();
    assert!(alone < 15, "a guest alone was told of {alone} % steal");
    let mut second = system.guest("second");
    spin(&mut second, 1);
    second.leave();
    assert_half(&mut system, "linux");
    assert_half(&mut system, "second");
}

#[test]
fn two_vcpus_on_one_processor_see_each_other() {
    let built = Appliance::gateway("steal-vcpus")
        .in_domain("linux", "vcpus = 2")
        .build();
    let mut system = built.boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    spin(&mut linux, 2);
    linux.leave();
    assert_half(&mut system, "linux");
}
