//! The emulated machine: QEMU's command line.

use std::{fs, path::PathBuf, process::Command};

use manifest::source::{Appliance, DiskInterface, Nic};

use crate::{Result, Workspace, build::Image, disk, program, progress::Progress};

/// A processor with SVM and nested paging that QEMU emulates whole. What its emulation lacks is left out of the model, so that it does
/// not warn; MONITOR is left out because its MWAIT is not the machine's.
const EMULATED_PROCESSOR: &str =
    "EPYC,-monitor,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec";

/// Nanoseconds that an instruction takes where time is counted in instructions; a power of two.
pub const INSTRUCTION: u64 = 8;

/// How the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// From the ISO, by firmware and GRUB.
    Iso(PathBuf),
    /// By the emulator's own loader.
    Direct {
        /// What is started.
        kernel: PathBuf,
        /// Its module or initial RAM disk.
        module: PathBuf,
        /// Its command line.
        command_line: String,
    },
}

/// An emulated IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// Intel VT-d, with interrupt remapping.
    Intel,
}

impl Iommu {
    /// The device, in the emulator's words.
    const fn device(self) -> &'static str {
        match self {
            Self::Intel => "intel-iommu,intremap=on",
        }
    }
}

/// A machine to be emulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How it starts.
    pub boot: Boot,
    /// Bytes of memory.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u32,
    /// The processor's model, in the emulator's words; `None` takes one that has what the hypervisor needs.
    pub processor: Option<String>,
    /// What confines its devices.
    pub iommu: Option<Iommu>,
    /// Its network interface.
    pub nic: Option<Nic>,
    /// Further network interfaces, whose cables hang loose.
    pub cards: Vec<Nic>,
    /// Its disks and their files.
    pub disks: Vec<(DiskInterface, PathBuf)>,
    /// Its time is counted in instructions, [`INSTRUCTION`] each, of all processors together: every run is like the other, however busy the host is.
    pub counted: bool,
}

impl Machine {
    /// The machine that an appliance's source describes, with its disks, which are made if they are not there.
    pub fn of(workspace: &Workspace, image: &Image, direct: bool, progress: Progress) -> Result<Self> {
        let paths = disk::of_appliance(workspace, &image.appliance, progress)?;
        Ok(Self::with_disks(image, direct, paths))
    }

    /// The machine that an appliance's source describes, with disks of the caller.
    pub fn with_disks(image: &Image, direct: bool, paths: Vec<PathBuf>) -> Self {
        let Appliance { emulator, .. } = &image.appliance;
        let boot = if direct {
            Boot::Direct {
                kernel: image.hypervisor.clone(),
                module: image.bundle.clone(),
                command_line: String::new(),
            }
        } else {
            Boot::Iso(image.iso.clone())
        };
        let interfaces = emulator.disks.iter().map(|disk| disk.interface);
        Self {
            boot,
            memory: emulator.memory,
            cpus: emulator.cpus,
            processor: None,
            iommu: None,
            nic: emulator.nic,
            cards: emulator.cards.clone(),
            disks: interfaces.zip(paths).collect(),
            counted: false,
        }
    }

    /// The command that emulates it, without consoles.
    pub fn command(&self) -> Command {
        let mut command = program::new("qemu-system-x86_64");
        let nested = !self.counted && nested_svm();
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "std",
        ]);
        command.args(["-machine", if nested { "q35,accel=kvm" } else { "q35,accel=tcg" }]);
        let usual = if nested { "host" } else { EMULATED_PROCESSOR };
        command.args(["-cpu", self.processor.as_deref().unwrap_or(usual)]);
        command.args([
            "-m",
            &format!("{}M", self.memory >> 20),
            "-smp",
            &self.cpus.to_string(),
        ]);
        // Before all that it is to confine.
        if let Some(iommu) = self.iommu {
            command.args(["-device", iommu.device()]);
        }
        // Devices of the virtio family pass an IOMMU by unless they are told not to.
        let family = if self.iommu.is_some() {
            ",iommu_platform=on,disable-legacy=on"
        } else {
            ""
        };
        if self.counted {
            command.args(["-icount", &format!("shift={},sleep=off", INSTRUCTION.ilog2())]);
        }
        match &self.boot {
            Boot::Iso(iso) => {
                command.args([
                    "-drive",
                    &format!("if=ide,media=cdrom,readonly=on,format=raw,file={}", escape(iso)),
                ]);
                command.args(["-boot", "d"]);
            }
            Boot::Direct {
                kernel,
                module,
                command_line,
            } => {
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(module);
                if !command_line.is_empty() {
                    command.args(["-append", command_line]);
                }
            }
        }
        for (index, (interface, path)) in self.disks.iter().enumerate() {
            let file = escape(path);
            command.args([
                "-drive",
                &format!("if=none,id=disk{index},format=raw,discard=unmap,file={file}"),
            ]);
            command.args([
                "-device",
                &match interface {
                    DiskInterface::Nvme => format!("nvme,drive=disk{index},serial=atoll{index}"),
                    DiskInterface::VirtioBlk => {
                        format!("virtio-blk-pci,drive=disk{index},serial=atoll{index}{family}")
                    }
                },
            ]);
        }
        let mut card = |nic: Nic, id: &str, network: &str| {
            let model = match nic {
                Nic::E1000e => "e1000e",
                Nic::VirtioNet => "virtio-net-pci",
            };
            command.args(["-netdev", &format!("{network},id={id}")]);
            let more = if nic == Nic::VirtioNet { family } else { "" };
            command.args(["-device", &format!("{model},netdev={id},romfile={more}")]);
        };
        if let Some(nic) = self.nic {
            card(nic, "net0", "user");
        }
        for (index, nic) in self.cards.iter().enumerate() {
            card(
                *nic,
                &format!("card{index}"),
                &format!("hubport,hubid={}", index + 1),
            );
        }
        command
    }
}

