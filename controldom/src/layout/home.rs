//! A domain's home, `/local/domain/N`: what it may know of itself, and the few places where it may write.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use manifest::{Domain, Kind, Manifest};

use super::{Builder, NodePlan};
use crate::{
    DomainId,
    store::{Access, Path, Permissions, is_valid_name},
};

/// Places in the home that belong to the domain itself, as `xl` gives them.
const OWN: [&str; 5] = ["data", "drivers", "feature", "attr", "error"];
/// Where Xen's own `test-xenstore` works.
const TEST_PLACE: &str = "xenstore-test";

/// The nodes of a domain's home, without devices.
pub(super) fn nodes(
    manifest: &Manifest,
    control: DomainId,
    id: DomainId,
    domain: &Domain,
    console: &[DomainId],
    observers: &[DomainId],
    complaints: &mut Vec<String>,
) -> Vec<NodePlan> {
    let readable = Permissions::private(control).and(id, Access::READ);
    let writable = Permissions::private(control).and(id, Access::BOTH);
    let own = Permissions::private(id);
    let uuid = uuid(id);
    let mut nodes = Builder::new(Path::home(id), readable.clone());
    nodes.add_base();
    nodes.add("name", domain.name.as_str());
    nodes.add("domid", id.to_string());
    nodes.add("vm", format!("/vm/{uuid}"));

    nodes.add("memory", "");
    let kibibytes = (domain.memory >> 10).to_string();
    nodes.add("memory/target", kibibytes.as_str());
    nodes.add("memory/static-max", kibibytes);

    nodes.add("cpu", "");
    for cpu in 0..domain.vcpus {
        nodes.add(&format!("cpu/{cpu}"), "");
        nodes.add(&format!("cpu/{cpu}/availability"), "online");
    }

    let console_readable = console
        .iter()
        .fold(readable.clone(), |all, reader| all.and(*reader, Access::READ));
    for (name, value) in [
        ("console", ""),
        ("console/type", "xenconsoled"),
        ("console/limit", "1048576"),
    ] {
        nodes.add_with(name, value, console_readable.clone());
    }
    nodes.add("store", "");
    nodes.add("device", "");

    // The guest answers here (`feature-poweroff`, an emptied `shutdown`), so it may add nodes.
    nodes.add_with("control", "", writable.clone());
    nodes.add_with("control/shutdown", "", own.clone());
    nodes.add("control/platform-feature-multiprocessor-suspend", "1");
    nodes.add("control/platform-feature-xs_reset_watches", "1");
    // What a domain publishes in `data` (statistics, latencies) is for those who observe, too; nodes that it makes there inherit that.
    let observed = observers
        .iter()
        .filter(|observer| **observer != id)
        .fold(own.clone(), |all, observer| all.and(*observer, Access::READ));
    for name in OWN {
        let permissions = if name == "data" { &observed } else { &own };
        nodes.add_with(name, "", permissions.clone());
    }
    if matches!(domain.kind, Kind::Linux { .. }) {
        nodes.add_with(TEST_PLACE, "", writable);
    }

    nodes.add("options", "");
    for (key, value) in &domain.options {
        if is_valid_name(key) {
            nodes.add(&format!("options/{key}"), value.as_str());
        } else {
            complaints.push(format!(
                "{}: the option {key:?} cannot be a node's name and is left out",
                domain.name
            ));
        }
    }

    let serves = |other: &Domain| {
        other.disks.iter().any(|disk| disk.backend == domain.name)
            || other
                .networks
                .iter()
                .any(|network| network.backend == domain.name)
    };
    if manifest.domains.iter().any(serves) {
        nodes.add_with("backend", "", own);
    }

    let mut virtual_machine = Builder::new(Path::root(), readable);
    virtual_machine.add(&format!("vm/{uuid}"), "");
    virtual_machine.add(&format!("vm/{uuid}/uuid"), uuid.as_str());
    virtual_machine.add(&format!("vm/{uuid}/name"), domain.name.as_str());
    nodes.nodes.extend(virtual_machine.done());
    nodes.done()
}

/// A domain keeps its id for good, so the id makes it unique on the machine.
fn uuid(id: DomainId) -> String {
    format!("00000000-0000-0000-0000-{:012x}", id.0)
}
