//! Physical interrupts of the devices that a domain drives: mapped to a number of the domain's (a pirq), bound to a port, delivered as its event.
//!
//! A pirq holds a vector of the processor from its mapping on, but the device may raise it only while it is bound to a port. A line
//! (GSI) that is level-triggered stays masked from its arrival until the domain ends it.
//!
//! A device interrupts the processor that is home to the vCPU which its port tells. It is sent there when the port is bound, or told to tell another
//! vCPU, and when its interrupts have arrived elsewhere a few times in a row because the home moved: so a vCPU that is pinned has its interrupts where it
//! runs from the first on, a processor of one domain alone sees no other's, and a vCPU that wanders does not make us write to its device each time.

use alloc::vec::Vec;

use xen_abi::physdev::XENIRQSTAT_needs_eoi;

use super::{Binding, hardware, set_pending};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    errno::Errno,
    platform::pci::PciAddress,
};

/// Where an interrupt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line, by its number in the system.
    Line(u32),
    /// A message, by the function and the entry of its MSI-X table.
    Message {
        /// The function.
        function: PciAddress,
        /// The entry.
        entry: u16,
    },
}

/// A physical interrupt that a domain has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pirq {
    source: Source,
    vector: u8,
    port: Option<u32>,
    /// The processor that it is sent to while it is bound.
    target: usize,
    /// How many times in a row it arrived where its vCPU is not at home.
    strays: u32,
}

/// Which domain's pirq arrives on which vector.
pub struct Vectors([Option<(DomainId, u32)>; 256]);

impl Default for Vectors {
    fn default() -> Self {
        Self([None; 256])
    }
}

/// Numbers of messages start here, lines keep their own; there are as many numbers as ports.
const FIRST_MESSAGE: u32 = 256;
const LIMIT: u32 = 4096;
/// Interrupts that a domain may have mapped. The processor's vectors are for all domains, and fewer than the entries of one large MSI-X table.
const MOST: usize = 48;
/// Arrivals in a row at a processor where the vCPU is not at home, after which the device is sent after it.
const PATIENCE: u32 = 4;

/// Maps an interrupt of one of the domain's own devices; the same interrupt again gives the same number. `wanted` is taken if it is free.
pub fn map(hv: &mut Hypervisor, domain: DomainId, source: Source, wanted: Option<u32>) -> Result<u32, Errno> {
    let owner = hv.domain(domain).ok_or(Errno::SRCH)?;
    let owned = match source {
        Source::Line(gsi) => owner.interrupts.contains(&gsi),
        Source::Message { function, .. } => owner.devices.contains(&function),
    };
    if !owned {
        return Err(Errno::NODEV);
    }
    let pirqs = &hv.body(domain).ok_or(Errno::SRCH)?.events.pirqs;
    if let Some((&number, _)) = pirqs.iter().find(|(_, pirq)| pirq.source == source) {
        return match wanted {
            Some(wanted) if wanted != number => Err(Errno::EXIST),
            _ => Ok(number),
        };
    }
    if pirqs.len() >= MOST {
        return Err(Errno::NOSPC);
    }
    let first = match (wanted, source) {
        (Some(wanted), _) if pirqs.contains_key(&wanted) => return Err(Errno::EXIST),
        (Some(wanted), _) => wanted,
        (None, Source::Line(gsi)) => gsi,
        (None, Source::Message { .. }) => FIRST_MESSAGE,
    };
    let number = (first..LIMIT)
        .find(|number| !pirqs.contains_key(number))
        .ok_or(Errno::NOSPC)?;
    hardware::check(hv, source)?;
    let vector = hardware::allocate_vector().ok_or(Errno::NOSPC)?;
    hv.vectors.0[vector as usize] = Some((domain, number));
    let body = hv.body_mut(domain).ok_or(Errno::SRCH)?;
    body.events.pirqs.insert(
        number,
        Pirq {
            source,
            vector,
            port: None,
            target: 0,
            strays: 0,
        },
    );
    Ok(number)
}

/// Gives an interrupt back; one that is bound to a port is in use.
pub fn unmap(hv: &mut Hypervisor, domain: DomainId, number: u32) -> Result<(), Errno> {
    let pirqs = &mut hv.body_mut(domain).ok_or(Errno::SRCH)?.events.pirqs;
    let pirq = *pirqs.get(&number).ok_or(Errno::INVAL)?;
    if pirq.port.is_some() {
        return Err(Errno::BUSY);
    }
    pirqs.remove(&number);
    hv.vectors.0[pirq.vector as usize] = None;
    hardware::free_vector(pirq.vector);
    Ok(())
}

/// A number that no interrupt has, for a domain that wants to choose.
pub fn free_number(hv: &Hypervisor, domain: DomainId) -> Result<u32, Errno> {
    let pirqs = &hv.body(domain).ok_or(Errno::SRCH)?.events.pirqs;
    (FIRST_MESSAGE..LIMIT)
        .find(|number| !pirqs.contains_key(number))
        .ok_or(Errno::NOSPC)
}

