//! Several processors: the machine's, which run domains side by side, and those of guests, of which there may be more than the machine has.

use tests::{
    Appliance, Guest, System, Web,
    health::{assert_healthy, clock_sources},
    seconds,
};

/// The guests of one machine, and the vCPUs of each.
const GUESTS: [(&str, u32); 3] = [("linux", 1), ("two", 2), ("four", 4)];
/// MiB that each guest writes to its disk and reads back.
const WRITTEN: u32 = 8;

/// Partitions of the same disk, one a guest.
fn partitions() -> String {
    let partition = |(name, _)| format!("name = \"{name}\"\nsize = \"128M\"\nfilesystem = \"ext4\"\n");
    GUESTS.map(partition).join("\n[[emulator.disk.partition]]\n")
}

/// A guest beside the default appliance's.
fn guest(name: &str, vcpus: u32) -> String {
    format!(
        r#"
[[domain]]
name = "{name}"
kind = "linux"
kernel = "debian:linux-image-cloud-amd64"
command-line = "console=hvc0 quiet hostname={name} atoll.data=/dev/xvda"
memory = "192M"
vcpus = {vcpus}

[[domain.disk]]
name = "xvda"
backend = "diskdom"
volume = "nvme0:{name}"

[[domain.network]]
backend = "netdom"
"#
    )
}

fn boot(name: &str, built: &tests::Built, processors: u32) -> System {
    let mut system = built.boot_machine(|machine| machine.cpus = processors);
    system.wait_until_up();
    let history = system.console().history();
    let found = format!("{processors} processors ({processors} in use)");
    assert!(history.contains(&found), "{name}: {history}");
    system
}

/// All vCPUs of a guest are there and work, on so many processors of the machine.
fn assert_all_run(linux: &mut Guest<'_>, vcpus: u32) {
    assert_eq!(linux.run("nproc").trim(), vcpus.to_string());
    assert_eq!(
        linux.run("grep -c ^processor /proc/cpuinfo").trim(),
        vcpus.to_string()
    );
    let online = linux.run("cat /sys/devices/system/cpu/online");
    let all = if vcpus == 1 {
        "0".into()
    } else {
        format!("0-{}", vcpus - 1)
    };
    assert_eq!(online.trim(), all);
    // A process on each of them in turn, so each takes an interrupt and switches.
    let ask = format!(
        "for cpu in $(seq 0 {}); do taskset -c $cpu sh -c 'cut -d\" \" -f39 /proc/self/stat'; done",
        vcpus - 1
    );
    let ran: Vec<u32> = linux
        .run(&ask)
        .lines()
        .map(|line| line.trim().parse().expect("a number of a processor"))
        .collect();
    assert_eq!(ran, (0..vcpus).collect::<Vec<_>>());
}

/// Writes to the disk and reads it back, and fetches from outside at the same time: whole files, compared by their hashes.
fn start_work(linux: &mut Guest<'_>, web: &Web) {
    linux.run(&format!(
        "(dd if=/dev/urandom of=/tmp/random bs=1M count={WRITTEN} 2>/dev/null; sha256sum < /tmp/random > /tmp/sum; \
         dd if=/tmp/random of=/data/random bs=64k conv=fsync 2>/dev/null; rm /tmp/random; echo 3 > /proc/sys/vm/drop_caches; \
         sha256sum < /data/random | cmp - /tmp/sum && touch /tmp/disk-good; touch /tmp/disk-over) & true"
    ));
    linux.run(&format!(
        "(wget -q -O - {} | sha256sum | grep -q {} && touch /tmp/net-good; touch /tmp/net-over) & true",
        web.address(),
        web.sha256()
    ));
}

fn finish_work(linux: &mut Guest<'_>) {
    linux.run_for(
        "until [ -e /tmp/disk-over ] && [ -e /tmp/net-over ]; do sleep 1; done",
        seconds(400),
    );
    let outcome = linux.run("ls /tmp");
    for good in ["disk-good", "net-good"] {
        assert!(outcome.contains(good), "{outcome}");
    }
}

/// A machine with so many processors, with a guest of one, one of two and one of four vCPUs that all work at once.
fn runs_guests_of_all_sizes(processors: u32) {
    let web = Web::serve(4 << 20);
    let name = format!("smp-{processors}");
    let built = Appliance::gateway(&name)
        .with(&guest("two", 2))
        .with(&guest("four", 4))
        .replace("nvme0:data", "nvme0:linux")
        .replace("memory = \"256M\"", "memory = \"192M\"")
        .replace("name = \"data\"\nfilesystem = \"ext4\"\n", &partitions())
        .build();
    let mut system = boot(&name, &built, processors);
    for (name, vcpus) in GUESTS {
        let mut linux = system.guest(name);
        assert_all_run(&mut linux, vcpus);
        start_work(&mut linux, &web);
    }
    for (name, _) in GUESTS {
        let mut linux = system.guest(name);
        finish_work(&mut linux);
        assert_healthy(&mut linux);
        assert_eq!(clock_sources(&mut linux), ("xen".into(), "xen tsc".into()));
    }
    system.shut_down();
}

#[test]
fn guests_of_all_sizes_on_one_processor() {
    runs_guests_of_all_sizes(1);
}

#[test]
fn guests_of_all_sizes_on_two_processors() {
    runs_guests_of_all_sizes(2);
}

#[test]
fn guests_of_all_sizes_on_four_processors() {
    runs_guests_of_all_sizes(4);
}

/// An emulator that has no x2APIC for such a processor runs this in xAPIC mode; both must do.
#[test]
fn interrupts_go_by_x2apic_where_the_machine_has_it() {
    let web = Web::serve(4 << 20);
    let built = Appliance::gateway("smp-x2apic")
        .in_domain("linux", "vcpus = 2")
        .build();
    let mut system = built.boot_machine(|machine| {
        machine.cpus = 2;
        machine.processor = Some("EPYC,-monitor,-nrip-save,+x2apic".into());
    });
    system.wait_until_up();
    let history = system.console().history();
    assert!(
        history.contains("2 processors (2 in use), local APIC in x"),
        "{history}"
    );
    let mut linux = system.guest("linux");
    start_work(&mut linux, &web);
    finish_work(&mut linux);
    assert_healthy(&mut linux);
    linux.leave();
    system.shut_down();
}

#[test]
fn a_driver_domain_is_replaced_while_two_processors_work() {
    let built = Appliance::gateway("smp-restart")
        .in_domain("linux", "vcpus = 2")
        .build();
    let mut system = boot("smp-restart", &built, 2);
    let mut linux = system.guest("linux");
    linux.type_line("dd if=/dev/zero of=/data/zero bs=64k count=256 conv=fsync && echo \"all\" written");
    linux.leave();
    for name in ["diskdom", "netdom", "diskdom"] {
        system.operator(&format!("restart {name}"));
    }
    let mut linux = system.guest("linux");
    assert_eq!(
        linux
            .run_for("wait; sync; wc -c < /data/zero", seconds(180))
            .trim(),
        (16 << 20).to_string()
    );
    assert_healthy(&mut linux);
}
