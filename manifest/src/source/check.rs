//! Checks the tables against each other and makes the model of them.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;
use toml::Spanned;

mod figures;

use super::{
    Appliance, DiskInterface, EmulatedDisk, Emulator, File, Guest, GuestFile, GuestFileOrigin, Nic, Origin,
    Partition, Place, Problem, raw, values,
};
use crate::{Capabilities, Device, Disk, Domain, Kind, Manifest, Network, OnCrash, Scheduling};

/// Below this no program of ours starts: it is linked at 1 MiB and needs a heap.
const LEAST_UNIKERNEL_MEMORY: u64 = 2 << 20;
/// Below this no stock kernel reaches its initial RAM disk.
const LEAST_LINUX_MEMORY: u64 = 64 << 20;
const MOST_VCPUS: u32 = 64;
const USUAL_WEIGHT: u32 = 256;
const USUAL_EMULATOR_MEMORY: u64 = 1 << 30;
/// What a partition table and its copy take, with the alignment of the first partition.
const PARTITION_OVERHEAD: u64 = 2 << 20;

/// One pass over a source. Problems are collected, and values that are wrong are replaced by harmless ones, so that one run of the
/// tool shows all of them.
pub(super) struct Checker<'a> {
    place: Place<'a>,
    problems: Vec<Problem>,
    files: Vec<File>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(place: Place<'a>) -> Self {
        Self {
            place,
            problems: Vec::new(),
            files: Vec::new(),
        }
    }

    pub(super) fn check(mut self, source: raw::Source) -> (Appliance, Vec<Problem>) {
        self.check_roles(&source.domain);
        self.check_names(&source.domain);
        self.check_backends(&source.domain);
        self.check_writers(&source.domain);
        self.check_ports(&source.domain);
        let domains = source
            .domain
            .iter()
            .map(|domain| self.domain(domain.get_ref()))
            .collect();
        self.check_addresses(&source.domain, &domains);
        let emulator = self.emulator(&source.emulator);
        let manifest = Manifest {
            name: self.place.name.into(),
            reboot_on_panic: source.hypervisor.reboot_on_panic,
            allow_unconfined_dma: source.hypervisor.allow_unconfined_dma,
            domains,
        };
        let description = source.appliance.description;
        (
            Appliance {
                description,
                manifest,
                files: self.files,
                emulator,
            },
            self.problems,
        )
    }

    fn report(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem::new(span, message));
    }

    fn report_with_help(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(span, message).help(help));
    }

    /// Reads a value, or reports why it cannot be read.
    fn read<T, R>(&mut self, value: &Spanned<T>, reader: impl FnOnce(&T) -> Result<R, String>) -> Option<R> {
        reader(value.get_ref())
            .map_err(|message| self.report(value.span(), message))
            .ok()
    }

    fn check_roles(&mut self, domains: &[Spanned<raw::Domain>]) {
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

    fn check_names(&mut self, domains: &[Spanned<raw::Domain>]) {
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

    fn check_backends(&mut self, domains: &[Spanned<raw::Domain>]) {
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
    fn check_writers(&mut self, domains: &[Spanned<raw::Domain>]) {
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
    fn check_ports(&mut self, domains: &[Spanned<raw::Domain>]) {
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

    fn check_addresses(&mut self, sources: &[Spanned<raw::Domain>], domains: &Vec<Domain>) {
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

    fn domain(&mut self, source: &raw::Domain) -> Domain {
        let kind = self.kind(source);
        let memory = self.memory(source);
        let vcpus = self.vcpus(source);
        let capabilities = Capabilities {
            control: has(source, raw::Capability::Control),
            observe: has(source, raw::Capability::Observe),
            console_log: has(source, raw::Capability::ConsoleLog),
        };
        let devices = source
            .devices
            .iter()
            .flat_map(|device| {
                self.read(device, |text| values::devices(text))
                    .unwrap_or_default()
            })
            .collect();
        let disks = source
            .disk
            .iter()
            .map(|disk| Disk {
                name: disk.name.get_ref().clone(),
                backend: disk.backend.get_ref().clone(),
                volume: disk.volume.get_ref().clone(),
                read_only: disk.mode == raw::Mode::ReadOnly,
            })
            .collect();
        for key in source.options.keys() {
            self.read(key, |key| values::option_key(key));
        }
        let unikernel = source.kind.get_ref() == &raw::Kind::Unikernel;
        Domain {
            name: source.name.get_ref().clone(),
            kind,
            memory,
            vcpus,
            scheduling: self.scheduling(source),
            capabilities,
            devices,
            disks,
            networks: self.networks(source),
            on_crash: match source.on_crash {
                Some(raw::OnCrash::Stay) => OnCrash::Stay,
                Some(raw::OnCrash::Restart) => OnCrash::Restart,
                None if unikernel => OnCrash::Restart,
                None => OnCrash::Stay,
            },
            options: source
                .options
                .iter()
                .map(|(key, value)| (key.get_ref().clone(), value.clone()))
                .collect(),
        }
    }

    fn kind(&mut self, source: &raw::Domain) -> Kind {
        let name = source.name.get_ref();
        let linux = source.kind.get_ref() == &raw::Kind::Linux;
        let strangers: Vec<(&str, Range<usize>)> = if linux {
            source
                .program
                .iter()
                .map(|program| ("program", program.span()))
                .collect()
        } else {
            let single = [("kernel", &source.kernel), ("initrd", &source.initrd)];
            let lists = [("packages", &source.packages), ("modules", &source.modules)];
            let single = single
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
            let lists = lists
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
            single
                .chain(lists)
                .chain(source.files.iter().map(|files| ("files", files.span())))
                .collect()
        };
        for (key, span) in strangers {
            let (is, wants) = if linux {
                ("linux", "unikernel")
            } else {
                ("unikernel", "linux")
            };
            self.report(
                span,
                format!("{name} is of kind \"{is}\"; {key} belongs to kind \"{wants}\""),
            );
        }
        if linux {
            self.linux(source)
        } else {
            self.unikernel(source)
        }
    }

    fn unikernel(&mut self, source: &raw::Domain) -> Kind {
        let command_line = source.command_line.clone();
        let Some(program) = &source.program else {
            let message = format!("{} has no program", source.name.get_ref());
            let help = "write program = \"NAME\" for a crate of this workspace, or the path of an ELF file";
            self.report_with_help(source.name.span(), message, help);
            return Kind::Unikernel {
                image: String::new(),
                command_line,
            };
        };
        let text = program.get_ref();
        let origin = if text.contains('/') {
            self.path(program).unwrap_or_else(|| Origin::Path(text.into()))
        } else {
            let known = self
                .place
                .workspace
                .is_none_or(|root| root.join(text).join("Cargo.toml").is_file());
            if !known {
                let help =
                    "name a crate of this workspace, or write the path of an ELF file, with a slash in it";
                self.report_with_help(program.span(), format!("there is no program {text}"), help);
            }
            Origin::Program(text.clone())
        };
        Kind::Unikernel {
            image: self.entry(text, origin),
            command_line,
        }
    }

    fn linux(&mut self, source: &raw::Domain) -> Kind {
        let command_line = source.command_line.clone();
        let mut package = None;
        let kernel = match &source.kernel {
            None => {
                let help =
                    "write kernel = \"debian:linux-image-cloud-amd64\", or the path of a vmlinux or bzImage";
                self.report_with_help(
                    source.name.span(),
                    format!("{} has no kernel", source.name.get_ref()),
                    help,
                );
                String::new()
            }
            Some(kernel) => match values::debian(kernel.get_ref()) {
                Some(name) => {
                    let name = name
                        .map_err(|message| self.report(kernel.span(), message))
                        .unwrap_or_default();
                    package = Some(name.clone());
                    self.entry(&name, Origin::DebianKernel(name.clone()))
                }
                None => match self.path(kernel) {
                    Some(origin) => self.entry(kernel.get_ref(), origin),
                    None => String::new(),
                },
            },
        };
        let initrd = match source
            .initrd
            .as_ref()
            .filter(|initrd| initrd.get_ref() != "built")
        {
            Some(path) => {
                self.built_only(source);
                self.path(path).map(|origin| self.entry(path.get_ref(), origin))
            }
            None => {
                let guest = self.guest(source, package);
                Some(self.entry("initrd", Origin::Initrd(guest)))
            }
        };
        Kind::Linux {
            kernel,
            initrd,
            command_line,
        }
    }

    /// What goes into an initial RAM disk is no use to one that is a file already.
    fn built_only(&mut self, source: &raw::Domain) {
        let lists = [("packages", &source.packages), ("modules", &source.modules)];
        let spans = lists
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
        let spans: Vec<_> = spans
            .chain(source.files.iter().map(|files| ("files", files.span())))
            .collect();
        for (key, span) in spans {
            self.report(
                span,
                format!("{key} needs initrd = \"built\"; the one that initrd names is taken as it is"),
            );
        }
    }

    fn guest(&mut self, source: &raw::Domain, kernel: Option<String>) -> Guest {
        let list =
            |value: &Option<Spanned<Vec<Spanned<String>>>>| value.as_ref().map(|list| list.get_ref().clone());
        let packages = list(&source.packages).unwrap_or_default();
        for package in &packages {
            self.read(package, |name| values::package_name(name));
        }
        let modules = list(&source.modules).unwrap_or_default();
        let files = source.files.iter().flat_map(|files| files.get_ref());
        let files = files
            .filter_map(|(path, from)| self.guest_file(path, from))
            .collect();
        let names = |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect();
        Guest {
            kernel,
            packages: names(packages),
            modules: names(modules),
            files,
        }
    }

    fn guest_file(&mut self, path: &Spanned<String>, from: &Spanned<String>) -> Option<GuestFile> {
        let clean =
            |path: &str| path.len() > 1 && path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !clean(path.get_ref()) {
            self.report(
                path.span(),
                format!("\"{}\" is no absolute path of the guest", path.get_ref()),
            );
        }
        let origin = match from.get_ref().strip_prefix("debian:") {
            Some(rest) => {
                let parts = rest.split_once(':').filter(|(_, path)| clean(path));
                let Some((package, path)) = parts else {
                    self.report(
                        from.span(),
                        "a file of a package is written as \"debian:PACKAGE:/PATH\"",
                    );
                    return None;
                };
                values::package_name(package)
                    .map_err(|message| self.report(from.span(), message))
                    .ok()?;
                GuestFileOrigin::Debian {
                    package: package.into(),
                    path: path.into(),
                }
            }
            None => match self.path(from)? {
                Origin::Path(path) => GuestFileOrigin::Path(path),
                _ => return None,
            },
        };
        Some(GuestFile {
            path: path.get_ref().clone(),
            origin,
        })
    }

    /// A file of the user, which has to be there.
    fn path(&mut self, value: &Spanned<String>) -> Option<Origin> {
        let path = self.place.folder.join(value.get_ref());
        if path.is_file() {
            return Some(Origin::Path(path));
        }
        let help = "paths start at the folder of appliance.toml; \"debian:PACKAGE\" takes the file from a Debian package";
        self.report_with_help(value.span(), format!("there is no file {}", path.display()), help);
        None
    }

    /// The name of the entry that holds what `origin` makes. Two domains with the same origin share it.
    fn entry(&mut self, wish: &str, origin: Origin) -> String {
        if let Some(file) = self.files.iter().find(|file| file.origin == origin) {
            return file.entry.clone();
        }
        let base = wish.rsplit('/').next().unwrap_or(wish);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = core::iter::once(base.to_string()).chain(numbered);
        let taken = |name: &String| {
            name == crate::bundle::MANIFEST_ENTRY || self.files.iter().any(|file| file.entry == *name)
        };
        let entry = names.find(|name| !taken(name)).expect("the numbers do not end");
        self.files.push(File {
            entry: entry.clone(),
            origin,
        });
        entry
    }
}

fn has(source: &raw::Domain, capability: raw::Capability) -> bool {
    source
        .capabilities
        .iter()
        .any(|held| *held.get_ref() == capability)
}
