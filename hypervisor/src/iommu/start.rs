//! Turning the IOMMUs on at boot, before any device belongs to anybody.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::{
    Iommu, Kind, Unit, UnitError, amd, intel,
    topology::{self, Bridge},
    units::Wishes,
};
use crate::{
    memory::{DirectMap, FrameAllocator, MachineAddress},
    platform::{
        Machine, interrupts, local_apic, mmio,
        pci::{self, PciAddress},
    },
};

/// Turns on every unit that firmware describes. Where one cannot be used, none confines anything as far as the hypervisor is concerned, and the log says why.
pub fn start(machine: &Machine, memory: DirectMap, frames: &mut FrameAllocator) -> Iommu {
    let Some(description) = machine.iommu.as_ref() else {
        return Iommu::default();
    };
    let mut units = Vec::new();
    for unit in &description.units {
        match take(description.kind, unit, memory) {
            Ok(unit) => units.push(unit),
            Err(error) => {
                let at = unit.registers.0;
                log::error!(
                    "the {} at {at:#x} cannot be used: {error}",
                    description.kind.name()
                );
                return Iommu::default();
            }
        }
    }
    let bridges = bridges(machine);
    let routes: BTreeMap<_, _> = machine
        .pci
        .iter()
        .filter(|function| !function.is_bridge)
        .filter_map(|function| {
            Some((
                function.address,
                topology::route(description, &bridges, function.address)?,
            ))
        })
        .collect();
    let wishes = Wishes {
        remap_interrupts: false,
        x2apic: local_apic::is_x2apic(),
    };
    match Iommu::enable(units, routes, &[], frames, wishes) {
        Ok(mut iommu) => {
            if let Some(vector) = interrupts::allocate_vector() {
                iommu.signal_faults(vector, local_apic::boot_id());
            }
            for unit in 0..description.units.len() {
                let functions = iommu.functions_of(unit);
                log::info!("IOMMU: {} confines {functions} functions", iommu.name(unit));
            }
            iommu
        }
        Err((unit, error)) => {
            let at = description.units.get(unit).map_or(0, |unit| unit.registers.0);
            log::error!(
                "the {} at {at:#x} cannot be used: {error}",
                description.kind.name()
            );
            Iommu::default()
        }
    }
}

fn take(kind: Kind, unit: &super::description::Unit, memory: DirectMap) -> Result<Box<dyn Unit>, UnitError> {
    let length = match kind {
        Kind::Intel => intel::REGISTERS,
        Kind::Amd => amd::REGISTERS,
    };
    let registers =
        mmio::map(unit.registers, length).map_err(|_| UnitError::Registers("they cannot be mapped"))?;
    match kind {
        Kind::Intel => intel::take(Box::new(registers), unit, memory),
        Kind::Amd => amd::take(Box::new(registers), unit, memory),
    }
}

/// The bridges of the machine, with the buses behind them as firmware has numbered them.
fn bridges(machine: &Machine) -> Vec<Bridge> {
    const SECONDARY: u16 = 0x19;
    const SUBORDINATE: u16 = 0x1a;
    const TO_CONVENTIONAL: u32 = 7;
    machine
        .pci
        .iter()
        .filter(|function| function.is_bridge)
        .map(|function| {
            let bus = |offset| pci::read(function.address, offset, 1) as u8;
            let port = |express: u16| pci::read(function.address, express + 2, 2) >> 4 & 15;
            Bridge {
                address: function.address,
                buses: (bus(SECONDARY), bus(SUBORDINATE)),
                express: function
                    .express
                    .is_some_and(|express| port(express) != TO_CONVENTIONAL),
            }
        })
        .collect()
}

/// Memory that firmware reserves for a function: first address and bytes.
pub fn reserved(machine: &Machine, function: PciAddress) -> Vec<(MachineAddress, u64)> {
    let Some(description) = &machine.iommu else {
        return Vec::new();
    };
    let bridges = bridges(machine);
    description
        .reserved
        .iter()
        .filter(|reserved| {
            reserved.segment == function.segment && topology::is_for(&reserved.scopes, &bridges, function)
        })
        .map(|reserved| (reserved.start, reserved.length))
        .collect()
}
