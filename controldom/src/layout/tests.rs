use super::*;
use crate::store::Quota;
use manifest::{Capabilities, Disk, Domain, Kind, Network, Scheduling};
use proptest::prelude::*;

fn domain(name: &str) -> Domain {
    Domain {
        name: name.into(),
        kind: Kind::Unikernel {
            image: name.into(),
            command_line: String::new(),
        },
        memory: 16 << 20,
        memory_maximum: 16 << 20,
        vcpus: 1,
        scheduling: Scheduling::default(),
        capabilities: Capabilities::default(),
        devices: vec![],
        disks: vec![],
        networks: vec![],
        keep: 0,
        restarts: Restarts::default(),
        watchdog: 0,
        options: vec![],
    }
}

/// controldom 1, consoledom 2, driver 3, guest 4.
pub(crate) fn manifest() -> Manifest {
    let mut control = domain("controldom");
    control.capabilities.control = true;
    let mut console = domain("consoledom");
    console.capabilities = Capabilities {
        control: false,
        observe: true,
        console_log: true,
    };
    let driver = domain("driver");
    let mut guest = domain("guest");
    guest.kind = Kind::Linux {
        kernel: "vmlinux".into(),
        initrd: None,
        command_line: String::new(),
    };
    guest.memory = 256 << 20;
    guest.memory_maximum = 512 << 20;
    guest.vcpus = 2;
    guest.disks = vec![Disk {
        name: "xvda".into(),
        backend: "driver".into(),
        volume: "nvme0:2".into(),
        read_only: false,
    }];
    guest.networks = vec![Network {
        backend: "driver".into(),
        mac: [0, 0x16, 0x3e, 1, 2, 3],
    }];
    guest.options = vec![("greeting".into(), "hello".into())];
    let domains = vec![control, console, driver, guest];
    Manifest {
        name: "test".into(),
        reboot_on_panic: false,
        fault_injection: false,
        allow_unconfined_dma: false,
        domains,
    }
}

fn listing(plan: &Plan, wanted: impl Fn(&str) -> bool) -> String {
    let line = |node: &NodePlan| {
        let permissions: Vec<String> = node.permissions.entries().collect();
        format!("{} = {:?} ({})\n", node.path, node.value, permissions.join(","))
    };
    plan.nodes().filter(|node| wanted(&node.path)).map(line).collect()
}

#[test]
fn a_guest_and_its_devices() {
    let plan = Plan::new(&manifest()).unwrap();
    assert_eq!(plan.complaints, [""; 0]);
    let expected = r#"/local/domain/4 = "" (n1,r4)
/local/domain/4/name = "guest" (n1,r4)
/local/domain/4/domid = "4" (n1,r4)
/local/domain/4/vm = "/vm/00000000-0000-0000-0000-000000000004" (n1,r4)
/local/domain/4/memory = "" (n1,r4)
/local/domain/4/memory/target = "262144" (n1,r4)
/local/domain/4/memory/static-max = "262144" (n1,r4)
/local/domain/4/cpu = "" (n1,r4)
/local/domain/4/cpu/0 = "" (n1,r4)
/local/domain/4/cpu/0/availability = "online" (n1,r4)
/local/domain/4/cpu/1 = "" (n1,r4)
/local/domain/4/cpu/1/availability = "online" (n1,r4)
/local/domain/4/console = "" (n1,r4,r2)
/local/domain/4/console/type = "xenconsoled" (n1,r4,r2)
/local/domain/4/console/limit = "1048576" (n1,r4,r2)
/local/domain/4/store = "" (n1,r4)
/local/domain/4/device = "" (n1,r4)
/local/domain/4/control = "" (n1,b4)
/local/domain/4/control/shutdown = "" (n4)
/local/domain/4/control/platform-feature-multiprocessor-suspend = "1" (n1,r4)
/local/domain/4/control/platform-feature-xs_reset_watches = "1" (n1,r4)
/local/domain/4/data = "" (n4,r2)
/local/domain/4/drivers = "" (n4)
/local/domain/4/feature = "" (n4)
/local/domain/4/attr = "" (n4)
/local/domain/4/error = "" (n4)
/local/domain/4/xenstore-test = "" (n1,b4)
/local/domain/4/options = "" (n1,r4)
/local/domain/4/options/greeting = "hello" (n1,r4)
/local/domain/4/device/vbd = "" (n1,r4)
/local/domain/4/device/vbd/51712 = "" (n4,r3)
/local/domain/4/device/vbd/51712/backend = "/local/domain/3/backend/vbd/4/51712" (n4,r3)
/local/domain/4/device/vbd/51712/backend-id = "3" (n4,r3)
/local/domain/4/device/vbd/51712/virtual-device = "51712" (n4,r3)
/local/domain/4/device/vbd/51712/device-type = "disk" (n4,r3)
/local/domain/4/device/vbd/51712/handle = "51712" (n4,r3)
/local/domain/4/device/vbd/51712/protocol = "x86_64-abi" (n4,r3)
/local/domain/4/device/vbd/51712/state = "1" (n4,r3)
/local/domain/4/device/vif = "" (n1,r4)
/local/domain/4/device/vif/0 = "" (n4,r3)
/local/domain/4/device/vif/0/backend = "/local/domain/3/backend/vif/4/0" (n4,r3)
/local/domain/4/device/vif/0/backend-id = "3" (n4,r3)
/local/domain/4/device/vif/0/handle = "0" (n4,r3)
/local/domain/4/device/vif/0/mac = "00:16:3e:01:02:03" (n4,r3)
/local/domain/4/device/vif/0/mtu = "1500" (n4,r3)
/local/domain/4/device/vif/0/state = "1" (n4,r3)
"#;
    assert_eq!(
        listing(&plan, |path| path.starts_with("/local/domain/4")),
        expected
    );
}

