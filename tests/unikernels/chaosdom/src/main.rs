//! The image: reads its plan, and does it.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use core::convert::Infallible;

use chaosdom::Plan;
use unikernel_rt::{Failure, System};

#[cfg(target_os = "none")]
mod classes;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod tally;

unikernel_rt::entry!(run);

fn run(system: System) -> Result<Infallible, Failure> {
    let plan = Plan::parse(system.command_line)?;
    #[cfg(target_os = "none")]
    classes::run(&system, plan)?;
    #[cfg(target_os = "none")]
    unikernel_rt::boot::power_off();
    #[cfg(not(target_os = "none"))]
    Err(Failure::new(alloc::format!("{plan:?} needs a machine")))
}
