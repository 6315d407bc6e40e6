//! The ports of one domain: which are taken, and by what.

use alloc::{collections::BTreeMap, vec::Vec};

use xen_abi::event_channel::EVTCHN_2L_NR_CHANNELS;

use crate::{domain::DomainId, errno::Errno};

use super::interrupts::Pirq;

/// What a port is connected with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Nothing; the port can be allocated.
    #[default]
    Free,
    /// Waits until `remote` binds to it.
    Unbound {
        /// Who may.
        remote: DomainId,
    },
    /// The other end is a port of `remote`.
    Interdomain {
        /// The domain of the other end.
        remote: DomainId,
        /// The other end.
        port: u32,
    },
    /// A physical interrupt of the domain.
    Pirq {
        /// Its number.
        pirq: u32,
    },
    /// A virtual interrupt.
    Virq {
        /// `VIRQ_*`.
        virq: u32,
    },
    /// Interrupts between vCPUs of the domain.
    Ipi,
}

/// A port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// What it is connected with.
    pub binding: Binding,
    /// The vCPU that learns of its events.
    pub vcpu: u32,
}

/// The event channels of a domain.
#[derive(Default)]
pub struct EventChannels {
    /// Port 0 is never allocated; the vector grows as ports are.
    ports: Vec<Port>,
    /// No port below this one is free.
    lowest: u32,
    /// The port of each bound virtual interrupt, by its number and vCPU (0 for global ones).
    virqs: BTreeMap<(u32, u32), u32>,
    /// Physical interrupts that the domain has mapped, by the number that it knows them by.
    pub(super) pirqs: BTreeMap<u32, Pirq>,
}

impl EventChannels {
    /// Takes the lowest free port; `NOSPC` when there is none.
    pub(super) fn allocate(&mut self, binding: Binding, vcpu: u32) -> Result<u32, Errno> {
        let mut port = self.lowest.max(1);
        while self.port(port).binding != Binding::Free {
            port += 1;
        }
        if port >= EVTCHN_2L_NR_CHANNELS {
            return Err(Errno::NOSPC);
        }
        if self.ports.len() <= port as usize {
            self.ports.resize(port as usize + 1, Port::default());
        }
        self.ports[port as usize] = Port { binding, vcpu };
        self.lowest = port + 1;
        if let Binding::Virq { virq } = binding {
            self.virqs.insert((virq, vcpu), port);
        }
        Ok(port)
    }

    /// What a number stands for; every number that no port has is free.
    pub fn port(&self, port: u32) -> Port {
        self.ports.get(port as usize).copied().unwrap_or_default()
    }

    /// A port that is allocated; `INVAL` for all others.
    pub(super) fn allocated(&mut self, port: u32) -> Result<&mut Port, Errno> {
        let found = self.ports.get_mut(port as usize);
        found
            .filter(|port| port.binding != Binding::Free)
            .ok_or(Errno::INVAL)
    }

    /// Frees a port; answers what it was.
    pub(super) fn free(&mut self, port: u32) -> Result<Port, Errno> {
        let was = core::mem::take(self.allocated(port)?);
        self.virqs.retain(|_, bound| *bound != port);
        self.lowest = self.lowest.min(port);
        Ok(was)
    }

    /// The port of a virtual interrupt.
    pub fn virq(&self, virq: u32, vcpu: u32) -> Option<u32> {
        self.virqs.get(&(virq, vcpu)).copied()
    }

    /// The allocated ports.
    pub fn allocated_ports(&self) -> impl Iterator<Item = (u32, Port)> + '_ {
        let all = self.ports.iter().copied().enumerate();
        all.filter(|(_, port)| port.binding != Binding::Free)
            .map(|(number, port)| (number as u32, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_port_but_the_first_can_be_allocated() {
        let mut channels = EventChannels::default();
        for port in 1..EVTCHN_2L_NR_CHANNELS {
            assert_eq!(channels.allocate(Binding::Ipi, 0), Ok(port));
        }
        assert_eq!(channels.allocate(Binding::Ipi, 0), Err(Errno::NOSPC));
        assert_eq!(channels.free(0), Err(Errno::INVAL));
        channels.free(77).unwrap();
        assert_eq!(channels.free(77), Err(Errno::INVAL));
        assert_eq!(channels.allocate(Binding::Ipi, 0), Ok(77));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((any::<bool>(), 0u32..40), 0..200)) {
            let mut channels = EventChannels::default();
            let mut model = BTreeSet::new();
            for (allocate, port) in steps {
                if allocate {
                    let lowest = (1..).find(|port| !model.contains(port)).unwrap();
                    prop_assert_eq!(channels.allocate(Binding::Virq { virq: lowest % 24 }, lowest), Ok(lowest));
                    model.insert(lowest);
                } else {
                    prop_assert_eq!(channels.free(port).is_ok(), model.remove(&port));
                }
                prop_assert!(channels.allocated_ports().map(|(port, _)| port).eq(model.iter().copied()));
                for port in 0..50 {
                    prop_assert_eq!(channels.virq(port % 24, port), model.contains(&port).then_some(port));
                }
            }
        }
    }
}
