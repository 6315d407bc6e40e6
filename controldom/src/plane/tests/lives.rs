//! The control domain dies, at any write, and its next life goes on: no node is lost, each request is answered once, and each event heard once.

use unikernel_rt::{fake::death::after_writes, memory::SharedMemory};

use super::*;
use crate::wire::encode;

/// A machine whose plane has an area to keep things in.
struct Lives {
    area: SharedMemory,
    world: World,
    manifest: Manifest,
}

impl Lives {
    fn new(manifest: Manifest) -> Self {
        Self {
            area: SharedMemory::allocate(64).unwrap(),
            world: machine().1,
            manifest,
        }
    }

    fn life(&self) -> Bench {
        let plan = Plan::new(&self.manifest).unwrap();
        let plane =
            ControlPlane::open(plan, Quota::default(), self.world.hypervisor(), Some(&self.area)).unwrap();
        Bench {
            plane,
            world: self.world.clone(),
        }
    }

    /// A machine at work, whose plane is gone.
    fn at_work(manifest: Manifest) -> Self {
        let lives = Self::new(manifest);
        let mut bench = lives.life();
        bench.settle();
        bench.write("/local/domain/3/backend/vbd/4/51712/state", "4");
        bench.write("/local/domain/4/device/vbd/51712/state", "4");
        bench
            .world
            .send(DRIVER, XS_WATCH, b"/local/domain/4/data\0token\0");
        bench.settle();
        bench.plane.deliver();
        bench.world.receive(DRIVER);
        bench.world.take_calls();
        drop(bench);
        lives
    }
}

#[test]
fn domains_run_on_and_the_tree_is_the_same() {
    let lives = Lives::at_work(manifest());
    let tree = |bench: &Bench| format!("{:?}", bench.read("/local/domain/4/device/vbd/51712/backend"));
    let mut bench = lives.life();
    assert!(bench.is_running(DRIVER) && bench.is_running(GUEST) && bench.is_running(CONSOLE));
    let before = tree(&bench);
    bench.settle();
    assert_eq!(bench.world.take_calls(), [""; 0]);
    assert_eq!(bench.states(), (Some("4".into()), Some("4".into())));
    assert_eq!(bench.read(READY).as_deref(), Some("1"));
    let mut again = lives.life();
    again.settle();
    assert_eq!(tree(&again), before);
    again.end(DRIVER, SHUTDOWN_crash);
    assert_eq!(again.world.take_calls(), ["destroy 3", "start 3"]);
}

#[test]
fn a_transaction_that_was_under_way_has_met_a_conflict() {
    let begin = |bench: &mut Bench| -> u32 {
        bench.world.send(GUEST, XS_TRANSACTION_START, b"\0");
        bench.settle();
        let reply = bench.world.receive(GUEST);
        reply[0].1.trim_end_matches('\0').parse().unwrap()
    };
    let lives = Lives::at_work(manifest());
    let mut bench = lives.life();
    let id = begin(&mut bench);
    let ring = bench.world.ring(GUEST);
    let say = |kind, payload: &[u8]| {
        let message = encode(kind, 1, id, payload);
        assert_eq!(ring.write(&message).unwrap(), message.len());
    };
    say(XS_WRITE, b"data/x\0mine");
    bench.settle();
    bench.world.receive(GUEST);
    drop(bench);
    // Twice, so that it is told of by changes, and by everything anew.
    drop(lives.life());
    let mut bench = lives.life();
    // A stock frontend takes an error in the middle for a fatal one, and one at the end for a reason to try again.
    say(XS_READ, b"data/x\0");
    say(XS_WRITE, b"data/y\0lost");
    say(XS_TRANSACTION_END, b"T\0");
    bench.settle();
    let answers = [
        (XS_READ, "mine".to_string()),
        (XS_WRITE, "OK\0".into()),
        (XS_ERROR, "EAGAIN\0".into()),
    ];
    assert_eq!(bench.world.receive(GUEST), answers);
    assert_eq!(bench.read("/local/domain/4/data/x"), None);
    assert!(begin(&mut bench) > id);
}

