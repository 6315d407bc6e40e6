//! How a probe goes wrong on purpose.

use core::hint::black_box;

use unikernel_rt::System;
use unikernel_rt::event::Channel;
use unikernel_rt::hypercall::Errno;
use unikernel_rt::time::Instant;

/// Waits for a port that nobody notifies, so that the watchdog is fed meanwhile.
fn turn_until(system: &System, end: Instant) -> Result<(), Errno> {
    let silent = Channel::allocate_unbound(&system.events, system.domain)?;
    while !system.events.wait_for(silent.port(), Some(end)) && system.events.now() < end {}
    Ok(())
}

/// Panics, a few calls deep.
pub(super) fn panic_at(system: &System, at: Instant) -> Result<(), Errno> {
    turn_until(system, at)?;
    descend(3);
    Ok(())
}

#[inline(never)]
fn descend(depth: u32) {
    if depth == 0 {
        panic!("this probe was told to give up");
    }
    descend(black_box(depth - 1));
    black_box(depth);
}

/// Does nothing any more, and does not sleep, either.
pub(super) fn stall_from(system: &System, at: Instant) -> Result<(), Errno> {
    turn_until(system, at)?;
    log::info!("stalls");
    loop {
        core::hint::spin_loop();
    }
}
