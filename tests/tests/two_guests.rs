//! Two general Linux guests at once: each has its own partition, and both are on one bridge.

use tests::{Appliance, seconds};

const SECOND: &str = r#"
[[domain]]
name = "second"
kind = "linux"
kernel = "debian:linux-image-cloud-amd64"
command-line = "console=hvc0 quiet hostname=second atoll.data=/dev/xvda"
memory = "192M"

[[domain.disk]]
name = "xvda"
backend = "diskdom"
volume = "nvme0:second"

[[domain.network]]
backend = "netdom"
"#;

const TWO_PARTITIONS: &str = r#"name = "data"
size = "256M"
filesystem = "ext4"

[[emulator.disk.partition]]
name = "second"
size = "256M"
filesystem = "ext4"
"#;

#[test]
fn share_the_driver_domains() {
    let mut system = Appliance::gateway("two-guests")
        .with(SECOND)
        .replace("name = \"data\"\nfilesystem = \"ext4\"\n", TWO_PARTITIONS)
        .build()
        .boot();
    system.wait_until_up();
    let address = |text: String| {
        text.split_whitespace()
            .next()
            .map(|word| word.trim_end_matches("/24").to_string())
    };
    let ask = "ip -4 -o addr show eth0 | sed 's/.*inet //'";
    let mut linux = system.guest("linux");
    let first = address(linux.run(ask)).expect("the first guest has an address");
    linux.run("echo first > /data/whose; sync");
    linux.leave();

    let mut second = system.guest("second");
    let other = address(second.run(ask)).expect("the second guest has an address");
    assert_ne!(first, other);
    assert_eq!(second.run("hostname").trim(), "second");
    assert_eq!(second.run("ls /data").trim(), "lost+found");
    second.run(&format!("echo second > /data/whose; sync; ping -c 3 {first}"));
    second.run("ping -c 1 10.0.2.2");
    second.leave();

    // Both disks are busy at the same time.
    system
        .guest("linux")
        .type_line("dd if=/dev/zero of=/data/zero bs=1M count=32 conv=fsync; echo copied");
    system.guest("second").run_for(
        "dd if=/dev/zero of=/data/zero bs=1M count=32 conv=fsync",
        seconds(180),
    );
    let mut linux = system.guest("linux");
    linux.run_for(&format!("wait; ping -c 3 {other}"), seconds(180));
    assert_eq!(linux.run("cat /data/whose").trim(), "first");
}
