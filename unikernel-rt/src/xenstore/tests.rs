use alloc::rc::Rc;

use proptest::prelude::*;
use xen_abi::io::xs_wire::{XS_ERROR, XS_READ, XS_WATCH_EVENT};

use super::wire::{Assembler, Message, join, strings};
use super::*;
use crate::event::{Channel, EventChannels, Events};
use crate::fake::{FakeEvents, FakeStore};
use crate::memory::SharedMemory;
use crate::ring::bytes::ByteChannel;
use crate::time::{Clock, Instant};

proptest! {
    #[test]
    fn messages_survive_any_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..10),
        cut in 1usize..50,
    ) {
        let messages: Vec<Message> =
            (0..).zip(payloads).map(|(number, payload)| Message::new(XS_READ, number, 0, payload)).collect();
        let stream: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        for chunk in stream.chunks(cut) {
            assembler.feed(chunk);
            while let Some(message) = assembler.message().unwrap() {
                found.push(message);
            }
        }
        prop_assert_eq!(found, messages);
    }

    #[test]
    fn noise_is_an_error_or_a_message(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut assembler = Assembler::default();
        assembler.feed(&noise);
        let _ = assembler.wanted();
        while let Ok(Some(message)) = assembler.message() {
            let _ = message.strings();
        }
        let _ = strings(&noise);
    }

    #[test]
    fn permissions_read_as_they_are_written(domain in any::<u16>(), rights in 0usize..4) {
        let rights = [Rights::None, Rights::Read, Rights::Write, Rights::Both][rights];
        let permission = Permission { domain: DomainId(domain), rights };
        prop_assert_eq!(permission.to_string().parse::<Permission>().unwrap(), permission);
    }

    #[test]
    fn no_text_is_a_permission_by_accident(text in "\\PC{0,6}") {
        let _ = text.parse::<Permission>();
    }
}

#[test]
fn lists_of_strings_are_told_apart() {
    assert_eq!(strings(b"").unwrap(), [""; 0]);
    assert_eq!(strings(b"a\0bc\0").unwrap(), ["a", "bc"]);
    assert_eq!(strings(b"a\0bc").unwrap(), ["a", "bc"]);
    assert_eq!(strings(&join(&["", "x"])).unwrap(), ["", "x"]);
    assert!(strings(b"\xff\0").is_err());
}

/// A client, and a server that answers by `answer` whenever the client waits.
fn with_server(mut answer: impl FnMut(Message) -> Vec<Message> + 'static) -> (Client, FakeEvents) {
    let page = SharedMemory::allocate(1).unwrap();
    let events = FakeEvents::new(DomainId(3));
    let server_events = events.as_domain(DomainId(1));
    let port = events.allocate_unbound(DomainId(1)).unwrap();
    let server_port = server_events.bind_interdomain(DomainId(3), port).unwrap();
    let server = ByteChannel::store_server(page.clone()).unwrap();
    let mut assembler = Assembler::default();
    let mut output: Vec<u8> = Vec::new();
    events.on_idle(move || {
        let mut buffer = [0; 700];
        let length = server.read(&mut buffer).unwrap();
        assembler.feed(&buffer[..length]);
        while let Some(message) = assembler.message().unwrap() {
            output.extend(answer(message).iter().flat_map(Message::encode));
        }
        let written = server.write(&output).unwrap();
        output.drain(..written);
        if length + written > 0 {
            server_events.notify(server_port).unwrap();
        }
    });
    let handle: Events = Rc::new(events.clone());
    let channel = Channel::borrow(&handle, port);
    (
        Client::new(ByteChannel::store_client(page).unwrap(), channel),
        events,
    )
}

#[test]
fn requests_longer_than_the_ring_and_answers_too() {
    let (client, _) = with_server(|message| {
        let mut payload = message.payload.clone();
        payload.reverse();
        vec![Message::new(
            message.header.kind,
            message.header.request,
            message.header.transaction,
            payload,
        )]
    });
    let path = "x".repeat(3000);
    let value = client.read(Transaction(9), &path).unwrap();
    assert_eq!(value.len(), 3001);
    assert_eq!((value[0], value[3000]), (0, b'x'));
    assert_eq!(
        client.write(Transaction::NONE, "a", &[0; 4096]),
        Err(StoreError::TooLong(4098))
    );
}

#[test]
fn events_around_an_answer_wake_the_loop_again() {
    for (before, after) in [(true, false), (false, true)] {
        let (client, events) = with_server(move |message| {
            let event = || Message::new(XS_WATCH_EVENT, 0, 0, join(&["backend/vbd", "t"]));
            let mut messages = vec![Message::new(
                message.header.kind,
                message.header.request,
                0,
                b"value".to_vec(),
            )];
            if before {
                messages.insert(0, event());
            }
            if after {
                messages.push(event());
            }
            messages
        });
        assert_eq!(client.read_string("a").unwrap(), "value");
        assert!(
            events
                .wait(Some(Instant::default()))
                .contains(client.port().unwrap())
        );
        let event = client.take_event().unwrap().unwrap();
        assert_eq!((event.path.as_str(), event.token.as_str()), ("backend/vbd", "t"));
        assert_eq!(client.take_event().unwrap(), None);
        // Once, and not for ever.
        assert!(events.poll().is_empty());
    }
}

#[test]
fn refusals_carry_the_servers_name() {
    let (client, _) = with_server(|message| {
        vec![Message::new(
            XS_ERROR,
            message.header.request,
            0,
            b"ENOENT\0".to_vec(),
        )]
    });
    assert!(client.read(Transaction::NONE, "a").unwrap_err().is_not_found());
    assert_eq!(client.read_optional("a").unwrap(), None);
    assert!(!client.exists("a").unwrap());
}

