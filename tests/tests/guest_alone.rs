//! The general Linux guest without the hypervisor: its kernel and its initial RAM disk boot on the emulated machine itself, so that what
//! fails elsewhere is not the guest's fault.

use tests::{Appliance, Guest, seconds};

#[test]
fn comes_up_by_itself_and_stops_in_order() {
    let mut system = Appliance::gateway("guest-alone")
        .replace("nic = \"e1000e\"", "nic = \"virtio-net\"")
        .in_domain("linux", "modules = [\"virtio_pci\", \"virtio_net\"]")
        .boot_guest_alone("console=ttyS0 quiet atoll.data=/dev/nvme0n1p1");
    let shown = system.console().expect("linux ready", seconds(120));
    assert!(
        shown.contains("eth0 10.0.2.15, /data on /dev/nvme0n1p1"),
        "{shown}"
    );
    let mut linux = Guest::on_serial_line(system.console());
    assert_eq!(linux.run("cat /proc/1/comm").trim(), "init");
    assert!(
        linux
            .run("mount")
            .contains("/dev/nvme0n1p1 on /data type ext4 (rw")
    );
    linux.run("ping -c 1 10.0.2.2");
    assert_eq!(
        linux.try_run("sh -c 'echo failed; exit 3'", seconds(10)),
        (3, "failed\n".to_string())
    );
    // Ctrl-C reaches the program and not the shell.
    linux.type_line("sleep 1000");
    std::thread::sleep(seconds(2));
    linux.console().send("\x03");
    assert_eq!(linux.run("echo still here").trim(), "still here");
    // A shell inside /data does not keep it from being unmounted.
    linux.type_line("cd /data; poweroff");
    drop(linux);
    system.console().expect("linux stops", seconds(30));
    system.wait_until_off(seconds(60));
}

#[test]
fn says_what_is_missing_and_goes_on() {
    let mut system = Appliance::gateway("guest-missing")
        .replace("nic = \"e1000e\"", "nic = \"none\"")
        .boot_guest_alone("console=ttyS0 quiet atoll.data=/dev/xvda");
    let shown = system.console().expect("linux ready", seconds(120));
    assert!(
        shown.contains("no network interface, /dev/xvda did not appear, /data is empty"),
        "{shown}"
    );
    let mut linux = Guest::on_serial_line(system.console());
    assert_eq!(linux.run("ls /data"), "");
}
