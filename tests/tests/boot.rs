//! From power-on to a guest's shell, and what a machine says on which that is impossible.

use std::fs;

use manifest::bundle::Bundle;
use tests::{Appliance, seconds, system::PROMPT};

#[test]
fn boots_from_the_iso_to_a_shell_on_three_driver_domains() {
    let mut system = Appliance::gateway("iso").with_iso().build().boot_iso();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    assert!(linux.run("uname -sr").starts_with("Linux "));
    assert_eq!(linux.run("cat /sys/hypervisor/type").trim(), "xen");
    assert!(linux.run("cat /proc/consoles").contains("hvc0"));
    assert!(linux.run("cat /proc/mounts").contains("/dev/xvda /data ext4 rw"));
    assert_eq!(linux.run("cat /sys/block/xvda/device/modalias").trim(), "xen:vbd");
    assert_eq!(
        linux.run("cat /sys/class/net/eth0/device/modalias").trim(),
        "xen:vif"
    );
    linux.leave();
    let list = system.operator("list");
    let held = memory_of_hypervisor_and_drivers(&list).expect("list says who holds how much memory");
    assert!(
        held <= 64 << 10,
        "hypervisor and driver domains hold {held} KiB:\n{list}"
    );
    system.shut_down();
}

#[test]
fn the_first_domain_starts_within_a_second_of_counted_time() {
    let built = Appliance::gateway("first-start").build();
    let mut system = built.boot_machine(|machine| machine.counted = true);
    system.console().expect("controldom starts", seconds(300));
    system.console().expect("\n", seconds(60));
    let history = system.console().history();
    let started = first_start(&history).expect("the log says when the first domain starts");
    assert!(started < 1.0, "the first domain started after {started} s");
}

/// Seconds from the hypervisor's first instruction to the start of the first domain, by its log.
fn first_start(log: &str) -> Option<f64> {
    let line = log
        .lines()
        .find(|line| line.contains("] atoll: controldom starts"))?;
    line.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()
}

/// KiB that the hypervisor and the four unikernels hold, by what `list` prints.
fn memory_of_hypervisor_and_drivers(list: &str) -> Option<u64> {
    let drivers: Option<u64> = ["controldom", "consoledom", "diskdom", "netdom"]
        .iter()
        .map(|name| {
            let line = list
                .lines()
                .find(|line| line.split_whitespace().nth(1) == Some(name))?;
            line.split_whitespace().nth(3)?.parse::<u64>().ok()
        })
        .sum();
    let (before, _) = list.split_once(" hypervisor +")?;
    let hypervisor: u64 = before.split_whitespace().next_back()?.parse().ok()?;
    Some(drivers? + hypervisor)
}

#[test]
fn the_hypervisor_and_the_driver_domains_are_small() {
    let built = Appliance::gateway("sizes").build();
    let image = built.image();
    let bundle = fs::read(&image.bundle).unwrap();
    let bundle = Bundle::parse(&bundle).unwrap();
    let programs = ["controldom", "consoledom", "diskdom", "netdom"];
    let length = |name: &&str| bundle.entry(name).unwrap().length;
    let binaries = fs::metadata(&image.hypervisor).unwrap().len() + programs.iter().map(length).sum::<u64>();
    assert!(binaries <= 6 << 20, "the binaries take {binaries} bytes");
}

#[test]
fn a_processor_without_svm_is_told_in_one_message() {
    let built = Appliance::gateway("no-svm").build();
    let mut system = built.boot_machine(|machine| machine.processor = Some("qemu64,-svm".into()));
    system.console().expect("halted", seconds(30));
    // It does not start over, and waits with its message on the screen.
    std::thread::sleep(seconds(3));
    let history = system.console().history();
    assert_eq!(
        history.lines().filter(|line| line.contains("SVM")).count(),
        1,
        "{history}"
    );
    assert!(!history.contains(PROMPT), "{history}");
    assert!(!system.console().has_ended());
    let screen = system.screen().expect("the emulator's monitor answers");
    assert!(screen.contains("SVM"), "{screen}");
}
