//! Each mistake gives a message that names the thing, on the line where it was made.

mod machine;
mod scheduling;

use super::*;
use crate::{Class, Device, Kind, Restart};
use alloc::{format, vec};

/// A small appliance that is right. Its lines are numbered from one, and the tests count on them.
const GOOD: &str = r#"[hypervisor]
allow-unconfined-dma = true

[[domain]]
name = "controldom"
kind = "unikernel"
program = "controldom"
memory = "8M"
capabilities = ["control"]

[[domain]]
name = "diskdom"
kind = "unikernel"
program = "diskdom"
memory = "8M"
devices = ["nvme", "com1"]

[[domain]]
name = "linux"
kind = "linux"
kernel = "debian:linux-image-cloud-amd64"
memory = "256M"

[[domain.disk]]
name = "xvda"
backend = "diskdom"
volume = "nvme0:data"

[[domain.network]]
backend = "controldom"
"#;

fn read(text: &str, folder: &Path) -> Result<Appliance, Problems> {
    parse(
        text,
        Place {
            file: Path::new("appliance.toml"),
            name: "sample",
            folder,
            workspace: None,
        },
    )
}

fn read_anywhere(text: &str) -> Result<Appliance, Problems> {
    read(text, Path::new("/nonexistent"))
}

/// Puts `new` in place of `old`, which has to be there, and returns what is reported.
fn problems(old: &str, new: &str) -> Vec<String> {
    assert!(GOOD.contains(old), "the sample does not contain {old}");
    let problems = read_anywhere(&GOOD.replacen(old, new, 1)).expect_err("a mistake was accepted");
    problems.lines()
}

/// The one thing that is reported.
fn problem(old: &str, new: &str) -> String {
    let problems = problems(old, new);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

/// GOOD and something after it, whose first line is line 31.
fn appended(text: &str) -> String {
    let problems = read_anywhere(&format!("{GOOD}{text}")).expect_err("a mistake was accepted");
    problems.lines().join("\n")
}

#[test]
fn reads_an_appliance() {
    let appliance = read_anywhere(GOOD).unwrap();
    let manifest = &appliance.manifest;
    assert_eq!(manifest.name, "sample");
    assert!(manifest.allow_unconfined_dma && !manifest.reboot_on_panic && !manifest.fault_injection);
    let [control, disk, linux] = &manifest.domains[..] else {
        panic!("three domains")
    };
    assert!(control.capabilities.control && !control.capabilities.observe);
    assert_eq!(
        control.kind,
        Kind::Unikernel {
            image: "controldom".into(),
            command_line: "".into()
        }
    );
    assert_eq!((control.memory, control.vcpus), (8 << 20, 1));
    assert_eq!(
        (control.scheduling.class, control.restarts.policy),
        (Class::Interactive, Restart::OnFailure)
    );
    assert_eq!(
        (linux.scheduling.class, linux.restarts.policy),
        (Class::Shared { weight: 256 }, Restart::Never)
    );
    assert_eq!(
        disk.devices,
        [
            Device::PciClass {
                class: 1,
                subclass: Some(8),
                interface: Some(2)
            },
            Device::SerialPort(1)
        ]
    );
    assert_eq!(
        [control, disk, linux].map(|domain| domain.keep >> 10),
        [512, 64, 0]
    );
    assert_eq!(linux.disks[0].volume, "nvme0:data");
    assert!(!linux.disks[0].read_only);
    assert_eq!(
        linux.networks[0].mac[0], 2,
        "derived addresses are locally administered"
    );
    let entries: Vec<&str> = appliance.files.iter().map(|file| file.entry.as_str()).collect();
    assert_eq!(
        entries,
        ["controldom", "diskdom", "linux-image-cloud-amd64", "initrd"]
    );
    assert_eq!(appliance.emulator.nic, Some(Nic::E1000e));
}

#[test]
fn the_default_appliance_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let appliance = super::read(&root.join("appliances/gateway/appliance.toml"), Some(&root)).unwrap();
    assert_eq!(appliance.manifest.name, "gateway");
    let names: Vec<&str> = appliance
        .manifest
        .domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect();
    assert_eq!(names, ["controldom", "consoledom", "diskdom", "netdom", "linux"]);
}

