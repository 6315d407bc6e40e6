use super::*;
use crate::{
    store::{Path, Permissions, Quota},
    wire::encode,
};
use proptest::prelude::*;
use std::{cell::Cell, rc::Rc};
use unikernel_rt::memory::SharedMemory;
use xen_abi::io::xs_wire::*;

const CONTROL: DomainId = DomainId(1);
const GUEST: DomainId = DomainId(2);

struct TestLink {
    ring: ByteChannel,
    notified: Rc<Cell<u32>>,
}

impl Link for TestLink {
    fn ring(&self) -> &ByteChannel {
        &self.ring
    }

    fn notify(&self) {
        self.notified.set(self.notified.get() + 1);
    }
}

/// Both ends of a connection.
struct Pair {
    store: Store,
    connection: Connection<TestLink>,
    page: SharedMemory,
    client: ByteChannel,
    notified: Rc<Cell<u32>>,
}

fn pair() -> Pair {
    let mut store = Store::new(CONTROL, Quota::default());
    let own = Permissions::private(GUEST);
    store
        .put(&Path::absolute("/local/domain/2/data").unwrap(), b"", &own)
        .unwrap();
    let page = SharedMemory::allocate(1).unwrap();
    let notified = Rc::new(Cell::new(0));
    let link = TestLink {
        ring: ByteChannel::store_server(page.clone()).unwrap(),
        notified: notified.clone(),
    };
    let connection = Connection::open(GUEST, "guest", link);
    let client = ByteChannel::store_client(page.clone()).unwrap();
    Pair {
        store,
        connection,
        page,
        client,
        notified,
    }
}

impl Pair {
    fn turn(&mut self) -> bool {
        let more = self.connection.serve(&mut self.store);
        for notification in self.store.take_notifications() {
            self.connection.deliver(&notification);
        }
        self.connection.flush(&mut self.store);
        more
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = [0; 2048];
        let length = self.client.read(&mut bytes).unwrap();
        bytes[..length].to_vec()
    }

    /// Sends whatever the length, and gathers what comes back.
    fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        let (mut sent, mut received) = (0, Vec::new());
        for _ in 0..200 {
            sent += self.client.write(&request[sent..]).unwrap();
            self.turn();
            received.extend(self.receive());
        }
        assert_eq!(sent, request.len());
        received
    }
}

#[test]
fn answers_through_the_ring_and_notifies() {
    let mut pair = pair();
    assert_eq!(pair.page.load(Page::SERVER_FEATURES_OFFSET).unwrap(), 3);
    pair.client
        .write(&encode(XS_WRITE, 9, 0, b"data\0value"))
        .unwrap();
    assert!(!pair.turn());
    assert_eq!(pair.receive(), encode(XS_WRITE, 9, 0, b"OK\0"));
    assert_eq!(pair.notified.get(), 1);
    assert!(!pair.turn());
    assert_eq!(pair.notified.get(), 1);
}

#[test]
fn carries_messages_longer_than_the_ring() {
    let mut pair = pair();
    let payload = [b"data\0".to_vec(), vec![b'x'; 4000]].concat();
    assert_eq!(
        pair.exchange(&encode(XS_WRITE, 1, 0, &payload)),
        encode(XS_WRITE, 1, 0, b"OK\0")
    );
    assert_eq!(
        pair.exchange(&encode(XS_READ, 2, 0, b"data\0")),
        encode(XS_READ, 2, 0, &payload[5..])
    );
}

#[test]
fn a_request_that_comes_before_the_last_one_is_taken_is_seen_without_a_word() {
    let Pair {
        mut store,
        mut connection,
        client,
        ..
    } = pair();
    let request = encode(XS_DIRECTORY, 1, 0, b"/\0");
    client.write(&request).unwrap();
    assert!(!connection.serve(&mut store));
    // On another processor, before the journal is written: the first request is still in the ring, so nobody is told of the second.
    client.write(&request).unwrap();
    assert!(connection.flush(&mut store));
    assert!(!connection.serve(&mut store));
    assert!(!connection.flush(&mut store));
}

#[test]
fn a_turn_is_bounded() {
    let mut pair = pair();
    let request = encode(XS_READ, 1, 0, b"data\0");
    let flood: Vec<u8> = request.iter().copied().cycle().take(request.len() * 40).collect();
    pair.client.write(&flood).unwrap();
    assert!(pair.turn());
    let reply = encode(XS_READ, 1, 0, b"");
    assert_eq!(pair.receive().len(), reply.len() * REQUESTS_A_TURN);
    while pair.turn() {}
    assert_eq!(pair.receive().len(), reply.len() * (40 - REQUESTS_A_TURN));
}

