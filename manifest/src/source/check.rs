//! Checks the tables against each other and makes the model of them.

use alloc::{string::String, vec::Vec};
use core::ops::Range;
use toml::Spanned;

mod across;
mod figures;
mod lives;
mod payload;
mod scheduling;

use super::{
    Appliance, DiskInterface, EmulatedDisk, Emulator, File, Guest, GuestFile, GuestFileOrigin, Nic, Origin,
    Partition, Place, Problem, raw, values,
};
use crate::{
    Capabilities, Class, Device, Disk, Domain, Kind, LEAST_LINUX_MEMORY, MOST_KEEP, Manifest, Network,
    Scheduling,
};

/// Below this no program of ours starts: it is linked at 1 MiB and needs a heap.
const LEAST_UNIKERNEL_MEMORY: u64 = 2 << 20;
const MOST_VCPUS: u32 = 64;
/// What a unikernel hands on to its next life: the control domain keeps the whole store there.
const USUAL_KEEP: u64 = 64 << 10;
const USUAL_CONTROL_KEEP: u64 = 512 << 10;
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
        self.check_placement(&source.domain);
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
            fault_injection: source.hypervisor.fault_injection,
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

    fn domain(&mut self, source: &raw::Domain) -> Domain {
        let kind = self.kind(source);
        let memory = self.memory(source);
        let memory_maximum = self.memory_maximum(source, memory);
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
        Domain {
            name: source.name.get_ref().clone(),
            kind,
            memory,
            memory_maximum,
            vcpus,
            scheduling: self.scheduling(source),
            capabilities,
            devices,
            disks,
            networks: self.networks(source),
            keep: self.keep(source),
            restarts: self.restarts(source),
            watchdog: self.watchdog(source),
            options: source
                .options
                .iter()
                .map(|(key, value)| (key.get_ref().clone(), value.clone()))
                .collect(),
        }
    }
}

fn has(source: &raw::Domain, capability: raw::Capability) -> bool {
    source
        .capabilities
        .iter()
        .any(|held| *held.get_ref() == capability)
}
