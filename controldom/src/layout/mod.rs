//! The tree as it is before any domain runs: a pure function of the manifest, laid out as Xen's `xl` does it, so that stock
//! kernels find everything. The public list is `docs/developer/contracts.md`.

mod devices;
mod home;
#[cfg(test)]
pub(crate) mod tests;

pub use devices::{DeviceNodes, disk_number};

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use manifest::{Manifest, Restarts};

use crate::{
    DomainId,
    store::{Access, Path, Permissions, Special, Store, StoreError, is_valid_name},
};

/// A node to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Where.
    pub path: Path,
    /// Its value.
    pub value: String,
    /// Its permissions.
    pub permissions: Permissions,
}

/// What the control plane knows of a domain before it runs.
#[derive(Clone, Debug)]
pub struct DomainPlan {
    /// Its id.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// Whether it is a guest with a kernel of its own, which takes part in an orderly shutdown.
    pub is_guest: bool,
    /// Its vCPUs.
    pub vcpus: u32,
    /// Bytes of memory that it starts with.
    pub memory: u64,
    /// Bytes of memory that it can be given.
    pub memory_maximum: u64,
    /// What happens when it crashes.
    pub restarts: Restarts,
    /// The nodes of its home, without devices.
    pub home: Vec<NodePlan>,
    /// The devices that it is served.
    pub devices: Vec<DeviceNodes>,
}

/// What the control plane makes of the manifest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The domain that this is.
    pub control: DomainId,
    /// Domains that may watch and read what concerns all: those with `observe`, and the console's.
    pub observers: Vec<DomainId>,
    /// Nodes that belong to no domain's home.
    pub common: Vec<NodePlan>,
    /// The domains, in the order in which they start.
    pub domains: Vec<DomainPlan>,
    /// What of the manifest could not be laid out, in sentences.
    pub complaints: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Whom should all domains obey?
    #[error("no domain of the manifest has the capability `control`")]
    NoControl,
    /// Ids have 16 bits, and the upper ones are reserved.
    #[error("the manifest has {0} domains, more than there are ids")]
    TooManyDomains(usize),
}

/// Where the operator's requests arrive.
pub const REQUEST: &str = "/atoll/operator/request";
/// Where they are answered.
pub const REPLY: &str = "/atoll/operator/reply";
/// Becomes 1 once every domain has been started or has failed to.
pub const READY: &str = "/atoll/ready";

/// Ids from here on have a meaning of their own in Xen's ABI.
const FIRST_RESERVED_ID: usize = 0x7ff0;

impl Plan {
    /// Makes the plan.
    pub fn new(manifest: &Manifest) -> Result<Self, PlanError> {
        let domains = &manifest.domains;
        if domains.len() >= FIRST_RESERVED_ID {
            return Err(PlanError::TooManyDomains(domains.len()));
        }
        let ids = || (1u16..).map(DomainId).zip(domains);
        let control = ids()
            .find(|(_, domain)| domain.capabilities.control)
            .ok_or(PlanError::NoControl)?
            .0;
        let console: Vec<DomainId> = ids()
            .filter(|(_, domain)| domain.capabilities.console_log)
            .map(|(id, _)| id)
            .collect();
        let observers: Vec<DomainId> = ids()
            .filter(|(id, domain)| {
                *id != control && (domain.capabilities.observe || domain.capabilities.console_log)
            })
            .map(|(id, _)| id)
            .collect();
        let mut complaints = Vec::new();
        let domains = ids()
            .map(|(id, domain)| DomainPlan {
                id,
                name: domain.name.clone(),
                is_guest: matches!(domain.kind, manifest::Kind::Linux { .. }),
                vcpus: domain.vcpus,
                memory: domain.memory,
                memory_maximum: domain.memory_maximum,
                restarts: domain.restarts,
                home: home::nodes(
                    manifest,
                    control,
                    id,
                    domain,
                    &console,
                    &observers,
                    &mut complaints,
                ),
                devices: devices::of(manifest, id, domain, &mut complaints),
            })
            .collect::<Vec<_>>();
        let common = common(control, &observers, &console, &domains, &mut complaints);
        Ok(Self {
            control,
            observers,
            common,
            domains,
            complaints,
        })
    }

