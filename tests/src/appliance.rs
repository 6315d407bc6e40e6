//! Appliances for tests: the default one, with whatever a test needs to be different.

use std::{fs, path::PathBuf, sync::Arc};

use image_builder::{
    Progress, Workspace,
    build::{self, Image},
    disk,
    emulator::{Boot, Machine},
};
use manifest::source::{self, DiskInterface, Nic, Place};
use tempfile::TempDir;

use crate::System;

/// What every appliance has, and nothing else.
const SMALL: &str = r#"
[appliance]
description = "The control domain and the operator's console"

[hypervisor]
allow-unconfined-dma = true

[[domain]]
name = "controldom"
kind = "unikernel"
program = "controldom"
memory = "8M"
capabilities = ["control", "observe"]

[[domain]]
name = "consoledom"
kind = "unikernel"
program = "consoledom"
memory = "8M"
capabilities = ["console-log", "observe"]
devices = ["com1"]

[emulator]
memory = "192M"
nic = "none"
"#;

/// An appliance in the making.
pub struct Appliance {
    name: String,
    text: String,
    iso: bool,
}

impl Appliance {
    /// The default appliance. `name` tells this test's image from those of others.
    pub fn gateway(name: &str) -> Self {
        Self::of("gateway", name)
    }

    /// The appliance of the folder `appliances/source`.
    pub fn of(source: &str, name: &str) -> Self {
        let path = workspace().source(source).expect("the appliance is there");
        let text = fs::read_to_string(path).expect("the appliance can be read");
        Self {
            name: format!("test-{name}"),
            text,
            iso: false,
        }
    }

    /// An appliance of the control domain (id 1) and the operator's console (id 2), for tests that bring domains of their own.
    pub fn small(name: &str) -> Self {
        Self {
            name: format!("test-{name}"),
            text: SMALL.into(),
            iso: false,
        }
    }

    /// Adds a probe (see the crate `probe`), a unikernel that does the task of its command line. `lines` are further ones of the domain. It has no watchdog:
    /// some do nothing but compute.
    #[track_caller]
    pub fn probe(self, name: &str, task: &str, lines: &str) -> Self {
        self.with(&format!(
            "[[domain]]\nname = \"{name}\"\nkind = \"unikernel\"\nprogram = \"probe\"\nmemory = \"4M\"\ncommand-line = \"{task}\"\nwatchdog = \"off\"\n{lines}\n"
        ))
    }

    /// Puts `new` in place of `old` in the source, where that has to be.
    #[track_caller]
    pub fn replace(mut self, old: &str, new: &str) -> Self {
        assert!(self.text.contains(old), "appliance.toml does not contain {old}");
        self.text = self.text.replace(old, new);
        self
    }

    /// Adds lines to the domain of that name.
    #[track_caller]
    pub fn in_domain(self, name: &str, lines: &str) -> Self {
        let head = format!("name = \"{name}\"\n");
        self.replace(&head, &format!("{head}{lines}\n"))
    }

    /// Adds lines at the end of the domains, before the emulated machine.
    #[track_caller]
    pub fn with(self, lines: &str) -> Self {
        self.replace("[emulator]\n", &format!("{lines}\n[emulator]\n"))
    }

    /// Offers another network interface.
    pub fn nic(self, nic: Nic) -> Self {
        let name = match nic {
            Nic::E1000e => "e1000e",
            Nic::VirtioNet => "virtio-net",
        };
        self.replace("nic = \"e1000e\"", &format!("nic = \"{name}\""))
    }

    /// Attaches the disk in another way, under the volume name that belongs to it.
    pub fn disk(self, interface: DiskInterface) -> Self {
        match interface {
            DiskInterface::Nvme => self,
            DiskInterface::VirtioBlk => self
                .replace("interface = \"nvme\"", "interface = \"virtio-blk\"")
                .replace("nvme0:", "virtio0:"),
        }
    }

    /// Writes an ISO, too, so that [`Built::boot_iso`] works.
    pub fn with_iso(mut self) -> Self {
        self.iso = true;
        self
    }

    /// Builds it.
    #[track_caller]
    pub fn build(self) -> Built {
        let workspace = workspace();
        let options = build::Options {
            iso: self.iso,
            ..Default::default()
        };
        let image = or_panic(build::image_of(
            &workspace,
            self.read(&workspace),
            options,
            Progress::hidden(),
        ));
        let leftovers = Leftovers(vec![
            image.hypervisor.clone(),
            image.bundle.clone(),
            image.iso.clone(),
        ]);
        Built {
            name: self.name,
            workspace,
            image,
            leftovers: Arc::new(leftovers),
        }
    }