/// Attaches every emulated disk by `interface`, and names the volumes of the domains accordingly: driver domains number the disks of each
/// kind from zero.
pub fn attach_disks(appliance: &mut Appliance, interface: DiskInterface) {
    let prefix = |interface| match interface {
        DiskInterface::Nvme => "nvme",
        DiskInterface::VirtioBlk => "virtio",
    };
    let mut names = Vec::new();
    for (index, disk) in appliance.emulator.disks.iter_mut().enumerate() {
        let old = prefix(disk.interface);
        let earlier = names
            .iter()
            .filter(|(name, _): &&(String, String)| name.starts_with(old))
            .count();
        names.push((format!("{old}{earlier}"), format!("{}{index}", prefix(interface))));
        disk.interface = interface;
    }
    for volume in appliance
        .manifest
        .domains
        .iter_mut()
        .flat_map(|domain| &mut domain.disks)
        .map(|disk| &mut disk.volume)
    {
        let (disk, partition) = volume
            .split_once(':')
            .map_or((volume.as_str(), None), |(disk, part)| (disk, Some(part)));
        if let Some((_, new)) = names.iter().find(|(old, _)| old == disk) {
            *volume = partition.map_or_else(|| new.clone(), |partition| format!("{new}:{partition}"));
        }
    }
}

/// A path in an option of the emulator, where a comma ends the value.
fn escape(path: &std::path::Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Whether the host's KVM offers SVM to its guests: an AMD processor, its driver set to, and a device that we may open.
fn nested_svm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_svm = processor
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
        .is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "svm"));
    let nested = fs::read_to_string("/sys/module/kvm_amd/parameters/nested").unwrap_or_default();
    let opens = || {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    has_svm && matches!(nested.trim(), "1" | "Y") && opens()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;
    use manifest::source::{self, Place};
    use std::path::Path;

    #[test]
    fn disks_keep_their_volumes_when_they_are_attached_in_another_way() {
        let source = r#"
            [[domain]]
            name = "control"
            kind = "unikernel"
            program = "control"
            memory = "8M"
            capabilities = ["control"]
            disk = [
                { name = "xvda", backend = "other", volume = "nvme0:data" },
                { name = "xvdb", backend = "other", volume = "virtio0" },
                { name = "xvdc", backend = "other", volume = "nvme1:2" },
                { name = "xvdd", backend = "other", volume = "nvme7" },
            ]
            [[domain]]
            name = "other"
            kind = "unikernel"
            program = "other"
            memory = "8M"
            [emulator]
            disk = [{ size = "8M" }, { size = "8M", interface = "virtio-blk" }, { size = "8M" }]
        "#;
        let place = Place {
            file: Path::new("x"),
            name: "x",
            folder: Path::new("."),
            workspace: None,
        };
        let mut appliance = source::parse(source, place).unwrap();
        attach_disks(&mut appliance, DiskInterface::VirtioBlk);
        let volumes: Vec<&str> = appliance.manifest.domains[0]
            .disks
            .iter()
            .map(|disk| disk.volume.as_str())
            .collect();
        assert_eq!(volumes, ["virtio0:data", "virtio1", "virtio2:2", "nvme7"]);
        assert!(
            appliance
                .emulator
                .disks
                .iter()
                .all(|disk| disk.interface == DiskInterface::VirtioBlk)
        );
    }

    #[test]
    fn describes_the_machine() {
        let machine = Machine {
            iommu: None,
            boot: Boot::Iso("a,b.iso".into()),
            memory: 512 << 20,
            cpus: 2,
            processor: Some("qemu64".into()),
            nic: Some(Nic::VirtioNet),
            cards: vec![Nic::E1000e],
            disks: vec![
                (DiskInterface::Nvme, "one.img".into()),
                (DiskInterface::VirtioBlk, "two.img".into()),
            ],
            counted: true,
        };
        let line = command::show(&machine.command());
        for part in [
            "-cpu qemu64",
            "-m 512M -smp 2 -icount shift=3,sleep=off",
            "file=a,,b.iso",
            "nvme,drive=disk0",
            "virtio-blk-pci,drive=disk1",
            "virtio-net-pci,netdev=net0",
            "-netdev hubport,hubid=1,id=card0 -device e1000e,netdev=card0",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }
}
