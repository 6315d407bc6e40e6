//! Debian's own xenstore programs, run in a guest against controldom.

use image_builder::{Progress, Workspace, apt::Apt};
use tests::{Appliance, seconds};

/// The package of this release of Debian that has Xen's test programs, and their folder in it.
fn xen_utils() -> (String, String) {
    let apt = Apt::open(&Workspace::find().unwrap(), Progress::hidden()).unwrap();
    let names = apt.names("xen-utils-4.").unwrap();
    let name = names
        .into_iter()
        .find(|name| !name.ends_with("-dbg"))
        .expect("Debian has xen-utils");
    let folder = name.replace("xen-utils-", "/usr/lib/xen-");
    (name, folder)
}

#[test]
fn debians_programs_work_against_controldom() {
    let (package, folder) = xen_utils();
    let test_program =
        format!("files = {{ \"/usr/bin/test-xenstore\" = \"debian:{package}:{folder}/bin/test-xenstore\" }}");
    let mut system = Appliance::gateway("xenstore")
        .in_domain(
            "linux",
            &format!("packages = [\"xenstore-utils\"]\n{test_program}"),
        )
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    assert_eq!(linux.run("xenstore-read name").trim(), "linux");
    let id = linux.run("xenstore-read domid").trim().to_string();
    assert_eq!(id, "5", "ids follow the order of the manifest");
    let own = linux.run(&format!("xenstore-ls -f /local/domain/{id}"));
    for path in [
        "device/vbd/51712/state = \"4\"",
        "device/vif/0/state = \"4\"",
        "memory/target",
        "control/shutdown",
    ] {
        assert!(own.contains(path), "{path} is missing in:\n{own}");
    }
    linux.run("xenstore-write data/greeting hello");
    assert_eq!(linux.run("xenstore-read data/greeting").trim(), "hello");
    assert!(linux.run("xenstore-list data").contains("greeting"));
    linux.run("xenstore-rm data/greeting");
    assert_ne!(linux.try_run("xenstore-exists data/greeting", seconds(20)).0, 0);
    // Nobody writes what belongs to others.
    assert_ne!(
        linux
            .try_run("xenstore-write /local/domain/1/name me", seconds(20))
            .0,
        0
    );

    linux.run("(xenstore-watch -n 2 data/watched > /tmp/seen &) ; sleep 1; xenstore-write data/watched/below 1; sleep 2");
    let seen = linux.run("cat /tmp/seen");
    assert!(seen.contains("data/watched/below"), "{seen}");

    let output = linux.run_for("test-xenstore", seconds(300));
    assert!(!output.to_lowercase().contains("fail"), "{output}");
}