#[test]
fn a_backend() {
    let plan = Plan::new(&manifest()).unwrap();
    let expected = r#"/local/domain/3/backend = "" (n3)
/local/domain/3/backend/vbd = "" (n3)
/local/domain/3/backend/vbd/4 = "" (n3)
/local/domain/3/backend/vbd/4/51712 = "" (n3,r4)
/local/domain/3/backend/vbd/4/51712/frontend = "/local/domain/4/device/vbd/51712" (n3,r4)
/local/domain/3/backend/vbd/4/51712/frontend-id = "4" (n3,r4)
/local/domain/3/backend/vbd/4/51712/online = "1" (n3,r4)
/local/domain/3/backend/vbd/4/51712/dev = "xvda" (n3,r4)
/local/domain/3/backend/vbd/4/51712/mode = "w" (n3,r4)
/local/domain/3/backend/vbd/4/51712/params = "nvme0:2" (n3,r4)
/local/domain/3/backend/vbd/4/51712/type = "phy" (n3,r4)
/local/domain/3/backend/vbd/4/51712/removable = "0" (n3,r4)
/local/domain/3/backend/vbd/4/51712/bootable = "0" (n3,r4)
/local/domain/3/backend/vbd/4/51712/state = "1" (n3,r4)
/local/domain/3/backend/vif = "" (n3)
/local/domain/3/backend/vif/4 = "" (n3)
/local/domain/3/backend/vif/4/0 = "" (n3,r4)
/local/domain/3/backend/vif/4/0/frontend = "/local/domain/4/device/vif/0" (n3,r4)
/local/domain/3/backend/vif/4/0/frontend-id = "4" (n3,r4)
/local/domain/3/backend/vif/4/0/online = "1" (n3,r4)
/local/domain/3/backend/vif/4/0/handle = "0" (n3,r4)
/local/domain/3/backend/vif/4/0/mac = "00:16:3e:01:02:03" (n3,r4)
/local/domain/3/backend/vif/4/0/bridge = "bridge0" (n3,r4)
/local/domain/3/backend/vif/4/0/state = "1" (n3,r4)
"#;
    assert_eq!(
        listing(&plan, |path| path.starts_with("/local/domain/3/backend")),
        expected
    );
}