/// Binds a mapped interrupt to a new port and lets the device raise it.
pub fn bind(hv: &mut Hypervisor, domain: DomainId, number: u32) -> Result<u32, Errno> {
    let events = &mut hv.body_mut(domain).ok_or(Errno::SRCH)?.events;
    let pirq = *events.pirqs.get(&number).ok_or(Errno::INVAL)?;
    if pirq.port.is_some() {
        return Err(Errno::EXIST);
    }
    let port = events.allocate(Binding::Pirq { pirq: number }, 0)?;
    let target = hv.scheduler.home(VcpuId { domain, index: 0 });
    let events = &mut hv.body_mut(domain).ok_or(Errno::SRCH)?.events;
    events.pirqs.insert(
        number,
        Pirq {
            port: Some(port),
            target,
            strays: 0,
            ..pirq
        },
    );
    if let Err(error) = hardware::connect(hv, pirq.source, pirq.vector, target) {
        let events = &mut hv.body_mut(domain).ok_or(Errno::SRCH)?.events;
        events.pirqs.insert(number, pirq);
        let _ = events.free(port);
        return Err(error);
    }
    Ok(port)
}

/// The port of an interrupt closes: the device may not raise it any more.
pub(super) fn unbind(hv: &mut Hypervisor, domain: DomainId, number: u32) {
    let Some(body) = hv.body_mut(domain) else { return };
    let Some(pirq) = body.events.pirqs.get_mut(&number) else {
        return;
    };
    pirq.port = None;
    let pirq = *pirq;
    hardware::disconnect(hv, pirq.source);
}

/// Unmaps every interrupt of a domain; their ports are closed already.
pub(super) fn unmap_all(hv: &mut Hypervisor, domain: DomainId) {
    let Some(body) = hv.body(domain) else { return };
    for number in body.events.pirqs.keys().copied().collect::<Vec<_>>() {
        let _ = unmap(hv, domain, number);
    }
}

/// The domain has served an interrupt: a line that was masked when it arrived may arrive again.
pub fn end(hv: &Hypervisor, domain: DomainId, number: u32) -> Result<(), Errno> {
    let pirqs = &hv.body(domain).ok_or(Errno::SRCH)?.events.pirqs;
    let pirq = pirqs.get(&number).ok_or(Errno::INVAL)?;
    if let (Source::Line(gsi), Some(_)) = (pirq.source, pirq.port) {
        hardware::unmask(gsi);
    }
    Ok(())
}

/// `XENIRQSTAT_*` of an interrupt: lines must be ended.
pub fn status(hv: &Hypervisor, domain: DomainId, number: u32) -> Result<u32, Errno> {
    let pirqs = &hv.body(domain).ok_or(Errno::SRCH)?.events.pirqs;
    match pirqs.get(&number).ok_or(Errno::INVAL)?.source {
        Source::Line(_) => Ok(XENIRQSTAT_needs_eoi),
        Source::Message { .. } => Ok(0),
    }
}

/// A physical interrupt arrived on `vector` at `processor`: sends it to the domain that it is bound to. False if it is nobody's.
pub fn raise_interrupt(hv: &mut Hypervisor, processor: usize, vector: u8) -> bool {
    let Some((domain, number)) = hv.vectors.0[vector as usize] else {
        return false;
    };
    let Some(body) = hv.body_mut(domain) else {
        return false;
    };
    body.counts.device_interrupts += 1;
    let port = body.events.pirqs.get(&number).and_then(|pirq| pirq.port);
    if let Some(port) = port {
        set_pending(hv, domain, port);
        follow(hv, domain, number, Some(processor));
    }
    port.is_some()
}

