//! Which hardware of the machine each domain drives, decided once at boot from the manifest's selectors, in the order of the domains: a function belongs to the first
//! domain that selects it.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use manifest::{Device, Manifest};

use crate::{
    guest::pci::{Bar, BarKind, ConfigurationSpace, Function, MsiX},
    platform::{
        Machine,
        pci::{self, PciAddress, PciFunction, SavedConfig},
    },
};

/// What a selector can see of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place.
    pub address: PciAddress,
    /// Vendor.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
}

impl From<&PciFunction> for Candidate {
    fn from(function: &PciFunction) -> Self {
        Self {
            address: function.address,
            vendor: function.vendor,
            device: function.device,
            class: function.class,
            subclass: function.subclass,
            interface: function.interface,
        }
    }
}

/// What a domain drives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// PCI functions.
    pub functions: Vec<PciAddress>,
    /// I/O ports: first and count.
    pub ports: Vec<(u16, u16)>,
    /// ISA interrupt lines.
    pub lines: Vec<u8>,
}

/// Ports and line of the serial ports of a PC, by number from 1.
const SERIAL_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];
const SERIAL_PORT_COUNT: u16 = 8;
/// Base class of bridges: they forward for everyone, so nobody gets one.
const BRIDGE: u8 = 6;

/// Assigns the machine's hardware. The answer has an assignment a domain, in the manifest's order, and what the operator should know. `passthrough` is
/// false where no IOMMU confines devices and the manifest does not accept that: then no PCI function is assigned.
pub fn assign(
    manifest: &Manifest,
    machine: &[Candidate],
    passthrough: bool,
) -> (Vec<Assignment>, Vec<String>) {
    let mut taken: Vec<PciAddress> = Vec::new();
    let mut serial_taken = [false; SERIAL_PORTS.len()];
    let mut line_owners: BTreeMap<u8, &str> = BTreeMap::new();
    let mut messages = Vec::new();
    let assignments = manifest
        .domains
        .iter()
        .map(|domain| {
            let mut assignment = Assignment::default();
            for selector in &domain.devices {
                let name = describe(selector);
                if let Device::SerialPort(number) = *selector {
                    let index = usize::from(number).wrapping_sub(1);
                    match (SERIAL_PORTS.get(index), serial_taken.get_mut(index)) {
                        (Some(&(_, line)), Some(false))
                            if line_owners.get(&line).is_some_and(|owner| *owner != domain.name) =>
                        {
                            messages.push(format!(
                                "{} does not get {name}: it shares its interrupt with a serial port of {}",
                                domain.name, line_owners[&line]
                            ));
                        }
                        (Some(&(port, line)), Some(taken @ false)) => {
                            *taken = true;
                            line_owners.insert(line, &domain.name);
                            assignment.ports.push((port, SERIAL_PORT_COUNT));
                            assignment.lines.push(line);
                        }
                        (Some(_), _) => messages.push(format!("{name} of {} belongs to an earlier domain already", domain.name)),
                        (None, _) => messages.push(format!("{name} of {} does not exist: a PC has serial ports 1 to 4", domain.name)),
                    }
                    continue;
                }
                if !passthrough {
                    messages.push(format!(
                        "{} does not get {name}: this machine has no IOMMU that is in use, so the device could overwrite all memory; \
                         set allow-unconfined-dma = true in appliance.toml to accept that",
                        domain.name
                    ));
                    continue;
                }
                let found: Vec<PciAddress> = machine
                    .iter()
                    .filter(|candidate| matches(selector, candidate) && !taken.contains(&candidate.address))
                    .map(|candidate| candidate.address)
                    .collect();
                if found.is_empty() {
                    messages.push(format!("{name} of {} matches nothing in this machine; the domain starts without it", domain.name));
                }
                taken.extend(&found);
                assignment.functions.extend(found);
            }
            assignment
        })
        .collect();
    (assignments, messages)
}

