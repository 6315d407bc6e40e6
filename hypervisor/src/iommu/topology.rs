//! Which unit answers for a function, and under which ids its accesses arrive there.

use alloc::vec::Vec;

use super::description::{Description, Path, Requester, Scope, SenderId, SenderKind};
use crate::platform::pci::PciAddress;

/// The way of a function to memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The unit, by its number in the description.
    pub unit: usize,
    /// The ids, the function's own first.
    pub requesters: Vec<Requester>,
}

/// A bridge, as far as routes go through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Where it is.
    pub address: PciAddress,
    /// The buses behind it: the first and the last.
    pub buses: (u8, u8),
    /// It speaks PCI Express on its far side, where each function keeps its own id; behind any other, ids may be the bridge's.
    pub express: bool,
}

/// The id of a function.
pub const fn requester(address: PciAddress) -> Requester {
    Requester((address.bus as u16) << 8 | (address.device as u16) << 3 | address.function as u16)
}

/// The route of a function; `None` if no unit answers for it.
pub fn route(description: &Description, bridges: &[Bridge], address: PciAddress) -> Option<Route> {
    let unit = unit_of(description, bridges, address)?;
    let own = requester(address);
    let mut requesters = Vec::from([own]);
    for scope in &description.units[unit].scopes {
        if let Scope::Aliased(first, last, alias) = scope
            && (*first..=*last).contains(&own)
        {
            requesters.push(*alias);
        }
    }
    // Each bridge on the way up; firmware's buses may go in circles, bridges are counted.
    let mut bus = address.bus;
    for _ in 0..bridges.len() {
        let above = bridges
            .iter()
            .find(|bridge| bridge.address.segment == address.segment && bridge.buses.0 == bus && bus != 0);
        let Some(bridge) = above else { break };
        if !bridge.express {
            requesters.extend([Requester(u16::from(bus) << 8), requester(bridge.address)]);
        }
        bus = bridge.address.bus;
    }
    requesters.dedup();
    Some(Route { unit, requesters })
}

/// The unit that names the function, or else the one that answers for the rest.
fn unit_of(description: &Description, bridges: &[Bridge], address: PciAddress) -> Option<usize> {
    let units = || {
        description
            .units
            .iter()
            .enumerate()
            .filter(|(_, unit)| unit.segment == address.segment)
    };
    units()
        .find(|(_, unit)| unit.scopes.iter().any(|scope| names(scope, bridges, address)))
        .or_else(|| units().find(|(_, unit)| unit.scopes.contains(&Scope::Rest)))
        .map(|(index, _)| index)
}

/// Whether a scope names a function itself.
fn names(scope: &Scope, bridges: &[Bridge], address: PciAddress) -> bool {
    let own = requester(address);
    match scope {
        Scope::Rest => false,
        Scope::Requesters(first, last) | Scope::Aliased(first, last, _) => (*first..=*last).contains(&own),
        Scope::Path(path) => {
            let Some(end) = end_of(path, bridges, address.segment) else {
                return false;
            };
            let behind = bridges
                .iter()
                .find(|bridge| bridge.address == end)
                .is_some_and(|bridge| (bridge.buses.0..=bridge.buses.1).contains(&address.bus));
            end == address || path.hierarchy && behind
        }
    }
}

/// What is at the end of a path.
fn end_of(path: &Path, bridges: &[Bridge], segment: u16) -> Option<PciAddress> {
    let mut bus = path.bus;
    let (last, ways) = path.steps.split_last()?;
    let at = |bus, (device, function)| PciAddress {
        segment,
        bus,
        device,
        function,
    };
    for step in ways {
        let here = at(bus, *step);
        bus = bridges.iter().find(|bridge| bridge.address == here)?.buses.0;
    }
    Some(at(bus, *last))
}

/// Whether memory is reserved for a function.
pub fn is_for(scopes: &[Scope], bridges: &[Bridge], address: PciAddress) -> bool {
    scopes
        .iter()
        .any(|scope| *scope == Scope::Rest || names(scope, bridges, address))
}

/// The unit and the id of an I/O APIC.
pub fn io_apic(description: &Description, bridges: &[Bridge], id: u8) -> Option<(usize, Requester)> {
    description.units.iter().enumerate().find_map(|(index, unit)| {
        let sender = unit
            .senders
            .iter()
            .find(|sender| sender.kind == SenderKind::IoApic(id))?;
        let requester = match &sender.requester {
            SenderId::Requester(id) => *id,
            SenderId::Path(path) => requester(end_of(path, bridges, unit.segment)?),
        };
        Some((index, requester))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        iommu::{Kind, description::Unit},
        memory::MachineAddress,
    };

    fn at(bus: u8, device: u8) -> PciAddress {
        PciAddress {
            segment: 0,
            bus,
            device,
            function: 0,
        }
    }

    fn unit(scopes: Vec<Scope>) -> Unit {
        Unit {
            registers: MachineAddress(0x1000),
            segment: 0,
            function: None,
            scopes,
            senders: Vec::new(),
        }
    }

    #[test]
    fn functions_find_their_unit_and_their_ids() {
        let behind = Path {
            bus: 0,
            steps: Vec::from([(3, 0)]),
            hierarchy: true,
        };
        let description = Description {
            kind: Kind::Intel,
            units: Vec::from([
                unit(Vec::from([Scope::Rest])),
                unit(Vec::from([Scope::Path(behind)])),
            ]),
            reserved: Vec::new(),
            interrupt_remapping: true,
        };
        let bridge = |address, buses, express| Bridge {
            address,
            buses,
            express,
        };
        let bridges = [bridge(at(0, 3), (1, 2), true), bridge(at(1, 4), (2, 2), false)];
        let find = |address| route(&description, &bridges, address).unwrap();
        assert_eq!((find(at(0, 5)).unit, find(at(1, 0)).unit), (0, 1));
        let conventional = find(at(2, 1));
        assert_eq!(conventional.unit, 1);
        assert_eq!(
            conventional.requesters,
            [Requester(0x208), Requester(0x200), Requester(0x120)]
        );
        let other_segment = PciAddress {
            segment: 1,
            ..at(0, 5)
        };
        assert_eq!(route(&description, &bridges, other_segment), None);
    }
}
