//! Programs and files of the host that a step needs. What is missing is installed where we may, and named where we may not.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, Progress, Result, command};

/// Something that has to be installed on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program's name, or the absolute path of a file.
    pub what: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
}

const fn need(what: &'static str, package: &'static str) -> Need {
    Need { what, package }
}

/// Packages from Debian.
pub const PACKAGES: &[Need] = &[
    need("dpkg-deb", "dpkg"),
    need("apt-get", "apt"),
    need("apt-cache", "apt"),
];
/// A bootable ISO.
pub const ISO: &[Need] = &[
    need("grub-mkrescue", "grub-common"),
    need("/usr/lib/grub/i386-pc/multiboot2.mod", "grub-pc-bin"),
    need("/usr/lib/grub/x86_64-efi/multiboot2.mod", "grub-efi-amd64-bin"),
    need("xorriso", "xorriso"),
    need("mformat", "mtools"),
];
/// The emulator.
pub const EMULATOR: &[Need] = &[need("qemu-system-x86_64", "qemu-system-x86")];
/// The fuzzer, which is C++.
pub const FUZZER: &[Need] = &[need("c++", "g++")];
/// A file system on an emulated disk.
pub const FILE_SYSTEM: &[Need] = &[need("mkfs.ext4", "e2fsprogs")];

/// Folders of programs that the search path of an ordinary user lacks.
const SYSTEM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// The path of a program or file, if it is there.
pub fn find(what: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if what.starts_with('/') {
        return Some(PathBuf::from(what)).filter(|path| path.exists());
    }
    let search = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&search)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .collect();
    folders.iter().map(|folder| folder.join(what)).find(is_program)
}

/// A command of a program that an earlier [`ensure`] has found.
pub fn new(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// Makes sure that all of it is there.
pub fn ensure(needs: &[Need], progress: Progress) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| find(need.what).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    if is_root() && find("apt-get").is_some() {
        install(&packages, progress)?;
    }
    match missing.iter().find(|need| find(need.what).is_none()) {
        None => Ok(()),
        Some(need) => Err(Error::Missing {
            what: need.what.into(),
            package: packages.join(" "),
        }),
    }
}

fn install(packages: &[&str], progress: Progress) -> Result<()> {
    let step = progress.step(format!("installing {}", packages.join(", ")));
    let install = || {
        let mut command = new("apt-get");
        command
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages);
        command::run(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The first try fails where the package lists are missing or old.
    if install().is_err() {
        let _ = command::run(new("apt-get").args(["update", "--quiet"]));
        install()?;
    }
    step.done();
    Ok(())
}

/// Whether this process may install packages.
pub fn is_root() -> bool {
    fs::metadata(Path::new("/proc/self")).is_ok_and(|data| data.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_files() {
        assert!(find("sh").is_some());
        assert!(find("/bin/sh").is_some());
        assert_eq!(find("no-such-program"), None);
        assert_eq!(find("/no/such/file"), None);
    }
}