fn matches(selector: &Device, candidate: &Candidate) -> bool {
    if candidate.class == BRIDGE {
        return false;
    }
    match *selector {
        Device::SerialPort(_) => false,
        Device::PciClass {
            class,
            subclass,
            interface,
        } => {
            candidate.class == class
                && subclass.is_none_or(|subclass| subclass == candidate.subclass)
                && interface.is_none_or(|interface| interface == candidate.interface)
        }
        Device::PciId { vendor, device } => (candidate.vendor, candidate.device) == (vendor, device),
        Device::PciAddress {
            segment,
            bus,
            device,
            function,
        } => {
            candidate.address
                == PciAddress {
                    segment,
                    bus,
                    device,
                    function,
                }
        }
    }
}

/// The selector, as the manifest's author would recognise it.
fn describe(selector: &Device) -> String {
    match *selector {
        Device::SerialPort(number) => format!("serial port {number}"),
        Device::PciClass {
            class,
            subclass,
            interface,
        } => {
            let mut text = format!("PCI class {class:02x}");
            for part in [subclass, interface].into_iter().flatten() {
                text.push_str(&format!(":{part:02x}"));
            }
            text
        }
        Device::PciId { vendor, device } => format!("PCI device {vendor:04x}:{device:04x}"),
        Device::PciAddress {
            segment,
            bus,
            device,
            function,
        } => {
            format!("PCI function {segment:04x}:{bus:02x}:{device:02x}.{function}")
        }
    }
}

/// A function of the machine as its domain is to see it, which drives the functions at `mine`. Where base addresses are so close that a page belongs to
/// several functions, no domain gets more than its own.
pub fn view(function: &PciFunction, machine: &[PciFunction], mine: &[PciAddress]) -> Function {
    let mut view = alone(function);
    let pages = view.bar_pages();
    let foreign = machine.iter().flat_map(|other| {
        let seen = alone(other);
        if mine.contains(&other.address) {
            seen.msix_table().into_iter().collect()
        } else {
            seen.bar_pages()
        }
    });
    let own_table = view.msix_table();
    view.withheld = foreign
        .filter(|range| Some(*range) != own_table && pages.iter().any(|page| page.touches(range)))
        .collect();
    view
}

/// A function as if nothing else were near it.
fn alone(function: &PciFunction) -> Function {
    let bars = function.bars.iter().map(|bar| {
        let (kind, flags) = match bar.kind {
            pci::BarKind::Port => (BarKind::Io, 1),
            pci::BarKind::Memory { wide, prefetchable } => {
                let kind = if wide {
                    BarKind::Memory64
                } else {
                    BarKind::Memory32
                };
                (kind, u8::from(wide) << 2 | u8::from(prefetchable) << 3)
            }
        };
        Bar {
            index: bar.index,
            kind,
            flags,
            address: bar.address,
            size: bar.size,
        }
    });
    let msix = function.msix.map(|msix| MsiX {
        capability: msix.offset,
        entries: msix.entries,
        table: (msix.table_bar, msix.table_offset),
        pending: (msix.pending_bar, msix.pending_offset),
    });
    Function {
        address: function.address,
        bars: bars.collect(),
        msix,
        withheld: Vec::new(),
    }
}

/// Functions that are being reset between two lives of the domain that drives them. Their drivers may let a device reach memory before they have told it to forget what
/// their predecessors asked of it, and that memory may be somebody else's by then.
#[derive(Default)]
pub struct Resets(BTreeMap<PciAddress, Reset>);

struct Reset {
    saved: SavedConfig,
    /// When the function can be used again, in nanoseconds of the machine's clock.
    ready: u64,
}

impl Resets {
    /// Keeps a function from reaching memory and from interrupting, before its domain's memory goes, and begins to reset it if that is wanted and it can be
    /// reset by itself.
    pub fn take_back(&mut self, machine: &Machine, address: PciAddress, thorough: bool, now: u64) {
        let Some(function) = machine.pci_function(address) else {
            return;
        };
        let quiet = pci::quiesce(function);
        if quiet && !thorough {
            return;
        }
        match pci::begin_reset(function) {
            Ok(saved) => {
                let ready = now.saturating_add(saved.ready_after);
                self.0.insert(address, Reset { saved, ready });
            }
            Err(_) if !quiet => log::warn!(
                "PCI function {address} still has transactions under way while its domain is taken down, and cannot be reset"
            ),
            Err(_) => {}
        }
    }

