//! Runs real code through every order in which processors and guests can take their steps.
//!
//! A model is a function that sets up a small world anew and names its actors: closures that run the code under test, each on a stack of its own.
//! Every access to a watched place by way of [`crate::sync`] is a step, before which any other actor may go on. [`explore`] runs the function again and again,
//! depth first through all choices, and leaves a path where it comes to a state that it has seen: the bytes of what is watched, the store buffers, and for each
//! actor the values that it has seen so far (an actor is deterministic, so these say where it is; [`settle`] shortens them where the actor knows
//! better). A path fails when an actor panics, when some wait and nobody can go on, or when what the model demands at its end does not hold.
//!
//! What two actors share must be watched, or reached within [`section`]: else states are taken for one that are not.
#![allow(unsafe_code)] // Suspends the actor that is running, from below its own stack.

mod explorer;
#[cfg(test)]
mod tests;

use core::{
    cell::{Cell, RefCell},
    hash::{Hash, Hasher},
};
use std::{boxed::Box, collections::VecDeque, hash::DefaultHasher, rc::Rc, vec::Vec};

use corosensei::{Coroutine, Yielder, stack::DefaultStack};

use super::shared::{read_words, write_word};
pub use explorer::{Outcome, deep, explore};

type Suspend = Yielder<(), ()>;
type Stack = Coroutine<(), (), (), DefaultStack>;

type Condition = Rc<dyn Fn() -> bool>;
type Digest = Box<dyn Fn() -> u64>;

struct NamedActor {
    name: &'static str,
    /// It may be left waiting.
    server: bool,
    gate: Option<Condition>,
    act: Box<dyn FnOnce()>,
}

/// A world under exploration.
#[derive(Default)]
pub struct Scenario {
    actors: Vec<NamedActor>,
    watched: Vec<(usize, usize)>,
    end: Vec<Box<dyn Fn()>>,
    digests: Vec<Digest>,
    keep: Vec<Box<dyn core::any::Any>>,
}

impl Scenario {
    /// Adds an actor, which has to come to its end on every path.
    pub fn actor(&mut self, name: &'static str, act: impl FnOnce() + 'static) {
        self.actors.push(NamedActor {
            name,
            server: false,
            gate: None,
            act: Box::new(act),
        });
    }

    /// Adds an actor that may be left waiting.
    pub fn server(&mut self, name: &'static str, act: impl FnOnce() + 'static) {
        self.actors.push(NamedActor {
            name,
            server: true,
            gate: None,
            act: Box::new(act),
        });
    }

    /// Adds an actor that takes steps only while the gate is open: a guest, which somebody has to run.
    pub fn gated(
        &mut self,
        name: &'static str,
        gate: impl Fn() -> bool + 'static,
        act: impl FnOnce() + 'static,
    ) {
        self.actors.push(NamedActor {
            name,
            server: false,
            gate: Some(Rc::new(gate)),
            act: Box::new(act),
        });
    }

    /// What else makes up a state, condensed.
    pub fn digest(&mut self, digest: impl Fn() -> u64 + 'static) {
        self.digests.push(Box::new(digest));
    }

    /// Accesses to these bytes are steps. They live as long as the path.
    pub fn watch(&mut self, address: usize, length: usize) {
        self.watched.push((address, length));
    }

    /// Watches a value, for as long as the path.
    pub fn watch_value<T: 'static>(&mut self, value: &Rc<T>) {
        self.watch(Rc::as_ptr(value) as usize, size_of::<T>());
        self.keep.push(Box::new(value.clone()));
    }

    /// A number that actors share.
    pub fn number(&mut self) -> Rc<crate::sync::AtomicU64> {
        let number = Rc::default();
        self.watch_value(&number);
        number
    }

    /// What has to hold when nobody can go on; it panics if not.
    pub fn at_end(&mut self, check: impl Fn() + 'static) {
        self.end.push(Box::new(check));
    }
}

/// What an actor waits for.
#[derive(Clone)]
enum Wait {
    Nothing,
    Condition(Condition),
    Interrupt,
    /// A step of another, since this many had been taken.
    Change(u64),
    Choice(usize),
    Done,
}

struct Stored {
    address: usize,
    size: usize,
    value: u64,
}

struct Actor {
    name: &'static str,
    server: bool,
    gate: Option<Condition>,
    wait: Wait,
    /// Condenses what it has seen.
    history: u64,
    steps: u64,
    /// Its last turn of a waiting loop: history and steps after it.
    spun: Option<(u64, u64)>,
    buffer: VecDeque<Stored>,
    interrupted: bool,
    /// An interrupt is on its way.
    in_flight: bool,
    chosen: usize,
    suspend: *const Suspend,
}

