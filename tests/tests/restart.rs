//! A driver domain is built anew while its guests use it: they keep their rings, and notice a pause at most.

use tests::{Appliance, Web, seconds};

#[test]
fn a_guest_writes_on_while_its_disk_driver_is_restarted() {
    let mut system = Appliance::gateway("restart-disk").build().boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("dd if=/dev/urandom of=/tmp/source bs=1M count=4 2>/dev/null");
    linux.run(
        "(for round in 1 2 3 4 5 6 7 8 9 10; do dd if=/tmp/source of=/data/copy$round bs=64k conv=fsync; done; \
         echo done > /tmp/written) > /tmp/writer 2>&1 & true",
    );
    linux.leave();
    for _ in 0..4 {
        assert!(system.operator("restart diskdom").contains("diskdom is started"));
    }
    let mut linux = system.guest("linux");
    linux.run_for("while ! test -e /tmp/written; do sleep 1; done", seconds(120));
    linux.run("sync; echo 3 > /proc/sys/vm/drop_caches");
    for round in 1..=10 {
        linux.run(&format!("cmp /tmp/source /data/copy{round}"));
    }
    let errors = linux.try_run(
        "dmesg | grep -i -e 'i/o error' -e 'ext4-fs error' -e 'blkfront.*fail'",
        seconds(20),
    );
    assert_ne!(errors.0, 0, "{}", errors.1);
}

#[test]
fn a_transfer_goes_on_while_the_network_driver_is_restarted() {
    let web = Web::serve(32 << 20);
    let mut system = Appliance::gateway("restart-net").build().boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run(&format!(
        "(wget -q -O - {} | sha256sum > /tmp/sum; echo done > /tmp/received) & true",
        web.address()
    ));
    linux.leave();
    for _ in 0..4 {
        assert!(system.operator("restart netdom").contains("netdom is started"));
    }
    let mut linux = system.guest("linux");
    linux.run_for("while ! test -e /tmp/received; do sleep 1; done", seconds(240));
    let sum = linux.run("cat /tmp/sum");
    assert_eq!(sum.split_whitespace().next(), Some(web.sha256().as_str()));
}
