//! Finding out about the machine, in the only order that works.

use super::{
    Machine, acpi, address_space, cpu, interrupts, io_apic, local_apic, log, paging::MapError, pci, power,
    smp, time,
};
use crate::{
    boot::{
        BootError, Framebuffer, Information, Protocol, layout,
        memory_map::{self, LOW_MEMORY_END, Region, without},
    },
    iommu,
    memory::MachineAddress,
};

/// Why the machine cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The loader's information.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Own mappings.
    #[error("the hypervisor's address space cannot be built: {0}")]
    AddressSpace(#[from] MapError),
    /// No module.
    #[error(
        "the boot loader passed no module; pass the bundle that image-builder wrote (GRUB: module2, QEMU: -initrd)"
    )]
    NoBundle,
    /// The module is nowhere, or over the image.
    #[error(
        "the boot loader's module lies outside the memory of its map, or over the hypervisor; it cannot be trusted"
    )]
    BundleOutsideMemory,
}

/// Takes the machine over: address space, descriptors, log on the screen, ACPI, interrupt controllers, clocks, PCI.
pub fn discover(information: Information) -> Result<Machine, Trouble> {
    let features = cpu::Features::detect();
    let ram = memory_map::ram(&information.memory);
    let (start, end) = layout::image().machine_range();
    let image = Region { start, end };
    if !ram.iter().any(|region| image.is_within(region)) {
        return Err(BootError::MemoryMap.into());
    }
    let bundle = information.modules.first().copied();
    let bundle_is_sound = bundle.is_none_or(|bundle| is_somewhere(bundle, image, &information));
    address_space::enter(&information.memory, bundle.filter(|_| bundle_is_sound), &features)?;
    super::descriptors::map_boot_stacks()?;
    cpu::initialize(0);
    log::show_on(screen(&information).as_ref());
    greet(&information, &features);

    let bundle = bundle.ok_or(Trouble::NoBundle)?;
    if !bundle_is_sound {
        return Err(Trouble::BundleOutsideMemory);
    }
    let tables = acpi::Tables::find(&address_space::FirmwareMemory, information.rsdp.as_ref());
    let tables = tables.unwrap_or_else(|error| {
        ::log::warn!("{error}; interrupt lines, power off and most of PCI will not work");
        acpi::Tables {
            all: alloc::vec::Vec::new(),
        }
    });
    ::log::info!("ACPI tables: {}", tables.names());
    let madt = tables.get(b"APIC").map(acpi::madt::parse).unwrap_or_default();
    let fadt = tables.get(b"FACP").map(acpi::fadt::parse).unwrap_or_default();
    let code = tables
        .all
        .iter()
        .filter(|table| matches!(&table.signature, b"DSDT" | b"SSDT"));
    let soft_off = code.filter_map(|table| acpi::fadt::soft_off(&table.bytes)).next();

    interrupts::silence_legacy_controllers();
    local_apic::initialize(&features)?;
    io_apic::initialize(&madt.io_apics, &madt.overrides);
    time::initialize(&fadt);
    let low = Region {
        start: MachineAddress(0),
        end: LOW_MEMORY_END,
    };
    let taken = [low, image.outer_pages(), bundle.outer_pages()];
    let mut free = taken
        .into_iter()
        .fold(ram.clone(), |free, hole| without(&free, hole));
    let online = smp::start(&features, &madt.processors, &ram, &mut free);
    let functions = pci::initialize(&tables.get(b"MCFG").map(acpi::mcfg::parse).unwrap_or_default());
    power::initialize(&fadt, soft_off);

    let machine = Machine {
        memory: information.memory,
        ram,
        free,
        bundle,
        command_line: information.command_line,
        features,
        processors: madt.processors,
        online,
        io_apics: madt.io_apics,
        overrides: madt.overrides,
        pci: functions,
        iommu: iommu::Description::read(&tables),
        tsc_khz: time::tsc_khz(),
    };
    report(&machine);
    Ok(machine)
}

/// Whether the module can be where the loader says: in memory that the map knows, and beside the image. Part of it may be memory that firmware keeps (QEMU's
/// loader does not know how much SeaBIOS takes for its disk drivers): it was written last, and its hashes tell if it is overwritten.
fn is_somewhere(bundle: Region, image: Region, information: &Information) -> bool {
    let pages = bundle.outer_pages();
    let apart = pages.end <= image.start || image.end <= pages.start;
    let unknown = information
        .memory
        .iter()
        .fold(alloc::vec![pages], |rest, entry| without(&rest, entry.region));
    apart && unknown.is_empty() && pages.end.0 <= layout::RAM_LIMIT
}

/// The screen that the loader names; a PVH loader names none, but BIOS notes in its data area which mode it set.
fn screen(information: &Information) -> Option<Framebuffer> {
    use super::physical::{Fields, PhysicalMemory};
    if information.framebuffer.is_some() || information.protocol != Protocol::Pvh {
        return information.framebuffer;
    }
    const VIDEO_MODE: MachineAddress = MachineAddress(0x449);
    const COLOUR_TEXT: u8 = 3;
    let data = address_space::FirmwareMemory.bytes(VIDEO_MODE, 3).ok()?;
    (data.u8_at(0) == Some(COLOUR_TEXT) && data.u16_at(1) == Some(80)).then_some(Framebuffer::Text {
        address: MachineAddress(0xb8000),
        columns: 80,
        rows: 25,
        pitch: 160,
    })
}

fn greet(information: &Information, features: &cpu::Features) {
    let by = match information.protocol {
        Protocol::Multiboot2 => "Multiboot2",
        Protocol::Pvh => "PVH",
    };
    ::log::info!(
        "Atoll {} by {by} {}",
        env!("CARGO_PKG_VERSION"),
        information.loader
    );
    for word in crate::boot::options::parse(&information.command_line).unknown {
        ::log::warn!("the command line's word {word} means nothing here");
    }
    ::log::info!("processor: {}, {}", features.vendor, features.name);
}

fn report(machine: &Machine) {
    let free: u64 = machine.free.iter().map(Region::length).sum();
    ::log::info!(
        "memory: {} MiB, {} MiB of it free",
        machine.ram_size() >> 20,
        free >> 20
    );
    for region in &machine.free {
        ::log::debug!("free: {:#x} to {:#x}", region.start.0, region.end.0);
    }
    let usable = machine
        .processors
        .iter()
        .filter(|processor| processor.enabled)
        .count();
    ::log::info!(
        "{usable} processors ({} in use), local APIC {}, {} I/O APICs",
        machine.online.len(),
        if local_apic::is_x2apic() {
            "in x2APIC mode"
        } else {
            "in xAPIC mode"
        },
        machine.io_apics.len()
    );
    for function in &machine.pci {
        let pci::PciFunction {
            address,
            vendor,
            device,
            class,
            subclass,
            interface,
            ..
        } = function;
        let interrupts = function.msix.map_or(0, |msix| msix.entries);
        ::log::info!(
            "PCI {address} {vendor:04x}:{device:04x} class {class:02x}{subclass:02x}{interface:02x}, {interrupts} MSI-X vectors"
        );
        for bar in &function.bars {
            ::log::debug!(
                "    register {}: {:?} {:#x}, {:#x} long",
                bar.index,
                bar.kind,
                bar.address,
                bar.size
            );
        }
    }
    match &machine.iommu {
        Some(iommu) => ::log::info!("IOMMU {} with {} units", iommu.kind.name(), iommu.units.len()),
        None => ::log::warn!("no IOMMU: nothing confines what devices of driver domains write to"),
    }
}
