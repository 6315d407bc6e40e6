//! Tables that are right, damaged, and made of anything.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::volume::crc32::checksum;

/// A disk image.
struct Image {
    block: usize,
    data: Vec<u8>,
}

impl Blocks for Image {
    fn block_size(&self) -> usize {
        self.block
    }

    fn count(&self) -> u64 {
        (self.data.len() / self.block) as u64
    }

    fn read(&mut self, first: u64, target: &mut [u8]) -> Result<(), IoError> {
        let start = first as usize * self.block;
        target.copy_from_slice(&self.data[start..start + target.len()]);
        Ok(())
    }
}

const BLOCKS: u64 = 2048;

impl Image {
    /// An image as partitioning tools make it.
    fn new(block: usize, partitions: &[(u64, u64, &str)]) -> Self {
        let mut image = Self {
            block,
            data: vec![0; BLOCKS as usize * block],
        };
        let mut entries = vec![0; 16384];
        for (entry, &(first, last, name)) in entries.chunks_mut(128).zip(partitions) {
            entry[..16].fill(0xaf);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let entry_blocks = (16384 / block) as u64;
        let usable = (2 + entry_blocks, BLOCKS - 2 - entry_blocks);
        for (place, alternate, at) in [(1, BLOCKS - 1, 2), (BLOCKS - 1, 1, BLOCKS - 1 - entry_blocks)] {
            let start = at as usize * block;
            image.data[start..start + 16384].copy_from_slice(&entries);
            let header = image.header(place);
            header[..8].copy_from_slice(b"EFI PART");
            header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
            for (offset, value) in [
                (24, place),
                (32, alternate),
                (40, usable.0),
                (48, usable.1),
                (72, at),
            ] {
                header[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            }
            for (offset, value) in [(80, 128), (84, 128), (88, checksum(&entries))] {
                header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            }
            image.seal(place);
        }
        image
    }

    fn header(&mut self, place: u64) -> &mut [u8] {
        let start = place as usize * self.block;
        &mut self.data[start..start + self.block]
    }

    fn seal(&mut self, place: u64) {
        let header = self.header(place);
        header[16..20].fill(0);
        let sum = checksum(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }

    /// Changes eight bytes of both headers, with the right checksums.
    fn forge(&mut self, offset: usize, value: u64) {
        for place in [1, BLOCKS - 1] {
            self.header(place)[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
            self.seal(place);
        }
    }
}

#[test]
fn partitions_have_their_number_name_and_place() {
    for block in [512, 4096] {
        let mut image = Image::new(block, &[(64, 127, "root"), (128, 2000, "dätä")]);
        let table = read(&mut image).unwrap();
        assert_eq!(table.damage, None);
        assert_eq!(
            table.partitions[0],
            Partition {
                number: 1,
                name: "root".into(),
                first: 64,
                last: 127
            }
        );
        assert_eq!(
            table.partitions[1],
            Partition {
                number: 2,
                name: "dätä".into(),
                first: 128,
                last: 2000
            }
        );
    }
}

#[test]
fn one_copy_is_enough_and_the_other_is_reported() {
    let mut image = Image::new(512, &[(64, 127, "root")]);
    image.header(1)[60] ^= 1;
    let table = read(&mut image).unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert_eq!(table.damage, Some(Damage::Primary(GptError::HeaderChecksum(1))));

    let mut image = Image::new(512, &[(64, 127, "root")]);
    image.data[2 * 512 + 40] ^= 1;
    assert_eq!(
        read(&mut image).unwrap().damage,
        Some(Damage::Primary(GptError::EntriesChecksum))
    );

    let mut image = Image::new(512, &[(64, 127, "root")]);
    image.header(BLOCKS - 1).fill(0);
    assert_eq!(
        read(&mut image).unwrap().damage,
        Some(Damage::Backup(GptError::Signature(BLOCKS - 1)))
    );
}

#[test]
fn a_disk_that_has_grown_keeps_its_table() {
    let mut image = Image::new(512, &[(64, 127, "root")]);
    image.data.resize(2 * BLOCKS as usize * 512, 0);
    let table = read(&mut image).unwrap();
    assert_eq!((table.partitions.len(), table.damage), (1, None));
}

#[test]
fn tables_that_lie_are_refused_by_what_is_wrong() {
    let refuse = |offset, value| {
        let mut image = Image::new(512, &[(64, 127, "root"), (256, 300, "data")]);
        image.forge(offset, value);
        read(&mut image).unwrap_err()
    };
    assert_eq!(refuse(24, 5), GptError::Misplaced { found: 1, claimed: 5 });
    assert_eq!(
        refuse(48, BLOCKS),
        GptError::Usable {
            first: 34,
            last: BLOCKS,
            blocks: BLOCKS
        }
    );
    assert_eq!(
        refuse(40, 100),
        GptError::Bounds {
            number: 1,
            first: 64,
            last: 127
        }
    );
    assert_eq!(refuse(72, 100), GptError::EntriesPlace(100));
    assert_eq!(refuse(72, u64::MAX), GptError::EntriesPlace(u64::MAX));
    assert_eq!(
        refuse(80, 128 | 100 << 32),
        GptError::EntrySize {
            count: 128,
            size: 100
        }
    );
    assert_eq!(
        refuse(80, 0xffff_ffff | 128 << 32),
        GptError::EntrySize {
            count: u32::MAX,
            size: 128
        }
    );
    assert_eq!(refuse(8, 2 << 16 | 92 << 32), GptError::Revision(2 << 16));
    assert_eq!(refuse(8, 1 << 16 | 4096 << 32), GptError::HeaderLength(4096));
    let mut overlap = Image::new(512, &[(64, 127, "root"), (500, 600, "far"), (127, 130, "data")]);
    assert_eq!(read(&mut overlap), Err(GptError::Overlap(1, 3)));
    let mut backwards = Image::new(512, &[(127, 64, "root")]);
    assert_eq!(
        read(&mut backwards),
        Err(GptError::Bounds {
            number: 1,
            first: 127,
            last: 64
        })
    );
    assert_eq!(
        read(&mut Image {
            block: 512,
            data: vec![0; 4 * 512]
        }),
        Err(GptError::TooSmall(4))
    );
    assert_eq!(
        read(&mut Image {
            block: 512,
            data: vec![0; 40 * 512]
        }),
        Err(GptError::Signature(1))
    );
}

proptest! {
    /// Whatever the fields of a sealed header and of the entries say, the partitions that come out are sane.
    #[test]
    fn nothing_on_a_disk_harms_the_parser(
        fields in prop::collection::vec((24usize..92, any::<u8>()), 0..8),
        bytes in prop::collection::vec((0usize..512, any::<u8>()), 0..8),
        seal: bool, big: bool,
    ) {
        let mut image = Image::new(if big { 4096 } else { 512 }, &[(64, 127, "root"), (128, 2000, "data")]);
        for (offset, byte) in bytes {
            let start = 2 * image.block;
            image.data[start + offset] = byte;
        }
        let sum = checksum(&image.data[2 * image.block..][..16384]);
        for (offset, byte) in fields {
            image.header(1)[offset] = byte;
        }
        image.header(1)[88..92].copy_from_slice(&sum.to_le_bytes());
        if seal {
            image.seal(1);
        }
        if let Ok(table) = read(&mut image) {
            for partition in &table.partitions {
                prop_assert!(partition.first <= partition.last && partition.last < BLOCKS && partition.first >= 2);
            }
        }
    }

    #[test]
    fn anything_can_be_a_header(bytes in prop::collection::vec(any::<u8>(), 0..600), place: u64, blocks: u64) {
        let mut bytes = bytes;
        let _ = Header::parse(&bytes, place, blocks);
        if bytes.len() >= 92 {
            bytes[..12].copy_from_slice(b"EFI PART\0\0\x01\0");
            bytes[12..16].copy_from_slice(&92u32.to_le_bytes());
            bytes[16..20].fill(0);
            let sum = checksum(&bytes[..92]);
            bytes[16..20].copy_from_slice(&sum.to_le_bytes());
            let _ = Header::parse(&bytes, place, blocks);
        }
    }
}
