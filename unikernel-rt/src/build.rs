//! For the `build.rs` of a unikernel: one call that has it linked at its place.

extern crate std;

use std::env;
use std::fs;
use std::path::Path;
use std::println;

/// The linker script: an image at 1 MiB, whose sections begin on pages of their own so that each gets its rights.
const SCRIPT: &str = include_str!("boot/unikernel.ld");

/// Has the package's binaries linked as unikernels when they are built for the machine; does nothing for the host.
///
/// Not for anything but a `build.rs`: it panics where cargo's variables are missing.
pub fn link() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let script = Path::new(&folder).join("unikernel.ld");
    fs::write(&script, SCRIPT).expect("OUT_DIR is writable");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
}
