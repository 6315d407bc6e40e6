//! A guest connects its devices anew, by its own suspend and resume: what comes after rings that cannot be taken over.

use tests::{Appliance, Guest, seconds};

#[test]
fn a_guest_connects_anew_while_it_writes() {
    connects_anew("reconnect", 1);
}

#[test]
fn so_does_one_with_two_vcpus() {
    connects_anew("reconnect-two", 2);
}

#[test]
fn a_guest_connects_anew_when_its_rings_are_not_taken_over() {
    let mut system = Appliance::gateway("refuse")
        .with_faults()
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .in_domain("diskdom", "command-line = \"resume=no\"")
        .build()
        .boot();
    system.wait_until_up();
    for _ in 0..3 {
        // A guest that waits for its disk cannot suspend itself, so nothing is under way.
        let mut linux = system.guest("linux");
        linux.run("sync; sleep 1");
        drop(linux);
        system.kill("diskdom", 0);
        system
            .console()
            .expect("controldom: linux is resumed", seconds(60));
        let mut linux = system.guest("linux");
        linux.run("rm -f /tmp/stop /tmp/over");
        start_writing(&mut linux);
        linux.run("sleep 2");
        stop_writing(&mut linux);
    }
}

fn start_writing(linux: &mut Guest<'_>) {
    linux.run("(disk-check write /dev/xvdb 5 /tmp/stop > /tmp/written 2>&1; touch /tmp/over) & true");
}

fn stop_writing(linux: &mut Guest<'_>) {
    linux.run("touch /tmp/stop");
    linux.run_for("until [ -e /tmp/over ]; do sleep 1; done", seconds(120));
    let said = linux.run("cat /tmp/written");
    let counts = said
        .trim()
        .strip_prefix("done ")
        .unwrap_or_else(|| panic!("{said}"));
    linux.run_for(&format!("disk-check verify /dev/xvdb 5 {counts}"), seconds(120));
    let (status, said) = linux.try_run(
        "dmesg | grep -e 'I/O error' -e 'BUG:' -e 'WARNING: CPU' -e 'Call Trace'",
        seconds(20),
    );
    assert_ne!(status, 0, "{said}");
}

fn connects_anew(name: &str, vcpus: u32) {
    let mut system = Appliance::gateway(name)
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .in_domain("linux", &format!("vcpus = {vcpus}"))
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    start_writing(&mut linux);
    linux.run("ping -c 1 10.0.2.2");
    drop(linux);
    for _ in 0..3 {
        let said = system.operator("reconnect linux");
        assert!(said.contains("linux is resumed"), "{said}");
        // The same life, with the same processes.
        let mut linux = system.guest("linux");
        linux.run_for("until ping -c 1 -W 1 10.0.2.2; do sleep 1; done", seconds(60));
    }
    stop_writing(&mut system.guest("linux"));
}
