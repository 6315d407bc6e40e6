use alloc::rc::Rc;
use core::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::DomainId;
use crate::event::{EventChannels, Events, InterruptSource};
use crate::fake::{FakeControl, FakeEvents};

/// Configuration space of one function; `writable` masks what sticks.
struct Space {
    function: PciAddress,
    words: RefCell<BTreeMap<u16, u32>>,
    writable: BTreeMap<u16, u32>,
}

#[allow(unsafe_code)]
impl ConfigRegionAccess for Space {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        if address != self.function {
            return u32::MAX;
        }
        self.words.borrow().get(&offset).copied().unwrap_or(0)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        assert_eq!(address, self.function);
        let mask = self.writable.get(&offset).copied().unwrap_or(0);
        let mut words = self.words.borrow_mut();
        let word = words.entry(offset).or_insert(0);
        *word = *word & !mask | value & mask;
    }
}

fn space(writable: &[(u16, u32)]) -> Config {
    let words = [
        (0x00, 0x0010_1b36),
        (0x04, 0x0010_0000),
        (0x08, 0x0108_0202),
        (0x10, 0xfeb4_0004),
        (0x14, 0x0000_0001),
        (0x18, 0x0000_c001),
        (0x34, 0x40),
        (0x40, 0x0020_8011),
        (0x80, 0x0000_4010),
    ];
    Rc::new(Space {
        function: PciAddress::new(0, 3, 2, 1),
        words: RefCell::new(words.into()),
        writable: writable.iter().copied().collect(),
    })
}

fn functions(config: &Config) -> alloc::vec::Vec<Function> {
    let control = FakeControl::new();
    control.add_function(PciAddress::new(0, 3, 2, 1));
    control.add_function(PciAddress::new(0, 9, 0, 0));
    enumerate(&control, config)
}

#[test]
fn functions_that_answer_are_found() {
    let found = functions(&space(&[]));
    assert_eq!(found.len(), 1);
    let nvme = &found[0];
    assert_eq!(
        (nvme.vendor, nvme.device, nvme.class, nvme.revision),
        (0x1b36, 0x10, (1, 8, 2), 2)
    );
    assert_eq!(nvme.address(), PciAddress::new(0, 3, 2, 1));
}

#[test]
fn a_list_of_capabilities_that_runs_in_a_circle_ends() {
    let nvme = &functions(&space(&[]))[0];
    assert_eq!(
        nvme.capabilities()[..3],
        [(0x11, 0x40), (0x10, 0x80), (0x11, 0x40)]
    );
    assert_eq!(nvme.msix_entries(), 0x21);
}

#[test]
fn bars_are_sized_by_ones_or_by_alignment() {
    let refused = &functions(&space(&[]))[0];
    assert_eq!(
        refused.bar(0),
        Some(Bar::Memory {
            address: 0x1_feb4_0000,
            size: 0x4_0000
        })
    );
    assert_eq!(
        refused.bar(2),
        Some(Bar::Ports {
            base: 0xc000,
            size: 0x4000
        })
    );
    assert_eq!(refused.bar(3), None);
    assert_eq!(refused.bar(6), None);
    let allowed = &functions(&space(&[(0x10, 0xffff_c000), (0x14, u32::MAX), (0x18, 0xffe0)]))[0];
    assert_eq!(
        allowed.bar(0),
        Some(Bar::Memory {
            address: 0x1_feb4_0000,
            size: 0x4000
        })
    );
    assert_eq!(
        allowed.bar(2),
        Some(Bar::Ports {
            base: 0xc000,
            size: 0x20
        })
    );
    assert_eq!(
        allowed.bar(0),
        Some(Bar::Memory {
            address: 0x1_feb4_0000,
            size: 0x4000
        }),
        "restored"
    );
}

#[test]
fn commands_and_interrupts_are_set() {
    let nvme = &functions(&space(&[(4, 0xffff)]))[0];
    nvme.enable(Command::MEMORY | Command::BUS_MASTER);
    nvme.disable(Command::MEMORY);
    assert_eq!(nvme.read32(4), 0x0010_0004);
    let fake = FakeEvents::new(DomainId(2));
    let events: Events = Rc::new(fake.clone());
    let interrupt = nvme.bind_interrupt(&events, 1).unwrap();
    fake.fire_interrupt(InterruptSource::Msi {
        function: nvme.address(),
        entry: 1,
    });
    assert!(fake.poll().contains(interrupt.port()));
    interrupt.acknowledge();
    assert_eq!((fake.acknowledged().len(), fake.open_ports()), (1, 1));
    drop(interrupt);
    assert_eq!(fake.open_ports(), 0);
}
