//! The network driver domain dies, or hangs, at any moment while a stock Linux has a TCP connection through it: the connection lasts, not a bit of it is wrong,
//! and the frontend is never told. `ATOLL_KILLS` says how often (`just soak`), `ATOLL_SEED` at which moments.

use manifest::source::Nic;
use tests::{Appliance, Echo, Guest, Moments, System, seconds, setting};

/// How often it is killed.
fn kills() -> u32 {
    setting("ATOLL_KILLS", 8)
}

fn boot(name: &str, nic: Nic) -> System {
    let mut system = Appliance::gateway(name)
        .with_faults()
        .nic(nic)
        .in_domain(
            "netdom",
            "watchdog = \"1s\"\nrestart-limit = 1000000\nrestart-longest-rest = \"100ms\"",
        )
        .build()
        .boot();
    system.wait_until_up();
    system
}

/// Sends bytes to a server that sends them back, by one connection, and pings it, until [`stop`].
fn start(linux: &mut Guest<'_>, echo: &Echo) {
    linux.run("dd if=/dev/urandom of=/tmp/source bs=1k count=300 2>/dev/null; mkfifo /tmp/copy");
    let address = echo.address();
    linux.run("sha256sum < /tmp/copy > /tmp/sent & true");
    linux.run(&format!(
        "(while ! test -e /tmp/stop; do cat /tmp/source; done | tee /tmp/copy | nc {address} | sha256sum > /tmp/received; touch /tmp/over) & true"
    ));
    linux.run("ping 10.0.2.2 > /tmp/pings & true");
}

/// Ends the connection from this side, and compares.
fn stop(linux: &mut Guest<'_>) {
    linux.run("touch /tmp/stop");
    linux.run_for("until [ -e /tmp/over ]; do sleep 1; done", seconds(240));
    let sums = linux.run("cat /tmp/sent /tmp/received");
    let sums: Vec<&str> = sums.lines().collect();
    assert!(
        sums.len() == 2 && sums[0] == sums[1] && sums[0].len() > 60,
        "{sums:?}"
    );
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert!(!sums[0].contains(nothing), "nothing was sent");
    // The ping that began before goes on.
    linux.run("before=$(wc -l < /tmp/pings); i=0; while [ $(wc -l < /tmp/pings) -lt $((before + 3)) ]; do sleep 1; i=$((i + 1)); [ $i -lt 60 ] || exit 1; done");
}

/// The frontend has not been told of anything.
fn assert_undisturbed(linux: &mut Guest<'_>, carrier_changes: &str) {
    assert_eq!(
        linux.run("cat /sys/class/net/eth0/carrier_changes"),
        carrier_changes
    );
    let errors =
        linux.run("cat /sys/class/net/eth0/statistics/tx_errors /sys/class/net/eth0/statistics/rx_errors");
    println!("tx and rx errors: {errors:?}");
    let (status, said) = linux.try_run(
        "dmesg | grep -i -e 'vif.*\\(error\\|invalid\\|disabled\\)' -e 'xenbus.*error' -e 'eth0.*\\(invalid\\|disabled\\)' -e 'blocked for more than'",
        seconds(20),
    );
    assert_ne!(status, 0, "{said}");
}

fn survives(name: &str, nic: Nic, count: u32, mut fault: impl FnMut(&mut System, &mut Moments)) {
    let echo = Echo::serve();
    let mut moments = Moments::new();
    let mut system = boot(name, nic);
    let mut linux = system.guest("linux");
    let carrier_changes = linux.run("cat /sys/class/net/eth0/carrier_changes");
    start(&mut linux, &echo);
    linux.run_for("until grep -q seq /tmp/pings; do sleep 1; done", seconds(120));
    linux.leave();
    for _ in 0..count {
        fault(&mut system, &mut moments);
    }
    let mut linux = system.guest("linux");
    stop(&mut linux);
    assert_undisturbed(&mut linux, &carrier_changes);
    linux.leave();
    let log = system.operator("dmesg");
    assert!(!log.contains("broke the protocol"), "{log}");
}

/// Killed after up to so many microseconds of its own time, some times again while it is being built or has only begun.
fn kill(system: &mut System, moments: &mut Moments) {
    let longest = [200, 5_000, 60_000][moments.below(3) as usize];
    system.kill("netdom", moments.below(longest));
}

#[test]
fn a_connection_lasts_while_netdom_is_killed() {
    survives("kill-net", Nic::E1000e, kills(), kill);
}

#[test]
fn a_connection_lasts_while_netdom_is_killed_that_drives_a_virtio_card() {
    survives("kill-net-virtio", Nic::VirtioNet, kills() / 2, kill);
}

#[test]
fn a_connection_lasts_while_netdom_hangs() {
    survives("hang-net", Nic::E1000e, kills().div_ceil(4), |system, moments| {
        let after = moments.below(20_000);
        system.type_line(&format!("hang netdom {after}"));
        system
            .console()
            .expect("netdom stopped: its watchdog expired", seconds(60));
        system.console().expect("netdom is started", seconds(60));
    });
}
