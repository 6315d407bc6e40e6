//! The hypervisor's start, as a table of contents. The library beside it has the chapters.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![allow(unsafe_code)] // The entry's assembly calls a symbol by its name.

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(not(target_os = "none"))]
fn main() {}

/// Called by the entry, once, with what the loader passed in EAX and EBX.
// SAFETY: nothing else in the image has this name.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn atoll_start(magic: u32, information: u32) -> ! {
    match start(magic, information) {
        Ok(hypervisor) => hypervisor::run::run(hypervisor),
        Err(reason) => hypervisor::platform::panic::give_up(&reason),
    }
}

/// Every step, in order. What comes back is a reason that people can do something about.
#[cfg(target_os = "none")]
fn start(magic: u32, information: u32) -> Result<hypervisor::Hypervisor, alloc::string::String> {
    use alloc::string::ToString;
    use hypervisor::{
        Hypervisor, boot,
        domain::images::Images,
        memory::{Frame, FrameAllocator, PAGE_SIZE},
        platform, virt,
    };
    use manifest::bundle::Bundle;

    let information = boot::receive(magic, information).map_err(|error| error.to_string())?;
    let machine = platform::discover(information).map_err(|error| error.to_string())?;
    let memory = platform::address_space::direct_map();
    let bytes = platform::address_space::bundle(&machine);
    let bundle = Bundle::parse(bytes).map_err(|error| error.to_string())?;
    let manifest = bundle.manifest().map_err(|error| error.to_string())?;
    platform::panic::reboot_on_panic(manifest.reboot_on_panic);
    if let Some(name) = boot::options::parse(&machine.command_line).selftest {
        platform::selftest::run(&name, &machine);
    }
    platform::virtualization::check(&machine.features).map_err(|missing| missing.to_string())?;
    log::info!("appliance {}: {} domains", manifest.name, manifest.domains.len());
    let free: alloc::vec::Vec<_> = (machine.free.iter())
        .map(|region| (Frame::containing(region.start), region.length() / PAGE_SIZE))
        .collect();
    let mut frames = FrameAllocator::new(&free);
    let backend =
        virt::enable(&memory, &mut frames, machine.online.len()).map_err(|error| error.to_string())?;
    log::info!("guests run by {}", backend.name());
    let iommu = hypervisor::iommu::start::start(&machine, memory, &mut frames);
    Ok(Hypervisor::new(
        machine,
        manifest,
        Images::new(bundle),
        memory,
        frames,
        backend,
        iommu,
    ))
}
