//! The loop against a card of memory and a clock that moves when it is waited for.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use netdom::nic::Offloads;
use unikernel_rt::{DomainId, event::EventChannels, fake::FakeEvents, memory::SharedMemory};

use super::*;
use crate::control::ONE;

const MILLISECOND: Duration = Duration::from_millis(1);

/// What the card does with a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cable {
    /// It comes back.
    Loop,
    /// Another side answers with this.
    Answer(i32),
    /// It is lost, but announced as sent.
    Loose,
    /// The card is dead.
    Dead,
}

struct FakeNic {
    cable: Rc<RefCell<Cable>>,
    events: FakeEvents,
    port: Port,
    sent: VecDeque<Frame>,
    received: VecDeque<Frame>,
}

impl Nic for FakeNic {
    fn address(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn link_up(&mut self) -> bool {
        true
    }
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    fn transmit(&mut self, frame: Frame, pool: &mut Pool) -> Result<(), Frame> {
        let cable = *self.cable.borrow();
        if cable == Cable::Dead {
            return if self.sent.len() < 4 {
                self.sent.push_back(frame);
                Ok(())
            } else {
                Err(frame)
            };
        }
        let mut bytes = [0; frame::LENGTH];
        frame.copy_out(pool, &mut bytes);
        let mut cyclic = Cyclic::decode(&bytes).expect("it sends its own frames");
        match cable {
            Cable::Answer(value) => {
                cyclic.kind = Kind::Answer;
                cyclic.value = value;
                if let Some(piece) = frame.pieces.first() {
                    pool.write(&piece.page, 0, &cyclic.encode([2; 6]));
                }
                self.received.push_back(frame);
            }
            Cable::Loop => self.received.push_back(frame),
            Cable::Loose | Cable::Dead => self.sent.push_back(frame),
        }
        Ok(())
    }
    fn kick(&mut self) {
        if *self.cable.borrow() != Cable::Dead {
            self.events.advance(Duration::from_micros(3));
            self.events.fire(self.port);
        }
    }
    fn reclaim(&mut self, pool: &mut Pool) {
        if *self.cable.borrow() != Cable::Dead {
            self.sent.drain(..).for_each(|frame| frame.release(pool));
        }
    }
    fn receive(&mut self, _: &mut Pool) -> Option<Frame> {
        self.received.pop_front()
    }
    fn refill(&mut self, _: &mut Pool) {}
    fn rearm(&mut self) {}
}

fn bench(cable: Cable) -> (Station, FakeEvents, Rc<RefCell<Cable>>) {
    let events = FakeEvents::new(DomainId(5));
    let port = events.bind_virq(40).unwrap();
    let cable = Rc::new(RefCell::new(cable));
    let nic = FakeNic {
        cable: cable.clone(),
        events: events.clone(),
        port,
        sent: VecDeque::new(),
        received: VecDeque::new(),
    };
    let pool = Pool::new(SharedMemory::allocate(64).unwrap(), 0);
    let card = Card {
        nic: Box::new(nic),
        pool,
        port,
    };
    let station = Station::new(Rc::new(events.clone()), Some(card), MILLISECOND);
    (station, events, cable)
}

/// Goes on until there were so many turns.
fn turns(station: &mut Station, count: u64) {
    let wanted = station.figures.wake.summary().count + count;
    while station.figures.wake.summary().count < wanted {
        station.wait();
    }
}

#[test]
fn the_plant_is_controlled_through_the_card() {
    let (mut station, ..) = bench(Cable::Loop);
    turns(&mut station, 990);
    assert!((station.measured - ONE).abs() < ONE / 100, "{}", station.measured);
    let figures = &station.figures;
    assert_eq!((figures.missed, figures.unannounced), (0, 0));
    assert_eq!(figures.silent, 1, "only the first turn has no input");
    assert!(figures.interrupt.summary().count >= 989);
    assert_eq!(figures.interrupt.summary().most, 3000);
}

#[test]
fn an_answer_from_outside_is_the_input() {
    let (mut station, ..) = bench(Cable::Answer(1234));
    turns(&mut station, 3);
    station.wait();
    assert_eq!(station.measured, 1234);
}

#[test]
fn a_late_turn_is_measured_and_deadlines_that_passed_are_counted() {
    let (mut station, events, _) = bench(Cable::Loop);
    turns(&mut station, 2);
    station.wait();
    assert_eq!(station.figures.wake.summary().most, 0);
    events.advance(Duration::from_micros(3_500));
    turns(&mut station, 1);
    assert_eq!(station.figures.missed, 2);
    assert!(station.figures.wake.summary().most > 2_000_000);
    assert_eq!(station.sequence, 5);
    let deadline = station.periods.deadline();
    assert_eq!(deadline.as_nanos() % 1_000_000, 0);
}

#[test]
fn a_card_that_says_nothing_costs_no_turn_and_no_memory() {
    let (mut station, _, cable) = bench(Cable::Loose);
    turns(&mut station, 500);
    assert_eq!(station.figures.silent, 500);
    *cable.borrow_mut() = Cable::Dead;
    turns(&mut station, 500);
    assert_eq!(station.figures.wake.summary().count, 1000);
    assert_eq!(station.figures.missed, 0);
    assert!(station.figures.unannounced > 0);
    let card = station.card.as_ref().unwrap();
    assert_eq!(card.pool.available(), 64 - 4, "the dead card has four");
    // Work in the slack has its turns all the same.
    assert!((0..4).any(|_| {
        station.wait();
        station.slack() > Duration::from_micros(500)
    }));
}

#[test]
fn without_a_card_the_loop_turns_all_the_same() {
    let events = FakeEvents::new(DomainId(5));
    let mut station: Station = Station::new(Rc::new(events), None, MILLISECOND);
    for _ in 0..100 {
        assert!(station.wait().turn);
    }
    assert_eq!(station.figures.missed, 0);
    assert_eq!(station.slack(), MILLISECOND);
}
