//! The way through all choices of a model.

use core::{
    hash::{Hash, Hasher},
    panic::AssertUnwindSafe,
};
use std::{
    boxed::Box,
    collections::{HashSet, VecDeque},
    format,
    hash::DefaultHasher,
    panic::catch_unwind,
    string::{String, ToString},
    vec::Vec,
};

use corosensei::{Coroutine, CoroutineResult, stack::DefaultStack};

use super::{
    ACTING, Actor, NamedActor, PATH, Path, STACKS, Scenario, Stack, Stored, Suspend, Wait, actor, place, with,
};
use crate::testing::shared::{read_words, write_word};

const STACK: usize = 256 * 1024;

/// What came of an exploration.
#[derive(Debug)]
pub struct Outcome {
    /// Paths that were run.
    pub paths: u64,
    /// States at which there was a choice.
    pub states: usize,
    /// The first path that failed.
    pub failure: Option<String>,
}

impl Outcome {
    /// Panics with the path that fails.
    pub fn holds(self, name: &str) {
        if let Some(failure) = self.failure {
            panic!("{name}: {failure}");
        }
        std::println!("{name}: {} states, {} paths", self.states, self.paths);
        assert!(self.paths > 1, "{name}: there was nothing to explore");
    }

    /// Panics unless a path fails, with this in what it says.
    pub fn fails(self, name: &str, why: &str) {
        let failure = self
            .failure
            .unwrap_or_else(|| panic!("{name}: nothing was found in {} states", self.states));
        let (first, _) = failure.split_once('\n').unwrap_or((&failure, ""));
        assert!(first.contains(why), "{name}: {failure}");
        std::println!("{name}: found after {} paths: {first}", self.paths);
    }
}

/// Whether the bounds are to be the larger ones: `ATOLL_MODELS=deep`.
pub fn deep() -> bool {
    std::env::var("ATOLL_MODELS").is_ok_and(|value| value == "deep")
}

/// Paths after which a model is too large for every day.
const MOST_PATHS: u64 = 400_000;

/// Explores all paths of a model, up to the first that fails.
pub fn explore(model: impl Fn(&mut Scenario)) -> Outcome {
    let mut explorer = Explorer::default();
    let mut paths = 0;
    loop {
        paths += 1;
        let failure = explorer.run(&model).err();
        if failure.is_some() || !explorer.next() {
            return Outcome {
                paths,
                states: explorer.seen.len(),
                failure,
            };
        }
        assert!(
            deep() || paths < MOST_PATHS,
            "{paths} paths and no end: the model is too large"
        );
    }
}

#[derive(Default)]
struct Explorer {
    seen: HashSet<u64>,
    /// The way to the path's choices: which was taken, of how many.
    choices: Vec<(usize, usize)>,
}

#[derive(Clone, Copy)]
enum Next {
    Run(usize, usize),
    Drain(usize),
    Deliver(usize),
}

impl Explorer {
    /// Goes on to the next path.
    fn next(&mut self) -> bool {
        while let Some((taken, count)) = self.choices.last_mut() {
            *taken += 1;
            if *taken < *count {
                return true;
            }
            self.choices.pop();
        }
        false
    }

    fn run(&mut self, model: impl Fn(&mut Scenario)) -> Result<(), String> {
        let mut scenario = Scenario::default();
        model(&mut scenario);
        let (mut stacks, actors) = scenario.actors.into_iter().map(start).unzip::<_, _, Vec<_>, _>();
        PATH.set(Some(Path {
            actors,
            watched: scenario.watched,
            digests: scenario.digests.into(),
            current: None,
            steps: 0,
            sections: 0,
            in_section: false,
            trace: Vec::new(),
        }));
        let result = self.follow(&mut stacks, &scenario.end).map_err(explain);
        for mut stack in stacks {
            stack.force_unwind();
            STACKS.with_borrow_mut(|stacks| stacks.push(stack.into_stack()));
        }
        PATH.set(None);
        result
    }

    fn follow(&mut self, stacks: &mut [Stack], end: &[Box<dyn Fn()>]) -> Result<(), String> {
        let mut depth = 0;
        loop {
            let options = options();
            let taken = match options.len() {
                0 => break,
                1 => options[0],
                count => {
                    if depth == self.choices.len() {
                        if !self.seen.insert(digest()) {
                            return Ok(());
                        }
                        self.choices.push((0, count));
                    }
                    let (taken, of) = self.choices[depth];
                    assert_eq!(count, of, "the model behaves differently the second time");
                    depth += 1;
                    options[taken]
                }
            };
            take(taken, stacks)?;
        }
        assert_eq!(
            depth,
            self.choices.len(),
            "the model behaves differently the second time"
        );
        let stuck = with(|path| {
            let waits = |actor: &&Actor| !actor.server && !matches!(actor.wait, Wait::Done);
            let stuck = path.actors.iter().filter(waits).map(|actor| actor.name);
            stuck.collect::<Vec<_>>().join(", ")
        });
        if !stuck.is_empty() {
            return Err(format!("nobody can go on, and these wait: {stuck}"));
        }
        let checked = catch_unwind(AssertUnwindSafe(|| end.iter().for_each(|check| check())));
        checked.map_err(message)
    }
}

