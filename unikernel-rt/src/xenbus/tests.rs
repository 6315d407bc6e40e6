use alloc::rc::Rc;
use core::cell::RefCell;

use super::*;
use crate::DomainId;
use crate::fake::FakeStore;
use crate::xenstore::{Store, StoreExt, Transaction};

const OWN: &str = "/local/domain/2/backend/vbd/5/51712";
const PEER: &str = "/local/domain/5/device/vbd/51712";
const DISK: DeviceId = DeviceId {
    peer: DomainId(5),
    index: 51712,
};

#[derive(Default)]
struct Disks {
    log: Rc<RefCell<Vec<String>>>,
    absent: bool,
}

impl Backend for Disks {
    type Connection = u32;

    fn class(&self) -> &str {
        "vbd"
    }

    fn publish(&mut self, device: &Device) -> Result<(), DeviceError> {
        self.log.borrow_mut().push(format!("publish {}", device.id.index));
        if self.absent {
            return Err(DeviceError::other("volume main does not exist"));
        }
        Ok(device.write("feature-flush-cache", 1)?)
    }

    fn connect(&mut self, device: &Device, attach: Attach) -> Result<u32, DeviceError> {
        self.log.borrow_mut().push(format!("connect {attach:?}"));
        Ok(device.peer_grant("ring-ref")?.0)
    }

    fn disconnect(&mut self, _device: &Device, connection: u32) {
        self.log.borrow_mut().push(format!("disconnect {connection}"));
    }
}

fn layout(own_state: &str, peer_state: &str) -> FakeStore {
    let store = FakeStore::new(DomainId(2));
    store.put(&[
        (&format!("{PEER}/state"), peer_state),
        (&format!("{PEER}/backend"), OWN),
        (&format!("{PEER}/backend-id"), "2"),
        (&format!("{OWN}/frontend"), PEER),
        (&format!("{OWN}/state"), own_state),
        (&format!("{OWN}/online"), "1"),
    ]);
    store
}

struct Bench {
    store: FakeStore,
    bus: BackendBus<Disks>,
    log: Rc<RefCell<Vec<String>>>,
}

impl Bench {
    fn start(store: FakeStore) -> Self {
        let disks = Disks::default();
        let log = disks.log.clone();
        let bus = BackendBus::start(Rc::new(store.clone()), disks).unwrap();
        let mut bench = Self { store, bus, log };
        bench.settle();
        bench
    }

    fn settle(&mut self) {
        while let Some(event) = self.store.take_event().unwrap() {
            assert!(self.bus.handle(&event).unwrap(), "{event:?}");
        }
    }

    fn peer(&mut self, nodes: &[(&str, &str)]) {
        for (key, value) in nodes {
            self.store.put(&[(&format!("{PEER}/{key}"), value)]);
        }
        self.settle();
    }

    fn state(&self) -> String {
        self.store.get(&format!("{OWN}/state"))
    }

    fn take_log(&self) -> Vec<String> {
        self.log.take()
    }
}

#[test]
fn a_disk_is_offered_connected_and_let_go() {
    let mut bench = Bench::start(layout("1", "1"));
    assert_eq!(bench.state(), "2");
    assert_eq!(bench.store.get(&format!("{OWN}/feature-flush-cache")), "1");
    bench.peer(&[("ring-ref", "8"), ("event-channel", "9"), ("state", "3")]);
    assert_eq!(bench.state(), "4");
    assert_eq!(
        bench.bus.connection(&DISK).map(|(_, connection)| *connection),
        Some(8)
    );
    bench.peer(&[("state", "4")]);
    bench.peer(&[("state", "5")]);
    assert_eq!(bench.state(), "5");
    bench.peer(&[("state", "6")]);
    assert_eq!(bench.state(), "6");
    assert_eq!(
        bench.take_log(),
        ["publish 51712", "connect Fresh", "disconnect 8"]
    );
    // The same frontend comes back.
    bench.peer(&[("state", "1")]);
    assert_eq!(bench.state(), "2");
    bench.peer(&[("ring-ref", "20"), ("state", "3")]);
    assert_eq!((bench.state().as_str(), bench.take_log().len()), ("4", 2));
}

