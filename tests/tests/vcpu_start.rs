//! vCPUs that a guest starts by hypercalls rather than by messages between local APICs, in every mode that Xen's ABI offers.

use std::{fs, path::Path};

use image_builder::{Progress, Workspace, compile, target_libraries};
use tests::{Appliance, seconds};

/// The unikernel that does it stands where a guest's kernel does, since it has more than one vCPU; what else a guest is started with is no use to it.
fn domain(program: &Path) -> String {
    let program = program.display();
    format!(
        r#"
[[domain]]
name = "starter"
kind = "linux"
kernel = "{program}"
initrd = "{program}"
memory = "64M"
vcpus = 4
"#
    )
}

#[test]
fn hypercalls_start_vcpus_in_all_modes() {
    let workspace = Workspace::find().expect("tests run inside a checkout");
    let name = "starter";
    let programs = compile::programs(
        &workspace,
        &[name],
        target_libraries::Choice::Auto,
        Progress::hidden(),
    )
    .unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = folder.path().join(name);
    fs::write(&program, &programs[name]).expect("a temporary file can be written");
    let mut system = Appliance::gateway("vcpu-start")
        .with(&domain(&program))
        .build()
        .boot_machine(|machine| machine.cpus = 2);
    system.wait_until_up();
    system.type_line("console starter");
    let said = system.console().expect("all were tried", seconds(120));
    for mode in [
        "vCPU 1 ran in 64-bit code, and again",
        "vCPU 2 ran in 32-bit code, and again",
        "vCPU 3 ran in real mode, and again",
    ] {
        assert!(said.contains(mode), "{said}");
    }
}
