use proptest::prelude::*;

use super::bytes::ByteChannel;
use super::*;
use crate::memory::PAGE_SIZE;

type Front = FrontRing<[u32; 3], u32>;
type Back = BackRing<[u32; 3], u32>;

fn pair(pages: usize) -> (SharedMemory, Front, Back) {
    let memory = SharedMemory::allocate(pages).unwrap();
    let front = Front::create(memory.clone()).unwrap();
    let back = Back::attach(memory.clone()).unwrap();
    (memory, front, back)
}

#[test]
fn who_needs_several_requests_hears_of_each_until_they_are_there() {
    let (_, mut front, mut back) = pair(1);
    front.push(&[0; 3]).unwrap();
    let _ = front.publish().unwrap();
    assert!(!back.final_check_for(3).unwrap(), "one is not enough");
    for (found, is_enough) in [(2, false), (3, true)] {
        front.push(&[found; 3]).unwrap();
        assert!(front.publish().unwrap(), "the backend sleeps");
        assert_eq!(back.final_check_for(3).unwrap(), is_enough);
    }
    assert!(back.final_check().unwrap());
}

#[test]
fn capacities_are_those_of_the_c_macros() {
    // blkif: 112 bytes an entry, 32 in a page; netif: 12 and 8 bytes, 256 in a page.
    assert_eq!(
        Shape::new(SharedMemory::allocate(1).unwrap(), 112)
            .unwrap()
            .capacity,
        32
    );
    assert_eq!(
        Shape::new(SharedMemory::allocate(16).unwrap(), 112)
            .unwrap()
            .capacity,
        512
    );
    assert_eq!(pair(1).1.capacity(), 256);
    assert!(Shape::new(SharedMemory::allocate(1).unwrap(), 5000).is_err());
}

#[test]
fn requests_travel_and_responses_come_back() {
    let (_, mut front, mut back) = pair(1);
    assert!(!back.final_check().unwrap());
    front.push(&[1, 2, 3]).unwrap();
    assert_eq!(
        back.pop().unwrap(),
        None,
        "nothing is seen before it is published"
    );
    assert!(front.publish().unwrap(), "a sleeping backend wants to know");
    assert_eq!(back.pop().unwrap(), Some([1, 2, 3]));
    front.push(&[4, 5, 6]).unwrap();
    assert!(!front.publish().unwrap(), "a backend at work does not");
    assert!(back.final_check().unwrap(), "and finds the rest before it sleeps");
    assert_eq!(back.pop().unwrap(), Some([4, 5, 6]));
    assert_eq!(back.outstanding(), 2);
    back.push(&7).unwrap();
    assert!(back.publish().unwrap());
    assert_eq!(front.pop().unwrap(), Some(7));
    assert_eq!(front.pop().unwrap(), None);
    back.push(&8).unwrap();
    assert_eq!(
        back.push(&9),
        Err(RingError::Full { capacity: 256 }),
        "an answer without a request"
    );
}

#[test]
fn a_rebuilt_backend_sees_what_has_no_answer() {
    let (memory, mut front, mut back) = pair(1);
    for number in 0..5 {
        front.push(&[number; 3]).unwrap();
    }
    let _ = front.publish().unwrap();
    back.pop().unwrap();
    back.pop().unwrap();
    back.push(&100).unwrap();
    let _ = back.publish().unwrap();
    back.push(&101).unwrap();
    drop(back);

    let mut back = Back::attach(memory.clone()).unwrap();
    assert_eq!(
        back.available().unwrap(),
        4,
        "an answer that was not published does not count"
    );
    assert_eq!(back.pop().unwrap().map(|request| request[1]), Some(1));
    let mut other = Back::attach(memory).unwrap();
    other.skip_to(3).unwrap();
    assert_eq!(other.pop().unwrap(), Some([3; 3]));
    assert!(other.skip_to(6).is_err() && other.skip_to(3).is_err());
}

#[test]
fn a_frontend_that_claims_too_much_is_found_out() {
    let (memory, _, mut back) = pair(1);
    memory.store(REQ_PROD, 257).unwrap();
    assert_eq!(
        back.pop(),
        Err(RingError::Index {
            claimed: 257,
            capacity: 256
        })
    );
    memory.store(REQ_PROD, 256).unwrap();
    assert_eq!(back.available().unwrap(), 256);
    back.pop().unwrap();
    memory.store(REQ_PROD, 0).unwrap();
    assert!(back.available().is_err(), "it cannot take back what was taken");
}