#[test]
fn a_predecessors_connection_is_resumed_in_silence() {
    let store = layout("4", "4");
    store.put(&[(&format!("{PEER}/ring-ref"), "8")]);
    let watcher = store.as_domain(DomainId(5));
    watcher.watch(&format!("{OWN}/state"), "backend").unwrap();
    watcher.take_event().unwrap();
    let mut bench = Bench::start(store);
    assert_eq!(bench.take_log(), ["connect Resume"]);
    assert_eq!(watcher.take_event().unwrap(), None, "the frontend noticed");
    bench.peer(&[("state", "5")]);
    assert_eq!(bench.take_log(), ["disconnect 8"]);
}

#[test]
fn a_frontend_that_left_meanwhile_begins_anew() {
    let bench = Bench::start(layout("4", "1"));
    assert_eq!(
        (bench.state().as_str(), bench.take_log()),
        ("2", vec!["publish 51712".to_string()])
    );
    let bench = Bench::start(layout("4", "6"));
    assert_eq!(bench.state(), "6");
}

#[test]
fn rings_that_cannot_be_taken_over_are_told_to_the_control_domain_alone() {
    let mut bench = Bench::start(layout("4", "4"));
    // Closing would end the frontend's device.
    assert_eq!(bench.state(), "4");
    assert!(bench.store.get(&format!("{OWN}/error")).contains("ENOENT"));
    assert_eq!(bench.store.get(&format!("{OWN}/reconnect")), "1");
    // Nothing is connected before the frontend has begun anew.
    bench.peer(&[("ring-ref", "8"), ("event-channel", "9"), ("state", "4")]);
    assert_eq!(bench.take_log(), ["connect Resume"]);
    bench.peer(&[("state", "1")]);
    assert_eq!(bench.state(), "2");
    bench.peer(&[("state", "3")]);
    assert_eq!(bench.state(), "4");
    assert_eq!(bench.take_log(), ["publish 51712", "connect Fresh"]);
}

#[test]
fn nonsense_in_one_devices_nodes_is_nobody_elses_trouble() {
    let mut bench = Bench::start(layout("1", "1"));
    let own = format!("{OWN}/error");
    bench.store.write(Transaction::NONE, &own, b"\xff").unwrap();
    bench.peer(&[("state", "6")]);
    // `settle` would not survive an error of the bus.
    bench.peer(&[("state", "1")]);
    bench.store.remove(Transaction::NONE, &own).unwrap();
    bench.peer(&[("ring-ref", "8"), ("state", "3")]);
    assert_eq!(bench.state(), "4");
}

#[test]
fn a_turn_handles_a_few_events_and_says_that_there_are_more() {
    let mut bench = Bench::start(layout("1", "1"));
    for child in 0..20 {
        bench.store.put(&[(&format!("{PEER}/state/{child}"), "x")]);
    }
    assert!(bench.bus.handle_events().unwrap());
    assert!(!bench.bus.handle_events().unwrap());
}

#[test]
fn a_sentence_fits_into_a_message() {
    let mut bench = Bench::start(layout("1", "1"));
    let long = "ä".repeat(4000);
    bench.bus.fail(&DISK, &DeviceError::other(long)).unwrap();
    assert_eq!(bench.store.get(&format!("{OWN}/error")).len(), 1024);
}

