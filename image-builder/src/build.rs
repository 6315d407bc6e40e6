//! Builds an appliance: from its source to the bundle and the ISO.

use std::path::{Path, PathBuf};

use manifest::{
    Domain, Kind, bundle,
    source::{self, Appliance, Origin},
};

use crate::{
    Error, Progress, Result, Workspace, apt::Apt, compile, executable::Executable, files, guest, iso, kernel,
    target_libraries,
};

/// The crate that the hypervisor is.
pub const HYPERVISOR: &str = "hypervisor";
/// What a guest's kernel needs beside itself and its initial RAM disk, packed and unpacked.
const KERNEL_HEADROOM: u64 = 24 << 20;
/// What a program of ours needs beside itself.
const HEAP_HEADROOM: u64 = 256 << 10;

/// How to build.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the target's libraries come from.
    pub libraries: target_libraries::Choice,
    /// Fetch the package lists again before anything is taken from them.
    pub update: bool,
    /// Write an ISO, too.
    pub iso: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            libraries: target_libraries::Choice::Auto,
            update: false,
            iso: true,
        }
    }
}

/// What a build leaves behind.
#[derive(Clone, Debug)]
pub struct Image {
    /// The appliance as its source describes it.
    pub appliance: Appliance,
    /// The hypervisor, for the emulator's `-kernel`.
    pub hypervisor: PathBuf,
    /// The bundle.
    pub bundle: PathBuf,
    /// The bootable ISO, where one was asked for.
    pub iso: PathBuf,
}

impl Image {
    /// The files of an appliance that was, or will be, built.
    pub fn of(workspace: &Workspace, appliance: Appliance) -> Self {
        let file = |ending: &str| {
            workspace
                .build()
                .join(format!("{}{ending}", appliance.manifest.name))
        };
        let (hypervisor, bundle, iso) = (file(".hypervisor"), file(".bundle"), file(".iso"));
        Self {
            appliance,
            hypervisor,
            bundle,
            iso,
        }
    }
}

/// Builds the appliance that the source at `path` describes.
pub fn image(workspace: &Workspace, path: &Path, options: Options, progress: Progress) -> Result<Image> {
    let appliance = source::read(path, Some(workspace.root()))?;
    image_of(workspace, appliance, options, progress)
}

/// Builds an appliance whose source was read.
pub fn image_of(
    workspace: &Workspace,
    appliance: Appliance,
    options: Options,
    progress: Progress,
) -> Result<Image> {
    let _lock = workspace.lock()?;
    let image = Image::of(workspace, appliance);
    let mut contents = Contents::new(workspace, options, progress);
    contents.compile(&image.appliance)?;
    let files = image
        .appliance
        .files
        .iter()
        .map(|file| Ok((file.entry.as_str(), contents.make(&file.origin)?)));
    let files: Vec<(&str, Vec<u8>)> = files.collect::<Result<_>>()?;
    for domain in &image.appliance.manifest.domains {
        check_memory(domain, &files)?;
    }
    let step = progress.step("packing the bundle");
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, content)| (*name, content.as_slice()))
        .collect();
    let bundle = bundle::encode(&image.appliance.manifest, &borrowed);
    files::write(&image.bundle, &bundle)?;
    files::write(&image.hypervisor, &contents.hypervisor)?;
    step.done();
    if options.iso {
        iso::write(
            &image.iso,
            &image.appliance.manifest.name,
            &contents.hypervisor,
            &bundle,
            progress,
        )?;
    }
    Ok(image)
}

/// Makes only what an appliance's guests are started from, without compiling anything: files named like their entries below
/// `build/NAME`. The paths, in the order of the source.
pub fn guests(
    workspace: &Workspace,
    appliance: &Appliance,
    options: Options,
    progress: Progress,
) -> Result<Vec<PathBuf>> {
    let _lock = workspace.lock()?;
    let mut contents = Contents::new(workspace, options, progress);
    let folder = workspace.build().join(&appliance.manifest.name);
    let of_guests = appliance
        .files
        .iter()
        .filter(|file| !matches!(file.origin, Origin::Program(_)));
    let write = |file: &source::File| {
        let path = folder.join(&file.entry);
        files::write(&path, &contents.make(&file.origin)?)?;
        Ok(path)
    };
    of_guests.map(write).collect()
}