/// The path that is under way.
struct Path {
    actors: Vec<Actor>,
    watched: Vec<(usize, usize)>,
    digests: Rc<[Digest]>,
    current: Option<usize>,
    /// Steps taken by anybody.
    steps: u64,
    /// Condenses what happened in sections.
    sections: u64,
    in_section: bool,
    trace: Vec<(usize, &'static str, usize, u64)>,
}

std::thread_local! {
    static PATH: RefCell<Option<Path>> = const { RefCell::new(None) };
    /// An actor runs, and is not being ended.
    static ACTING: Cell<bool> = const { Cell::new(false) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

fn with<R>(act: impl FnOnce(&mut Path) -> R) -> R {
    PATH.with_borrow_mut(|path| act(path.as_mut().expect("a path is under way")))
}

fn actor<R>(act: impl FnOnce(&mut Actor) -> R) -> R {
    with(|path| {
        let current = path.current.expect("an actor runs");
        act(&mut path.actors[current])
    })
}

fn acting() -> bool {
    ACTING.get() && !std::thread::panicking()
}

fn condense(history: u64, value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (history, value).hash(&mut hasher);
    hasher.finish()
}

fn suspend(wait: Wait) {
    let yielder = actor(|actor| {
        actor.wait = wait;
        // Before its next step is another place than before it began.
        actor.history = condense(actor.history, "suspended");
        actor.suspend
    });
    // SAFETY: the actor that runs suspends itself by its own yielder, which lives as long as its stack.
    unsafe { &*yielder }.suspend(());
}

/// A step under way.
pub(super) struct Step {
    what: &'static str,
    address: usize,
    size: usize,
}

/// Lets others go on, then begins an access; `None` if nobody watches it.
pub(super) fn step(what: &'static str, (address, size): (usize, usize)) -> Option<Step> {
    if !acting() || size > 0 && !is_watched(address) {
        return None;
    }
    suspend(Wait::Nothing);
    Some(Step { what, address, size })
}

fn is_watched(address: usize) -> bool {
    with(|path| {
        let mut watched = path.watched.iter();
        watched.any(|(start, length)| (*start..start + length).contains(&address))
    })
}

impl Step {
    /// What the actor itself has stored there and nobody else sees yet.
    pub(super) fn buffered(&self) -> Option<u64> {
        actor(|actor| {
            let mut newest = actor.buffer.iter().rev();
            newest
                .find(|stored| (stored.address, stored.size) == (self.address, self.size))
                .map(|stored| stored.value)
        })
    }

    /// What the actor has learnt, or written.
    pub(super) fn done(self, value: u64) {
        let place = place(self.address);
        actor(|actor| {
            actor.steps += 1;
            actor.history = condense(actor.history, (self.what, place, value));
        });
        note(self.what, place, value);
    }
}

/// A name of an address that is the same on every path.
fn place(address: usize) -> usize {
    with(|path| {
        let inside = |(start, length): &(usize, usize)| (*start..start + length).contains(&address);
        let found = path.watched.iter().position(inside);
        found.map_or(0, |index| index << 16 | (address - path.watched[index].0))
    })
}

fn note(what: &'static str, place: usize, value: u64) {
    with(|path| {
        let current = path.current.unwrap_or(0);
        path.trace.push((current, what, place, value));
    });
}

/// Puts a store into the buffer of the actor that runs; false if it is to be made at once.
pub(super) fn buffer((address, size): (usize, usize), value: u64) -> bool {
    if !acting() || !is_watched(address) {
        return false;
    }
    let place = place(address);
    actor(|actor| {
        actor.buffer.push_back(Stored { address, size, value });
        actor.history = condense(actor.history, ("buffer", place, value));
    });
    note("buffer", place, value);
    true
}

/// Makes all buffered stores of the actor that runs.
pub(super) fn drain() {
    if acting() {
        for stored in actor(|actor| core::mem::take(&mut actor.buffer)) {
            write_word(stored.address, stored.size, stored.value);
        }
    }
}

/// Bytes are about to be copied out or in: a step for each watched range that is among them.
pub(super) fn touch(address: usize, length: usize) {
    if !acting() {
        return;
    }
    let end = address + length;
    let ranges: Vec<(usize, usize)> = with(|path| {
        let parts = path
            .watched
            .iter()
            .map(|(start, length)| (address.max(*start), end.min(start + length)));
        parts.filter(|(start, end)| start < end).collect()
    });
    for (start, end) in ranges {
        suspend(Wait::Nothing);
        drain();
        let mut hasher = DefaultHasher::new();
        read_words(start, end - start, |word| hasher.write_u64(word));
        let step = Step {
            what: "copy",
            address: start,
            size: 0,
        };
        step.done(hasher.finish());
    }
}

/// Lets others go on, before something that they share but that is no word.
pub fn pause() {
    if acting() {
        suspend(Wait::Nothing);
        actor(|actor| actor.steps += 1);
    }
}

/// Waits until somebody else has taken a step; false if no actor runs. A loop of few steps that comes here again has learnt nothing.
pub(super) fn spin() -> bool {
    if !acting() {
        return false;
    }
    let steps = with(|path| path.steps);
    actor(|actor| {
        match actor.spun {
            Some((history, steps)) if actor.steps <= steps + 2 => actor.history = history,
            _ => {}
        }
        actor.spun = Some((actor.history, actor.steps));
    });
    suspend(Wait::Change(steps));
    true
}

/// Waits until a condition holds, which looks at things without taking steps.
pub fn wait_until(condition: impl Fn() -> bool + 'static) {
    suspend(Wait::Condition(Rc::new(condition)));
}

/// Waits for an interrupt, which may have come before, and takes it.
pub fn wait_for_interrupt() {
    if acting() {
        suspend(Wait::Interrupt);
        actor(|actor| actor.interrupted = false);
        note("interrupt taken", 0, 0);
    }
}

/// Takes an interrupt, if there is one: what a window of enabled interrupts does.
pub fn take_interrupt() -> bool {
    acting() && actor(|actor| core::mem::take(&mut actor.interrupted))
}

/// Whether an interrupt has come to the actor that runs.
pub fn is_interrupted() -> bool {
    acting() && actor(|actor| actor.interrupted)
}

/// Sends an interrupt to an actor, by its number, where it comes some time later. Its sender's stores can be seen before.
pub fn interrupt(number: usize) {
    if acting() {
        drain();
        with(|path| {
            if let Some(actor) = path.actors.get_mut(number) {
                actor.in_flight = true;
            }
        });
        note("interrupt to", number, 0);
    }
}

/// Goes on in each of `count` ways.
pub fn choose(count: usize) -> usize {
    suspend(Wait::Choice(count));
    let chosen = actor(|actor| {
        actor.history = condense(actor.history, ("chosen", actor.chosen));
        actor.chosen
    });
    note("chooses", chosen, 0);
    chosen
}

/// What the actor knows from here on is this and nothing else: states that differ only in how it came here are the same.
pub fn settle(known: impl Hash) {
    actor(|actor| actor.history = condense(0, ("settled", known)));
}

/// The actor that runs has learnt something that is not watched.
pub fn learn(what: impl Hash) {
    if acting() {
        actor(|actor| actor.history = condense(actor.history, ("learnt", what)));
    }
}

/// The number of the actor that runs; `None` outside of all.
pub fn current() -> Option<usize> {
    if acting() { with(|path| path.current) } else { None }
}

/// What is reached by one actor at a time, by other means than sections, is now this.
pub fn left(digest: u64) {
    with(|path| path.sections = digest);
}

/// Waits until an interrupt is there, and leaves it.
pub fn wait_interrupted() {
    suspend(Wait::Interrupt);
}

/// Whether an interrupt is there for an actor, by its number.
pub fn has_interrupt(number: usize) -> bool {
    with(|path| path.actors[number].interrupted)
}

/// A remark for the trace of a path that fails.
pub fn remark(what: &'static str, value: u64) {
    if acting() {
        note(what, 0, value);
    }
}

/// Begins a section: what is reached in sections alone is one actor's at a time. Ends with [`Section::end`].
pub fn section() -> Section {
    wait_until(|| with(|path| !path.in_section));
    with(|path| path.in_section = true);
    let outside = actor(|actor| actor.history);
    let before = with(|path| path.sections);
    actor(|actor| actor.history = condense(actor.history, ("section", before)));
    Section { outside }
}

/// See [`section`].
pub struct Section {
    outside: u64,
}

impl Section {
    /// Ends it: what the actor takes along, and the digest of what is reached in sections, if the model has one.
    pub fn end(self, learnt: impl Hash, digest: Option<u64>) {
        drain();
        with(|path| {
            let current = path.current.expect("an actor runs");
            let actor = &mut path.actors[current];
            path.sections = digest.unwrap_or_else(|| condense(actor.history, current));
            actor.history = condense(self.outside, ("learnt", learnt));
            path.in_section = false;
        });
    }
}
