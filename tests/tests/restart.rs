//! A driver domain is built anew while its guests use it: they keep their rings, and notice a pause at most. `ATOLL_ROUNDS` says how often
//! (`just soak`).

use tests::{Appliance, System, Web, seconds, setting};

/// How often a driver domain is restarted.
fn rounds() -> u32 {
    setting("ATOLL_ROUNDS", 4)
}

/// Restarts a driver domain again and again while `work`, a line of shell, is done over and over in the guest. Every single one must succeed,
/// and there must be some.
fn restarts_while_working(system: &mut System, driver: &str, work: &str) {
    let mut linux = system.guest("linux");
    linux.run(&format!(
        "(while ! test -e /tmp/stop; do if {work}; then echo good; else echo bad; fi; done > /tmp/outcomes 2>/tmp/errors; touch /tmp/over) & true"
    ));
    linux.run_for(
        "while ! grep -q good /tmp/outcomes; do sleep 1; done",
        seconds(120),
    );
    linux.leave();
    for _ in 0..rounds() {
        let answer = system.operator(&format!("restart {driver}"));
        assert!(answer.contains(&format!("{driver} is started")), "{answer}");
    }
    let mut linux = system.guest("linux");
    linux.run("touch /tmp/stop");
    linux.run_for("while ! test -e /tmp/over; do sleep 1; done", seconds(240));
    assert_eq!(
        linux.run("grep -c bad /tmp/outcomes; true").trim(),
        "0",
        "{}",
        linux.run("cat /tmp/errors")
    );
    let complaints = linux.try_run(
        "dmesg | grep -i -e 'i/o error' -e 'ext4-fs error' -e 'blkfront.*fail'",
        seconds(20),
    );
    assert_ne!(complaints.0, 0, "{}", complaints.1);
}

#[test]
fn a_guest_writes_on_while_its_disk_driver_is_restarted() {
    let mut system = Appliance::gateway("restart-disk").build().boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("dd if=/dev/urandom of=/tmp/source bs=1M count=4 2>/dev/null");
    linux.leave();
    let work = "dd if=/tmp/source of=/data/copy bs=64k conv=fsync && echo 3 > /proc/sys/vm/drop_caches && cmp /tmp/source /data/copy";
    restarts_while_working(&mut system, "diskdom", work);
}

#[test]
fn transfers_go_on_while_the_network_driver_is_restarted() {
    let web = Web::serve(4 << 20);
    let mut system = Appliance::gateway("restart-net").build().boot();
    system.wait_until_up();
    let work = format!(
        "wget -q -O - {} | sha256sum | grep -q {}",
        web.address(),
        web.sha256()
    );
    restarts_while_working(&mut system, "netdom", &work);
}
