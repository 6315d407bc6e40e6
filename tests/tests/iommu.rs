//! What an IOMMU confines: the appliance on a machine that has one.

use image_builder::emulator::Iommu;
use tests::Appliance;

#[test]
fn the_appliance_works_with_its_devices_confined() {
    // Nothing needs to be accepted by name.
    let mut system = Appliance::gateway("iommu-intel")
        .replace("allow-unconfined-dma = true\n", "")
        .build()
        .boot_machine(|machine| machine.iommu = Some(Iommu::Intel));
    system.wait_until_up();
    let mut linux = system.guest("linux");
    let before = linux.run("dd if=/dev/xvda bs=1M count=4 iflag=direct 2>/dev/null | sha256sum");
    linux.run("dd if=/dev/urandom of=/data/confined bs=64k count=32 conv=fsync");
    assert!(
        linux
            .run("ping -c 2 -W 5 10.0.2.2 && echo reached")
            .contains("reached")
    );
    linux.leave();
    system.operator("restart diskdom");
    let mut linux = system.guest("linux");
    linux.run("echo 3 > /proc/sys/vm/drop_caches");
    assert!(linux.run("cat /data/confined | wc -c").contains("2097152"));
    assert_eq!(before.split_whitespace().count(), 2);
    linux.leave();
    let history = system.console().history();
    assert!(history.contains("IOMMU: Intel VT-d"), "the unit is named");
    assert!(!history.contains("no IOMMU is in use"), "nothing to warn of");
    assert!(!history.contains("was kept from"), "nothing was refused");
    system.shut_down();
}
