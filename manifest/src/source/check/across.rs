//! What has to hold between domains.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use toml::Spanned;

use super::*;

impl Checker<'_> {
    pub(super) fn check_roles(&mut self, domains: &[Spanned<raw::Domain>]) {
        let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
        for domain in domains.iter().map(Spanned::get_ref) {
            for capability in &domain.capabilities {
                let (role, alone) = match capability.get_ref() {
                    raw::Capability::Control => ("control", true),
                    raw::Capability::ConsoleLog => ("console-log", true),
                    raw::Capability::Observe => ("observe", false),
                };
                if alone && domain.kind.get_ref() == &raw::Kind::Linux {
                    let message = format!(
                        "{} is a guest and cannot have the capability {role}",
                        domain.name.get_ref()
                    );
                    self.report_with_help(
                        capability.span(),
                        message,
                        "give it to a domain of kind = \"unikernel\"",
                    );
                } else if alone && let Some(first) = holders.insert(role, domain.name.get_ref()) {
                    let message =
                        format!("{first} already has the capability {role}; only one domain can have it");
                    self.report_with_help(capability.span(), message, "take it away from one of them");
                }
            }
        }
        if !holders.contains_key("control") {
            self.report_with_help(
                domains.first().map_or(0..0, Spanned::span),
                "no domain has the capability control, so nothing would start the others",
                "add a [[domain]] with program = \"controldom\" and capabilities = [\"control\", \"observe\"]",
            );
        }
    }

    pub(super) fn check_names(&mut self, domains: &[Spanned<raw::Domain>]) {
        let mut names = BTreeSet::new();
        for domain in domains.iter().map(Spanned::get_ref) {
            self.read(&domain.name, |name| values::domain_name(name));
            if !names.insert(domain.name.get_ref()) {
                let message = format!("there is another domain named {}", domain.name.get_ref());
                self.report_with_help(domain.name.span(), message, "each domain needs a name of its own");
            }
            let mut disks = BTreeSet::new();
            for disk in &domain.disk {
                self.read(&disk.name, |name| values::disk_name(name));
                if !disks.insert(disk.name.get_ref()) {
                    let message = format!(
                        "{} has another disk {}",
                        domain.name.get_ref(),
                        disk.name.get_ref()
                    );
                    self.report(disk.name.span(), message);
                }
            }
        }
    }

    pub(super) fn check_backends(&mut self, domains: &[Spanned<raw::Domain>]) {
        let names: Vec<&String> = domains
            .iter()
            .map(|domain| domain.get_ref().name.get_ref())
            .collect();
        for domain in domains.iter().map(Spanned::get_ref) {
            let disks = domain.disk.iter().map(|disk| &disk.backend);
            for backend in disks.chain(domain.network.iter().map(|network| &network.backend)) {
                if backend.get_ref() == domain.name.get_ref() {
                    self.report(
                        backend.span(),
                        format!("{} cannot serve itself", backend.get_ref()),
                    );
                } else if !names.contains(&backend.get_ref()) {
                    let others = names
                        .iter()
                        .map(|name| name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ");
                    let message = format!(
                        "there is no domain {} to serve {}",
                        backend.get_ref(),
                        domain.name.get_ref()
                    );
                    self.report_with_help(backend.span(), message, format!("the domains are {others}"));
                }
            }
        }
    }

    /// Two domains that write one volume destroy it; so do a writer of a whole disk and one of its partitions.
    pub(super) fn check_writers(&mut self, domains: &[Spanned<raw::Domain>]) {
        let mut seen: Vec<(&str, &raw::Disk)> = Vec::new();
        for domain in domains.iter().map(Spanned::get_ref) {
            for disk in &domain.disk {
                let overlaps = |other: &raw::Disk| {
                    let (one, two) = (disk.volume.get_ref().as_str(), other.volume.get_ref().as_str());
                    let part_of = |part: &str, whole: &str| {
                        part.strip_prefix(whole).is_some_and(|rest| rest.starts_with(':'))
                    };
                    disk.backend == other.backend && (one == two || part_of(one, two) || part_of(two, one))
                };
                let writes = |other: &raw::Disk| {
                    disk.mode == raw::Mode::ReadWrite || other.mode == raw::Mode::ReadWrite
                };
                let holder = seen
                    .iter()
                    .find(|(_, other)| overlaps(other) && writes(other))
                    .map(|(name, _)| *name);
                if let Some(holder) = holder {
                    let message = format!(
                        "{holder} has the volume {} too, and one of them writes it",
                        disk.volume.get_ref()
                    );
                    self.report_with_help(
                        disk.volume.span(),
                        message,
                        "set mode = \"read-only\" on both, or use two partitions",
                    );
                }
                seen.push((domain.name.get_ref(), disk));
            }
        }
    }

    /// A serial port has one owner. PCI selectors may overlap: the first domain takes what matches.
    pub(super) fn check_ports(&mut self, domains: &[Spanned<raw::Domain>]) {
        let mut owners: BTreeMap<u8, &str> = BTreeMap::new();
        for domain in domains.iter().map(Spanned::get_ref) {
            for device in &domain.devices {
                let selectors = values::devices(device.get_ref()).unwrap_or_default();
                if let [Device::SerialPort(port)] = selectors[..]
                    && let Some(owner) = owners.insert(port, domain.name.get_ref())
                {
                    self.report(device.span(), format!("{owner} already has {}", device.get_ref()));
                }
            }
        }
    }

    pub(super) fn check_addresses(&mut self, sources: &[Spanned<raw::Domain>], domains: &Vec<Domain>) {
        let mut seen = BTreeSet::new();
        for (source, domain) in sources.iter().zip(domains) {
            for (source, network) in source.get_ref().network.iter().zip(&domain.networks) {
                if !seen.insert(network.mac) {
                    let span = source.mac.as_ref().unwrap_or(&source.backend).span();
                    self.report(span, "another interface has the same Ethernet address");
                }
            }
        }
    }
}