#[test]
fn a_domain_that_does_not_read_is_not_answered_for_ever() {
    let mut pair = pair();
    let payload = [b"data\0".to_vec(), vec![b'x'; 4000]].concat();
    pair.exchange(&encode(XS_WRITE, 1, 0, &payload));
    let request = encode(XS_READ, 1, 0, b"data\0");
    for _ in 0..100 {
        pair.client.write(&request).unwrap();
        assert!(!pair.turn() || pair.connection.reply_bytes < BACKLOG_MAX);
    }
    assert!(pair.connection.reply_bytes < BACKLOG_MAX + HEADER_LENGTH + PAYLOAD_MAX);
    // Once it reads, it goes on where it stood.
    let mut received = 0;
    for _ in 0..1000 {
        received += pair.receive().len();
        pair.turn();
    }
    assert!(
        received > 20 * 4000 && received.is_multiple_of(HEADER_LENGTH + 4000),
        "{received}"
    );
}

#[test]
fn events_wait_once_and_not_without_bound() {
    let mut pair = pair();
    let event = |number: usize| Notification {
        domain: GUEST,
        path: format!("data/{number}"),
        token: Rc::from(b"token".as_slice()),
    };
    pair.client.write(&[0; 3]).unwrap();
    for _ in 0..5 {
        pair.connection.deliver(&event(0));
    }
    assert_eq!(pair.connection.waiting.len(), 1);
    for number in 0..2 * EVENTS_MAX {
        pair.connection.deliver(&event(number));
    }
    assert_eq!(pair.connection.waiting.len(), EVENTS_MAX);
    assert!(pair.connection.event_bytes <= EVENT_BYTES_MAX);
    while pair.connection.event_bytes > 0 {
        pair.turn();
        pair.receive();
    }
    assert_eq!(pair.connection.event_bytes, 0);
    pair.connection.deliver(&event(0));
    assert_eq!(pair.connection.waiting.len(), 1);
}

#[test]
fn an_event_that_is_half_sent_does_not_swallow_the_next() {
    let mut pair = pair();
    let event = Notification {
        domain: GUEST,
        path: "p".repeat(1500),
        token: Rc::from(b"t".as_slice()),
    };
    pair.connection.deliver(&event);
    pair.turn();
    pair.connection.deliver(&event);
    assert_eq!(
        (pair.connection.waiting.len(), pair.connection.outgoing.len()),
        (1, 2)
    );
}

#[test]
fn nonsense_indices_close_it_with_an_error() {
    for (index, value) in [
        (Page::REQ_PROD_OFFSET, 1025),
        (Page::REQ_PROD_OFFSET, u32::MAX),
        (Page::REQ_CONS_OFFSET, 1),
        (Page::RSP_CONS_OFFSET, 1),
    ] {
        let mut pair = pair();
        pair.connection.deliver(&Notification {
            domain: GUEST,
            path: "p".into(),
            token: Rc::from([]),
        });
        pair.page.store(index, value).unwrap();
        pair.turn();
        assert!(pair.connection.is_closed(), "{index} {value}");
        assert_eq!(
            pair.page.load(Page::ERROR_OFFSET).unwrap(),
            XENSTORE_ERROR_RINGIDX
        );
        assert!(!pair.turn());
    }
}

#[test]
fn an_oversized_message_closes_it_and_reconnecting_opens_it() {
    let mut pair = pair();
    pair.exchange(&encode(XS_WATCH, 1, 0, b"data\0token\0"));
    let mut header = encode(XS_READ, 1, 0, b"");
    header[12..].copy_from_slice(&5000u32.to_le_bytes());
    pair.client.write(&header).unwrap();
    pair.turn();
    assert!(pair.connection.is_closed());
    assert_eq!(pair.page.load(Page::ERROR_OFFSET).unwrap(), XENSTORE_ERROR_PROTO);
    pair.client.write(&encode(XS_READ, 1, 0, b"data\0")).unwrap();
    pair.turn();
    assert_eq!(pair.receive(), b"");
    pair.page
        .store(Page::CONNECTION_OFFSET, XENSTORE_RECONNECT)
        .unwrap();
    pair.turn();
    assert!(!pair.connection.is_closed());
    assert_eq!(
        pair.page.load(Page::CONNECTION_OFFSET).unwrap(),
        XENSTORE_CONNECTED
    );
    assert_eq!(
        pair.exchange(&encode(XS_WRITE, 2, 0, b"data\0v")),
        encode(XS_WRITE, 2, 0, b"OK\0")
    );
}

proptest! {
    #[test]
    fn whatever_is_in_the_page_never_panics(
        junk in prop::collection::vec(any::<u8>(), 1024),
        indices in prop::collection::vec((0usize..7, prop_oneof![0u32..2000, any::<u32>()]), 0..6),
        turns in 1usize..6,
    ) {
        let mut pair = pair();
        pair.page.copy_in(Page::REQ_OFFSET, &junk).unwrap();
        for (index, value) in indices {
            pair.page.store(Page::REQ_CONS_OFFSET + 4 * index, value).unwrap();
            for _ in 0..turns {
                pair.turn();
            }
        }
    }
}
