//! The loop: what happens at a deadline, and at an interrupt of the card.

use alloc::boxed::Box;
use core::time::Duration;

use heapless::Vec;
use netdom::{
    frame::{Frame, Piece},
    nic::Nic,
    pool::Pool,
};
use unikernel_rt::{
    event::{Events, Port, PortSet},
    time::Instant,
};

use crate::{
    control::{Controller, Plant, wanted},
    figures::Figures,
    frame::{self, Cyclic, Kind},
    periods::Periods,
};

/// Frames that are looked at after one interrupt: a flood on the cable must not take the turn.
const MOST_FRAMES: usize = 8;

/// A card, its memory, and where it interrupts.
pub struct Card {
    /// The card.
    pub nic: Box<dyn Nic>,
    /// The pages that its frames lie in.
    pub pool: Pool,
    /// The port of its interrupt.
    pub port: Port,
}

/// The loop's state.
pub struct Station {
    events: Events,
    card: Option<Card>,
    periods: Periods,
    controller: Controller,
    plant: Plant,
    sequence: u32,
    measured: i32,
    /// The card has sent something back since the last turn.
    answered: bool,
    /// When the card was told of a frame that it has not announced yet.
    rung: Option<Instant>,
    /// What was measured.
    pub figures: Figures,
}

/// What one wait brought.
pub struct Moment {
    /// There was a turn.
    pub turn: bool,
    /// What fired and is not the card's.
    pub fired: PortSet,
}

impl Station {
    /// A loop that is about to begin.
    pub fn new(events: Events, card: Option<Card>, period: Duration) -> Self {
        let periods = Periods::starting(events.now(), period);
        Self {
            events,
            card,
            periods,
            controller: Controller::default(),
            plant: Plant::default(),
            sequence: 0,
            measured: 0,
            answered: false,
            rung: None,
            figures: Figures::default(),
        }
    }

    /// Waits for the next deadline, or for whatever fires before, and does what the loop has to do then.
    pub fn wait(&mut self) -> Moment {
        let deadline = self.periods.deadline();
        let mut fired = self.events.wait(Some(deadline));
        let now = self.events.now();
        let port = self.card.as_ref().map(|card| card.port);
        if port.is_some_and(|port| fired.remove(port)) {
            self.interrupted(now);
        }
        let turn = now >= deadline;
        if turn {
            self.turn(now);
        }
        Moment { turn, fired }
    }

    /// Time that is left before the next turn, and free for other work: none while the card is about to interrupt.
    pub fn slack(&self) -> Duration {
        if self.rung.is_some() {
            return Duration::ZERO;
        }
        self.periods.deadline().since(self.events.now())
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.events.now()
    }

    /// A turn that begins at `now`.
    fn turn(&mut self, now: Instant) {
        let (late, missed) = self.periods.begin(now);
        self.figures.wake.record(late);
        self.figures.missed = self.figures.missed.saturating_add(missed);
        self.sequence = self
            .sequence
            .wrapping_add(1)
            .wrapping_add(u32::try_from(missed).unwrap_or(u32::MAX));
        if !core::mem::take(&mut self.answered) {
            self.figures.silent = self.figures.silent.saturating_add(1);
        }
        let silent = self.rung.take().is_some();
        if silent {
            // It may have sent the frame all the same; whatever there is must not wait for ever.
            self.figures.unannounced = self.figures.unannounced.saturating_add(1);
            self.collect();
        }
        let value = self.controller.step(wanted(self.sequence), self.measured);
        let sent = self.send(Cyclic {
            kind: Kind::Command,
            sequence: self.sequence,
            value,
        });
        // A card that was silent in the last turn is not waited for in this one, or nothing else would ever be done.
        self.rung = sent.filter(|_| !silent);
    }

    /// Hands the card a frame; the time just before the doorbell.
    fn send(&mut self, cyclic: Cyclic) -> Option<Instant> {
        let card = self.card.as_mut()?;
        let page = card.pool.allocate()?;
        card.pool.write(&page, 0, &cyclic.encode(card.nic.address()));
        let piece = Piece {
            page,
            offset: 0,
            length: frame::LENGTH as u16,
        };
        let mut pieces = Vec::new();
        if let Err(piece) = pieces.push(piece) {
            card.pool.free(piece.page);
            return None;
        }
        let frame = Frame {
            pieces,
            ..Frame::default()
        };
        if let Err(frame) = card.nic.transmit(frame, &mut card.pool) {
            frame.release(&mut card.pool);
            return None;
        }
        let rung = self.events.now();
        card.nic.kick();
        Some(rung)
    }

    /// The card has interrupted, and the handler began at `now`.
    fn interrupted(&mut self, now: Instant) {
        if let Some(rung) = self.rung.take() {
            self.figures.interrupt.record(now - rung);
        }
        self.collect();
    }

    /// Takes what the card has, and lets it interrupt again.
    fn collect(&mut self) {
        let Some(card) = &mut self.card else { return };
        card.nic.rearm();
        card.nic.reclaim(&mut card.pool);
        for _ in 0..MOST_FRAMES {
            let Some(frame) = card.nic.receive(&mut card.pool) else {
                break;
            };
            let mut bytes = [0; frame::LENGTH];
            let length = frame.copy_out(&card.pool, &mut bytes);
            frame.release(&mut card.pool);
            let Some(cyclic) = Cyclic::decode(&bytes[..length]) else {
                continue;
            };
            self.measured = match cyclic.kind {
                Kind::Answer => cyclic.value,
                // Our own frame came back: nothing answers on this cable, so we play the other side, too.
                Kind::Command => self.plant.step(cyclic.value),
            };
            self.answered = true;
        }
        card.nic.refill(&mut card.pool);
    }
}

#[cfg(test)]
mod tests;
