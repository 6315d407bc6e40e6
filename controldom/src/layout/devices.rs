//! Block devices and network interfaces: for each, a directory at the frontend and one at the backend, which name each other.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use manifest::{Disk, Domain, Manifest, Network};

use super::{Builder, NodePlan};
use crate::{
    DomainId,
    store::{Access, Path, Permissions},
};

/// The nodes of one device.
#[derive(Clone, Debug)]
pub struct DeviceNodes {
    /// The domain that serves it.
    pub backend_domain: DomainId,
    /// Its directory at the frontend.
    pub frontend: Path,
    /// Its directory at the backend.
    pub backend: Path,
    /// The directories above, which stay when the device goes.
    pub above: Vec<NodePlan>,
    /// The frontend's directory and what is in it.
    pub frontend_nodes: Vec<NodePlan>,
    /// The backend's directory and what is in it.
    pub backend_nodes: Vec<NodePlan>,
}

impl DeviceNodes {
    /// All of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodePlan> {
        self.above
            .iter()
            .chain(&self.frontend_nodes)
            .chain(&self.backend_nodes)
    }
}

/// The devices that a domain is served.
pub(super) fn of(
    manifest: &Manifest,
    id: DomainId,
    domain: &Domain,
    complaints: &mut Vec<String>,
) -> Vec<DeviceNodes> {
    let Some(control) = domain_id(manifest, |domain| domain.capabilities.control) else {
        return Vec::new();
    };
    let mut backend_of = |name: &str, what: &str| {
        let backend = domain_id(manifest, |other| other.name == name);
        if backend.is_none() {
            complaints.push(format!(
                "{}: {what} names the backend {name:?}, which is no domain",
                domain.name
            ));
        }
        backend
    };
    let mut devices = Vec::new();
    let mut unnamed = Vec::new();
    for disk in &domain.disks {
        let Some(backend) = backend_of(&disk.backend, &disk.name) else {
            continue;
        };
        match disk_number(&disk.name) {
            Some(number) => devices.push(block_device(control, id, backend, disk, number)),
            None => unnamed.push(format!(
                "{}: {:?} is no name of a disk, as xvda is",
                domain.name, disk.name
            )),
        }
    }
    for (handle, network) in domain.networks.iter().enumerate() {
        let Some(backend) = backend_of(&network.backend, &format!("interface {handle}")) else {
            continue;
        };
        devices.push(network_interface(control, id, backend, network, handle));
    }
    complaints.extend(unnamed);
    devices
}

fn domain_id(manifest: &Manifest, is_it: impl Fn(&Domain) -> bool) -> Option<DomainId> {
    manifest
        .domains
        .iter()
        .position(is_it)
        .and_then(DomainId::of_index)
}

/// The number by which a guest knows a disk: `xvda` is 51712, one disk every 16; from the 17th on in Xen's extended form, one
/// every 256. A partition's number may follow.
pub fn disk_number(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("xvd")?;
    let letters = rest.trim_end_matches(|character: char| character.is_ascii_digit());
    let partition: u32 = match &rest[letters.len()..] {
        "" => 0,
        digits if digits.starts_with('0') => return None,
        digits => digits.parse().ok()?,
    };
    if letters.is_empty() || letters.len() > 3 || !letters.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let disk = letters
        .bytes()
        .fold(0u32, |disk, letter| disk * 26 + u32::from(letter - b'a') + 1)
        - 1;
    match (disk, partition) {
        (0..16, 0..16) => Some(202 << 8 | disk << 4 | partition),
        (_, 0..256) => Some(1 << 28 | disk << 8 | partition),
        _ => None,
    }
}

/// What both directories of a device are made with.
struct Pair {
    frontend: Builder,
    backend: Builder,
    above: Vec<NodePlan>,
    backend_domain: DomainId,
}

impl Pair {
    fn new(control: DomainId, frontend: DomainId, backend: DomainId, class: &str, number: u32) -> Self {
        let mut above_frontend = Builder::new(
            Path::home(frontend),
            Permissions::private(control).and(frontend, Access::READ),
        );
        above_frontend.add(&format!("device/{class}"), "");
        let mut above_backend = Builder::new(Path::home(backend), Permissions::private(backend));
        above_backend.add(&format!("backend/{class}"), "");
        above_backend.add(&format!("backend/{class}/{frontend}"), "");
        let below = |home: Path, place: &str, owner: DomainId, reader: DomainId| {
            let base = home.child(place).unwrap_or(home);
            let mut builder = Builder::new(base, Permissions::private(owner).and(reader, Access::READ));
            builder.add_base();
            builder
        };
        let frontend_place = format!("device/{class}/{number}");
        let backend_place = format!("backend/{class}/{frontend}/{number}");
        let mut pair = Self {
            frontend: below(Path::home(frontend), &frontend_place, frontend, backend),
            backend: below(Path::home(backend), &backend_place, backend, frontend),
            above: [above_frontend.done(), above_backend.done()].concat(),
            backend_domain: backend,
        };
        let (frontend_path, backend_path) = (pair.frontend.base.to_string(), pair.backend.base.to_string());
        pair.frontend.add("backend", backend_path);
        pair.frontend.add("backend-id", backend.to_string());
        pair.backend.add("frontend", frontend_path);
        pair.backend.add("frontend-id", frontend.to_string());
        pair.backend.add("online", "1");
        pair
    }

    /// Adds the states, last, and hands out the nodes.
    fn done(mut self) -> DeviceNodes {
        self.frontend.add("state", "1");
        self.backend.add("state", "1");
        DeviceNodes {
            backend_domain: self.backend_domain,
            frontend: self.frontend.base.clone(),
            backend: self.backend.base.clone(),
            above: self.above,
            frontend_nodes: self.frontend.done(),
            backend_nodes: self.backend.done(),
        }
    }
}

fn block_device(
    control: DomainId,
    frontend: DomainId,
    backend: DomainId,
    disk: &Disk,
    number: u32,
) -> DeviceNodes {
    let mut pair = Pair::new(control, frontend, backend, "vbd", number);
    let number = number.to_string();
    for (key, value) in [
        ("virtual-device", number.as_str()),
        ("device-type", "disk"),
        ("handle", &number),
        ("protocol", "x86_64-abi"),
    ] {
        pair.frontend.add(key, value);
    }
    let mode = if disk.read_only { "r" } else { "w" };
    for (key, value) in [
        ("dev", disk.name.as_str()),
        ("mode", mode),
        ("params", &disk.volume),
        ("type", "phy"),
        ("removable", "0"),
        ("bootable", "0"),
    ] {
        pair.backend.add(key, value);
    }
    pair.done()
}

fn network_interface(
    control: DomainId,
    frontend: DomainId,
    backend: DomainId,
    network: &Network,
    handle: usize,
) -> DeviceNodes {
    let mut pair = Pair::new(control, frontend, backend, "vif", handle as u32);
    let [a, b, c, d, e, f] = network.mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let handle = handle.to_string();
    for (key, value) in [("handle", handle.as_str()), ("mac", &mac), ("mtu", "1500")] {
        pair.frontend.add(key, value);
    }
    for (key, value) in [("handle", handle.as_str()), ("mac", &mac), ("bridge", "bridge0")] {
        pair.backend.add(key, value);
    }
    pair.done()
}
