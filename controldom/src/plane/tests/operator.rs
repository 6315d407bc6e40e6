//! What the operator asks for.

use super::*;

const SHUTDOWN_NODE: &str = "/local/domain/4/control/shutdown";

#[test]
fn reads_requests() {
    let parse = |text: &str| Request::parse(text).map(|request| (request.sequence, request.command));
    assert_eq!(
        parse(" 7  restart disk-dom\n"),
        Ok((7, Command::Restart("disk-dom".into())))
    );
    assert_eq!(
        parse("1 shutdown"),
        Ok((1, Command::GoDown(MachineAction::PowerOff)))
    );
    assert_eq!(parse("1 reboot"), Ok((1, Command::GoDown(MachineAction::Reboot))));
    assert_eq!(parse("restart x"), Err((0, RequestError::NoSequence)));
    assert_eq!(parse("-1 reboot"), Err((0, RequestError::NoSequence)));
    assert_eq!(
        parse("2 dance"),
        Err((2, RequestError::UnknownCommand("dance".into())))
    );
    assert!(matches!(
        parse("3 restart"),
        Err((3, RequestError::Arguments(..)))
    ));
    assert!(matches!(
        parse("3 restart a b"),
        Err((3, RequestError::Arguments(..)))
    ));
    assert!(matches!(
        parse("3 reboot now"),
        Err((3, RequestError::Arguments(..)))
    ));
}

#[test]
fn restarts_a_driver_at_once() {
    let mut bench = bench();
    assert_eq!(bench.request("1 restart driver"), "1 ok driver is started");
    assert_eq!(bench.world.take_calls(), ["destroy 3", "start 3"]);
    // The same number is the same request.
    bench.request("1 restart driver");
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.request("2 restart driver");
    assert_eq!(bench.world.take_calls(), ["destroy 3", "start 3"]);
}

#[test]
fn refuses_what_it_cannot_do() {
    let mut bench = bench();
    assert_eq!(
        bench.request("1 restart nobody"),
        "1 error there is no domain \"nobody\"; there are consoledom, driver, guest"
    );
    assert!(
        bench
            .request("2 restart controldom")
            .starts_with("2 error controldom is the supervisor")
    );
    assert!(
        bench
            .request("3 dance")
            .starts_with("3 error \"dance\" is no command")
    );
    assert!(
        bench
            .request("nonsense")
            .starts_with("0 error a request begins with")
    );
    let long = format!("4 restart {}", "é".repeat(3000));
    assert!(bench.request(&long).starts_with("4 error") && bench.reply().len() <= 2048);
}

#[test]
fn a_guest_connects_its_devices_anew() {
    let mut bench = bench();
    for (request, reply) in [
        ("1 reconnect driver", "1 error driver is a unikernel"),
        ("2 reconnect nobody", "2 error there is no domain"),
        ("3 reconnect", "3 error reconnect takes the name"),
        (
            "4 reconnect guest",
            "4 error guest does not say that it can suspend",
        ),
    ] {
        let answer = bench.request(request);
        assert!(answer.starts_with(reply), "{answer}");
    }
    bench.write("/local/domain/4/control/feature-suspend", "1");
    bench.write("/local/domain/4/device/vbd/51712/ring-ref", "8");
    bench.request("5 reconnect guest");
    assert_eq!(bench.read(SHUTDOWN_NODE).unwrap(), "suspend");
    bench.end(GUEST, SHUTDOWN_suspend);
    // Its backends close; it is neither destroyed nor built.
    assert_eq!(bench.world.take_calls(), [""; 0]);
    assert_eq!(bench.read("/local/domain/4/device/vbd/51712/state").unwrap(), "6");
    for device in ["vbd/4/51712", "vif/4/0"] {
        bench.write(&format!("/local/domain/3/backend/{device}/state"), "6");
    }
    bench.settle();
    assert_eq!(bench.world.take_calls(), ["resume 4"]);
    assert_eq!(bench.reply(), "5 ok guest is resumed");
    assert_eq!(bench.read("/local/domain/4/device/vbd/51712/state").unwrap(), "1");
    assert_eq!(bench.read("/local/domain/4/device/vbd/51712/ring-ref"), None);
    assert_eq!(
        bench.read("/local/domain/4/control/feature-suspend").unwrap(),
        "1"
    );
    assert!(matches!(bench.plane.phase(GUEST), Some(Phase::Running { .. })));
    // Its xenstore connection works.
    bench.world.send(GUEST, XS_WATCH, b"cpu\0token\0");
    bench.settle();
    assert!(!bench.world.receive(GUEST).is_empty());
    // One that does not follow runs on; one that suspends itself unasked is gone.
    bench.request("6 reconnect guest");
    bench.pass(GUEST_GRACE + Duration::from_secs(1));
    assert_eq!(
        bench.reply(),
        "6 error guest did not suspend itself in time, and runs on"
    );
    assert!(matches!(bench.plane.phase(GUEST), Some(Phase::Running { .. })));
    bench.end(GUEST, SHUTDOWN_suspend);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.plane.phase(GUEST), Some(Phase::Down));
}

