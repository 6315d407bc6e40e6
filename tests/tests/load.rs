//! A stock Linux guest with more vCPUs than the machine has processors, under load: Debian's stress-ng with its own checks, vCPUs that go and come, and
//! clocks that are compared between vCPUs all the while.
//!
//! Work is counted in operations rather than in seconds, so what passes does not depend on how fast this machine is. `ATOLL_TOGGLES` says how often the vCPUs
//! go, `ATOLL_LOAD` how many times the usual load there is (`just soak`).

use tests::{
    Appliance, Guest, System, Web,
    health::{assert_healthy, clock_sources},
    seconds, setting,
};

const VCPUS: u32 = 4;
/// Fewer than the guest has.
const PROCESSORS: u32 = 2;

/// A gateway whose guest has four vCPUs, stress-ng and the clock check, on two processors.
fn boot(name: &str, more_command_line: &str) -> System {
    let lines = format!(
        "vcpus = {VCPUS}\npackages = [\"stress-ng\"]\nfiles = {{ \"/usr/bin/clock-check\" = \"{}\" }}",
        env!("CARGO_BIN_EXE_clock-check")
    );
    let mut system = Appliance::gateway(name)
        .in_domain("linux", &lines)
        .replace(
            "quiet atoll.data",
            &format!("quiet {more_command_line} atoll.data"),
        )
        .replace("memory = \"256M\"", "memory = \"512M\"")
        .build()
        .boot_machine(|machine| machine.cpus = PROCESSORS);
    system.wait_until_up();
    system
}

/// Reads the clock on all vCPUs at once, and compares.
fn assert_clocks_agree(linux: &mut Guest<'_>) {
    let readings = 20_000 * setting("ATOLL_LOAD", 1);
    let said = linux.run_for(&format!("clock-check {readings}"), seconds(600));
    for clock in ["CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW"] {
        let line = format!("{clock}: {readings} readings on each of {VCPUS} processors, 0 backwards");
        assert!(said.contains(&line), "{said}");
    }
}

/// The guest's time in each state over all vCPUs, as `/proc/stat` has it, in hundredths of a second.
struct Times {
    /// Of all columns but those of guests, which are in others already.
    all: u64,
    busy: u64,
    steal: u64,
}

fn times(linux: &mut Guest<'_>) -> Times {
    let line = linux.run("head -n 1 /proc/stat");
    let columns: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(|column| column.parse().expect("a number"))
        .collect();
    let [user, nice, system, idle, io_wait, interrupts, soft, steal, ..] = columns[..] else {
        panic!("{line}")
    };
    let busy = user + nice + system + interrupts + soft;
    Times {
        all: busy + idle + io_wait + steal,
        busy,
        steal,
    }
}

/// Seconds that the guest has been up, in hundredths.
fn uptime(linux: &mut Guest<'_>) -> u64 {
    let text = linux.run("cut -d. -f1 /proc/uptime");
    text.trim().parse::<u64>().expect("a number") * 100
}

/// Runs stress-ng with its checks on; `what` names stressors and their bounds.
fn stress(linux: &mut Guest<'_>, what: &str) {
    let said = linux.run_for(&format!("stress-ng --verify --timeout 0 {what}"), seconds(900));
    assert!(said.contains("successful run completed"), "{said}");
    for complaint in [
        "fail:",
        "error:",
        "unsuccessful",
        "terminated by signal",
        "skipped",
    ] {
        assert!(!said.contains(complaint), "{complaint}\n{said}");
    }
}

#[test]
fn verified_load_on_more_vcpus_than_processors() {
    let mut system = boot("load", "");
    let mut linux = system.guest("linux");
    assert_eq!(clock_sources(&mut linux), ("xen".into(), "xen tsc".into()));
    let ops = |usual: u32| usual * setting("ATOLL_LOAD", 1);
    let (before, since) = (times(&mut linux), uptime(&mut linux));
    // All processors, alone: the guest wants four and gets two.
    stress(&mut linux, &format!("--cpu 4 --cpu-ops {}", ops(400)));
    let (after, until) = (times(&mut linux), uptime(&mut linux));
    assert_steal_is_sane(&before, &after, until - since);
    for what in [
        format!("--futex 2 --futex-ops {0} --mutex 2 --mutex-ops {0}", ops(1000)),
        format!("--membarrier 1 --membarrier-ops {}", ops(40)),
        format!("--timer 2 --timer-ops {0} --switch 2 --switch-ops {0}", ops(1000)),
        format!(
            "--pipe 2 --pipe-ops {0} --vm 2 --vm-bytes 16M --vm-ops {0}",
            ops(2000)
        ),
        format!("--tlb-shootdown 2 --tlb-shootdown-ops {}", ops(4)),
    ] {
        stress(&mut linux, &what);
    }
    assert_clocks_agree(&mut linux);
    assert_healthy(&mut linux);
    assert_eq!(clock_sources(&mut linux).0, "xen");
}