#[test]
fn domains_with_the_same_origin_share_an_entry() {
    let second = "[[domain]]\nname = \"two\"\nkind = \"linux\"\nkernel = \"debian:linux-image-cloud-amd64\"\nmemory = \"128M\"\n";
    let same = read_anywhere(&format!("{GOOD}{second}")).unwrap();
    assert_eq!(same.files.len(), 4);
    let other = read_anywhere(&format!("{GOOD}{second}packages = [\"xenstore-utils\"]\n")).unwrap();
    assert_eq!(other.files[4].entry, "initrd-2");
}

#[test]
fn syntax() {
    assert!(problem("memory = \"8M\"", "memory = ").starts_with("appliance.toml:8: "));
}

#[test]
fn unknown_key() {
    let text = problem("memory = \"256M\"", "memory = \"256M\"\nmemroy = \"1M\"");
    assert!(
        text.starts_with("appliance.toml:23: unknown field `memroy`"),
        "{text}"
    );
}

#[test]
fn wrong_type() {
    let text = problem("memory = \"256M\"", "memory = 256");
    assert!(
        text.starts_with("appliance.toml:22: invalid type: integer `256`, expected a string"),
        "{text}"
    );
}

#[test]
fn missing_key() {
    let text = problem("memory = \"256M\"\n", "");
    assert!(text.contains("missing field `memory`"), "{text}");
}

#[test]
fn unknown_kind() {
    let text = problem("kind = \"linux\"", "kind = \"windows\"");
    assert!(
        text.starts_with("appliance.toml:20: unknown variant `windows`, expected `unikernel` or `linux`"),
        "{text}"
    );
}

#[test]
fn unknown_backend() {
    assert_eq!(
        problem("backend = \"diskdom\"", "backend = \"disk\""),
        "appliance.toml:26: there is no domain disk to serve linux"
    );
}

#[test]
fn backend_of_its_own() {
    assert_eq!(
        problem("backend = \"diskdom\"", "backend = \"linux\""),
        "appliance.toml:26: linux cannot serve itself"
    );
}

#[test]
fn duplicate_names() {
    assert_eq!(
        problems("name = \"diskdom\"", "name = \"linux\"")[0],
        "appliance.toml:19: there is another domain named linux"
    );
    let text =
        appended("[[domain.disk]]\nname = \"xvda\"\nbackend = \"diskdom\"\nvolume = \"nvme0:other\"\n");
    assert_eq!(text, "appliance.toml:32: linux has another disk xvda");
}

#[test]
fn no_control_domain() {
    let text = problem("capabilities = [\"control\"]", "");
    assert_eq!(
        text,
        "appliance.toml:4: no domain has the capability control, so nothing would start the others"
    );
}

#[test]
fn two_domains_with_one_role() {
    let twice = "devices = [\"nvme\", \"com1\"]\ncapabilities = [\"control\"]";
    assert_eq!(
        problem("devices = [\"nvme\", \"com1\"]", twice),
        "appliance.toml:17: controldom already has the capability control; only one domain can have it"
    );
    let log = GOOD
        .replacen("[\"control\"]", "[\"control\", \"console-log\"]", 1)
        .replacen(
            "[\"nvme\", \"com1\"]",
            "[\"nvme\"]\ncapabilities = [\"console-log\"]",
            1,
        );
    assert_eq!(
        read_anywhere(&log).unwrap_err().lines().join("\n"),
        "appliance.toml:17: controldom already has the capability console-log; only one domain can have it"
    );
}

#[test]
fn a_guest_has_no_role() {
    let text = problem(
        "memory = \"256M\"",
        "memory = \"256M\"\ncapabilities = [\"console-log\"]",
    );
    assert_eq!(
        text,
        "appliance.toml:23: linux is a guest and cannot have the capability console-log"
    );
}

#[test]
fn missing_files() {
    let text = problem("debian:linux-image-cloud-amd64", "vmlinuz");
    assert_eq!(text, "appliance.toml:21: there is no file /nonexistent/vmlinuz");
    let text = problem("memory = \"256M\"", "initrd = \"initrd.img\"\nmemory = \"256M\"");
    assert_eq!(
        text,
        "appliance.toml:22: there is no file /nonexistent/initrd.img"
    );
    let text = problem("program = \"diskdom\"", "program = \"./diskdom\"");
    assert_eq!(text, "appliance.toml:14: there is no file /nonexistent/./diskdom");
    let text = problem(
        "memory = \"256M\"",
        "files = { \"/etc/motd\" = \"motd\" }\nmemory = \"256M\"",
    );
    assert_eq!(text, "appliance.toml:22: there is no file /nonexistent/motd");
}

