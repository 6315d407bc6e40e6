//! The disks of this domain.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::memory::MemoryError;
use unikernel_rt::time::Instant;

use super::gpt::{self, Blocks, GptError, Partition, Table};
use super::{Selector, Volume, VolumeError, VolumeName};
use crate::device::{BlockDevice, Completion, IoError, Pause, Properties, SECTOR, immediate};

/// A disk, by its place in [`Disks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskId(usize);

/// A disk.
pub struct Disk {
    /// Its name: `nvme0`.
    pub name: String,
    /// The driver's.
    pub device: Box<dyn BlockDevice>,
    table: Result<Table, GptError>,
}

/// All disks, and their partition tables.
#[derive(Default)]
pub struct Disks {
    disks: Vec<Disk>,
}

impl Disks {
    /// Adds a disk by the name of its kind and the next number of that kind, and reads its partition table.
    pub fn add(
        &mut self,
        kind: &str,
        mut device: Box<dyn BlockDevice>,
        clock: &dyn Pause,
    ) -> Result<DiskId, MemoryError> {
        let number = self
            .disks
            .iter()
            .filter(|disk| disk.name.trim_end_matches(|c: char| c.is_ascii_digit()) == kind)
            .count();
        let name = format!("{kind}{number}");
        let table = {
            let properties = *device.properties();
            let buffer = DmaBuffer::allocate(READ_BYTES)?;
            gpt::read(&mut DiskBlocks {
                device: &mut *device,
                properties,
                clock,
                buffer,
            })
        };
        let Properties {
            sectors,
            logical_block,
            read_only,
            ..
        } = *device.properties();
        let access = if read_only { ", read-only" } else { "" };
        match &table {
            Ok(table) => {
                let text = present(&table.partitions);
                log::info!(
                    "{name}: {} MiB in blocks of {logical_block} bytes{access}; {text}",
                    sectors >> 11
                );
                if let Some(damage) = &table.damage {
                    log::warn!("{name}: {damage}");
                }
            }
            Err(error) => {
                log::info!(
                    "{name}: {} MiB in blocks of {logical_block} bytes{access}; no partitions: {error}",
                    sectors >> 11
                );
            }
        }
        self.disks.push(Disk { name, device, table });
        Ok(DiskId(self.disks.len() - 1))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// A disk.
    pub fn device(&mut self, id: DiskId) -> &mut dyn BlockDevice {
        &mut *self.disks[id.0].device
    }

    /// Tells every device of what was submitted.
    pub fn kick(&mut self) {
        self.disks.iter_mut().for_each(|disk| disk.device.kick());
    }

    /// Appends what has completed on every disk.
    pub fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        self.disks
            .iter_mut()
            .for_each(|disk| disk.device.poll(now, completions));
    }

    /// Whether a request is under way anywhere.
    pub fn busy(&self) -> bool {
        self.disks.iter().any(|disk| disk.device.outstanding() > 0)
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Result<Volume, VolumeError> {
        let VolumeName { disk: wanted, part } = name.parse()?;
        let index = self
            .disks
            .iter()
            .position(|disk| disk.name == wanted)
            .ok_or_else(|| VolumeError::NoDisk {
                disk: wanted.clone(),
                present: self.present(),
            })?;
        let disk = &self.disks[index];
        let properties = *disk.device.properties();
        if part == Selector::Whole {
            return Ok(Volume {
                disk: DiskId(index),
                first: 0,
                properties,
            });
        }
        let table = disk.table.as_ref().map_err(|&cause| VolumeError::NoTable {
            disk: wanted.clone(),
            cause,
        })?;
        let mut matching = table.partitions.iter().filter(|partition| match &part {
            Selector::Number(number) => partition.number == *number,
            Selector::Name(name) => partition.name == *name,
            Selector::Whole => false,
        });
        let partition = matching.next().ok_or_else(|| VolumeError::NoPartition {
            disk: wanted.clone(),
            partition: part.to_string(),
            present: present(&table.partitions),
        })?;
        let others = matching.count();
        if let (Selector::Name(name), 1..) = (&part, others) {
            return Err(VolumeError::Ambiguous {
                disk: wanted,
                partition: name.clone(),
                count: others + 1,
            });
        }
        Ok(volume(DiskId(index), partition, &properties))
    }

    fn present(&self) -> String {
        if self.disks.is_empty() {
            return "there is no disk at all".into();
        }
        let names: Vec<&str> = self.disks.iter().map(|disk| &*disk.name).collect();
        format!("there is {}", names.join(", "))
    }
}

/// A partition as a volume. That it lies on the disk was checked when the table was read.
fn volume(disk: DiskId, partition: &Partition, properties: &Properties) -> Volume {
    let block_sectors = u64::from(properties.logical_block) / SECTOR;
    let first = partition.first * block_sectors;
    let mut properties = *properties;
    properties.sectors = (partition.last - partition.first + 1) * block_sectors;
    if let Some(discard) = &mut properties.discard {
        // The first whole extent from the volume's own beginning on.
        let granularity = u64::from(discard.granularity.max(1));
        let into = (first * SECTOR + granularity - u64::from(discard.alignment) % granularity) % granularity;
        discard.alignment = ((granularity - into) % granularity) as u32;
    }
    Volume {
        disk,
        first,
        properties,
    }
}

/// The partitions in words.
fn present(partitions: &[Partition]) -> String {
    if partitions.is_empty() {
        return "its partition table is empty".into();
    }
    let names: Vec<String> = partitions
        .iter()
        .map(|found| format!("{} {:?}", found.number, found.name))
        .collect();
    format!("partitions: {}", names.join(", "))
}

/// Bytes of one read of a table.
const READ_BYTES: usize = 16384;

/// A disk as the parser of tables wants it.
struct DiskBlocks<'a> {
    device: &'a mut dyn BlockDevice,
    properties: Properties,
    clock: &'a dyn Pause,
    buffer: DmaBuffer,
}

