//! Hardware, volumes, addresses, what a guest contains, and the emulated machine.

use super::*;

#[test]
fn devices() {
    let text = problem("[\"nvme\", \"com1\"]", "[\"nvme\",\n  \"floppy\"]");
    assert!(
        text.starts_with("appliance.toml:17: \"floppy\" names no device; use com1 to com4, nvme"),
        "{text}"
    );
    let text = problem(
        "capabilities = [\"control\"]",
        "capabilities = [\"control\"]\ndevices = [\"com1\"]",
    );
    assert_eq!(text, "appliance.toml:17: controldom already has com1");
    assert_eq!(
        values::devices("id:8086:10d3"),
        Ok(vec![Device::PciId {
            vendor: 0x8086,
            device: 0x10d3
        }])
    );
    let place = Device::PciAddress {
        segment: 0,
        bus: 0,
        device: 3,
        function: 1,
    };
    assert_eq!(values::devices("at:0000:00:03.1"), Ok(vec![place.clone()]));
    assert_eq!(values::devices("at:00:03.1"), Ok(vec![place]));
    let class = |subclass, interface| {
        Ok(vec![Device::PciClass {
            class: 1,
            subclass,
            interface,
        }])
    };
    assert_eq!(values::devices("class:01"), class(None, None));
    assert_eq!(values::devices("class:0108"), class(Some(8), None));
    assert_eq!(values::devices("class:010802"), class(Some(8), Some(2)));
    for wrong in [
        "id:8086",
        "id:86:10d3",
        "at:00:20.0",
        "at:00:03.8",
        "at:1:2:3:4.0",
        "class:1",
        "class:01080203",
        "class:zz",
        "usb:1",
    ] {
        assert!(values::devices(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn addresses() {
    let text = appended("mac = \"00:16:3e\"\n");
    assert!(
        text.starts_with("appliance.toml:31: \"00:16:3e\" is no Ethernet address"),
        "{text}"
    );
    assert!(appended("mac = \"01:00:00:00:00:01\"\n").contains("multicast"));
    let twice = "mac = \"02:00:00:00:00:01\"\n[[domain.network]]\nbackend = \"controldom\"\n";
    let text = appended(&format!("{twice}mac = \"02:00:00:00:00:01\"\n"));
    assert_eq!(
        text,
        "appliance.toml:34: another interface has the same Ethernet address"
    );
}

#[test]
fn two_writers_of_a_volume() {
    let second = |volume: &str, mode: &str| {
        format!(
            "[[domain.disk]]\nname = \"xvdb\"\nbackend = \"diskdom\"\nvolume = \"{volume}\"\nmode = \"{mode}\"\n"
        )
    };
    let text = appended(&second("nvme0:data", "read-only"));
    assert_eq!(
        text,
        "appliance.toml:34: linux has the volume nvme0:data too, and one of them writes it"
    );
    assert!(appended(&second("nvme0", "read-write")).contains("too, and one of them writes it"));
    assert!(read_anywhere(&format!("{GOOD}{}", second("nvme0:other", "read-write"))).is_ok());
}

#[test]
fn options() {
    let text = appended("[domain.options]\n\"a/b\" = \"1\"\n");
    assert!(
        text.starts_with("appliance.toml:32: \"a/b\" cannot name an option"),
        "{text}"
    );
}

#[test]
fn guest_contents() {
    let guest = |lines: &str| GOOD.replacen("memory = \"256M\"", &format!("memory = \"256M\"\n{lines}"), 1);
    let good = "packages = [\"xenstore-utils\"]\nmodules = [\"nvme\"]\nfiles = { \"/bin/test\" = \"debian:xen-utils-4.17:/usr/lib/test\" }";
    let appliance = read_anywhere(&guest(good)).unwrap();
    let Origin::Initrd(contents) = &appliance.files[3].origin else {
        panic!("an initial RAM disk")
    };
    assert_eq!(contents.packages, ["xenstore-utils"]);
    let origin = GuestFileOrigin::Debian {
        package: "xen-utils-4.17".into(),
        path: "/usr/lib/test".into(),
    };
    assert_eq!(
        contents.files,
        [GuestFile {
            path: "/bin/test".into(),
            origin
        }]
    );
    let wrong = |lines: &str| read_anywhere(&guest(lines)).unwrap_err().lines().join("\n");
    assert!(
        wrong("packages = [\"No Package\"]").starts_with("appliance.toml:23: \"No Package\" cannot name")
    );
    assert!(wrong("files = { \"bin/test\" = \"debian:a-b:/c\" }").contains("is no absolute path"));
    assert!(wrong("files = { \"/bin/test\" = \"debian:a-b\" }").contains("\"debian:PACKAGE:/PATH\""));
}

#[test]
fn emulated_machine() {
    let disk = "[[emulator.disk]]\nsize = \"64M\"\n[[emulator.disk.partition]]\nname = \"data\"\nfilesystem = \"ext4\"\n";
    let appliance = read_anywhere(&format!("{GOOD}{disk}")).unwrap();
    let partitions = vec![Partition {
        name: "data".into(),
        size: None,
        ext4: true,
    }];
    let expected = EmulatedDisk {
        interface: DiskInterface::Nvme,
        size: 64 << 20,
        partitions,
    };
    assert_eq!(appliance.emulator.disks, [expected]);
    assert!(appended(&format!("{disk}size = \"64M\"\n")).contains("data does not fit on the disk"));
    let twice = "[[emulator.disk.partition]]\nname = \"data\"\n";
    assert!(appended(&format!("{disk}{twice}")).contains("another partition data"));
    assert!(appended("[emulator]\nnic = \"ne2000\"\n").contains("unknown variant `ne2000`"));
    assert!(appended("[emulator]\ncpus = 0\n").contains("1 to 64 processors"));
}
