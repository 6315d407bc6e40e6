//! The probe's image: reads its task, and does it.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use core::convert::Infallible;

use probe::Task;
use unikernel_rt::{Failure, System};

#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod partners;

unikernel_rt::entry!(run);

fn run(system: System) -> Result<Infallible, Failure> {
    let task = Task::parse(system.command_line)?;
    #[cfg(target_os = "none")]
    match task {
        Task::Spin { every } => measure::spin(&system, every),
        Task::Watch { after, every, times } => measure::watch(&system, after, every, times)?,
        Task::Exits { count } => measure::exits(&system, count),
        Task::Wake { count, after } => measure::wake(&system, count, after),
        Task::Ping { peer, count } => partners::ping(&system, peer, count)?,
        Task::Pong { peer } => partners::pong(&system, peer)?,
        Task::Yield { count } => partners::give_way(&system, count)?,
    }
    log::info!("done {task:?}");
    // What was measured can still be read while others measure.
    loop {
        system.events.wait(None);
    }
}