#[test]
fn a_server_that_talks_nonsense_is_an_error() {
    for payload in [b"\xff\xff\0".to_vec(), b"no token\0".to_vec()] {
        let (client, _) = with_server(move |_| vec![Message::new(XS_WATCH_EVENT, 0, 0, payload.clone())]);
        assert!(client.read(Transaction::NONE, "a").is_err());
    }
    let (client, _) = with_server(|message| {
        let mut wrong = Message::new(XS_READ, message.header.request, 0, Vec::new());
        wrong.header.length = 5000;
        vec![wrong]
    });
    assert!(matches!(
        client.read(Transaction::NONE, "a"),
        Err(StoreError::Wire(_))
    ));
    let (client, _) = with_server(|_| Vec::new());
    assert!(matches!(
        client.read(Transaction::NONE, "a"),
        Err(StoreError::NoAnswer(_))
    ));
}

#[test]
fn an_event_that_waits_already_is_not_queued_twice() {
    let (client, _) = with_server(|message| {
        let event = |path: &str| Message::new(XS_WATCH_EVENT, 0, 0, join(&[path, "token"]));
        let answer = Message::new(XS_READ, message.header.request, 0, Vec::new());
        vec![event("a"), event("a"), event("b"), event("a"), answer]
    });
    client.read(Transaction::NONE, "a").unwrap();
    client.read(Transaction::NONE, "a").unwrap();
    let paths: Vec<String> = core::iter::from_fn(|| client.take_event().unwrap())
        .map(|event| event.path)
        .collect();
    assert_eq!(paths, ["a", "b"]);
}

#[test]
fn long_directories_come_in_parts() {
    let names: Vec<String> = (0..900).map(|number| format!("node-{number}")).collect();
    let list = join(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (client, _) = with_server(move |message| {
        let request = message.header.request;
        if message.header.kind == xen_abi::io::xs_wire::XS_DIRECTORY {
            return vec![Message::new(XS_ERROR, request, 0, b"E2BIG\0".to_vec())];
        }
        let from: usize = message.strings().unwrap()[1].parse().unwrap();
        let end = list.len().min(from + 2000);
        // Parts end with whole names; the last one with an empty name.
        let end = from + list[from..end].iter().rposition(|&byte| byte == 0).unwrap() + 1;
        let mut payload = b"17\0".to_vec();
        payload.extend_from_slice(&list[from..end]);
        if end == list.len() {
            payload.push(0);
        }
        vec![Message::new(message.header.kind, request, 0, payload)]
    });
    assert_eq!(client.directory(Transaction::NONE, "many").unwrap(), names);
}

#[test]
fn transactions_are_tried_again() {
    let store = FakeStore::new(DomainId(3));
    let other = store.as_domain(DomainId(1));
    let mut tries = 0;
    let result = store.transaction(|transaction| {
        tries += 1;
        if tries < 3 {
            other.put(&[("/other", "1")]);
        }
        store.write(transaction, "/mine", b"2")?;
        Ok(tries)
    });
    assert_eq!(result, Ok(3));
    assert_eq!(other.get("/mine"), "2");
    let failed: Result<(), _> = store.transaction(|transaction| {
        store.write(transaction, "/mine", b"3")?;
        Err(StoreError::malformed("number", "x"))
    });
    assert!(failed.is_err());
    assert_eq!(store.get("/mine"), "2");
}

#[test]
fn the_fake_tells_watchers_what_a_server_would() {
    let store = FakeStore::new(DomainId(3));
    store.watch("device", "d").unwrap();
    assert_eq!(store.take_event().unwrap().unwrap().path, "device");
    store.as_domain(DomainId(1)).put(&[
        ("/local/domain/3/device/vbd/1", "x"),
        ("/local/domain/3/devices", ""),
    ]);
    assert_eq!(store.take_event().unwrap().unwrap().path, "device/vbd/1");
    store.remove(Transaction::NONE, "/local/domain/3").unwrap();
    assert_eq!(store.take_event().unwrap().unwrap().path, "device");
    assert_eq!(store.take_event().unwrap(), None);
    assert!(store.watch("device", "d").is_err() && store.unwatch("device", "x").is_err());
}

#[test]
fn posts_wait_for_nobody_and_their_answers_are_taken_on_the_way() {
    let (client, events) = with_server(|message| {
        let refused = message.payload.starts_with(b"closed\0");
        let kind = if refused { XS_ERROR } else { message.header.kind };
        let payload = if refused {
            b"EACCES\0".to_vec()
        } else {
            b"OK\0".to_vec()
        };
        vec![Message::new(kind, message.header.request, 0, payload)]
    });
    let before = events.now();
    let posted = (0..20).take_while(|_| client.post("open", b"1").unwrap()).count();
    assert_eq!(posted, 8, "the server had no turn yet");
    assert_eq!(events.now(), before);
    // A call that waits finds its own answer behind those.
    client.write(Transaction::NONE, "open", b"2").unwrap();
    assert!(client.post("closed", b"1").unwrap());
    assert_eq!(client.take_event().unwrap(), None);
    client.write(Transaction::NONE, "open", b"3").unwrap();
    let long = [b'x'; 900];
    assert!(client.post("open", &long).unwrap());
    assert!(!client.post("open", &long).unwrap(), "there is no room for it");
    assert!(matches!(
        client.post("open", &[0; 5000]),
        Err(StoreError::TooLong(_))
    ));
}
