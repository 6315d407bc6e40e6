//! What an appliance is made of: the [model](model) of `appliance.toml`, its binary form, and the [bundle](bundle) that carries
//! the manifest and every domain's files into the machine.
//!
//! The host writes (feature `toml`), the hypervisor and controldom read. A reader trusts nothing: lengths, offsets and hashes
//! are checked, and an error names the entry that it is about.
#![cfg_attr(not(any(test, feature = "toml")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod model;
pub mod size;
#[cfg(feature = "toml")]
pub mod source;

pub use model::{
    Capabilities, Class, Device, Disk, Domain, Kind, LEAST_LINUX_MEMORY, MOST_KEEP, Manifest, Network,
    Restart, Restarts, Scheduling,
};
