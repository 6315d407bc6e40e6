//! Reads `appliance.toml`: the [`Manifest`] that travels in the bundle, and what only the host needs to know, which is where each
//! file of the bundle comes from and what the emulator offers.
//!
//! The text becomes tables (`raw`), single values are read (`values`), the tables are checked against each other and become the
//! model (`check`). Every problem that is found is reported, with the line that it is on.

use alloc::{string::String, vec::Vec};
use std::path::{Path, PathBuf};

use crate::Manifest;

mod check;
mod problem;
mod raw;
#[cfg(test)]
mod tests;
mod values;

pub use problem::{Problem, Problems, ReadError};
pub use values::size;

/// An appliance as its source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appliance {
    /// One line for people.
    pub description: String,
    /// What travels in the bundle.
    pub manifest: Manifest,
    /// The other entries of the bundle, each once, and what they are made from.
    pub files: Vec<File>,
    /// The machine that `run` emulates.
    pub emulator: Emulator,
}

/// An entry of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The entry's name, as the manifest's domains use it.
    pub entry: String,
    /// What it is made from.
    pub origin: Origin,
}

/// What an entry of the bundle is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The binary of this crate of the workspace, built for the bare machine.
    Program(String),
    /// This file as it is.
    Path(PathBuf),
    /// The kernel that this Debian package brings or depends on.
    DebianKernel(String),
    /// An initial RAM disk that is put together for the guest.
    Initrd(Guest),
}

/// What an initial RAM disk holds beyond busybox and the init script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// The Debian kernel package whose modules it takes; none where the kernel is a file of the user.
    pub kernel: Option<String>,
    /// Debian packages that are unpacked into it, with everything that they depend on.
    pub packages: Vec<String>,
    /// Kernel modules beside those that every guest gets.
    pub modules: Vec<String>,
    /// Single files.
    pub files: Vec<GuestFile>,
}

/// A single file of an initial RAM disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// Its absolute path in the guest.
    pub path: String,
    /// Where it comes from.
    pub origin: GuestFileOrigin,
}

/// Where a single file of an initial RAM disk comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestFileOrigin {
    /// A file of the user.
    Path(PathBuf),
    /// One file out of a Debian package, without what the package depends on.
    Debian {
        /// The package.
        package: String,
        /// The file's absolute path in it.
        path: String,
    },
}

/// The machine that the emulator offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// Bytes of memory.
    pub memory: u64,
    /// Number of processors.
    pub cpus: u32,
    /// Its network interface, if it has one.
    pub nic: Option<Nic>,
    /// Further network interfaces, whose cables hang loose.
    pub cards: Vec<Nic>,
    /// Its disks, in order.
    pub disks: Vec<EmulatedDisk>,
}

/// A network interface that the emulator offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// Intel 82574L.
    E1000e,
    /// virtio-net over PCI.
    VirtioNet,
}

/// A disk that the emulator offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedDisk {
    /// How the machine sees it.
    pub interface: DiskInterface,
    /// Its size in bytes.
    pub size: u64,
    /// Its GPT partitions; without any, the disk starts empty.
    pub partitions: Vec<Partition>,
}

/// How the machine sees a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskInterface {
    /// An NVMe controller with one namespace.
    Nvme,
    /// virtio-blk over PCI.
    VirtioBlk,
}

/// A GPT partition of an emulated disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the partition table.
    pub name: String,
    /// Its size in bytes; `None` takes what is left.
    pub size: Option<u64>,
    /// Whether an ext4 file system is made in it.
    pub ext4: bool,
}

/// Where a source lies, for messages and for the paths in it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file, as messages name it.
    pub file: &'a Path,
    /// The appliance's name.
    pub name: &'a str,
    /// Paths in the source start here.
    pub folder: &'a Path,
    /// The workspace that has the programs; without one, their names are taken as they are.
    pub workspace: Option<&'a Path>,
}

/// Reads the source at `file`; the appliance is named like its folder.
pub fn read(file: &Path, workspace: Option<&Path>) -> Result<Appliance, ReadError> {
    let text = std::fs::read_to_string(file).map_err(|cause| ReadError::Unreadable {
        file: file.to_path_buf(),
        cause,
    })?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let name = folder
        .canonicalize()
        .ok()
        .and_then(|folder| folder.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "appliance".into());
    Ok(parse(
        &text,
        Place {
            file,
            name: &name,
            folder,
            workspace,
        },
    )?)
}

/// Reads a source that is in memory.
pub fn parse(text: &str, place: Place) -> Result<Appliance, Problems> {
    let report = |problems| Problems::new(place.file, text, problems);
    let tables: raw::Source =
        toml::from_str(text).map_err(|error| report([Problem::of_toml(&error)].into()))?;
    let (appliance, problems) = check::Checker::new(place).check(tables);
    if problems.is_empty() {
        Ok(appliance)
    } else {
        Err(report(problems))
    }
}