/// Sends an interrupt that is bound to where its vCPU is at home: at once, or, if it arrived at `processor`, when it has arrived elsewhere a few times.
pub(super) fn follow(hv: &mut Hypervisor, domain: DomainId, number: u32, arrived: Option<usize>) {
    let Some(body) = hv.body(domain) else { return };
    let Some(pirq) = body.events.pirqs.get(&number) else {
        return;
    };
    let Some(port) = pirq.port else { return };
    let index = body.events.port(port).vcpu;
    let home = hv.scheduler.home(VcpuId { domain, index });
    let strays = match arrived {
        // It is sent there, or one came that had been on its way.
        _ if pirq.target == home => 0,
        Some(processor) if processor == home => 0,
        Some(_) => pirq.strays + 1,
        None => PATIENCE,
    };
    let moves = strays == PATIENCE;
    if strays == pirq.strays {
        return;
    }
    let Some(body) = hv.body_mut(domain) else { return };
    let Some(pirq) = body.events.pirqs.get_mut(&number) else {
        return;
    };
    pirq.strays = if moves { 0 } else { strays };
    if moves {
        pirq.target = home;
        let (source, vector) = (pirq.source, pirq.vector);
        hardware::retarget(hv, source, vector, home);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{self, tests::pending, unbind_all},
        testing,
    };

    const MESSAGE: Source = Source::Message {
        function: PciAddress {
            segment: 0,
            bus: 0,
            device: 4,
            function: 0,
        },
        entry: 1,
    };

    fn hypervisor() -> Hypervisor {
        let mut hv = testing::hypervisor();
        let domain = hv.domain_mut(DomainId(2)).unwrap();
        domain.interrupts.push(4);
        let Source::Message { function, .. } = MESSAGE else {
            unreachable!()
        };
        domain.devices.push(function);
        hv
    }

    #[test]
    fn a_domain_cannot_have_all_vectors() {
        let mut hv = hypervisor();
        let Source::Message { function, .. } = MESSAGE else {
            unreachable!()
        };
        let mut message = |entry| map(&mut hv, DomainId(2), Source::Message { function, entry }, None);
        for entry in 0..MOST as u16 {
            assert!(message(entry).is_ok());
        }
        assert_eq!(message(MOST as u16), Err(Errno::NOSPC));
        assert_eq!(message(0), Ok(FIRST_MESSAGE));
    }

    #[test]
    fn an_interrupt_reaches_the_port_of_its_owner() {
        let mut hv = hypervisor();
        assert_eq!(
            map(&mut hv, DomainId(3), Source::Line(4), None),
            Err(Errno::NODEV)
        );
        assert_eq!(map(&mut hv, DomainId(3), MESSAGE, None), Err(Errno::NODEV));
        let line = map(&mut hv, DomainId(2), Source::Line(4), None).unwrap();
        let message = map(&mut hv, DomainId(2), MESSAGE, None).unwrap();
        assert_eq!((line, message), (4, FIRST_MESSAGE));
        assert_eq!(map(&mut hv, DomainId(2), MESSAGE, None), Ok(message));
        assert_eq!(map(&mut hv, DomainId(2), MESSAGE, Some(9)), Err(Errno::EXIST));
        let vector = hv.body(DomainId(2)).unwrap().events.pirqs[&message].vector;
        assert!(!raise_interrupt(&mut hv, 0, vector));
        let port = bind(&mut hv, DomainId(2), message).unwrap();
        assert_eq!(bind(&mut hv, DomainId(2), message), Err(Errno::EXIST));
        assert_eq!(unmap(&mut hv, DomainId(2), message), Err(Errno::BUSY));
        assert!(raise_interrupt(&mut hv, 0, vector) && pending(&hv, 2, port));
        assert_eq!(
            (status(&hv, DomainId(2), line), status(&hv, DomainId(2), message)),
            (Ok(1), Ok(0))
        );
        assert_eq!(end(&hv, DomainId(2), 77), Err(Errno::INVAL));
        event::close(&mut hv, DomainId(2), port).unwrap();
        assert!(!raise_interrupt(&mut hv, 0, vector));
        unmap(&mut hv, DomainId(2), message).unwrap();
        assert_eq!(bind(&mut hv, DomainId(2), message), Err(Errno::INVAL));
    }

    #[test]
    fn an_interrupt_goes_where_its_vcpu_is_at_home() {
        let mut driver = testing::spec("driver", 2);
        driver.capabilities.control = true;
        let mut hv = testing::hypervisor_on(3, std::vec![driver]);
        let id = DomainId(1);
        let Source::Message { function, .. } = MESSAGE else {
            unreachable!()
        };
        hv.domain_mut(id).unwrap().devices.push(function);
        let (first, second) = (testing::vcpu(1), VcpuId { domain: id, index: 1 });
        hv.bring_up(second);
        assert_eq!((hv.scheduler.home(first), hv.scheduler.home(second)), (0, 1));
        let targets = || hardware::TARGETS.take();
        let message = map(&mut hv, id, MESSAGE, None).unwrap();
        let port = bind(&mut hv, id, message).unwrap();
        assert_eq!(targets(), [0]);
        event::bind_vcpu(&mut hv, id, port, 1).unwrap();
        assert_eq!(targets(), [1]);
        event::bind_vcpu(&mut hv, id, port, 1).unwrap();
        assert_eq!(targets(), [0; 0]);
        let vector = hv.body(id).unwrap().events.pirqs[&message].vector;
        hv.scheduler.migrate(second, 2);
        for (arrives, moves) in [
            (1, false),
            (1, false),
            (2, false),
            (1, false),
            (1, false),
            (1, false),
            (1, true),
        ] {
            raise_interrupt(&mut hv, arrives, vector);
            assert_eq!(targets(), if moves { std::vec![2] } else { std::vec![] });
        }
        // Two that were on their way.
        raise_interrupt(&mut hv, 1, vector);
        raise_interrupt(&mut hv, 2, vector);
        assert_eq!(targets(), [0; 0]);
    }

    #[test]
    fn a_domain_that_goes_gives_its_vectors_back() {
        let mut hv = hypervisor();
        let message = map(&mut hv, DomainId(2), MESSAGE, Some(40)).unwrap();
        bind(&mut hv, DomainId(2), message).unwrap();
        unbind_all(&mut hv, DomainId(2));
        assert!(hv.vectors.0.iter().all(Option::is_none));
        assert!(hv.body(DomainId(2)).unwrap().events.pirqs.is_empty());
    }
}