#[test]
fn a_backend_has_a_guest_connect_anew() {
    let mut bench = bench();
    let wish = "/local/domain/3/backend/vbd/4/51712/reconnect";
    let state = "/local/domain/3/backend/vbd/4/51712/state";
    bench.write("/local/domain/4/control/feature-suspend", "1");
    bench.write(wish, "1");
    bench.settle();
    assert_eq!(bench.read(SHUTDOWN_NODE).unwrap(), "suspend");
    bench.end(GUEST, SHUTDOWN_suspend);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.world.take_calls(), ["resume 4"]);
    assert_eq!((bench.read(wish), bench.read(state).unwrap()), (None, "4".into()));
    // One that does not is told that its device closes.
    bench.write(wish, "1");
    bench.settle();
    assert_eq!(bench.read(state).unwrap(), "4");
    bench.pass(GUEST_GRACE + Duration::from_secs(1));
    assert_eq!(bench.read(state).unwrap(), "5");
    // So is one that cannot.
    bench.write(wish, "0");
    bench.write(state, "4");
    bench.write("/local/domain/4/control/feature-suspend", "0");
    bench.write(wish, "1");
    bench.settle();
    assert_eq!(bench.read(state).unwrap(), "5");
}

#[test]
fn faults_happen_where_the_appliance_allows_it() {
    let mut bench = bench();
    for (request, reply, calls) in [
        ("1 kill driver", "1 ok kill: driver", &["Kill 3 after 0ns"][..]),
        ("2 hang driver 250", "2 ok hang: driver", &["Hang 3 after 250µs"]),
        (
            "3 corrupt-keep driver",
            "3 ok corrupt-keep: driver",
            &["CorruptKeep 3 after 0ns"],
        ),
        (
            "4 kill controldom",
            "4 ok kill: controldom",
            &["Kill 1 after 0ns"],
        ),
        ("5 kill driver soon", "5 error \"soon\" is no number of", &[]),
        ("6 corrupt-keep driver 5", "6 error corrupt-keep takes", &[]),
        ("7 kill", "7 error kill takes the name", &[]),
        ("8 hang nobody", "8 error there is no domain \"nobody\"", &[]),
        ("9 kill ../ready", "9 error there is no domain", &[]),
    ] {
        let answer = bench.request(request);
        assert!(answer.starts_with(reply), "{answer}");
        assert_eq!(bench.world.take_calls(), calls);
    }
    bench.world.refuse_faults();
    let answer = bench.request("10 kill driver");
    assert!(
        answer.starts_with("10 error this appliance was built without fault injection"),
        "{answer}"
    );
}

