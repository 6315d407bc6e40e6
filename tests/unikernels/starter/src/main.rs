//! A unikernel for tests: starts its second, third and fourth vCPU by `VCPUOP_initialise` and `VCPUOP_up`, in 64-bit code, in 32-bit code and in real mode.
//! Each leaves a word in memory and halts, which takes it down; brought up again, it goes on behind. A line of the log says of each how it went.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use core::convert::Infallible;

use unikernel_rt::{Failure, System};

#[cfg(target_os = "none")]
mod vcpus;

unikernel_rt::entry!(run);

fn run(system: System) -> Result<Infallible, Failure> {
    #[cfg(target_os = "none")]
    vcpus::start_all();
    loop {
        system.events.wait(None);
    }
}