#[test]
fn what_concerns_all() {
    let plan = Plan::new(&manifest()).unwrap();
    let expected = r#"/tool = "" (n1)
/local = "" (n1)
/local/domain = "" (n1)
/vm = "" (n1)
/atoll = "" (n1,r2)
/atoll/domains = "" (n1,r2)
/atoll/operator = "" (n1,r2)
/atoll/domains/controldom = "1" (n1,r2)
/atoll/domains/consoledom = "2" (n1,r2)
/atoll/domains/driver = "3" (n1,r2)
/atoll/domains/guest = "4" (n1,r2)
/atoll/ready = "0" (n1,r2)
/atoll/operator/request = "" (n1,b2)
/atoll/operator/reply = "" (n1,r2)
/vm/00000000-0000-0000-0000-000000000004 = "" (n1,r4)
/vm/00000000-0000-0000-0000-000000000004/uuid = "00000000-0000-0000-0000-000000000004" (n1,r4)
/vm/00000000-0000-0000-0000-000000000004/name = "guest" (n1,r4)
"#;
    let common = |path: &str| !path.starts_with("/local/") || path == "/local/domain";
    assert_eq!(
        listing(&plan, |path| common(path) && !path.contains("-00000000000")
            || path.contains("0004") && path.starts_with("/vm")),
        expected
    );
    assert_eq!(plan.observers, [DomainId(2)]);
}

#[test]
fn the_store_takes_all_of_it() {
    let plan = Plan::new(&manifest()).unwrap();
    let mut store = Store::new(plan.control, Quota::default());
    plan.populate(&mut store).unwrap();
    for node in plan.nodes() {
        let made = store.tree().get(&node.path).unwrap();
        assert_eq!(
            (&*made.value, &*made.permissions),
            (node.value.as_bytes(), &node.permissions),
            "{}",
            node.path
        );
    }
}

#[test]
fn what_cannot_be_laid_out_is_said_and_left_out() {
    let mut manifest = manifest();
    let guest = &mut manifest.domains[3];
    guest.disks.push(Disk {
        name: "sda".into(),
        backend: "driver".into(),
        volume: "v".into(),
        read_only: true,
    });
    guest.disks.push(Disk {
        name: "xvdb".into(),
        backend: "nobody".into(),
        volume: "v".into(),
        read_only: true,
    });
    guest.networks.push(Network {
        backend: "nobody".into(),
        mac: [0; 6],
    });
    guest.options.push(("no name".into(), "x".into()));
    let plan = Plan::new(&manifest).unwrap();
    assert_eq!(plan.complaints.len(), 4, "{:?}", plan.complaints);
    assert_eq!(plan.domains[3].devices.len(), 2);
    manifest.domains[0].capabilities.control = false;
    assert_eq!(Plan::new(&manifest).err(), Some(PlanError::NoControl));
}

#[test]
fn disks_have_the_numbers_that_guests_expect() {
    for (name, number) in [
        ("xvda", 51712),
        ("xvdb", 51728),
        ("xvda1", 51713),
        ("xvdp", 51952),
        ("xvdq", 1 << 28 | 16 << 8),
        ("xvda16", 1 << 28 | 16),
        ("xvdaa", 1 << 28 | 26 << 8),
    ] {
        assert_eq!(disk_number(name), Some(number), "{name}");
    }
    for name in [
        "",
        "xvd",
        "xvd1",
        "sda",
        "xvdA",
        "xvda01",
        "xvda256",
        "xvda1a",
        "xvdaaaaaaaa",
        "xvda99999999999",
    ] {
        assert_eq!(disk_number(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_manifest_gives_a_plan_that_the_store_takes(
        names in prop::collection::vec(".{0,12}", 1..5),
        disk in ".{0,8}",
        options in prop::collection::vec((".{0,8}", ".{0,8}"), 0..4),
    ) {
        let mut manifest = manifest();
        for name in &names {
            let mut extra = domain(name);
            extra.disks.push(Disk { name: disk.clone(), backend: names[0].clone(), volume: "v".into(), read_only: true });
            extra.networks.push(Network { backend: names[0].clone(), mac: [1; 6] });
            extra.options = options.clone();
            manifest.domains.push(extra);
        }
        let plan = Plan::new(&manifest).unwrap();
        let mut store = Store::new(plan.control, Quota::default());
        plan.populate(&mut store).unwrap();
    }
}
