//! Starting, introducing, serving.

use super::*;
use unikernel_rt::hypercall::Errno;

#[test]
fn starts_all_in_the_manifests_order_one_a_turn() {
    let mut bench = bench_of(&manifest());
    assert_eq!(bench.plane.turn(false), Next::Now);
    assert_eq!(bench.world.take_calls(), ["start 2"]);
    assert_eq!(bench.read("/atoll/ready").as_deref(), Some("0"));
    assert_eq!(bench.settle(), Next::Event);
    assert_eq!(bench.world.take_calls(), ["start 3", "start 4"]);
    assert_eq!(bench.read("/atoll/ready").as_deref(), Some("1"));
    assert_eq!(bench.read("/local/domain/4/store/port").as_deref(), Some("401"));
    assert_eq!(
        bench.read("/local/domain/4/store/ring-ref").as_deref(),
        Some("1044476")
    );
    assert_eq!(bench.read("/local/domain/4/console/port").as_deref(), Some("0"));
}

#[test]
fn one_that_cannot_start_keeps_nobody_waiting() {
    let mut bench = bench_of(&manifest());
    bench.world.refuse_to_start(CONSOLE, Some(Errno::ENOENT));
    bench.world.fail_to_build(DRIVER);
    assert_eq!(bench.settle(), Next::Event);
    assert_eq!(bench.world.take_calls(), ["start 2", "start 3", "start 4"]);
    assert_eq!(
        (bench.plane.phase(CONSOLE), bench.plane.phase(DRIVER)),
        (Some(Phase::Down), Some(Phase::Down))
    );
    assert!(bench.is_running(GUEST));
    assert_eq!(bench.read("/atoll/ready").as_deref(), Some("1"));
}

#[test]
fn domains_talk_to_xenstore_and_hear_of_each_other() {
    let mut bench = bench_of(&manifest());
    bench.plane.turn(false);
    bench.world.send(CONSOLE, XS_WATCH, b"@introduceDomain\0i\0");
    bench.settle();
    let ok = (XS_WATCH, "OK\0".to_string());
    let event = (XS_WATCH_EVENT, "@introduceDomain\0i\0".to_string());
    let received = bench.world.receive(CONSOLE);
    assert_eq!(received[0], ok);
    assert!(
        received.len() > 2 && received[1..].iter().all(|message| *message == event),
        "{received:?}"
    );
    bench.world.send(GUEST, XS_WRITE, b"data/x\0hello");
    bench.world.send(GUEST, XS_READ, b"name\0");
    bench.settle();
    assert_eq!(
        bench.world.receive(GUEST),
        [(XS_WRITE, "OK\0".into()), (XS_READ, "guest".into())]
    );
    assert_eq!(bench.read("/local/domain/4/data/x").as_deref(), Some("hello"));
}

#[test]
fn a_backend_hears_of_its_frontends_steps() {
    let mut bench = bench_of(&manifest());
    bench.settle();
    bench
        .world
        .send(DRIVER, XS_WATCH, b"/local/domain/4/device/vbd/51712/state\0s\0");
    bench.settle();
    bench.world.receive(DRIVER);
    bench.world.send(GUEST, XS_WRITE, b"device/vbd/51712/state\x003");
    bench.settle();
    assert_eq!(
        bench.world.receive(DRIVER),
        [(
            XS_WATCH_EVENT,
            "/local/domain/4/device/vbd/51712/state\0s\0".into()
        )]
    );
}

#[test]
fn what_a_backend_has_published_survives_its_frontends_first_start() {
    let mut bench = bench_of(&manifest());
    bench.plane.turn(false);
    bench.plane.turn(false);
    assert!(bench.is_running(DRIVER) && !bench.is_running(GUEST));
    bench.write("/local/domain/3/backend/vbd/4/51712/state", "2");
    bench.settle();
    assert!(bench.is_running(GUEST));
    assert_eq!(bench.states(), (Some("1".into()), Some("2".into())));
}

#[test]
fn one_broken_ring_stops_nobody_else() {
    let mut bench = bench();
    let page = bench.world.ring(GUEST);
    page.memory()
        .store(
            xen_abi::io::xs_wire::XenstoreDomainInterface::REQ_PROD_OFFSET,
            5000,
        )
        .unwrap();
    bench.world.send(DRIVER, XS_READ, b"name\0");
    bench.settle();
    assert_eq!(bench.world.receive(DRIVER), [(XS_READ, "driver".into())]);
    // A restart heals it.
    bench.end(GUEST, SHUTDOWN_reboot);
    bench.pass(Duration::from_secs(3));
    bench.world.send(GUEST, XS_READ, b"name\0");
    bench.settle();
    assert_eq!(bench.world.receive(GUEST), [(XS_READ, "guest".into())]);
}
