//! Builds, runs and inspects appliance images.
//!
//! [`build::image`] reads as the list of what happens: the source is read, programs are compiled, guests are put together, the bundle
//! is packed, the ISO is written. Everything that is downloaded or derived from a download stays below `build/cache`; a second build
//! needs no network.

pub mod apt;
pub mod build;
pub mod command;
pub mod compile;
pub mod cpio;
pub mod disk;
pub mod emulator;
pub mod error;
pub mod executable;
pub mod files;
pub mod fuzz;
pub mod guest;
pub mod inspect;
pub mod iso;
pub mod kernel;
pub mod lint;
pub mod modules;
pub mod program;
pub mod progress;
pub mod target_libraries;
pub mod workspace;

pub use error::{Error, Result};
pub use progress::Progress;
pub use workspace::Workspace;
