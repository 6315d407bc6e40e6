//! Disks: what is written through xen-blkfront is there after a restart of everything.

use manifest::source::DiskInterface;
use tests::{Appliance, Guest, seconds};

/// Writes 24 MiB to /data in a way that leaves nothing in the guest's cache, and returns the checksum.
fn write_file(linux: &mut Guest) -> String {
    linux.run_for(
        "dd if=/dev/urandom of=/data/file bs=1M count=24 conv=fsync",
        seconds(180),
    );
    linux.run("sync; echo 3 > /proc/sys/vm/drop_caches");
    linux.run_for("sha256sum /data/file", seconds(120))
}

fn survives_a_restart(name: &str, interface: DiskInterface) {
    let built = Appliance::gateway(name).disk(interface).build();
    let disks = built.disks();
    let mut system = built.boot_with(&disks);
    system.wait_until_up();
    let checksum = write_file(&mut system.guest("linux"));
    system.shut_down();

    let mut system = built.boot_with(&disks);
    system.wait_until_up();
    let mut linux = system.guest("linux");
    assert_eq!(linux.run_for("sha256sum /data/file", seconds(120)), checksum);
    assert!(!linux.run("dmesg").contains("I/O error"));
}

#[test]
fn a_file_on_nvme_survives_a_restart() {
    survives_a_restart("nvme", DiskInterface::Nvme);
}

#[test]
fn a_file_on_virtio_blk_survives_a_restart() {
    survives_a_restart("virtio-blk", DiskInterface::VirtioBlk);
}

#[test]
fn what_was_synced_survives_the_plug_being_pulled() {
    let built = Appliance::gateway("plug").build();
    let disks = built.disks();
    let mut system = built.boot_with(&disks);
    system.wait_until_up();
    system.guest("linux").run("echo precious > /data/note; sync");
    system.pull_the_plug();

    let mut system = built.boot_with(&disks);
    system.wait_until_up();
    assert_eq!(system.guest("linux").run("cat /data/note").trim(), "precious");
}

#[test]
fn a_read_only_disk_refuses_writes_and_a_whole_disk_shows_its_partitions() {
    let mut system = Appliance::gateway("read-only")
        .replace(
            "volume = \"nvme0:data\"",
            "volume = \"nvme0\"\nmode = \"read-only\"",
        )
        .replace("atoll.data=/dev/xvda", "")
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    assert_eq!(linux.run("cat /sys/block/xvda/ro").trim(), "1");
    assert_eq!(
        linux.run("cat /sys/block/xvda/size").trim(),
        (1 << 21).to_string()
    );
    linux.run("mount -t ext4 -o ro /dev/xvda1 /data");
    let (status, _) = linux.try_run(
        "dd if=/dev/zero of=/dev/xvda bs=4k count=1 conv=fsync",
        seconds(30),
    );
    assert_ne!(status, 0);
}