    /// Makes those of `functions` usable whose reset is over; answers when the last of the others will be, if there are any.
    pub fn settle(&mut self, machine: &Machine, functions: &[PciAddress], now: u64) -> Option<u64> {
        let mut latest = None;
        for address in functions {
            match self.0.get(address) {
                Some(reset) if reset.ready > now => latest = latest.max(Some(reset.ready)),
                Some(reset) => {
                    if let Some(function) = machine.pci_function(*address) {
                        pci::finish_reset(function, &reset.saved);
                    }
                    self.0.remove(address);
                }
                None => {}
            }
        }
        latest
    }

    /// A function that will be ready at that time.
    #[cfg(test)]
    pub fn pretend(&mut self, address: PciAddress, ready: u64) {
        let saved = SavedConfig::default();
        self.0.insert(address, Reset { saved, ready });
    }
}

/// The machine's configuration space, for the mediated view of a domain.
pub struct Configuration;

impl ConfigurationSpace for Configuration {
    fn read(&mut self, function: PciAddress, offset: u16, size: u8) -> u32 {
        pci::read(function, offset, size)
    }

    fn write(&mut self, function: PciAddress, offset: u16, size: u8, value: u32) {
        pci::write(function, offset, size, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guest::pci as guest_pci, testing::spec};

    fn candidate(device: u8, id: u16, class: [u8; 3]) -> Candidate {
        Candidate {
            address: PciAddress {
                segment: 0,
                bus: 0,
                device,
                function: 0,
            },
            vendor: 0x8086,
            device: id,
            class: class[0],
            subclass: class[1],
            interface: class[2],
        }
    }

    fn manifest(devices: Vec<Vec<Device>>) -> Manifest {
        let domains = ["disk", "net", "third"]
            .into_iter()
            .zip(devices)
            .map(|(name, devices)| manifest::Domain {
                devices,
                ..spec(name, 1)
            })
            .collect();
        Manifest {
            name: "test".into(),
            reboot_on_panic: false,
            fault_injection: false,
            allow_unconfined_dma: true,
            domains,
        }
    }

    const NVME: Device = Device::PciClass {
        class: 1,
        subclass: Some(8),
        interface: None,
    };

    #[test]
    fn the_first_that_selects_a_function_has_it() {
        let machine = [
            candidate(0, 0x29c0, [6, 0, 0]),
            candidate(1, 0x5845, [1, 8, 2]),
            candidate(2, 0x10d3, [2, 0, 0]),
            candidate(3, 0x5845, [1, 8, 2]),
        ];
        let manifest = manifest(vec![
            vec![Device::PciAddress {
                segment: 0,
                bus: 0,
                device: 3,
                function: 0,
            }],
            vec![
                Device::PciId {
                    vendor: 0x8086,
                    device: 0x10d3,
                },
                Device::SerialPort(1),
            ],
            vec![
                NVME,
                Device::PciClass {
                    class: 6,
                    subclass: None,
                    interface: None,
                },
            ],
        ]);
        let (assignments, messages) = assign(&manifest, &machine, true);
        let places: Vec<Vec<u8>> = assignments
            .iter()
            .map(|each| each.functions.iter().map(|address| address.device).collect())
            .collect();
        assert_eq!(places, [vec![3], vec![2], vec![1]]);
        assert_eq!(
            (&assignments[1].ports[..], &assignments[1].lines[..]),
            (&[(0x3f8, 8)][..], &[4][..])
        );
        assert_eq!(
            messages,
            ["PCI class 06 of third matches nothing in this machine; the domain starts without it"]
        );
    }

    #[test]
    fn says_what_is_missing_and_for_whom() {
        let manifest = manifest(vec![
            vec![NVME, Device::SerialPort(9)],
            vec![Device::SerialPort(2)],
            vec![Device::SerialPort(2)],
        ]);
        let (assignments, messages) = assign(&manifest, &[], true);
        assert_eq!(assignments[0], Assignment::default());
        assert_eq!(
            messages,
            [
                "PCI class 01:08 of disk matches nothing in this machine; the domain starts without it",
                "serial port 9 of disk does not exist: a PC has serial ports 1 to 4",
                "serial port 2 of third belongs to an earlier domain already",
            ]
        );
    }

    #[test]
    fn a_page_of_several_functions_goes_to_none_but_their_owner() {
        let function = |device, address, msix| PciFunction {
            address: candidate(device, 1, [1, 8, 2]).address,
            vendor: 1,
            device: 1,
            revision: 0,
            class: 1,
            subclass: 8,
            interface: 2,
            is_bridge: false,
            bars: vec![pci::Bar {
                index: 0,
                kind: pci::BarKind::Memory {
                    wide: false,
                    prefetchable: false,
                },
                address,
                size: 0x800,
            }],
            msix,
            msi: None,
            express: None,
            advanced_features: None,
        };
        let msix = pci::MsixCapability {
            offset: 0x40,
            entries: 4,
            table_bar: 0,
            table_offset: 0x400,
            pending_bar: 0,
            pending_offset: 0x600,
        };
        let machine = [
            function(1, 0xfe00_0000, None),
            function(2, 0xfe00_0800, None),
            function(3, 0xfe00_1000, None),
            function(4, 0xfe00_1800, Some(msix)),
        ];
        let place = |index: usize| machine[index].address;
        let memory = |index: usize, mine: &[PciAddress]| view(&machine[index], &machine, mine).memory();
        let page = |address| guest_pci::DeviceRange {
            address,
            length: 0x1000,
        };
        assert_eq!(memory(0, &[place(0)]), []);
        assert_eq!(memory(0, &[place(0), place(1)]), [page(0xfe00_0000)]);
        // The MSI-X table of the fourth is in this page.
        assert_eq!(memory(2, &[place(2), place(3)]), []);
        assert!(
            view(&machine[3], &machine, &[place(2), place(3)])
                .withheld
                .is_empty()
        );
        let alone = [machine[0].clone()];
        assert_eq!(view(&alone[0], &alone, &[place(0)]).memory(), [page(0xfe00_0000)]);
    }

    #[test]
    fn an_interrupt_line_belongs_to_one_domain() {
        let ports = |numbers: &[u8]| numbers.iter().copied().map(Device::SerialPort).collect();
        let manifest = manifest(vec![ports(&[1]), ports(&[3, 2]), ports(&[4])]);
        let (assignments, messages) = assign(&manifest, &[], true);
        let lines: Vec<&[u8]> = assignments.iter().map(|each| &each.lines[..]).collect();
        assert_eq!(lines, [&[4][..], &[3], &[]]);
        assert_eq!(
            messages,
            [
                "net does not get serial port 3: it shares its interrupt with a serial port of disk",
                "third does not get serial port 4: it shares its interrupt with a serial port of net",
            ]
        );
        let both = self::manifest(vec![ports(&[1, 3]), vec![], vec![]]);
        assert_eq!(assign(&both, &[], true).0[0].lines, [4, 4]);
    }

    #[test]
    fn unconfined_devices_need_the_manifests_consent() {
        let manifest = manifest(vec![vec![NVME], vec![Device::SerialPort(1)], vec![]]);
        let (assignments, messages) = assign(&manifest, &[candidate(1, 0x5845, [1, 8, 2])], false);
        assert!(assignments[0].functions.is_empty() && !assignments[1].ports.is_empty());
        assert!(
            messages[0].contains("disk does not get PCI class 01:08")
                && messages[0].contains("allow-unconfined-dma")
        );
    }
}