/// Makes the contents of a bundle.
struct Contents<'a> {
    workspace: &'a Workspace,
    options: Options,
    progress: Progress,
    hypervisor: Vec<u8>,
    programs: std::collections::BTreeMap<String, Vec<u8>>,
    apt: Option<Apt>,
}

impl<'a> Contents<'a> {
    fn new(workspace: &'a Workspace, options: Options, progress: Progress) -> Self {
        Self {
            workspace,
            options,
            progress,
            hypervisor: Vec::new(),
            programs: Default::default(),
            apt: None,
        }
    }

    /// Compiles the hypervisor and every program that the appliance names.
    fn compile(&mut self, appliance: &Appliance) -> Result<()> {
        let programs = appliance.files.iter().filter_map(|file| match &file.origin {
            Origin::Program(name) => Some(name.as_str()),
            _ => None,
        });
        let names: Vec<&str> = std::iter::once(HYPERVISOR).chain(programs).collect();
        self.programs = compile::programs(self.workspace, &names, self.options.libraries, self.progress)?;
        self.hypervisor = self.programs[HYPERVISOR].clone();
        Ok(())
    }

    fn make(&mut self, origin: &Origin) -> Result<Vec<u8>> {
        match origin {
            Origin::Program(name) => Ok(self.programs[name].clone()),
            Origin::Path(path) if is_kernel(path)? => {
                kernel::unpack_file(self.workspace, path, self.progress)
            }
            Origin::Path(path) => files::read(path),
            Origin::DebianKernel(package) => {
                let (workspace, progress) = (self.workspace, self.progress);
                kernel::of_package(workspace, self.apt()?, package, progress)
            }
            Origin::Initrd(guest) => {
                let progress = self.progress;
                guest::initrd(self.apt()?, guest, progress)
            }
        }
    }

    /// The package manager, opened at the first need.
    fn apt(&mut self) -> Result<&Apt> {
        if self.apt.is_none() {
            let apt = Apt::open(self.workspace, self.progress)?;
            if self.options.update {
                apt.update()?;
            }
            self.apt = Some(apt);
        }
        Ok(self.apt.as_ref().expect("it was opened above"))
    }
}

/// Whether a file of the user is an executable or a bzImage, rather than an initial RAM disk.
fn is_kernel(path: &Path) -> Result<bool> {
    let bytes = files::read(path)?;
    Ok(bytes.starts_with(b"\x7fELF") || bytes.get(0x202..0x206) == Some(b"HdrS"))
}

/// Refuses a domain whose memory does not hold what is loaded into it.
fn check_memory(domain: &Domain, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let content = |name: &str| {
        files
            .iter()
            .find(|(entry, _)| *entry == name)
            .map(|(_, content)| content.as_slice())
    };
    let end =
        |name: &str| -> Result<u64> { Ok(Executable::parse(name, content(name).unwrap_or_default())?.end()) };
    let needed = match &domain.kind {
        Kind::Unikernel { image, .. } => end(image)? + HEAP_HEADROOM,
        Kind::Linux { kernel, initrd, .. } => {
            let initrd = initrd.as_deref().and_then(content).map_or(0, <[u8]>::len) as u64;
            end(kernel)? + 2 * initrd + KERNEL_HEADROOM
        }
    };
    if needed <= domain.memory {
        return Ok(());
    }
    Err(Error::other(
        format!(
            "{} has {}M of memory, and what it starts with needs {}M",
            domain.name,
            domain.memory >> 20,
            needed.div_ceil(1 << 20)
        ),
        "raise memory of that domain in appliance.toml",
    ))
}