fn start(
    NamedActor {
        name,
        server,
        gate,
        act,
    }: NamedActor,
) -> (Stack, Actor) {
    let stack = STACKS
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| DefaultStack::new(STACK).expect("there is memory for a stack"));
    let stack = Coroutine::with_stack(stack, move |yielder: &Suspend, ()| {
        actor(|actor| actor.suspend = yielder);
        act();
    });
    let actor = Actor {
        name,
        server,
        gate,
        wait: Wait::Nothing,
        history: 0,
        steps: 0,
        spun: None,
        buffer: VecDeque::new(),
        interrupted: false,
        in_flight: false,
        chosen: 0,
        suspend: core::ptr::null(),
    };
    (stack, actor)
}

/// What can happen next: the actor that went on last goes first.
fn options() -> Vec<Next> {
    // Conditions look around, so they are evaluated outside.
    let (last, actors, steps) = with(|path| {
        let actors = path.actors.iter();
        let actors = actors.map(|actor| {
            let gate = actor.gate.clone();
            (
                actor.wait.clone(),
                gate,
                actor.interrupted,
                actor.in_flight,
                !actor.buffer.is_empty(),
            )
        });
        (path.current.unwrap_or(0), actors.collect::<Vec<_>>(), path.steps)
    });
    let mut options = Vec::new();
    for offset in 0..actors.len() {
        let index = (last + offset) % actors.len();
        let (wait, gate, interrupted, in_flight, buffers) = &actors[index];
        let open = gate.as_ref().is_none_or(|gate| gate());
        match wait {
            Wait::Done => {}
            _ if !open => {}
            Wait::Nothing => options.push(Next::Run(index, 0)),
            Wait::Condition(condition) if condition() => options.push(Next::Run(index, 0)),
            Wait::Interrupt if *interrupted => options.push(Next::Run(index, 0)),
            Wait::Change(since) if steps > *since => options.push(Next::Run(index, 0)),
            Wait::Choice(count) => options.extend((0..*count).map(|way| Next::Run(index, way))),
            _ => {}
        }
        if *buffers {
            options.push(Next::Drain(index));
        }
        if *in_flight {
            options.push(Next::Deliver(index));
        }
    }
    options
}

fn take(option: Next, stacks: &mut [Stack]) -> Result<(), String> {
    match option {
        Next::Drain(index) => {
            let stored = with(|path| {
                path.steps += 1;
                path.actors[index].buffer.pop_front()
            });
            if let Some(Stored { address, size, value }) = stored {
                write_word(address, size, value);
                let place = place(address);
                with(|path| path.trace.push((index, "buffered store", place, value)));
            }
            Ok(())
        }
        Next::Deliver(index) => {
            with(|path| {
                path.steps += 1;
                let actor = &mut path.actors[index];
                (actor.interrupted, actor.in_flight) = (true, false);
                path.trace.push((index, "is interrupted", 0, 0));
            });
            Ok(())
        }
        Next::Run(index, way) => {
            with(|path| {
                path.current = Some(index);
                path.actors[index].chosen = way;
            });
            ACTING.set(true);
            let resumed = catch_unwind(AssertUnwindSafe(|| stacks[index].resume(())));
            ACTING.set(false);
            with(|path| {
                if !matches!(path.actors[index].wait, Wait::Change(_)) {
                    path.steps += 1;
                }
            });
            match resumed {
                Ok(CoroutineResult::Yield(())) => {}
                Ok(CoroutineResult::Return(())) => {
                    with(|path| path.actors[index].wait = Wait::Done);
                }
                Err(panic) => return Err(message(panic)),
            }
            Ok(())
        }
    }
}

/// The state at a choice.
fn digest() -> u64 {
    let mut hasher = DefaultHasher::new();
    with(|path| {
        for (address, length) in &path.watched {
            read_words(*address, *length, |word| hasher.write_u64(word));
        }
        (path.sections, path.in_section).hash(&mut hasher);
        for actor in &path.actors {
            let wait = match actor.wait {
                Wait::Nothing => 0,
                Wait::Condition(_) => 1,
                Wait::Interrupt => 2,
                Wait::Change(since) if path.steps > since => 3,
                Wait::Change(_) => 4,
                Wait::Choice(_) => 5,
                Wait::Done => 6,
            };
            let interrupts = (actor.interrupted, actor.in_flight);
            (wait, actor.history, interrupts, actor.buffer.len()).hash(&mut hasher);
        }
    });
    // What is buffered by name of its place.
    let buffered: Vec<(usize, u64)> = with(|path| {
        let stored = path.actors.iter().flat_map(|actor| &actor.buffer);
        stored.map(|stored| (stored.address, stored.value)).collect()
    });
    let others = with(|path| path.digests.clone());
    for other in others.iter() {
        other().hash(&mut hasher);
    }
    for (address, value) in buffered {
        (place(address), value).hash(&mut hasher);
    }
    hasher.finish()
}

fn message(panic: Box<dyn core::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic".to_string())
}

/// The path that failed, step by step.
fn explain(failure: String) -> String {
    let steps = with(|path| {
        let line = |(index, what, place, value): &(usize, &str, usize, u64)| {
            let name = path.actors[*index].name;
            let (range, offset) = (place >> 16, place & 0xffff);
            format!("  {name}: {what} {range}+{offset:#x} {value:#x}")
        };
        path.trace.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    format!("{failure}\n{steps}")
}