#[test]
fn a_death_at_any_write_loses_nothing_and_repeats_nothing() {
    // The driver watches what the guest writes; the guest may let it.
    let mut steps = 0;
    for writes in 0.. {
        let lives = Lives::at_work(manifest());
        let mut bench = lives.life();
        bench.world.send(GUEST, XS_SET_PERMS, b"data\0b4\0r3\0");
        bench.settle();
        bench.world.receive(GUEST);
        bench.world.receive(DRIVER);
        let died = after_writes(writes, || {
            bench.world.send(GUEST, XS_WRITE, b"data\0one");
            bench.settle();
            bench.world.send(GUEST, XS_WRITE, b"data/two\0two");
            bench.settle();
        });
        let mut replies = Vec::new();
        let mut events = Vec::new();
        drop(bench);
        let mut bench = lives.life();
        bench.settle();
        replies.extend(bench.world.receive(GUEST));
        events.extend(bench.world.receive(DRIVER));
        // What the guest had written of its requests when the world ended was whole, or is not there.
        let values = (
            bench.read("/local/domain/4/data"),
            bench.read("/local/domain/4/data/two"),
        );
        let done = usize::from(values.0.as_deref() == Some("one")) + usize::from(values.1.is_some());
        assert_eq!(
            replies.len(),
            done,
            "after {writes} writes: {replies:?} {values:?}"
        );
        assert!(replies.iter().all(|(kind, _)| *kind == XS_WRITE), "{replies:?}");
        assert_eq!(events.len(), done, "after {writes} writes: {events:?} {values:?}");
        assert!(bench.is_running(GUEST) && bench.is_running(DRIVER));
        if !died {
            assert_eq!(done, 2);
            break;
        }
        steps += 1;
    }
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_death_at_any_write_of_a_rebuild_ends_with_the_domain_running() {
    for writes in 0.. {
        let lives = Lives::at_work(manifest());
        let mut bench = lives.life();
        let died = after_writes(writes, || {
            bench.end(DRIVER, SHUTDOWN_crash);
        });
        drop(bench);
        lives.world.take_stopped();
        let mut bench = lives.life();
        // As the control domain does when it starts.
        bench.plane.turn(true);
        bench.settle();
        assert!(
            bench.is_running(DRIVER),
            "after {writes} writes: {:?}",
            bench.plane.phase(DRIVER)
        );
        assert_eq!(bench.states(), (Some("4".into()), Some("4".into())));
        bench.world.send(DRIVER, XS_DIRECTORY, b"backend/vbd/4\0");
        bench.settle();
        assert_eq!(
            bench.world.receive(DRIVER).last(),
            Some(&(XS_DIRECTORY, "51712\0".into()))
        );
        if !died {
            break;
        }
    }
}

#[test]
fn a_journal_that_cannot_be_believed_costs_a_new_beginning() {
    let lives = Lives::at_work(manifest());
    for half in [0, 32 * 4096] {
        lives.area.fill(half + 500, 3000, 0x5a).unwrap();
    }
    let mut bench = lives.life();
    bench.settle();
    let calls = bench.world.take_calls();
    assert_eq!(
        calls,
        [
            "destroy 2",
            "destroy 3",
            "destroy 4",
            "start 2",
            "start 3",
            "start 4"
        ]
    );
    assert_eq!(bench.states(), (Some("1".into()), Some("1".into())));
}

#[test]
fn a_journal_that_is_full_is_written_anew_and_one_that_is_too_small_is_given_up() {
    let lives = Lives::at_work(manifest());
    let mut bench = lives.life();
    let value = [b'x'; 700];
    for number in 0..600 {
        bench.write(
            &format!("/local/domain/4/data/{}", number % 20),
            &String::from_utf8_lossy(&value),
        );
        bench.settle();
        bench.plane.deliver();
    }
    drop(bench);
    let bench = lives.life();
    assert_eq!(
        bench.read("/local/domain/4/data/7").map(|value| value.len()),
        Some(700)
    );
    drop(bench);
    let small = Lives {
        area: SharedMemory::allocate(1).unwrap(),
        ..Lives::new(manifest())
    };
    let mut bench = small.life();
    bench.settle();
    drop(bench);
    small.world.take_calls();
    let mut bench = small.life();
    bench.settle();
    assert!(bench.world.take_calls().contains(&"destroy 4".to_string()));
    assert!(bench.is_running(GUEST));
}