#[test]
fn a_guest_is_told_how_many_vcpus_it_may_use() {
    let mut bench = bench();
    let available = |bench: &Bench| {
        [0, 1].map(|vcpu| {
            bench
                .read(&format!("/local/domain/4/cpu/{vcpu}/availability"))
                .unwrap()
        })
    };
    assert_eq!(available(&bench), ["online", "online"]);
    bench.world.send(GUEST, XS_WATCH, b"cpu\0token\0");
    bench.settle();
    bench.world.receive(GUEST);
    assert_eq!(
        bench.request("1 vcpus guest 1"),
        "1 ok guest is asked to run on 1 vCPU of 2"
    );
    assert_eq!(available(&bench), ["online", "offline"]);
    // One event, of the one node that changed.
    assert_eq!(
        bench.world.receive(GUEST),
        [(XS_WATCH_EVENT, "cpu/1/availability\0token\0".into())]
    );
    assert_eq!(
        bench.request("2 vcpus guest 2"),
        "2 ok guest is asked to run on 2 vCPUs of 2"
    );
    assert_eq!(available(&bench), ["online", "online"]);
    for (request, answer) in [
        ("3 vcpus guest 0", "3 error guest can have 1 to 2 vCPUs, not 0"),
        ("4 vcpus guest 3", "4 error guest can have 1 to 2 vCPUs, not 3"),
        ("5 vcpus guest many", "5 error \"many\" is no number of vCPUs"),
        (
            "6 vcpus guest",
            "6 error vcpus takes the name of one domain and a number",
        ),
        ("7 vcpus driver 1", "7 error driver is a unikernel"),
        ("8 vcpus nobody 1", "8 error there is no domain \"nobody\""),
        ("9 vcpus controldom 1", "9 error controldom is the supervisor"),
    ] {
        let reply = bench.request(request);
        assert!(reply.starts_with(answer), "{reply}");
    }
    assert_eq!(available(&bench), ["online", "online"]);
    // The next life begins with all of them.
    bench.request("10 vcpus guest 1");
    bench.request("11 restart guest");
    bench.end(GUEST, SHUTDOWN_reboot);
    assert!(bench.request("12 vcpus guest 1").ends_with("guest does not run"));
    bench.pass(member::LEAVE_TIME * 2);
    assert!(bench.is_running(GUEST));
    assert_eq!(available(&bench), ["online", "online"]);
}

#[test]
fn a_guest_is_asked_to_reboot() {
    let mut bench = bench();
    let before = bench.reply();
    assert_eq!(
        bench.request("1 restart guest"),
        before,
        "the answer waits for the start"
    );
    assert_eq!(bench.read(SHUTDOWN_NODE).as_deref(), Some("reboot"));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.end(GUEST, SHUTDOWN_reboot);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
    assert!(bench.reply().starts_with("1 ok guest"), "{}", bench.reply());
    bench.pass(GUEST_GRACE * 2);
    assert_eq!(bench.world.take_calls(), [""; 0]);
}

#[test]
fn a_guest_that_powers_off_instead_is_restarted_all_the_same() {
    let mut bench = bench();
    bench.request("1 restart guest");
    bench.end(GUEST, SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert!(bench.is_running(GUEST));
}

#[test]
fn a_guest_that_does_not_follow_is_rebuilt() {
    let mut bench = bench();
    bench.request("1 restart guest");
    bench.pass(GUEST_GRACE - Duration::from_secs(1));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "start 4"]);
}

#[test]
fn shuts_down_once_the_guests_have_ended() {
    let mut bench = bench();
    assert_eq!(
        bench.request("1 shutdown"),
        "1 ok going down; waiting for guest, at most 30 s"
    );
    assert_eq!(bench.read(SHUTDOWN_NODE).as_deref(), Some("poweroff"));
    assert_eq!(
        bench.request("2 restart driver"),
        "2 error the machine is going down"
    );
    assert_eq!(bench.request("3 reboot"), "3 error the machine is going down");
    // Disks work to the last.
    bench.end(DRIVER, SHUTDOWN_crash);
    assert_eq!(bench.world.take_calls(), ["destroy 3", "start 3"]);
    bench.end(GUEST, SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "machine PowerOff"]);
    bench.pass(GUEST_GRACE * 2);
    assert_eq!(bench.world.take_calls(), [""; 0]);
}

#[test]
fn a_guest_that_reboots_meanwhile_does_not_come_back() {
    let mut bench = bench();
    bench.request("1 reboot");
    bench.end(GUEST, SHUTDOWN_reboot);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(bench.world.take_calls(), ["destroy 4", "machine Reboot"]);
}

#[test]
fn a_guest_that_hangs_is_not_waited_for_longer_than_its_grace() {
    let mut bench = bench();
    bench.request("1 shutdown");
    bench.pass(GUEST_GRACE - Duration::from_secs(1));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.world.take_calls(), ["machine PowerOff"]);
}

