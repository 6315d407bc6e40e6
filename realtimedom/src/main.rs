//! The real-time domain's image: brings its card up, and turns the loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use core::{convert::Infallible, hint, time::Duration};

use netdom::{nic::Nic, pool::Pool};
use realtimedom::{
    desk::{Desk, Next},
    options::Options,
    station::{Card, Station},
};
use unikernel_rt::{Failure, System, dma::DmaBuffer, event::Interrupt, memory::PAGE_SIZE};

unikernel_rt::entry!(run);

/// Pages for frames: the driver keeps 256 for those to the card; the rest is for those from it.
const POOL_PAGES: usize = 256 + 64;
/// Work in the slack is not begun when less than this is left before the next turn.
const GUARD: Duration = Duration::from_micros(300);

fn run(system: System) -> Result<Infallible, Failure> {
    let store = system.store()?;
    let options = Options::read(&*store)?;
    let console = system.console()?;
    let frames = DmaBuffer::allocate(POOL_PAGES * PAGE_SIZE)?;
    let mut pool = Pool::new(frames.memory().clone(), frames.bus_address());
    let found = card::bring_up(&system, &options, &mut pool);
    let (card, _interrupt) = match found {
        Some((nic, interrupt)) => {
            let port = interrupt.port();
            (Some(Card { nic, pool, port }), Some(interrupt))
        }
        None => {
            log::warn!("no card that it has a driver for was found; the loop turns without input and output");
            (None, None)
        }
    };
    let mut station = Station::new(system.events.clone(), card, options.period);
    let mut desk = Desk::new(Some(console), store, options, station.now());
    log::info!("a turn every {} us", options.period.as_micros());
    loop {
        station.wait();
        if station.slack() < GUARD {
            continue;
        }
        let now = station.now();
        if let Next::Spin(length) = desk.work(&mut station.figures, now) {
            let end = now + length;
            while station.now() < end {
                hint::spin_loop();
            }
        }
    }
}

#[cfg(target_os = "none")]
mod card {
    //! Finds the card of this domain.

    use alloc::boxed::Box;

    use netdom::e1000e::{self, Interrupts, Settings};
    use unikernel_rt::pci::enumerate;

    use super::*;

    /// Brings up the first card that there is a driver for. The interrupt stays bound as long as the answer lives.
    pub(super) fn bring_up(
        system: &System,
        options: &Options,
        pool: &mut Pool,
    ) -> Option<(Box<dyn Nic>, Interrupt)> {
        let settings = Settings {
            interrupts: Interrupts::Prompt,
            loopback: options.loopback,
        };
        for function in enumerate(&*system.control, &system.pci) {
            if !e1000e::drives(&function) {
                log::error!("{function:?} is left out: there is no driver for it");
                continue;
            }
            match e1000e::open(system, &function, settings, pool) {
                Ok((card, interrupt)) => {
                    log::info!("{function:?}: its frames and its interrupt are the loop's");
                    return Some((Box::new(card), interrupt));
                }
                Err(error) => log::error!("{function:?} is left out: {error}"),
            }
        }
        None
    }
}

#[cfg(not(target_os = "none"))]
mod card {
    //! The host has no cards for a real-time domain.

    use alloc::boxed::Box;

    use super::*;

    pub(super) fn bring_up(_: &System, _: &Options, _: &mut Pool) -> Option<(Box<dyn Nic>, Interrupt)> {
        None
    }
}