#[test]
fn a_backend_that_answers_what_nobody_asked_is_found_out() {
    let (memory, mut front, _) = pair(1);
    front.push(&[0; 3]).unwrap();
    let _ = front.publish().unwrap();
    memory.store(RSP_PROD, 2).unwrap();
    assert!(front.pop().is_err());
    memory.store(RSP_PROD, u32::MAX).unwrap();
    assert!(front.pop().is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Publish,
    Pop,
    Answer,
    PublishAnswers,
    Collect,
    Rebuild,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1u8..40).prop_map(Step::Push),
        Just(Step::Publish),
        Just(Step::Pop),
        Just(Step::Answer),
        Just(Step::PublishAnswers),
        Just(Step::Collect),
        Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    /// In-order service loses nothing and repeats no answer, whatever happens in between, and across the wrap of the indices.
    #[test]
    fn every_request_gets_its_answer_once(steps in steps(), start in any::<u32>()) {
        let memory = SharedMemory::allocate(1).unwrap();
        let mut front = FrontRing::<[u32; 20], u32>::create(memory.clone()).unwrap();
        front.start_at(start);
        let mut back = BackRing::<[u32; 20], u32>::attach(memory.clone()).unwrap();
        let (mut sent, mut answered) = (0u32, 0u32);
        let mut taken = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Push(count) => for _ in 0..count {
                    if front.free() > 0 {
                        front.push(&[sent; 20]).unwrap();
                        sent += 1;
                    }
                },
                Step::Publish => { let _ = front.publish().unwrap(); }
                Step::Pop => while let Some(request) = back.pop().unwrap() { taken.push_back(request[19]); },
                Step::Answer => if let Some(number) = taken.pop_front() { back.push(&number).unwrap(); },
                Step::PublishAnswers => { let _ = back.publish().unwrap(); }
                Step::Collect => while let Some(number) = front.pop().unwrap() {
                    prop_assert_eq!(number, answered);
                    answered += 1;
                },
                Step::Rebuild => {
                    // Answers that were not published overwrite only their own requests' slots: an in-order backend
                    // may lose them if it publishes before it dies or restores them; here it publishes.
                    let _ = back.publish().unwrap();
                    taken.clear();
                    back = BackRing::attach(memory.clone()).unwrap();
                }
            }
        }
    }

    /// Whatever stands in the page: no panic, and never more entries than the ring has.
    #[test]
    fn hostile_indices_are_errors_or_small(
        values in prop::collection::vec((0usize..4, any::<u32>(), 0u8..6), 1..200),
    ) {
        let (memory, mut front, mut back) = pair(1);
        for (index, value, action) in values {
            memory.store(index * 4, value).unwrap();
            match action {
                0 => prop_assert!(back.available().unwrap_or(0) <= 256),
                1 => { let _ = back.pop(); }
                2 => { let _ = back.push(&1); let _ = back.publish(); }
                3 => { let _ = front.push(&[1; 3]); let _ = front.publish(); }
                4 => { let _ = front.pop(); }
                _ => { let _ = (back.final_check(), front.final_check()); }
            }
            prop_assert!(back.outstanding() <= 256 && front.free() <= 256);
            if let Ok(mut fresh) = Back::attach(memory.clone()) {
                prop_assert!(fresh.available().unwrap() <= 256);
            }
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in(chunks in prop::collection::vec((0usize..1500, 0usize..1500), 1..50)) {
        let page = SharedMemory::allocate(1).unwrap();
        let client = ByteChannel::store_client(page.clone()).unwrap();
        let server = ByteChannel::store_server(page).unwrap();
        let (mut next, mut expected) = (0u8, 0u8);
        for (write, read) in chunks {
            let bytes: Vec<u8> = (0..write).map(|offset| next.wrapping_add(offset as u8)).collect();
            let room = client.writable().unwrap();
            let written = client.write(&bytes).unwrap();
            prop_assert_eq!(written, write.min(room));
            next = next.wrapping_add(written as u8);
            let mut target = vec![0; read];
            let length = server.read(&mut target).unwrap();
            for &byte in &target[..length] {
                prop_assert_eq!(byte, expected);
                expected = expected.wrapping_add(1);
            }
        }
    }

    #[test]
    fn hostile_byte_indices_are_errors_or_small(indices in any::<[u32; 4]>()) {
        let page = SharedMemory::allocate(1).unwrap();
        for (offset, value) in [2048, 2052, 2056, 2060, 3072, 3076, 3080, 3084].into_iter().zip(indices.repeat(2)) {
            page.store(offset, value).unwrap();
        }
        let mut buffer = [0; PAGE_SIZE];
        for channel in [ByteChannel::store_server(page.clone()), ByteChannel::console_backend(page.clone())] {
            let channel = channel.unwrap();
            prop_assert!(channel.read(&mut buffer).unwrap_or(0) <= 2048);
            prop_assert!(channel.write(&buffer).unwrap_or(0) <= 2048);
        }
    }
}

#[test]
fn both_ends_of_a_console_fit() {
    let page = SharedMemory::allocate(1).unwrap();
    let domain = ByteChannel::console_frontend(page.clone()).unwrap();
    let console = ByteChannel::console_backend(page.clone()).unwrap();
    assert_eq!(domain.write(&[b'x'; 3000]).unwrap(), 2048);
    assert_eq!(console.readable().unwrap(), 2048);
    assert_eq!(page.read::<u32>(3084).unwrap(), 2048, "out_prod");
    assert_eq!(console.write(&[b'y'; 3000]).unwrap(), 1024);
    let mut buffer = [0; 4];
    assert_eq!(domain.read(&mut buffer).unwrap(), 4);
    assert_eq!(
        page.read::<[u32; 2]>(3072).unwrap(),
        [4, 1024],
        "in_cons, in_prod"
    );
}
