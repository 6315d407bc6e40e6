//! Disks of the emulated machine: sparse files that are made once, with partitions and file systems, and never again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use gpt::{GptConfig, disk::LogicalBlockSize, mbr::ProtectiveMBR, partition_types};
use manifest::source::{Appliance, EmulatedDisk};

use crate::{Error, Progress, Result, Workspace, command, files, program};

const SECTOR: u64 = 512;
/// Partitions start at multiples of 1 MiB, as everywhere.
const ALIGNMENT: u64 = (1 << 20) / SECTOR;

/// The files of an appliance's disks, made where they are not there yet.
pub fn of_appliance(
    workspace: &Workspace,
    appliance: &Appliance,
    progress: Progress,
) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (index, disk) in appliance.emulator.disks.iter().enumerate() {
        let path = workspace
            .build()
            .join(format!("{}-disk{index}.img", appliance.manifest.name));
        if !path.exists() {
            create(&path, disk, progress)?;
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Makes a disk's file, which must not exist.
pub fn create(path: &Path, disk: &EmulatedDisk, progress: Progress) -> Result<()> {
    if path.exists() {
        let help = "move it away if a new disk shall take its place";
        return Err(Error::other(format!("{} exists already", path.display()), help));
    }
    let step = progress.step(format!("making the disk {}", path.display()));
    files::make_file(path, |path| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = files::context(file, "create", path)?;
        files::context(file.set_len(disk.size), "extend", path)?;
        if disk.partitions.is_empty() {
            return Ok(());
        }
        let places = partition(file, disk).map_err(|cause| {
            Error::other(
                format!("{} cannot be partitioned: {cause}", path.display()),
                "check the sizes in [[emulator.disk]]",
            )
        })?;
        for (partition, (start, length)) in disk.partitions.iter().zip(places) {
            if partition.ext4 {
                make_ext4(path, &partition.name, start, length, progress)?;
            }
        }
        Ok(())
    })?;
    step.done();
    Ok(())
}

/// Writes the partition table; where each partition starts, and its length, in bytes.
fn partition(
    mut file: File,
    disk: &EmulatedDisk,
) -> std::result::Result<Vec<(u64, u64)>, Box<dyn std::error::Error>> {
    let last = u32::try_from(disk.size / SECTOR - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(last).overwrite_lba0(&mut file)?;
    let config = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(file, None)?;
    table.update_partitions(BTreeMap::new())?;
    let mut places = Vec::new();
    for partition in &disk.partitions {
        let (first, free) = table
            .find_free_sectors()
            .into_iter()
            .max_by_key(|(_, length)| *length)
            .unwrap_or_default();
        let start = first.next_multiple_of(ALIGNMENT);
        let left = (first + free).saturating_sub(start) / ALIGNMENT * ALIGNMENT;
        let sectors = partition.size.map_or(left, |size| size.div_ceil(SECTOR));
        if sectors == 0 || sectors > left {
            return Err(format!("there is no room for {}", partition.name).into());
        }
        let number = table
            .find_next_partition_id()
            .ok_or("there are too many partitions")?;
        table.add_partition_at(
            &partition.name,
            number,
            start,
            sectors,
            partition_types::LINUX_FS,
            0,
        )?;
        places.push((start * SECTOR, sectors * SECTOR));
    }
    table.write()?;
    Ok(places)
}

fn make_ext4(path: &Path, label: &str, start: u64, length: u64, progress: Progress) -> Result<()> {
    program::ensure(program::FILE_SYSTEM, progress)?;
    let mut command = program::new("mkfs.ext4");
    command.args([
        "-q",
        "-F",
        "-b",
        "4096",
        "-L",
        &label.chars().take(16).collect::<String>(),
    ]);
    // No work is left for the guest to do in the background.
    command.args([
        "-E",
        &format!("offset={start},lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
    ]);
    command.arg(path).arg(format!("{}k", length / 1024));
    command::run(&mut command)?;
    // The journal's zeros were written out; a file with holes reads the same.
    if program::find("fallocate").is_some() {
        let _ = command::run(program::new("fallocate").arg("--dig-holes").arg(path));
    }
    Ok(())
}

/// Bytes that a file takes on the host, which for a sparse one are fewer than its length.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map_or(0, |data| data.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifest::source::{DiskInterface, Partition};
    use std::io::{Read, Seek, SeekFrom};

    fn sample(partitions: Vec<Partition>) -> EmulatedDisk {
        EmulatedDisk {
            interface: DiskInterface::Nvme,
            size: 64 << 20,
            partitions,
        }
    }

    fn named(name: &str, size: Option<u64>, ext4: bool) -> Partition {
        Partition {
            name: name.into(),
            size,
            ext4,
        }
    }

    #[test]
    fn a_disk_has_its_partitions_and_file_systems() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let disk = sample(vec![
            named("one", Some(16 << 20), false),
            named("data", None, true),
        ]);
        create(&path, &disk, Progress::hidden()).unwrap();
        let table = GptConfig::new().writable(false).open(&path).unwrap();
        let found: Vec<_> = table
            .partitions()
            .values()
            .map(|part| (part.name.clone(), part.first_lba))
            .collect();
        assert_eq!(
            found,
            [("one".to_string(), 2048), ("data".to_string(), 2048 + 32768)]
        );
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start((2048 + 32768) * 512 + 1024 + 56))
            .unwrap();
        let mut magic = [0; 2];
        file.read_exact(&mut magic).unwrap();
        assert_eq!(magic, [0x53, 0xef], "the superblock of ext4");
        assert!(allocated(&path) < 16 << 20);
    }

    #[test]
    fn a_disk_is_never_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, "precious").unwrap();
        let error = create(&path, &sample(vec![]), Progress::hidden()).unwrap_err();
        assert!(error.to_string().ends_with("exists already"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn what_does_not_fit_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let disk = sample(vec![
            named("one", Some(60 << 20), false),
            named("two", Some(60 << 20), false),
        ]);
        let error = create(&path, &disk, Progress::hidden()).unwrap_err();
        assert!(error.to_string().contains("no room for two"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