impl Blocks for DiskBlocks<'_> {
    fn block_size(&self) -> usize {
        self.properties.logical_block as usize
    }

    fn count(&self) -> u64 {
        self.properties.sectors * SECTOR / u64::from(self.properties.logical_block)
    }

    fn read(&mut self, first: u64, target: &mut [u8]) -> Result<(), IoError> {
        let sector = first * u64::from(self.properties.logical_block) / SECTOR;
        for (index, chunk) in target.chunks_mut(READ_BYTES).enumerate() {
            let from = sector + (index * READ_BYTES) as u64 / SECTOR;
            immediate::read(
                self.device,
                self.clock,
                from,
                (chunk.len() as u64 / SECTOR) as u32,
                &self.buffer,
            )?;
            self.buffer
                .memory()
                .copy_out(0, chunk)
                .map_err(|_| IoError::Device)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryDisk, TestClock};
    use crate::volume::crc32::checksum;

    /// A disk with partitions, written as small as it can be: one block of entries, no backup.
    fn partitioned(partitions: &[(u64, u64, &str)]) -> MemoryDisk {
        let disk = MemoryDisk::new(4096);
        {
            let data = &mut disk.state.borrow_mut().data;
            for (entry, (first, last, name)) in data[1024..1536].chunks_mut(128).zip(partitions) {
                entry[0] = 1;
                entry[32..40].copy_from_slice(&first.to_le_bytes());
                entry[40..48].copy_from_slice(&last.to_le_bytes());
                name.bytes()
                    .zip(entry[56..].chunks_mut(2))
                    .for_each(|(byte, unit)| unit[0] = byte);
            }
            let sum = checksum(&data[1024..1536]);
            let header = &mut data[512..604];
            header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
            for (offset, value) in [
                (24, 1u64),
                (32, 4095),
                (40, 3),
                (48, 4000),
                (72, 2),
                (80, 4 | 128 << 32),
            ] {
                header[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            }
            header[88..92].copy_from_slice(&sum.to_le_bytes());
            let sum = checksum(header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        disk
    }

    fn disks() -> Disks {
        let (clock, mut disks) = (TestClock::default(), Disks::default());
        let first = partitioned(&[
            (8, 15, "boot"),
            (19, 4000, "data"),
            (16, 17, "twin"),
            (18, 18, "twin"),
        ]);
        for (kind, disk) in [
            ("nvme", first),
            ("virtio", MemoryDisk::new(100)),
            ("nvme", MemoryDisk::new(2)),
        ] {
            disks.add(kind, Box::new(disk), &clock).unwrap();
        }
        disks
    }

    #[test]
    fn names_stand_for_disks_and_partitions() {
        let disks = disks();
        let found = |name: &str| {
            disks
                .find(name)
                .map(|volume| (volume.disk.0, volume.first, volume.properties.sectors))
        };
        assert_eq!(found("nvme0"), Ok((0, 0, 4096)));
        assert_eq!(found("nvme0:1"), Ok((0, 8, 8)));
        assert_eq!(found("nvme0:data"), Ok((0, 19, 3982)));
        assert_eq!(found("nvme0:4"), Ok((0, 18, 1)));
        assert_eq!(found("virtio0"), Ok((1, 0, 100)));
        assert_eq!(found("nvme1"), Ok((2, 0, 2)));
        // The first extent of 8 sectors that begins in the volume begins at sector 24.
        assert_eq!(
            disks
                .find("nvme0:data")
                .unwrap()
                .properties
                .discard
                .unwrap()
                .alignment,
            5 * 512
        );
        assert_eq!(
            disks
                .find("nvme0:boot")
                .unwrap()
                .properties
                .discard
                .unwrap()
                .alignment,
            0
        );
    }

    #[test]
    fn what_is_absent_is_named() {
        let disks = disks();
        let error = |name: &str| disks.find(name).unwrap_err().to_string();
        assert_eq!(
            error("nvme7"),
            "there is no disk nvme7; there is nvme0, virtio0, nvme1"
        );
        assert_eq!(
            error("virtio0:1"),
            "virtio0 has no usable partition table: block 1 holds no header"
        );
        assert_eq!(
            error("nvme1:1"),
            "nvme1 has no usable partition table: 2 blocks are too few for one"
        );
        assert_eq!(
            error("nvme0:9"),
            "nvme0 has no partition 9; partitions: 1 \"boot\", 2 \"data\", 3 \"twin\", 4 \"twin\""
        );
        assert!(error("nvme0:dat").starts_with("nvme0 has no partition \"dat\""));
        assert_eq!(
            error("nvme0:twin"),
            "nvme0 has 2 partitions named \"twin\"; choose one by its number"
        );
        assert_eq!(
            Disks::default().find("nvme0").unwrap_err().to_string(),
            "there is no disk nvme0; there is no disk at all"
        );
    }

    #[test]
    fn requests_stay_in_their_volume() {
        let volume = disks().find("nvme0:1").unwrap();
        assert_eq!(volume.translate(0, 8), Ok(8));
        assert_eq!(volume.translate(7, 1), Ok(15));
        for (first, sectors) in [(0, 9), (8, 1), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(
                volume.translate(first, sectors),
                Err(IoError::OutOfRange {
                    first,
                    sectors,
                    capacity: 8
                })
            );
        }
    }
}