    /// Every node, in the order in which they are made.
    pub fn nodes(&self) -> impl Iterator<Item = &NodePlan> {
        let homes = self.domains.iter().flat_map(|domain| &domain.home);
        let devices = self
            .domains
            .iter()
            .flat_map(|domain| &domain.devices)
            .flat_map(DeviceNodes::nodes);
        self.common.iter().chain(homes).chain(devices)
    }

    /// Makes all nodes, and lets the observers watch announcements.
    pub fn populate(&self, store: &mut Store) -> Result<(), StoreError> {
        for observer in &self.observers {
            for special in Special::ALL {
                store.permit_special(special, *observer);
            }
        }
        put_all(store, self.nodes())
    }
}

/// Makes nodes.
pub fn put_all<'a>(
    store: &mut Store,
    nodes: impl IntoIterator<Item = &'a NodePlan>,
) -> Result<(), StoreError> {
    nodes
        .into_iter()
        .try_for_each(|node| store.put(&node.path, node.value.as_bytes(), &node.permissions))
}

/// Nodes that are known only once a domain has been built: where its rings are.
pub fn ring_nodes(control: DomainId, domain: DomainId, rings: &Rings) -> Vec<NodePlan> {
    let readable = Permissions::private(control).and(domain, Access::READ);
    let mut nodes = Builder::new(Path::home(domain), readable);
    nodes.add("console/ring-ref", rings.console_frame.to_string());
    nodes.add("console/port", rings.console_port.to_string());
    nodes.add("store/ring-ref", rings.store_frame.to_string());
    nodes.add("store/port", rings.store_port.to_string());
    nodes.done()
}

/// Where a domain's rings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Guest frame of the xenstore ring.
    pub store_frame: u64,
    /// The domain's xenstore port.
    pub store_port: u32,
    /// Guest frame of the console ring.
    pub console_frame: u64,
    /// The domain's console port.
    pub console_port: u32,
}

fn common(
    control: DomainId,
    observers: &[DomainId],
    console: &[DomainId],
    domains: &[DomainPlan],
    complaints: &mut Vec<String>,
) -> Vec<NodePlan> {
    let private = Permissions::private(control);
    let read_by = |readers: &[DomainId], access: Access| {
        readers.iter().fold(private.clone(), |permissions, reader| {
            permissions.and(*reader, access)
        })
    };
    let mut nodes = Builder::new(Path::root(), private.clone());
    for path in ["tool", "local", "local/domain", "vm"] {
        nodes.add(path, "");
    }
    nodes.permissions = read_by(observers, Access::READ);
    for path in ["atoll", "atoll/domains", "atoll/operator"] {
        nodes.add(path, "");
    }
    for domain in domains {
        if is_valid_name(&domain.name) {
            nodes.add(&format!("atoll/domains/{}", domain.name), domain.id.to_string());
        } else {
            complaints.push(format!(
                "{:?} cannot be a node's name: it is missing from /atoll/domains",
                domain.name
            ));
        }
    }
    nodes.add("atoll/ready", "0");
    nodes.permissions = read_by(console, Access::BOTH);
    nodes.add("atoll/operator/request", "");
    nodes.permissions = read_by(console, Access::READ);
    nodes.add("atoll/operator/reply", "");
    nodes.done()
}

/// Gathers nodes below one path.
struct Builder {
    base: Path,
    permissions: Permissions,
    nodes: Vec<NodePlan>,
}

impl Builder {
    fn new(base: Path, permissions: Permissions) -> Self {
        Self {
            base,
            permissions,
            nodes: Vec::new(),
        }
    }

    /// Adds the base itself.
    fn add_base(&mut self) {
        let (path, permissions) = (self.base.clone(), self.permissions.clone());
        self.nodes.push(NodePlan {
            path,
            value: String::new(),
            permissions,
        });
    }

    /// Adds a node whose name is ours, or checked.
    fn add(&mut self, name: &str, value: impl Into<String>) {
        let permissions = self.permissions.clone();
        self.add_with(name, value, permissions);
    }

    fn add_with(&mut self, name: &str, value: impl Into<String>, permissions: Permissions) {
        match self.base.child(name) {
            Ok(path) => self.nodes.push(NodePlan {
                path,
                value: value.into(),
                permissions,
            }),
            Err(_) => debug_assert!(false, "{name:?} is no name of a node"),
        }
    }

    fn done(self) -> Vec<NodePlan> {
        self.nodes
    }
}
