//! Crashes, shutdowns, reboots: what becomes of the domain, its devices, and those who serve it.

use super::*;
use unikernel_rt::hypercall::Errno;

#[test]
fn a_driver_is_rebuilt_at_once_and_its_frontends_stay() {
    let mut bench = bench();
    bench.write("/local/domain/3/data/left-over", "x");
    bench.end(DRIVER, SHUTDOWN_crash);
    assert_eq!(bench.world.take_calls(), ["destroy 3", "start 3"]);
    assert!(bench.is_running(DRIVER) && bench.is_running(GUEST));
    assert_eq!(bench.states(), (Some("4".into()), Some("4".into())));
    assert_eq!(bench.read("/local/domain/3/store/port").as_deref(), Some("302"));
    assert_eq!(bench.read("/local/domain/3/data/left-over"), None);
    bench.world.send(DRIVER, XS_DIRECTORY, b"backend/vbd/4\0");
    bench.settle();
    assert_eq!(bench.world.receive(DRIVER), [(XS_DIRECTORY, "51712\0".into())]);
}

#[test]
fn a_guest_leaves_its_devices_before_it_comes_back() {
    let mut bench = bench();
    bench.end(GUEST, SHUTDOWN_reboot);
    assert_eq!(bench.states(), (Some("6".into()), Some("4".into())));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.write("/local/domain/3/backend/vbd/4/51712/state", "6");
    bench.settle();
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.write("/local/domain/3/backend/vif/4/0/state", "6");
    bench.settle();
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
    // The frontend is new; the backend goes to InitWait by itself, and keeps what it knows.
    assert_eq!(bench.states(), (Some("1".into()), Some("6".into())));
    assert_eq!(
        bench
            .read("/local/domain/3/backend/vbd/4/51712/params")
            .as_deref(),
        Some("nvme0:2")
    );
}

#[test]
fn a_backend_that_does_not_close_is_not_waited_for() {
    let mut bench = bench();
    bench.end(GUEST, SHUTDOWN_crash);
    bench.pass(member::LEAVE_TIME / 2);
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.pass(member::LEAVE_TIME);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
    assert_eq!(bench.states(), (Some("1".into()), Some("4".into())));
}

#[test]
fn a_backend_that_does_not_run_is_not_waited_for() {
    let mut manifest = manifest();
    manifest.domains[2].restarts.policy = Restart::Never;
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.write("/local/domain/3/backend/vbd/4/51712/state", "4");
    bench.end(DRIVER, SHUTDOWN_crash);
    bench.world.take_calls();
    bench.end(GUEST, SHUTDOWN_reboot);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
}

#[test]
fn a_guest_that_powers_off_takes_its_devices_along() {
    let mut bench = bench();
    bench.end(GUEST, SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(bench.world.take_calls(), ["destroy 4"]);
    assert_eq!(bench.plane.phase(GUEST), Some(Phase::Down));
    assert_eq!(bench.states(), (None, None));
    assert_eq!(bench.read("/local/domain/4/name").as_deref(), Some("guest"));
    // Started again, it finds all of it, and so does its backend.
    assert_eq!(bench.request("1 restart guest"), "1 ok guest is started");
    assert_eq!(bench.states(), (Some("1".into()), Some("1".into())));
}

#[test]
fn one_that_is_to_stay_is_left_for_inspection() {
    let mut manifest = manifest();
    manifest.domains[3].restarts.policy = Restart::Never;
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.world.take_calls();
    bench.end(GUEST, SHUTDOWN_crash);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    assert_eq!(bench.plane.phase(GUEST), Some(Phase::Down));
    assert_eq!(bench.request("1 restart guest"), "1 ok guest is started");
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
}

#[test]
fn one_that_crashes_again_and_again_stays_down() {
    let mut bench = bench();
    for _ in 0..Restarts::default().limit {
        assert!(bench.is_running(DRIVER));
        bench.end(DRIVER, SHUTDOWN_crash);
        bench.pass(Duration::from_secs(11));
    }
    assert_eq!(bench.plane.phase(DRIVER), Some(Phase::Down));
    assert_eq!(bench.request("1 restart driver"), "1 ok driver is started");
    bench.end(DRIVER, SHUTDOWN_crash);
    assert!(bench.is_running(DRIVER));
}

#[test]
fn a_rebuild_that_fails_is_tried_again() {
    let mut bench = bench();
    bench.world.refuse_to_start(DRIVER, Some(Errno::ENOMEM));
    bench.end(DRIVER, SHUTDOWN_crash);
    assert!(matches!(bench.plane.phase(DRIVER), Some(Phase::Resting { .. })));
    bench.world.refuse_to_start(DRIVER, None);
    bench.pass(Duration::from_secs(1));
    assert!(bench.is_running(DRIVER));
}

#[test]
fn an_end_is_announced_to_those_who_observe() {
    let mut bench = bench();
    bench.world.send(CONSOLE, XS_WATCH, b"@releaseDomain\0r\0");
    bench.world.send(GUEST, XS_WATCH, b"@releaseDomain\0r\0");
    bench.settle();
    assert_eq!(bench.world.receive(GUEST), [(XS_ERROR, "EACCES\0".into())]);
    bench.world.receive(CONSOLE);
    bench.end(GUEST, SHUTDOWN_crash);
    assert_eq!(
        bench.world.receive(CONSOLE),
        [(XS_WATCH_EVENT, "@releaseDomain\0r\0".into())]
    );
}

#[test]
fn an_unknown_reason_is_a_crash() {
    let mut bench = bench();
    bench.end(DRIVER, 99);
    assert_eq!(bench.world.take_calls(), ["destroy 3", "start 3"]);
}

#[test]
fn a_home_is_new_for_a_new_guest() {
    let mut bench = bench();
    bench.world.send(GUEST, XS_WRITE, b"data/x\0y");
    bench
        .world
        .send(GUEST, XS_WRITE, b"control/feature-poweroff\x001");
    bench.settle();
    let own = Permissions::private(DomainId(1)).and(GUEST, Access::BOTH);
    let control = Path::absolute("/local/domain/4/control").unwrap();
    assert_eq!(
        *bench.plane.store().tree().get(&control).unwrap().permissions,
        own
    );
    bench.end(GUEST, SHUTDOWN_reboot);
    bench.pass(member::LEAVE_TIME * 2);
    assert!(bench.is_running(GUEST));
    assert_eq!(
        (
            bench.read("/local/domain/4/data/x"),
            bench.read("/local/domain/4/control/feature-poweroff")
        ),
        (None, None)
    );
    assert_eq!(
        bench.read("/local/domain/4/control/shutdown").as_deref(),
        Some("")
    );
}

#[test]
fn one_that_is_always_to_run_comes_back_after_a_power_off_but_not_while_the_machine_goes_down() {
    let mut manifest = manifest();
    manifest.domains[2].restarts.policy = Restart::Always;
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.end(DRIVER, SHUTDOWN_poweroff);
    assert!(bench.is_running(DRIVER));
    let mut manifest = manifest.clone();
    manifest.domains[3].restarts.policy = Restart::Always;
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.request("1 shutdown");
    bench.end(GUEST, SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert!(!bench.is_running(GUEST));
}

#[test]
fn the_manifest_says_how_often_a_domain_is_tried() {
    let mut manifest = manifest();
    manifest.domains[2].restarts.limit = 2;
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.end(DRIVER, SHUTDOWN_watchdog);
    assert!(bench.is_running(DRIVER));
    bench.end(DRIVER, SHUTDOWN_watchdog);
    assert_eq!(bench.plane.phase(DRIVER), Some(Phase::Down));
}