#[test]
fn takes_files_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vmlinuz"), "kernel").unwrap();
    let appliance = read(
        &GOOD.replace("debian:linux-image-cloud-amd64", "vmlinuz"),
        folder.path(),
    )
    .unwrap();
    assert_eq!(
        appliance.files[2].origin,
        Origin::Path(folder.path().join("vmlinuz"))
    );
}

#[test]
fn unknown_program() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        file: Path::new("appliance.toml"),
        name: "sample",
        folder: folder.path(),
        workspace: Some(folder.path()),
    };
    let problems = parse(GOOD, place).unwrap_err().lines().join("\n");
    assert_eq!(
        problems,
        "appliance.toml:7: there is no program controldom\nappliance.toml:14: there is no program diskdom"
    );
}

#[test]
fn programs_are_members_of_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let place = || Place {
        file: Path::new("appliance.toml"),
        name: "sample",
        folder: root,
        workspace: Some(root),
    };
    for member in ["controldom", "some/where/diskdom"] {
        std::fs::create_dir_all(root.join(member)).unwrap();
        std::fs::write(root.join(member).join("Cargo.toml"), "[package]").unwrap();
    }
    let members = "[workspace]\nmembers = [\"controldom\", \"some/where/diskdom\"]";
    std::fs::write(root.join("Cargo.toml"), members).unwrap();
    let appliance = parse(GOOD, place()).unwrap();
    assert_eq!(appliance.files[1].origin, Origin::Program("diskdom".into()));
    // A folder is not enough, nor is the end of another's name.
    std::fs::write(
        root.join("Cargo.toml"),
        "[workspace]\nmembers = [\"controldom\", \"olddiskdom\"]",
    )
    .unwrap();
    let problems = parse(GOOD, place()).unwrap_err().lines().join("\n");
    assert_eq!(problems, "appliance.toml:14: there is no program diskdom");
}

#[test]
fn keep_regions_are_small_and_of_unikernels() {
    let kept = GOOD.replacen("program = \"diskdom\"", "program = \"diskdom\"\nkeep = \"8K\"", 1);
    assert_eq!(read_anywhere(&kept).unwrap().manifest.domains[1].keep, 8 << 10);
    for (keep, message) in [
        ("1M", "a keep region has at most 768K"),
        ("5000", "a keep region comes in pages of 4K"),
    ] {
        let text = problem(
            "program = \"diskdom\"",
            &format!("program = \"diskdom\"\nkeep = \"{keep}\""),
        );
        assert!(text.ends_with(message), "{text}");
    }
    let text = problem("memory = \"256M\"", "memory = \"256M\"\nkeep = \"8K\"");
    assert!(
        text.ends_with("linux is a guest; it has no keep region"),
        "{text}"
    );
}

#[test]
fn keys_of_the_other_kind() {
    let text = problem("memory = \"256M\"", "program = \"diskdom\"\nmemory = \"256M\"");
    assert_eq!(
        text,
        "appliance.toml:22: linux is of kind \"linux\"; program belongs to kind \"unikernel\""
    );
    let text = problem(
        "program = \"diskdom\"",
        "program = \"diskdom\"\nmodules = [\"nvme\"]",
    );
    assert_eq!(
        text,
        "appliance.toml:15: diskdom is of kind \"unikernel\"; modules belongs to kind \"linux\""
    );
    assert_eq!(
        problem("program = \"diskdom\"\n", ""),
        "appliance.toml:12: diskdom has no program"
    );
    let text = problem("kernel = \"debian:linux-image-cloud-amd64\"\n", "");
    assert_eq!(text, "appliance.toml:19: linux has no kernel");
}

#[test]
fn too_little_memory() {
    let text = problem("memory = \"256M\"", "memory = \"16M\"");
    assert_eq!(text, "appliance.toml:22: 16M is too little memory for linux");
    assert_eq!(
        problem("memory = \"8M\"", "memory = \"1M\""),
        "appliance.toml:8: 1M is too little memory for controldom"
    );
    assert!(problem("memory = \"256M\"", "memory = \"much\"").contains("\"much\" is no size"));
    assert_eq!(
        problem("memory = \"256M\"", "memory = \"268435457\""),
        "appliance.toml:22: memory comes in pages of 4K"
    );
}