/// While four vCPUs want two processors, about half of their time is stolen, and no time is lost or counted twice. The rest of the machine (and of the host)
/// may take more from them.
fn assert_steal_is_sane(before: &Times, after: &Times, elapsed: u64) {
    let (all, busy) = (after.all - before.all, after.busy - before.busy);
    let steal = after.steal - before.steal;
    let wall = elapsed * u64::from(VCPUS);
    let figures = format!("busy {busy} steal {steal} all {all} of {wall}");
    assert!(steal > 0 && busy > 0, "{figures}");
    // The columns are counted by ticks, which come late where the machine is slow; steal is exact.
    assert!(all <= wall * 3 / 2 + 800, "{figures}");
    assert!(steal <= wall + 400, "{figures}");
}

/// Takes all vCPUs but the first down and up again, so many times, and counts the rounds in which it was so.
fn toggle(linux: &mut Guest<'_>, rounds: u32) {
    // The kernel says of each that it comes and goes.
    linux.run("dmesg -n 1; cd /sys/devices/system/cpu");
    let last = VCPUS - 1;
    let said = linux.run_for(
        &format!(
            "good=0; for round in $(seq {rounds}); do \
             for cpu in $(seq {last}); do echo 0 > cpu$cpu/online || break 2; done; [ \"$(cat online)\" = 0 ] || break; \
             for cpu in $(seq {last}); do echo 1 > cpu$cpu/online || break 2; done; [ \"$(cat online)\" = 0-{last} ] || break; \
             good=$((good + 1)); done; echo good $good; cd"
        ),
        seconds(u64::from(60 + rounds * 10)),
    );
    assert!(said.contains(&format!("good {rounds}")), "{said}");
}

/// Begins two loops that compute, one that writes to the disk and reads back, and one that fetches from outside, until [`finish_work`].
fn start_work(linux: &mut Guest<'_>, web: &Web) {
    linux.run("for loop in 1 2; do (while ! [ -e /tmp/stop ]; do :; done) & done; dd if=/dev/urandom of=/tmp/source bs=1M count=2 2>/dev/null");
    let disk = "dd if=/tmp/source of=/data/copy bs=64k conv=fsync 2>/dev/null && echo 3 > /proc/sys/vm/drop_caches && cmp /tmp/source /data/copy";
    let net = format!(
        "wget -q -O - {} | sha256sum | grep -q {}",
        web.address(),
        web.sha256()
    );
    for (name, work) in [("disk", disk), ("net", net.as_str())] {
        linux.run(&format!(
            "(until [ -e /tmp/stop ]; do if {work}; then echo good; else echo bad; fi; done > /tmp/{name} 2>&1; touch /tmp/{name}-over) & true"
        ));
    }
}

/// Ends what [`start_work`] began. There was some, and all of it was good.
fn finish_work(linux: &mut Guest<'_>) {
    for name in ["disk", "net"] {
        linux.run_for(
            &format!("until grep -q . /tmp/{name}; do sleep 1; done"),
            seconds(300),
        );
    }
    linux.run("touch /tmp/stop");
    for name in ["disk", "net"] {
        linux.run_for(
            &format!("until [ -e /tmp/{name}-over ]; do sleep 1; done"),
            seconds(300),
        );
        let outcomes = linux.run(&format!("sort /tmp/{name} | uniq -c"));
        assert!(
            outcomes.contains("good") && outcomes.lines().count() == 1,
            "{outcomes}"
        );
    }
}

/// Has the operator change how many vCPUs the guest runs on, and waits until it does.
fn set_vcpus(system: &mut System, count: u32) {
    let answer = system.operator(&format!("vcpus linux {count}"));
    assert!(answer.contains(&format!("asked to run on {count} ")), "{answer}");
    let online = if count == 1 {
        "0".into()
    } else {
        format!("0-{}", count - 1)
    };
    let mut linux = system.guest("linux");
    linux.run_for(
        &format!("until [ \"$(cat /sys/devices/system/cpu/online)\" = {online} ]; do sleep 0.2; done"),
        seconds(120),
    );
    assert_eq!(linux.run("nproc").trim(), count.to_string());
}

#[test]
fn vcpus_go_and_come_under_load() {
    let web = Web::serve(1 << 20);
    // By the other clock, too, which the kernel's watchdog compares with the first all the time.
    let mut system = boot("toggle", "clocksource=tsc");
    let mut linux = system.guest("linux");
    assert_eq!(clock_sources(&mut linux), ("tsc".into(), "xen tsc".into()));
    start_work(&mut linux, &web);
    toggle(&mut linux, setting("ATOLL_TOGGLES", 8));
    assert_clocks_agree(&mut linux);
    linux.leave();

    for count in [2, 1, VCPUS] {
        set_vcpus(&mut system, count);
    }
    for (count, complaint) in [
        ("0", "linux can have 1 to 4 vCPUs, not 0"),
        ("5", "linux can have 1 to 4 vCPUs, not 5"),
        ("x", "no number of vCPUs"),
    ] {
        let answer = system.operator(&format!("vcpus linux {count}"));
        assert!(answer.contains(complaint), "{answer}");
    }
    let mut linux = system.guest("linux");
    finish_work(&mut linux);
    assert_clocks_agree(&mut linux);
    assert_healthy(&mut linux);
    assert_eq!(clock_sources(&mut linux).0, "tsc");
}
