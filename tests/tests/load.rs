//! A stock Linux guest with more vCPUs than the machine has processors, under load: Debian's stress-ng with its own checks, vCPUs that go and come, and
//! clocks that are compared between vCPUs all the while.
//!
//! Work is counted in operations rather than in seconds, so what passes does not depend on how fast this machine is. `ATOLL_TOGGLES` says how often the vCPUs
//! go, `ATOLL_LOAD` how many times the usual load there is (`just soak`).

use tests::{
    Appliance, Guest, System, Web,
    health::{assert_healthy, clock_sources},
    seconds,
};

const VCPUS: u32 = 4;
/// Fewer than the guest has.
const PROCESSORS: u32 = 2;

/// A number from the environment.
fn setting(name: &str, usual: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

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