#[test]
fn goes_on_if_the_machine_does_not_go_down() {
    let mut bench = bench();
    bench.world.refuse_machine();
    bench.end(GUEST, SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    bench.world.take_calls();
    assert_eq!(
        bench.request("1 shutdown"),
        "1 ok going down; no guest runs, at most 30 s"
    );
    assert_eq!(bench.world.take_calls(), ["machine PowerOff"]);
    assert_eq!(bench.request("2 restart driver"), "2 ok driver is started");
}

#[test]
fn a_new_console_domain_finds_the_answer_to_what_the_last_one_asked() {
    let mut bench = bench();
    bench.world.take_calls();
    assert_eq!(
        bench.request("7 restart consoledom"),
        "7 ok consoledom is started"
    );
    assert_eq!(bench.world.take_calls(), ["destroy 2", "start 2"]);
    bench.request("8 restart driver");
    bench.world.take_calls();
    bench.end(CONSOLE, SHUTDOWN_crash);
    bench.world.take_calls();
    bench.world.send(CONSOLE, XS_READ, b"/atoll/operator/reply\0");
    bench.settle();
    let reply = bench.world.receive(CONSOLE);
    assert_eq!(reply[0], (XS_READ, "8 ok driver is started".into()));
    // What was followed already is not followed again.
    assert_eq!(bench.world.take_calls(), [""; 0]);
}

#[test]
fn nobody_else_is_the_operator() {
    let mut bench = bench();
    bench
        .world
        .send(GUEST, XS_WRITE, b"/atoll/operator/request\x001 shutdown");
    bench.settle();
    assert_eq!(bench.world.receive(GUEST), [(XS_ERROR, "EACCES\0".into())]);
    assert_eq!(bench.world.take_calls(), [""; 0]);
}

#[test]
fn a_guest_is_told_how_much_memory_it_may_have() {
    let mut bench = bench();
    let target = |bench: &Bench| bench.read("/local/domain/4/memory/target");
    assert_eq!(target(&bench).as_deref(), Some("262144"));
    assert_eq!(
        bench.request("1 memory guest 128M"),
        "1 ok guest is asked to have 128M; list shows how far it is"
    );
    assert_eq!(target(&bench).as_deref(), Some("131072"));
    assert_eq!(bench.world.take_calls(), ["memory 4 32768"]);
    for (request, answer) in [
        (
            "2 memory guest 63M",
            "2 error guest can have 64M to 512M, not 63M",
        ),
        (
            "3 memory guest 513M",
            "3 error guest can have 64M to 512M, not 513M",
        ),
        ("4 memory guest much", "4 error \"much\" is no size"),
        (
            "5 memory guest",
            "5 error memory takes the name of one domain and a size",
        ),
        ("6 memory driver 8M", "6 error driver is a unikernel"),
        ("7 memory nobody 8M", "7 error there is no domain \"nobody\""),
        ("8 memory controldom 8M", "8 error controldom is the supervisor"),
    ] {
        let reply = bench.request(request);
        assert!(reply.starts_with(answer), "{reply}");
    }
    assert_eq!(target(&bench).as_deref(), Some("131072"));
    assert_eq!(bench.world.take_calls(), [""; 0]);
    // What did not work at once is tried again.
    bench.world.take_calls();
    assert!(bench.request("9 memory guest 128M").starts_with("9 ok"));
    assert_eq!(target(&bench).as_deref(), Some("131068"));
    assert!(bench.request("10 memory guest 128M").starts_with("10 ok"));
    assert_eq!(target(&bench).as_deref(), Some("131072"));
    // The next life begins with what the manifest says.
    bench.request("11 restart guest");
    bench.end(GUEST, SHUTDOWN_reboot);
    assert!(
        bench
            .request("12 memory guest 128M")
            .ends_with("guest does not run")
    );
    bench.pass(member::LEAVE_TIME * 2);
    assert!(bench.is_running(GUEST));
    assert_eq!(target(&bench).as_deref(), Some("262144"));
}

#[test]
fn a_guest_that_lacks_memory_tries_again_when_another_is_gone() {
    let mut manifest = manifest();
    let mut second = manifest.domains[3].clone();
    (second.name, second.disks, second.networks) = ("second".into(), vec![], vec![]);
    manifest.domains.push(second);
    let mut bench = bench_of(&manifest);
    bench.settle();
    let target = |bench: &Bench| bench.read("/local/domain/4/memory/target");
    bench.world.set_memory(GUEST, 1000, 65536);
    bench.end(DomainId(5), SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(target(&bench).as_deref(), Some("262140"));
    // Whoever has what it wants is left alone, and a restart needs the memory itself.
    let mut bench = bench_of(&manifest);
    bench.settle();
    bench.world.set_memory(GUEST, 65538, 65536);
    bench.end(DomainId(5), SHUTDOWN_poweroff);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(target(&bench).as_deref(), Some("262144"));
    bench.world.set_memory(GUEST, 1000, 65536);
    bench.end(DRIVER, SHUTDOWN_crash);
    bench.pass(member::LEAVE_TIME * 2);
    assert_eq!(target(&bench).as_deref(), Some("262144"));
}