    /// Boots the kernel and the initial RAM disk of its first guest alone, without a hypervisor. The machine has the guest's memory,
    /// new disks and the network interface of the emulated machine, and the kernel has `command_line`.
    #[track_caller]
    pub fn boot_guest_alone(self, command_line: &str) -> System {
        let workspace = workspace();
        let appliance = self.read(&workspace);
        let paths = or_panic(build::guests(
            &workspace,
            &appliance,
            build::Options::default(),
            Progress::hidden(),
        ));
        let leftovers = Leftovers(vec![workspace.build().join(&self.name)]);
        let image = Image::of(&workspace, appliance);
        let Disks { paths: disks, folder } = make_disks(&image);
        let [kernel, module, ..] = &paths[..] else {
            panic!("the appliance has no guest")
        };
        let boot = Boot::Direct {
            kernel: kernel.clone(),
            module: module.clone(),
            command_line: command_line.into(),
        };
        let machine = Machine {
            boot,
            ..Machine::with_disks(&image, true, disks)
        };
        System::start(&workspace, &self.name, &machine, (folder, leftovers))
    }

    fn read(&self, workspace: &Workspace) -> source::Appliance {
        let root = workspace.root();
        let file = root.join("appliances").join(&self.name).join("appliance.toml");
        let folder = root.join("appliances/gateway");
        let place = Place {
            file: &file,
            name: &self.name,
            folder: &folder,
            workspace: Some(root),
        };
        let appliance = source::parse(&self.text, place);
        or_panic(appliance.map_err(|problems| image_builder::Error::from(source::ReadError::from(problems))))
    }
}

#[track_caller]
fn or_panic<T>(result: image_builder::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)))
}

fn make_disks(image: &Image) -> Disks {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let create = |(index, description)| {
        let path = folder.path().join(format!("disk{index}.img"));
        or_panic(disk::create(&path, description, Progress::hidden()));
        path
    };
    Disks {
        paths: image
            .appliance
            .emulator
            .disks
            .iter()
            .enumerate()
            .map(create)
            .collect(),
        folder,
    }
}

fn workspace() -> Workspace {
    Workspace::find().expect("tests run inside a checkout")
}

/// An appliance that was built.
pub struct Built {
    name: String,
    workspace: Workspace,
    image: Image,
    leftovers: Arc<Leftovers>,
}

/// Disks that outlive the machines that they are attached to.
pub struct Disks {
    /// Their files, in order.
    pub paths: Vec<PathBuf>,
    folder: TempDir,
}

impl Built {
    /// The image's files, and what its source says.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// New disks, as the source describes them.
    pub fn disks(&self) -> Disks {
        make_disks(&self.image)
    }

    /// Boots it with new disks, by the emulator's loader.
    pub fn boot(&self) -> System {
        self.boot_machine(|_| {})
    }

    /// Boots it with new disks from its ISO, by firmware and GRUB.
    pub fn boot_iso(&self) -> System {
        let iso = self.image.iso.clone();
        self.boot_machine(|machine| machine.boot = Boot::Iso(iso))
    }

    /// Boots it with these disks.
    pub fn boot_with(&self, disks: &Disks) -> System {
        let machine = self.machine(disks.paths.clone());
        System::start(&self.workspace, &self.name, &machine, self.leftovers.clone())
    }

    /// The machine that the source describes, with as many processors as `ATOLL_CPUS` says if it says so.
    fn machine(&self, disks: Vec<PathBuf>) -> Machine {
        let mut machine = Machine::with_disks(&self.image, true, disks);
        let cpus = std::env::var("ATOLL_CPUS").ok();
        machine.cpus = cpus.and_then(|text| text.parse().ok()).unwrap_or(machine.cpus);
        machine
    }

    /// Boots it with new disks on a machine that `change` has changed.
    pub fn boot_machine(&self, change: impl FnOnce(&mut Machine)) -> System {
        let Disks { paths, folder } = self.disks();
        let mut machine = self.machine(paths);
        change(&mut machine);
        System::start(
            &self.workspace,
            &self.name,
            &machine,
            (folder, self.leftovers.clone()),
        )
    }
}

/// Images are large and built again in no time: they are removed when nobody needs them any more, unless the test has failed.
struct Leftovers(Vec<PathBuf>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for path in &self.0 {
                let _ = if path.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                };
            }
        }
    }
}
