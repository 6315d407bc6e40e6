//! What every unikernel of Atoll stands on.
//!
//! A unikernel is one static program that a PVH entry starts, identity-mapped, on one virtual processor, with interrupts off. It does
//! its work in one loop: look at the rings, then wait for the next event channel. This crate gives it an entry, a
//! heap, a log, and the ways to other domains and to devices; [`System`] holds them all.
//!
//! | module | what for |
//! | --- | --- |
//! | [`event`] | event channels, interrupts, waiting |
//! | [`time`] | instants, the clock |
//! | [`memory`] | memory that a peer or a device writes meanwhile |
//! | [`ring`] | request rings of both ends, byte rings |
//! | [`grant`] | granting, mapping, copying pages |
//! | [`xenstore`], [`xenbus`] | finding devices, connecting to the other side |
//! | [`keep`] | what a domain hands on to its next life |
//! | [`pci`], [`port`], [`dma`], [`virtio`], `virtio_pci` | devices |
//! | [`console`] | the domain's own console as a byte stream |
//! | [`atoll`] | the hypervisor's control interface |
//! | `fake` | all of it without a machine, for tests (feature `fake`) |
//!
//! # A domain
//!
//! `Cargo.toml` names the crate three times: only the tests get the fakes:
//!
//! ```toml
//! [dependencies]
//! unikernel-rt.workspace = true
//! [build-dependencies]
//! unikernel-rt.workspace = true
//! [dev-dependencies]
//! unikernel-rt = { workspace = true, features = ["fake"] }
//! ```
//!
//! `build.rs` asks for the linker script:
//!
//! ```no_run
//! unikernel_rt::build::link();
//! ```
//!
//! `src/main.rs` is thin; the logic lives in the crate's library, which `cargo test` runs on the host:
//!
//! ```
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! extern crate alloc;
//!
//! use core::convert::Infallible;
//! use unikernel_rt::xenbus::{Attach, Backend, BackendBus, Device, DeviceError};
//! use unikernel_rt::{Failure, System};
//!
//! unikernel_rt::entry!(run);
//!
//! struct Null;
//! impl Backend for Null {
//!     type Connection = ();
//!     fn class(&self) -> &str { "null" }
//!     fn publish(&mut self, device: &Device) -> Result<(), DeviceError> {
//!         Ok(device.write("feature-nothing", 1)?)
//!     }
//!     fn connect(&mut self, _device: &Device, _attach: Attach) -> Result<(), DeviceError> { Ok(()) }
//! }
//!
//! /// An error ends the domain with a crash report; a domain that serves never returns.
//! fn run(system: System) -> Result<Infallible, Failure> {
//!     let store = system.store()?;
//!     let mut bus = BackendBus::start(store, Null)?;
//!     loop {
//!         let more = bus.handle_events()?;
//!         for (_device, _connection) in bus.parts().1 {
//!             // Serve the rings; `final_check` each before waiting.
//!         }
//!         if !more {
//!             system.events.wait(None);
//!         }
//!     }
//! }
//! ```
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod atoll;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(not(target_os = "none"))]
pub mod build;
pub mod console;
pub mod crc32;
pub mod dma;
pub mod event;
mod failure;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod grant;
pub mod hypercall;
pub mod keep;
pub mod memory;
pub mod pci;
pub mod port;
pub mod ring;
mod system;
pub mod time;
pub mod virtio;
#[cfg(target_os = "none")]
pub mod virtio_pci;
pub mod xenbus;
pub mod xenstore;

use core::fmt;

pub use failure::Failure;
pub use system::{Connections, Module, StartError, System};

/// A domain, by its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The caller, wherever an id is asked for.
    pub const SELF: DomainId = DomainId(0x7ff0);
}

impl fmt::Display for DomainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "domain {}", self.0)
    }
}

/// Names the function that a unikernel begins with: `fn(System) -> Result<Infallible, E>`, where `E` prints as a sentence.
///
/// On the machine it becomes the entry; on the host an empty `main`, so that the same file compiles in
/// `cargo test --workspace`. The file begins with `#![cfg_attr(target_os = "none", no_std, no_main)]`, and the function
/// must not be called `main`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[cfg(target_os = "none")]
        #[allow(unsafe_code)]
        // The runtime calls it by this name, once; a second definition would not link.
        #[unsafe(no_mangle)]
        fn unikernel_run(system: $crate::System) -> $crate::Never {
            $crate::boot::finish($run(system))
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            $crate::host_main($run);
        }
    };
}

/// No value: what a unikernel returns.
#[doc(hidden)]
pub type Never = core::convert::Infallible;

/// The host's side of [`entry!`]: there is no machine to run on.
#[doc(hidden)]
pub fn host_main<E: fmt::Display>(_run: fn(System) -> Result<Never, E>) {}
