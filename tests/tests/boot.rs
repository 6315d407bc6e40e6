//! From power-on to a guest's shell, and what a machine says on which that is impossible.

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
    system.shut_down();
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
}