#[test]
fn a_maximum_is_at_least_the_memory() {
    let maximum = |text: &str| {
        problem(
            "memory = \"256M\"",
            &format!("memory = \"256M\"\nmemory-maximum = \"{text}\""),
        )
    };
    assert_eq!(
        maximum("128M"),
        "appliance.toml:23: linux starts with 256M, which is more than its maximum"
    );
    assert!(maximum("much").contains("\"much\" is no size"));
    assert_eq!(
        maximum("268435457"),
        "appliance.toml:23: memory comes in pages of 4K"
    );
    assert_eq!(
        problem("memory = \"8M\"", "memory = \"8M\"\nmemory-maximum = \"8M\""),
        "appliance.toml:9: controldom is a unikernel; its memory stays as it is"
    );
}

#[test]
fn names_that_do_not_work() {
    for name in ["hda", "xvd", "xvdq", "xvdaa", "xvda1"] {
        let text = problem("name = \"xvda\"", &format!("name = \"{name}\""));
        assert_eq!(
            text,
            format!("appliance.toml:25: \"{name}\" is no disk name; use xvda, xvdb … xvdp")
        );
    }
    assert!(
        problem("name = \"linux\"", "name = \"my linux\"")
            .starts_with("appliance.toml:19: \"my linux\" cannot name")
    );
}

#[test]
fn vcpus_and_weights() {
    assert_eq!(
        problem("memory = \"256M\"", "memory = \"256M\"\nvcpus = 0"),
        "appliance.toml:23: a domain has 1 to 64 vCPUs"
    );
    assert!(
        problem("memory = \"8M\"", "memory = \"8M\"\nvcpus = 2")
            .starts_with("appliance.toml:9: controldom is a unikernel")
    );
    assert!(
        problem("memory = \"8M\"", "memory = \"8M\"\nweight = 2")
            .starts_with("appliance.toml:9: controldom is interactive")
    );
}

#[test]
fn every_problem_is_shown_with_its_line_and_a_way_out() {
    let text = GOOD
        .replacen("[\"nvme\", \"com1\"]", "[\"floppy\"]", 1)
        .replacen("\"256M\"", "\"16M\"", 1);
    let problems = read_anywhere(&text).unwrap_err();
    assert_eq!(problems.problems.len(), 2);
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .render_report(&mut shown, &problems)
        .unwrap();
    for part in [
        "appliance.toml:16",
        "floppy",
        "appliance.toml:22",
        "memory = \"16M\"",
        "help",
        "at least 64M",
    ] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(junk in ".{0,200}", cut in 0usize..GOOD.len(), size in ".{0,12}") {
        let _ = read_anywhere(&junk);
        let _ = read_anywhere(&format!("{}{junk}", &GOOD[..cut]));
        let _ = read_anywhere(&GOOD.replace("\"256M\"", &format!("{size:?}")));
        let _ = values::devices(&junk);
        let _ = values::duration(&junk);
        let _ = values::devices(&format!("class:{junk}"));
        let _ = values::mac(&junk);
    }
}

#[test]
fn restarts_and_watchdogs() {
    let all = "memory = \"256M\"\nrestart = \"always\"\nrestart-limit = 3\nrestart-rest = \"1s\"\nhealthy-after = \"5s\"";
    let appliance = read_anywhere(&GOOD.replacen("memory = \"256M\"", all, 1)).unwrap();
    let [control, _, linux] = &appliance.manifest.domains[..] else {
        panic!("three domains")
    };
    let restarts = linux.restarts;
    assert_eq!(
        (restarts.policy, restarts.limit, restarts.rest),
        (Restart::Always, 3, 1_000_000_000)
    );
    assert_eq!(
        (restarts.longest_rest, restarts.healthy_after),
        (10_000_000_000, 5_000_000_000)
    );
    assert_eq!((control.watchdog, linux.watchdog), (4_000_000_000, 0));
    let of_disk = |line: &str| problem("devices = [\"nvme\"", &format!("{line}\ndevices = [\"nvme\""));
    assert!(of_disk("restart-limit = 0").contains("a limit is at least 1"));
    assert!(
        of_disk("restart-rest = \"2s\"\nrestart-longest-rest = \"1s\"").contains("is shorter than the first")
    );
    assert!(of_disk("watchdog = \"1500ms\"").contains("whole seconds"));
    assert!(of_disk("watchdog = \"never\"").contains("is no duration"));
    let linux = problem("memory = \"256M\"", "memory = \"256M\"\nwatchdog = \"4s\"");
    assert!(linux.contains("linux is no unikernel"), "{linux}");
    let off = GOOD.replacen(
        "devices = [\"nvme\"",
        "watchdog = \"off\"\ndevices = [\"nvme\"",
        1,
    );
    assert_eq!(read_anywhere(&off).unwrap().manifest.domains[1].watchdog, 0);
}
