//! The network domain's image: brings the cards up, and turns the loop.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;
use core::convert::Infallible;

use netdom::{
    fabric::Fabric,
    interface::{Interfaces, PortNumbers},
    network::Network,
    pool::Pool,
    stack::{Addressing, Stack},
    switch::Address,
};
use unikernel_rt::{
    Failure, System,
    dma::DmaBuffer,
    event::Interrupt,
    memory::PAGE_SIZE,
    time::Instant,
    xenbus::{BackendBus, Statistics},
    xenstore::{Store, StoreExt},
};

unikernel_rt::entry!(run);

/// Pages for frames: enough for the rings of a card, and as much again for domains.
const POOL_PAGES: usize = 1024;

fn run(system: System) -> Result<Infallible, Failure> {
    let frames = DmaBuffer::allocate(POOL_PAGES * PAGE_SIZE)?;
    let mut fabric = Fabric::new(Pool::new(frames.memory().clone(), frames.bus_address()));
    let mut ports = PortNumbers::default();
    let interrupts = cards::bring_up(&system, &mut fabric, &mut ports);
    if interrupts.is_empty() {
        log::warn!("no network card was found; domains reach each other, and nothing outside");
    }

    let store = system.store()?;
    let stack = own_stack(&system, &*store, &fabric)?.map(|stack| (ports.take(), stack));
    let bus = BackendBus::start(store.clone(), Interfaces::new(&system, ports))?;
    let mut network = Network::new(bus, stack, system.grants.clone());
    fabric.finish();
    let mut polling = system.polling();
    let mut statistics = Statistics::new("vif", system.events.now());
    loop {
        let events = network.bus.handle_events()?;
        network.bury(&mut fabric);
        let moment = system.events.now();
        let now = moment.as_nanos();
        let mut busy = events | fabric.receive(&mut network, now);
        busy |= network.collect(&mut fabric, now)?;
        busy |= network.flush(&mut fabric.pool)?;
        fabric.finish();
        let counts = network
            .bus
            .parts()
            .1
            .map(|(id, interface)| (id, interface.counts()));
        let publish = statistics.publish(&*store, moment, counts)?;
        if busy {
            polling.worked(moment);
            continue;
        }
        if polling.look_again(moment) {
            continue;
        }
        // What came before the cards could interrupt again is not announced, so look once more.
        fabric.rearm();
        if fabric.receive(&mut network, now) || network.final_check(&fabric.pool)? {
            network.flush(&mut fabric.pool)?;
            continue;
        }
        let deadline = network
            .stack
            .as_mut()
            .and_then(|(_, stack)| stack.deadline(now))
            .map(Instant::from_nanos);
        system.events.wait(deadline.into_iter().chain(publish).min());
    }
}

/// The stack's link address on a switch without cards: locally administered, and the only one of its kind there.
const WITHOUT_CARD: Address = [0x02, 0x61, 0x74, 0x6f, 0x6c, 0x6c];

/// The stack that the option `address` asks for.
fn own_stack(system: &System, store: &dyn Store, fabric: &Fabric) -> Result<Option<Stack>, Failure> {
    let Some(option) = store.read_optional("options/address")? else {
        return Ok(None);
    };
    let addressing: Addressing = match option.parse() {
        Ok(addressing) => addressing,
        Err(error) => {
            log::error!("{error} ({option}); netdom only forwards");
            return Ok(None);
        }
    };
    Ok(Some(Stack::new(
        fabric.address().unwrap_or(WITHOUT_CARD),
        addressing,
        system.events.now().as_nanos(),
    )))
}

#[cfg(target_os = "none")]
mod cards {
    //! Finds the cards of this domain.

    use alloc::{boxed::Box, string::ToString};

    use netdom::{
        e1000e::{self, Settings},
        nic::Nic,
        switch::Port,
        virtio::VirtioNet,
    };
    use unikernel_rt::{
        pci::{Function, enumerate},
        virtio::UnikernelHal,
        virtio_pci::VirtioFunction,
    };
    use virtio_drivers::device::net::VirtIONetRaw;

    use super::*;

    /// Network controllers of the Ethernet kind.
    const ETHERNET: (u8, u8) = (0x02, 0x00);
    /// Brings up every card; one that fails is named and left out. The interrupts stay bound as long as the answer lives.
    pub(super) fn bring_up(system: &System, fabric: &mut Fabric, ports: &mut PortNumbers) -> Vec<Interrupt> {
        let mut interrupts = Vec::new();
        for function in enumerate(&*system.control, &system.pci) {
            if (function.class.0, function.class.1) != ETHERNET {
                continue;
            }
            let card = match (function.vendor, function.device) {
                _ if e1000e::drives(&function) => {
                    e1000e::open(system, &function, Settings::default(), &mut fabric.pool)
                        .map(|(card, interrupt)| (Box::new(card) as Box<dyn Nic>, interrupt))
                }
                (0x1af4, 0x1000 | 0x1041) => virtio(system, &function),
                _ => Err(Failure::new("there is no driver for it")),
            };
            match card {
                Ok((mut card, interrupt)) => {
                    let [a, b, c, d, e, f] = card.address();
                    let link = if card.link_up() { "up" } else { "down" };
                    log::info!("{function:?}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, link {link}");
                    let port: Port = ports.take();
                    fabric.add(port, card);
                    interrupts.push(interrupt);
                }
                Err(error) => log::error!("{function:?} is left out: {error}"),
            }
        }
        interrupts
    }

    fn virtio(system: &System, function: &Function) -> Result<(Box<dyn Nic>, Interrupt), Failure> {
        let opened = VirtioFunction::open(function).map_err(|error| Failure::new(error.to_string()))?;
        let driver = VirtIONetRaw::<UnikernelHal, _, _>::new(opened.transport)
            .map_err(|error| Failure::new(error.to_string()))?;
        let interrupt = opened.routing.bind(function, &system.events, 2)?;
        Ok((Box::new(VirtioNet::new(driver)), interrupt))
    }
}

#[cfg(not(target_os = "none"))]
mod cards {
    //! The host has no cards for a driver domain.

    use super::*;

    pub(super) fn bring_up(_: &System, _: &mut Fabric, _: &mut PortNumbers) -> Vec<Interrupt> {
        Vec::new()
    }
}
