//! Memory, processors, addresses and the emulated machine.

use alloc::{collections::BTreeSet, format, vec::Vec};

use super::*;

impl Checker<'_> {
    pub(super) fn memory(&mut self, source: &raw::Domain) -> u64 {
        let least = match source.kind.get_ref() {
            raw::Kind::Unikernel => LEAST_UNIKERNEL_MEMORY,
            raw::Kind::Linux => LEAST_LINUX_MEMORY,
        };
        let Some(bytes) = self.read(&source.memory, |text| values::size(text)) else {
            return least;
        };
        if bytes < least {
            let name = source.name.get_ref();
            let message = format!("{} is too little memory for {name}", source.memory.get_ref());
            let help = format!(
                "a domain of this kind needs at least {}",
                values::show_size(least)
            );
            self.report_with_help(source.memory.span(), message, help);
        } else if bytes % 4096 != 0 {
            self.report(source.memory.span(), "memory comes in pages of 4K");
        }
        bytes
    }

    /// The most that the domain can be given later.
    pub(super) fn memory_maximum(&mut self, source: &raw::Domain, memory: u64) -> u64 {
        let Some(maximum) = &source.memory_maximum else {
            return memory;
        };
        let Some(bytes) = self.read(maximum, |text| values::size(text)) else {
            return memory;
        };
        let name = source.name.get_ref();
        if source.kind.get_ref() == &raw::Kind::Unikernel {
            let message = format!("{name} is a unikernel; its memory stays as it is");
            self.report(maximum.span(), message);
        } else if bytes < memory {
            let message = format!(
                "{name} starts with {}, which is more than its maximum",
                source.memory.get_ref()
            );
            self.report(maximum.span(), message);
        } else if bytes % 4096 != 0 {
            self.report(maximum.span(), "memory comes in pages of 4K");
        }
        bytes.max(memory)
    }

    /// What it hands on to its next life.
    pub(super) fn keep(&mut self, source: &raw::Domain) -> u64 {
        let unikernel = source.kind.get_ref() == &raw::Kind::Unikernel;
        let Some(keep) = &source.keep else {
            return match unikernel {
                true if has(source, raw::Capability::Control) => USUAL_CONTROL_KEEP,
                true => USUAL_KEEP,
                false => 0,
            };
        };
        let Some(bytes) = self.read(keep, |text| values::size(text)) else {
            return 0;
        };
        if !unikernel {
            let message = format!("{} is a guest; it has no keep region", source.name.get_ref());
            self.report(keep.span(), message);
        } else if bytes > MOST_KEEP {
            let most = values::show_size(MOST_KEEP);
            self.report(keep.span(), format!("a keep region has at most {most}"));
        } else if bytes % 4096 != 0 {
            self.report(keep.span(), "a keep region comes in pages of 4K");
        }
        bytes
    }

    pub(super) fn vcpus(&mut self, source: &raw::Domain) -> u32 {
        let Some(vcpus) = &source.vcpus else { return 1 };
        let unikernel = source.kind.get_ref() == &raw::Kind::Unikernel;
        if unikernel && *vcpus.get_ref() != 1 {
            self.report(
                vcpus.span(),
                format!("{} is a unikernel; it has one vCPU", source.name.get_ref()),
            );
        } else if !(1..=MOST_VCPUS).contains(vcpus.get_ref()) {
            self.report(vcpus.span(), format!("a domain has 1 to {MOST_VCPUS} vCPUs"));
        }
        *vcpus.get_ref()
    }

    pub(super) fn networks(&mut self, source: &raw::Domain) -> Vec<Network> {
        let mut networks = Vec::new();
        for (index, network) in source.network.iter().enumerate() {
            let given = network
                .mac
                .as_ref()
                .and_then(|mac| self.read(mac, |text| values::mac(text)));
            let derived = || values::derived_mac(self.place.name, source.name.get_ref(), index);
            let mac = given.unwrap_or_else(derived);
            networks.push(Network {
                backend: network.backend.get_ref().clone(),
                mac,
            });
        }
        networks
    }

    pub(super) fn emulator(&mut self, source: &raw::Emulator) -> Emulator {
        let memory = source
            .memory
            .as_ref()
            .and_then(|memory| self.read(memory, |text| values::size(text)));
        let cpus = source.cpus.as_ref().map_or(1, |cpus| {
            if !(1..=MOST_VCPUS).contains(cpus.get_ref()) {
                self.report(
                    cpus.span(),
                    format!("an emulated machine has 1 to {MOST_VCPUS} processors"),
                );
            }
            *cpus.get_ref()
        });
        let nic = |source: &raw::Nic| match source {
            raw::Nic::E1000e => Some(Nic::E1000e),
            raw::Nic::VirtioNet => Some(Nic::VirtioNet),
            raw::Nic::None => None,
        };
        let disks = source.disk.iter().map(|disk| self.emulated_disk(disk)).collect();
        Emulator {
            memory: memory.unwrap_or(USUAL_EMULATOR_MEMORY),
            cpus,
            nic: nic(&source.nic),
            cards: source.cards.iter().filter_map(nic).collect(),
            disks,
        }
    }

    fn emulated_disk(&mut self, source: &raw::EmulatedDisk) -> EmulatedDisk {
        let interface = match source.interface {
            raw::Interface::Nvme => DiskInterface::Nvme,
            raw::Interface::VirtioBlk => DiskInterface::VirtioBlk,
        };
        let size = self
            .read(&source.size, |text| values::size(text))
            .unwrap_or(u64::MAX);
        let mut names = BTreeSet::new();
        let mut left = size.saturating_sub(PARTITION_OVERHEAD);
        let mut partitions: Vec<Partition> = Vec::new();
        for partition in &source.partition {
            let name = partition.name.get_ref();
            if !names.insert(name) {
                self.report(
                    partition.name.span(),
                    format!("the disk has another partition {name}"),
                );
            }
            if name.is_empty() || name.encode_utf16().count() > 36 {
                self.report(partition.name.span(), "a partition's name has 1 to 36 characters");
            }
            if partitions.last().is_some_and(|last| last.size.is_none()) {
                self.report(
                    partition.name.span(),
                    "the partition before it takes all that is left; give that one a size",
                );
            }
            let size = partition
                .size
                .as_ref()
                .and_then(|size| self.read(size, |text| values::size(text)));
            match left.checked_sub(size.unwrap_or(0)) {
                Some(rest) => left = rest,
                None => self.report(partition.name.span(), format!("{name} does not fit on the disk")),
            }
            partitions.push(Partition {
                name: name.clone(),
                size,
                ext4: partition.filesystem.is_some(),
            });
        }
        EmulatedDisk {
            interface,
            size,
            partitions,
        }
    }
}
