//! A guest connects its devices anew, by its own suspend and resume: what comes after rings that cannot be taken over.

use tests::{Appliance, seconds};

#[test]
fn a_guest_connects_anew_while_it_writes() {
    connects_anew("reconnect", 1);
}

#[test]
fn so_does_one_with_two_vcpus() {
    connects_anew("reconnect-two", 2);
}

fn connects_anew(name: &str, vcpus: u32) {
    let mut system = Appliance::gateway(name)
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .in_domain("linux", &format!("vcpus = {vcpus}"))
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("(disk-check write /dev/xvdb 5 /tmp/stop > /tmp/written 2>&1; touch /tmp/over) & true");
    linux.run("ping -c 1 10.0.2.2");
    drop(linux);
    for _ in 0..3 {
        let said = system.operator("reconnect linux");
        assert!(said.contains("linux is resumed"), "{said}");
        // The same life, with the same processes.
        let mut linux = system.guest("linux");
        linux.run_for("until ping -c 1 -W 1 10.0.2.2; do sleep 1; done", seconds(60));
    }
    let mut linux = system.guest("linux");
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
