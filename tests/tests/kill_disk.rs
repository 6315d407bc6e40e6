//! The disk driver domain dies at any moment while a stock Linux writes, and that Linux does not notice: no request fails, and what was acknowledged is on
//! the disk. `ATOLL_KILLS` says how often (`just soak`), `ATOLL_SEED` at which moments.

use manifest::source::DiskInterface;
use tests::{Appliance, Built, Guest, Moments, System, seconds, setting};

const DEVICE: &str = "/dev/xvdb";

/// How often it is killed.
fn kills() -> u32 {
    setting("ATOLL_KILLS", 8)
}

fn build(name: &str) -> Built {
    Appliance::gateway(name)
        .with_faults()
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .build()
}

/// Begins to write, until [`stop_writing`].
fn start_writing(linux: &mut Guest<'_>, seed: u64) {
    linux.run(&format!(
        "rm -f /tmp/stop; (disk-check write {DEVICE} {seed} /tmp/stop > /tmp/written 2>&1; touch /tmp/over) & true"
    ));
}

/// Ends what was begun; how many operations each thread has done, every one of which was right.
fn stop_writing(linux: &mut Guest<'_>) -> String {
    linux.run("touch /tmp/stop");
    linux.run_for("until [ -e /tmp/over ]; do sleep 1; done", seconds(240));
    let said = linux.run("cat /tmp/written");
    let counts = said.trim().strip_prefix("done ");
    let counts = counts.unwrap_or_else(|| panic!("{said}")).to_string();
    for count in counts.split(' ') {
        assert!(count.parse::<u64>().is_ok_and(|count| count > 1), "{counts}");
    }
    counts
}

/// The kernel has seen nothing of it.
fn assert_no_complaints(linux: &mut Guest<'_>) {
    let (status, said) = linux.try_run(
        "dmesg | grep -i -e 'i/o error' -e 'ext4-fs error' -e 'blkfront.*\\(fail\\|disabled\\)' -e 'xenbus.*error' -e 'blocked for more than'",
        seconds(20),
    );
    assert_ne!(status, 0, "{said}");
}

fn verify(linux: &mut Guest<'_>, seed: u64, counts: &str) {
    let said = linux.run_for(
        &format!("disk-check verify {DEVICE} {seed} {counts}"),
        seconds(120),
    );
    assert!(said.contains("verified"), "{said}");
}

/// How often a domain was built.
fn built(system: &mut System, name: &str) -> u32 {
    let list = system.operator("list");
    let line = list
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(name));
    let last = line.and_then(|line| line.split_whitespace().last());
    last.and_then(|last| last.parse().ok())
        .unwrap_or_else(|| panic!("{list}"))
}

#[test]
fn a_guest_writes_on_while_its_disk_driver_is_killed() {
    let image = build("kill-disk");
    let disks = image.disks();
    let mut system = image.boot_with(&disks);
    system.wait_until_up();
    let mut moments = Moments::new();
    let seed = moments.below(1 << 30);
    start_writing(&mut system.guest("linux"), seed);
    let mut deaths = 0;
    for _ in 0..kills() {
        // Somewhere in its work, or between two pieces of it.
        system.kill("diskdom", 1 + moments.below(20_000));
        deaths += 1;
        if moments.below(3) == 0 {
            // And again before it is back: while it brings the controller up, or takes the rings over.
            system.kill("diskdom", 1 + moments.below(3000));
            deaths += 1;
        }
    }
    assert_eq!(built(&mut system, "diskdom"), 1 + deaths);
    let mut linux = system.guest("linux");
    let counts = stop_writing(&mut linux);
    assert_no_complaints(&mut linux);
    verify(&mut linux, seed, &counts);
    drop(linux);
    system.shut_down();

    let mut system = image.boot_with(&disks);
    system.wait_until_up();
    verify(&mut system.guest("linux"), seed, &counts);
}

#[test]
fn so_it_is_on_virtio_blk() {
    let mut system = Appliance::gateway("kill-virtio")
        .with_faults()
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .disk(DiskInterface::VirtioBlk)
        .build()
        .boot();
    system.wait_until_up();
    let mut moments = Moments::new();
    let seed = moments.below(1 << 30);
    start_writing(&mut system.guest("linux"), seed);
    for _ in 0..kills().div_ceil(2) {
        system.kill("diskdom", 1 + moments.below(20_000));
    }
    let mut linux = system.guest("linux");
    let counts = stop_writing(&mut linux);
    assert_no_complaints(&mut linux);
    verify(&mut linux, seed, &counts);
}

#[test]
fn a_guest_finds_its_disk_while_the_driver_is_killed() {
    let mut system = build("kill-disk-start").boot();
    system.wait_until_up();
    let mut moments = Moments::new();
    // The guest takes seconds to come to its disks; the driver is killed while it offers them, and while rings are set up.
    let mut deaths = 0;
    while !system.console().history().contains("is connected") || deaths < 3 {
        system.kill("diskdom", 1 + moments.below(4000));
        deaths += 1;
        assert!(deaths < 500, "the guest never comes to its disks");
    }
    let mut linux = system.guest("linux");
    linux.run_for("until grep -q /data /proc/mounts; do sleep 1; done", seconds(120));
    linux.run_for(
        "echo right > /data/note; sync; grep -q right /data/note",
        seconds(60),
    );
    assert_no_complaints(&mut linux);
}

#[test]
fn a_keep_region_that_is_garbled_costs_nothing_that_a_guest_sees() {
    let mut system = build("kill-disk-keep").boot();
    system.wait_until_up();
    let mut moments = Moments::new();
    let seed = moments.below(1 << 30);
    start_writing(&mut system.guest("linux"), seed);
    for _ in 0..3 {
        assert!(
            system
                .operator("corrupt-keep diskdom")
                .contains("corrupt-keep: diskdom")
        );
        system.operator("restart diskdom");
    }
    let log = system.operator("dmesg");
    assert!(log.contains("records of the keep region are corrupt"), "{log}");
    let mut linux = system.guest("linux");
    let counts = stop_writing(&mut linux);
    assert_no_complaints(&mut linux);
    verify(&mut linux, seed, &counts);
}

#[test]
fn a_driver_that_hangs_is_found_by_its_watchdog_alone() {
    let mut system = Appliance::gateway("hang-disk")
        .with_faults()
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .in_domain("diskdom", "watchdog = \"1s\"")
        .build()
        .boot();
    system.wait_until_up();
    let mut moments = Moments::new();
    let seed = moments.below(1 << 30);
    start_writing(&mut system.guest("linux"), seed);
    for _ in 0..kills().div_ceil(4) {
        let after = 1 + moments.below(20_000);
        system.type_line(&format!("hang diskdom {after}"));
        for what in [
            "hang: diskdom",
            "diskdom hangs from now on",
            "its watchdog expired",
            "diskdom is started",
        ] {
            system.console().expect(what, seconds(60));
        }
    }
    let mut linux = system.guest("linux");
    let counts = stop_writing(&mut linux);
    assert_no_complaints(&mut linux);
    verify(&mut linux, seed, &counts);
}

#[test]
fn an_appliance_without_fault_injection_kills_nobody() {
    let mut system = Appliance::small("no-faults").build().boot();
    system.wait_until_up();
    for request in ["kill consoledom", "hang controldom", "corrupt-keep consoledom"] {
        let said = system.operator(request);
        assert!(said.contains("built without fault injection"), "{said}");
    }
}
