//! The probe's image: reads its task, and does it.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use core::convert::Infallible;

use probe::{Task, task};
use unikernel_rt::time::Instant;
use unikernel_rt::{Failure, System};

#[cfg(target_os = "none")]
mod endings;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod partners;

unikernel_rt::entry!(run);

fn run(system: System) -> Result<Infallible, Failure> {
    let task = Task::parse(system.command_line)?;
    let start = Instant::from_nanos(0) + task::start(system.command_line)?;
    #[cfg(target_os = "none")]
    match task {
        Task::Spin { every } => measure::spin(&system, every),
        Task::Watch { every, times } => measure::watch(&system, start, every, times)?,
        Task::Exits { count } => measure::exits(&system, start, count)?,
        Task::Wake { count, after } => measure::wake(&system, start, count, after)?,
        Task::Ping { peer, count } => partners::ping(&system, start, peer, count)?,
        Task::Pong { peer } => partners::pong(&system, peer)?,
        Task::Panic => endings::panic_at(&system, start)?,
        Task::Stall => endings::stall_from(&system, start)?,
        Task::Yield { count } => partners::give_way(&system, start, count)?,
    }
    log::info!("done, what it began at {start}: {task:?}");
    // What was measured can still be read while others measure.
    loop {
        system.events.wait(None);
    }
}
