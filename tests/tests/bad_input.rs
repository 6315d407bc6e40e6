//! What is missing or broken is named, and everything else starts.

use std::fs;

use manifest::bundle::Bundle;
use tests::{Appliance, System, seconds};

/// The log as the operator sees it.
fn log(system: &mut System) -> String {
    system.operator("dmesg")
}

#[test]
fn a_volume_that_is_absent() {
    let mut system = Appliance::gateway("no-volume")
        .replace("volume = \"nvme0:data\"", "volume = \"nvme0:elsewhere\"")
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("ping -c 1 10.0.2.2");
    assert_ne!(linux.try_run("test -e /dev/xvda", seconds(10)).0, 0);
    linux.leave();
    let log = log(&mut system);
    assert!(log.contains("elsewhere"), "{log}");
}

#[test]
fn a_disk_that_is_absent() {
    let built = Appliance::gateway("no-disk").build();
    let mut system = built.boot_machine(|machine| machine.disks.clear());
    system.wait_until_up();
    system.guest("linux").run("ping -c 1 10.0.2.2");
    let log = log(&mut system);
    assert!(log.contains("nvme0"), "{log}");
}

#[test]
fn a_nic_that_is_absent() {
    let built = Appliance::gateway("no-nic").build();
    let mut system = built.boot_machine(|machine| machine.nic = None);
    system.wait_until_up();
    assert!(system.guest("linux").run("mount").contains("/dev/xvda on /data"));
    let log = log(&mut system);
    assert!(
        log.contains("netdom: warning: no network card was found"),
        "{log}"
    );
    assert!(log.contains("of netdom matches nothing in this machine"), "{log}");
}

#[test]
fn a_machine_with_too_little_memory_for_a_guest() {
    let built = Appliance::gateway("no-room").build();
    let mut system = built.boot_machine(|machine| machine.memory = 224 << 20);
    system.wait_until_up();
    let list = system.operator("list");
    let state = |name: &str| {
        let line = list
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name));
        line.and_then(|line| line.split_whitespace().nth(2))
            .map(String::from)
    };
    assert_eq!(state("linux").as_deref(), Some("failed"), "{list}");
    for driver in ["diskdom", "netdom"] {
        assert_eq!(state(driver).as_deref(), Some("running"), "{list}");
    }
    let log = log(&mut system);
    assert!(
        log.lines()
            .any(|line| line.contains("linux") && line.contains("memory")),
        "{log}"
    );
}

#[test]
fn a_corrupt_entry_of_the_bundle() {
    let built = Appliance::gateway("corrupt-entry").build();
    let path = &built.image().bundle;
    let mut bytes = fs::read(path).unwrap();
    let entry = Bundle::parse(&bytes).unwrap().entry("netdom").unwrap().clone();
    bytes[(entry.offset + entry.length / 2) as usize] ^= 1;
    fs::write(path, &bytes).unwrap();
    let mut system = built.boot();
    system.wait_until_up();
    assert!(system.guest("linux").run("mount").contains("/dev/xvda on /data"));
    let log = log(&mut system);
    assert!(log.contains("netdom is corrupt in the bundle"), "{log}");
}

#[test]
fn a_corrupt_bundle() {
    let built = Appliance::gateway("corrupt-bundle").build();
    let path = &built.image().bundle;
    let mut bytes = fs::read(path).unwrap();
    bytes[60] ^= 1;
    fs::write(path, &bytes).unwrap();
    let mut system = built.boot();
    system.console().expect(
        "the bundle's index is corrupt; write the image again",
        seconds(60),
    );
}
