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
        Ok(()) => hypervisor::platform::panic::give_up(&"there is nothing to run domains yet"),
        Err(reason) => hypervisor::platform::panic::give_up(&reason),
    }
}

/// Every step, in order. What comes back is a reason that people can do something about.
#[cfg(target_os = "none")]
fn start(magic: u32, information: u32) -> Result<(), alloc::string::String> {
    use alloc::string::ToString;
    use hypervisor::{boot, platform};
    use manifest::bundle::Bundle;

    let information = boot::receive(magic, information).map_err(|error| error.to_string())?;
    let machine = platform::discover(information).map_err(|error| error.to_string())?;
    let memory = platform::address_space::direct_map();
    let bytes = platform::address_space::bundle(&machine);
    let manifest = Bundle::parse(bytes)
        .and_then(|bundle| bundle.manifest())
        .map_err(|error| error.to_string())?;
    platform::panic::reboot_on_panic(manifest.reboot_on_panic);
    platform::virtualization::check(&machine.features).map_err(|missing| missing.to_string())?;
    log::info!("appliance {}: {} domains", manifest.name, manifest.domains.len());
    let _ = (memory, machine);
    Ok(())
}
