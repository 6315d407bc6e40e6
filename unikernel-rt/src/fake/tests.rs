use alloc::rc::Rc;
use core::time::Duration;

use super::*;
use crate::DomainId;
use crate::console::Console;
use crate::event::{Channel, EventChannels, Events, Port};
use crate::grant::{Access, CopyEnd, CopyOperation, GrantError, GrantRef, GrantedPages, Grants, MapRequest};
use crate::memory::SharedMemory;
use crate::ring::bytes::ByteChannel;
use crate::time::{Clock, Instant};

const FRONT: DomainId = DomainId(5);
const BACK: DomainId = DomainId(2);

fn request(reference: GrantRef, access: Access) -> MapRequest {
    MapRequest {
        domain: FRONT,
        reference,
        access,
        device: true,
    }
}

#[test]
fn grants_are_mapped_while_somebody_refers_to_them() {
    let back = FakeGrants::new(BACK);
    let front: Rc<dyn Grants> = Rc::new(back.as_domain(FRONT));
    let pages = GrantedPages::allocate(&front, BACK, 3, Access::ReadWrite).unwrap();
    let requests: Vec<_> = pages
        .references()
        .iter()
        .rev()
        .map(|&r| request(r, Access::ReadWrite))
        .collect();
    let mapping = back.map(&requests).unwrap();
    mapping.memory().write(8190, &0x0403_0201_u32).unwrap();
    assert_eq!(pages.memory().read::<u16>(8190).unwrap(), 0x0201);
    assert_eq!(pages.memory().read::<u16>(0).unwrap(), 0x0403);
    assert_eq!(mapping.pages(), 3);
    let part = mapping.memory().part(4096, 4096).unwrap();
    drop(mapping);
    assert_eq!(back.mapped_pages(), 3, "a part keeps the whole");
    assert_eq!(
        front.end(pages.references()[1]),
        Err(GrantError::InUse(pages.references()[1]))
    );
    drop(part);
    assert_eq!(back.mapped_pages(), 0);
}

#[test]
fn what_was_not_granted_cannot_be_used() {
    let back = FakeGrants::new(BACK);
    let front = back.as_domain(FRONT);
    let memory = SharedMemory::allocate(1).unwrap();
    let read_only = front.grant(BACK, &memory, 0, Access::ReadOnly).unwrap();
    let others = front.grant(DomainId(7), &memory, 0, Access::ReadWrite).unwrap();
    assert!(back.map(&[request(read_only, Access::ReadWrite)]).is_err());
    assert!(
        back.map(&[
            request(read_only, Access::ReadOnly),
            request(others, Access::ReadOnly)
        ])
        .is_err()
    );
    assert_eq!(back.mapped_pages(), 0, "all or nothing");
    let each = back.map_each(&[
        request(read_only, Access::ReadOnly),
        request(GrantRef(1), Access::ReadOnly),
    ]);
    assert!(each[0].is_ok() && each[1].is_err());
}

#[test]
fn copies_have_an_outcome_each() {
    let back = FakeGrants::new(BACK);
    let front = back.as_domain(FRONT);
    let (theirs, ours) = (
        SharedMemory::allocate(1).unwrap(),
        SharedMemory::allocate(2).unwrap(),
    );
    theirs.copy_in(100, b"packet").unwrap();
    let reference = front.grant(BACK, &theirs, 0, Access::ReadOnly).unwrap();
    let from = |offset| CopyEnd::Granted {
        domain: FRONT,
        reference,
        offset,
    };
    let to = CopyEnd::Local {
        memory: &ours,
        offset: 4093,
    };
    let mut results = Vec::new();
    let operations = [
        CopyOperation {
            source: from(100),
            target: to,
            length: 6,
        },
        CopyOperation {
            source: from(4092),
            target: to,
            length: 6,
        },
        CopyOperation {
            source: to,
            target: from(0),
            length: 1,
        },
    ];
    back.copy(&operations, &mut results);
    assert!(results[0].is_ok() && results[1].is_err() && results[2].is_err());
    assert_eq!(&ours.read::<[u8; 6]>(4093).unwrap(), b"packet");
}

#[test]
fn a_channel_has_two_ends_and_survives_a_rebuild() {
    let front = FakeEvents::new(FRONT);
    let back = front.as_domain(BACK);
    let (front_events, back_events): (Events, Events) = (Rc::new(front.clone()), Rc::new(back.clone()));
    let channel = Channel::allocate_unbound(&front_events, BACK).unwrap();
    assert!(Channel::bind_interdomain(&back_events, FRONT, Port(99)).is_err());
    let other = Channel::bind_interdomain(&back_events, FRONT, channel.port()).unwrap();
    back.poll();
    channel.notify();
    assert!(back.poll().contains(other.port()) && back.poll().is_empty());
    back.kill();
    core::mem::forget(other);
    let again = Channel::bind_interdomain(&back_events, FRONT, channel.port()).unwrap();
    again.notify();
    assert!(front.wait_for(channel.port(), None));
    assert_eq!(back.take_notified().len(), 1);
}

#[test]
fn waiting_passes_the_time() {
    let events = FakeEvents::new(BACK);
    let deadline = Instant::from_nanos(1000);
    assert!(events.wait(Some(deadline)).is_empty());
    assert_eq!(events.now(), deadline);
    let waker = events.clone();
    events.on_idle(move || {
        waker.advance(Duration::from_nanos(10));
        waker.fire(Port(3));
    });
    assert!(events.wait(None).contains(Port(3)));
    events.mask(Port(3));
    assert!(!events.poll().contains(Port(3)));
}

#[test]
fn a_console_waits_for_its_peer() {
    use embedded_io::{Read, ReadReady, Write};
    let page = SharedMemory::allocate(1).unwrap();
    let fake = FakeEvents::new(FRONT);
    let backend = ByteChannel::console_backend(page.clone()).unwrap();
    let waker = fake.clone();
    fake.on_idle(move || {
        let mut buffer = [0; 1000];
        let length = backend.read(&mut buffer).unwrap();
        backend.write(&buffer[..length.min(4)]).unwrap();
        waker.fire(Port(1));
    });
    let events: Events = Rc::new(fake);
    let mut console = Console::new(
        ByteChannel::console_frontend(page).unwrap(),
        Channel::borrow(&events, Port(1)),
    );
    console.write_all(&[b'z'; 5000]).unwrap();
    let mut buffer = [0; 100];
    assert!(console.read_ready().unwrap());
    assert!(console.read(&mut buffer).unwrap() >= 4);
    assert_eq!(buffer[..4], *b"zzzz");
}