#[test]
fn an_absent_volume_is_named_and_retried() {
    let store = layout("1", "1");
    let disks = Disks {
        absent: true,
        ..Disks::default()
    };
    let log = disks.log.clone();
    let bus = BackendBus::start(Rc::new(store.clone()), disks).unwrap();
    let mut bench = Bench { store, bus, log };
    bench.settle();
    assert_eq!(bench.state(), "2");
    assert_eq!(
        bench.store.get(&format!("{OWN}/error")),
        "volume main does not exist"
    );
    bench.peer(&[("ring-ref", "8"), ("state", "3")]);
    assert_eq!(bench.state(), "2");
    bench.bus.backend().absent = false;
    bench.bus.retry().unwrap();
    assert_eq!(bench.state(), "4");
    assert_eq!(bench.store.get(&format!("{OWN}/error")), "");
}

#[test]
fn devices_come_and_go() {
    let store = FakeStore::new(DomainId(2));
    let mut bench = Bench::start(store.clone());
    assert_eq!(bench.bus.devices().count(), 0);
    store.put(&[
        ("backend/vbd/5/51712/frontend", PEER),
        (&format!("{PEER}/state"), "1"),
        ("backend/vbd/x/y", ""),
    ]);
    bench.settle();
    assert_eq!(bench.state(), "2");
    bench.peer(&[("ring-ref", "8"), ("state", "3")]);
    assert_eq!(bench.bus.parts().1.count(), 1);
    store.remove(Transaction::NONE, "backend/vbd/5").unwrap();
    bench.settle();
    assert_eq!(bench.bus.devices().count(), 0);
    assert_eq!(bench.take_log().last().map(String::as_str), Some("disconnect 8"));
}

#[test]
fn a_fault_ends_one_connection() {
    let mut bench = Bench::start(layout("1", "1"));
    bench.peer(&[("ring-ref", "8"), ("state", "3")]);
    bench
        .bus
        .fail(&DISK, &DeviceError::other("the ring is nonsense"))
        .unwrap();
    bench.settle();
    assert_eq!(bench.state(), "5");
    bench.peer(&[("state", "4")]);
    assert_eq!(bench.state(), "5", "not before the frontend began anew");
    bench.peer(&[("state", "6")]);
    bench.peer(&[("state", "1")]);
    assert_eq!(bench.state(), "2");
}

#[derive(Default)]
struct DiskUser(Vec<&'static str>);

impl Frontend for DiskUser {
    type Connection = ();

    fn class(&self) -> &str {
        "vbd"
    }

    fn offer(&mut self, device: &Device) -> Result<(), DeviceError> {
        self.0.push("offer");
        Ok(device.write("ring-ref", 8)?)
    }

    fn connected(&mut self, device: &Device, _connection: &mut ()) -> Result<(), DeviceError> {
        assert!(device.peer_has("feature-flush-cache").unwrap());
        self.0.push("connected");
        Ok(())
    }

    fn disconnect(&mut self, _device: &Device, _connection: ()) {
        self.0.push("disconnect");
    }
}

#[test]
fn both_state_machines_find_each_other() {
    let mut bench = Bench::start(layout("1", "4"));
    let store = bench.store.as_domain(DomainId(5));
    let mut user = FrontendDevice::start(Rc::new(store.clone()), DiskUser::default(), 51712).unwrap();
    let settle = |bench: &mut Bench, user: &mut FrontendDevice<DiskUser>| {
        for _ in 0..10 {
            bench.settle();
            while let Some(event) = store.take_event().unwrap() {
                assert!(user.handle(&event).unwrap());
            }
        }
    };
    settle(&mut bench, &mut user);
    assert_eq!((user.state(), bench.state().as_str()), (State::Connected, "4"));
    assert!(user.parts().1.is_some());
    bench.bus.fail(&DISK, &DeviceError::other("enough")).unwrap();
    settle(&mut bench, &mut user);
    assert_eq!(user.parts().0.0, ["offer", "connected", "disconnect"]);
    assert_eq!((user.state(), bench.state().as_str()), (State::Closed, "6"));
    assert_eq!(
        bench.store.read_parsed::<u32>(&format!("{PEER}/state")).unwrap(),
        6
    );
}
