//! Everything that reads foreign bytes, as functions of bytes: [`TARGETS`].
//!
//! A target promises to return, whatever it is given; a panic is a fault of what it calls. `corpus/NAME/` holds inputs of the target of that
//! name: seeds from which the fuzzer starts, and every input that once broke something. The tests of this crate run all of them, and let the
//! fuzzer itself (LLVM's libFuzzer, on instrumented code) search for a short while; `cargo atoll fuzz` searches for as long as one likes.

mod input;
mod targets;

pub use input::Input;

/// Something that reads foreign bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus'.
    pub name: &'static str,
    /// Reads them.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("acpi", targets::firmware::acpi),
    target("iommu", targets::firmware::iommu),
    target("boot-information", targets::firmware::boot_information),
    target("bundle", targets::appliance::bundle),
    target("appliance-source", targets::appliance::source),
    target("kernel-image", targets::guest::kernel_image),
    target("instruction", targets::guest::instruction),
    target("pci-configuration", targets::guest::pci_configuration),
    target("xenstore", targets::xenstore::server),
    target("block-ring", targets::block::ring),
    target("partition-table", targets::block::partition_table),
    target("network-ring", targets::network::ring),
    target("packet", targets::network::packet),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
