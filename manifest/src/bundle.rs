//! The bundle: one file that carries the manifest and every file that domains are built from.
//!
//! ```text
//! 0      Header: magic, version, index length, BLAKE3 of the index            (little-endian, 48 bytes)
//! 48     Index: postcard(Vec<Entry>): name, offset, length, BLAKE3 of the content
//! 4096n  the entries' contents, each from a page boundary
//! ```
//!
//! The index's hash covers the contents' hashes, so a signature over the header covers the whole. Contents are verified one by one, when
//! they are used: a corrupt file costs its own domain and no other.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::Manifest;

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"ATOLLBND";
/// Grows with every change of the bundle's or the manifest's binary form.
pub const VERSION: u32 = 1;
/// Name of the entry that holds the encoded manifest.
pub const MANIFEST_ENTRY: &str = "manifest";
/// Contents start at multiples of this.
pub const ALIGNMENT: usize = 4096;

const HEADER_LENGTH: usize = 48;

/// A file in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unique in the bundle.
    pub name: String,
    /// Where its content starts, in bytes from the bundle's start.
    pub offset: u64,
    /// Length of its content in bytes.
    pub length: u64,
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
}

/// Why a bundle, or an entry of one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No bundle at all.
    #[error(
        "this is not a bundle (it does not start with ATOLLBND); pass the file that image-builder wrote as the boot module"
    )]
    NotABundle,
    /// Written by another version.
    #[error("the bundle has version {0}, this hypervisor reads version {VERSION}; build both from one tree")]
    Version(u32),
    /// Shorter than its index says.
    #[error("the bundle is truncated: {what} ends beyond its {length} bytes; write the image again")]
    Truncated {
        /// The part that does not fit.
        what: String,
        /// Length of the bundle.
        length: usize,
    },
    /// Index hash mismatch.
    #[error("the bundle's index is corrupt; write the image again")]
    CorruptIndex,
    /// Content hash mismatch.
    #[error("{0} is corrupt in the bundle; write the image again")]
    CorruptEntry(String),
    /// Nothing of that name.
    #[error("the bundle has no entry {0}; build the image again")]
    NoEntry(String),
    /// The manifest does not decode.
    #[error("the bundle's manifest does not decode; build the image and the hypervisor from one tree")]
    CorruptManifest,
}

/// A bundle in memory, its index checked.
pub struct Bundle<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
}

impl<'a> Bundle<'a> {
    /// Checks header and index; contents are checked by [`Bundle::content`]. `bytes` may be longer than the bundle.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let truncated = |what: &str| Error::Truncated {
            what: what.into(),
            length: bytes.len(),
        };
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(Error::NotABundle);
        }
        let header = bytes
            .get(..HEADER_LENGTH)
            .ok_or_else(|| truncated("the header"))?;
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let index_length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        let index = HEADER_LENGTH
            .checked_add(index_length)
            .and_then(|end| bytes.get(HEADER_LENGTH..end))
            .ok_or_else(|| truncated("the index"))?;
        if blake3::hash(index).as_bytes()[..] != header[16..48] {
            return Err(Error::CorruptIndex);
        }
        let entries = postcard::from_bytes(index).map_err(|_| Error::CorruptIndex)?;
        Ok(Self { bytes, entries })
    }

    /// The entries, in the order in which they were added.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Result<&Entry, Error> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| Error::NoEntry(name.into()))
    }

    /// The content of that name, its bounds checked and its hash not: for a reader that hashes piece by piece.
    pub fn unverified(&self, name: &str) -> Result<&'a [u8], Error> {
        let entry = self.entry(name)?;
        let start = usize::try_from(entry.offset).ok();
        let length = usize::try_from(entry.length).ok();
        start
            .zip(length)
            .and_then(|(start, length)| self.bytes.get(start..start.checked_add(length)?))
            .ok_or_else(|| Error::Truncated {
                what: name.into(),
                length: self.bytes.len(),
            })
    }

    /// The content of that name, verified against its hash. Takes time in proportion to its length.
    pub fn content(&self, name: &str) -> Result<&'a [u8], Error> {
        let content = self.unverified(name)?;
        if *blake3::hash(content).as_bytes() != self.entry(name)?.hash {
            return Err(Error::CorruptEntry(name.into()));
        }
        Ok(content)
    }

    /// Verifies a content piece by piece, for a reader that may not stop for long.
    pub fn verifier(&self, name: &str) -> Result<Verifier<'a>, Error> {
        let entry = self.entry(name)?;
        Ok(Verifier {
            name: entry.name.clone(),
            rest: self.unverified(name)?,
            expected: entry.hash,
            hasher: blake3::Hasher::new(),
        })
    }

    /// The manifest, verified and decoded.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        postcard::from_bytes(self.content(MANIFEST_ENTRY)?).map_err(|_| Error::CorruptManifest)
    }
}

/// A content whose hash is being computed.
pub struct Verifier<'a> {
    name: String,
    rest: &'a [u8],
    expected: [u8; 32],
    hasher: blake3::Hasher,
}

impl Verifier<'_> {
    /// Reads the next `bytes` at most. True once the content is verified; the error names a content that is corrupt.
    pub fn advance(&mut self, bytes: usize) -> Result<bool, Error> {
        let (now, later) = self.rest.split_at(bytes.min(self.rest.len()));
        self.hasher.update(now);
        self.rest = later;
        if !later.is_empty() {
            return Ok(false);
        }
        if *self.hasher.finalize().as_bytes() != self.expected {
            return Err(Error::CorruptEntry(self.name.clone()));
        }
        Ok(true)
    }
}

/// Encodes a bundle of the manifest and `files` (name and content), in that order.
pub fn encode(manifest: &Manifest, files: &[(&str, &[u8])]) -> Vec<u8> {
    let manifest = postcard::to_allocvec(manifest).expect("a manifest always encodes into memory");
    let contents: Vec<(&str, &[u8])> = core::iter::once((MANIFEST_ENTRY, manifest.as_slice()))
        .chain(files.iter().copied())
        .collect();
    let entries_at = |first: usize| {
        let mut offset = first;
        contents
            .iter()
            .map(|(name, content)| {
                let entry = Entry {
                    name: (*name).into(),
                    offset: offset as u64,
                    length: content.len() as u64,
                    hash: *blake3::hash(content).as_bytes(),
                };
                offset = (offset + content.len()).next_multiple_of(ALIGNMENT);
                entry
            })
            .collect::<Vec<Entry>>()
    };
    // Offsets are varints, so the index's length depends on them a little: a page of slack covers it.
    let estimate =
        HEADER_LENGTH + contents.iter().map(|(name, _)| name.len() + 64).sum::<usize>() + ALIGNMENT;
    let entries = entries_at(estimate.next_multiple_of(ALIGNMENT));
    let index = postcard::to_allocvec(&entries).expect("an index always encodes into memory");
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(index.len() as u32).to_le_bytes());
    bytes.extend_from_slice(blake3::hash(&index).as_bytes());
    bytes.extend_from_slice(&index);
    for (entry, (_, content)) in entries.iter().zip(&contents) {
        bytes.resize(entry.offset as usize, 0);
        bytes.extend_from_slice(content);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn manifest() -> Manifest {
        Manifest {
            name: "gateway".into(),
            reboot_on_panic: false,
            fault_injection: false,
            allow_unconfined_dma: true,
            domains: vec![],
        }
    }

    #[test]
    fn reads_back_what_was_encoded() {
        let bytes = encode(&manifest(), &[("a", b"first"), ("b", &[7; 5000]), ("empty", b"")]);
        let bundle = Bundle::parse(&bytes).unwrap();
        assert_eq!(bundle.manifest().unwrap(), manifest());
        assert_eq!(bundle.content("a").unwrap(), b"first");
        assert_eq!(bundle.content("b").unwrap(), [7; 5000]);
        assert_eq!(bundle.content("empty").unwrap(), b"");
        assert!(
            bundle
                .entries()
                .iter()
                .all(|entry| entry.offset % ALIGNMENT as u64 == 0)
        );
        assert_eq!(bundle.content("c"), Err(Error::NoEntry("c".into())));
    }

    #[test]
    fn a_corrupt_entry_costs_only_itself() {
        let mut bytes = encode(&manifest(), &[("a", b"first"), ("b", b"second")]);
        let offset = Bundle::parse(&bytes).unwrap().entry("a").unwrap().offset as usize;
        bytes[offset] ^= 1;
        let bundle = Bundle::parse(&bytes).unwrap();
        assert_eq!(bundle.content("a"), Err(Error::CorruptEntry("a".into())));
        assert_eq!(bundle.content("b").unwrap(), b"second");
        let mut verifier = bundle.verifier("a").unwrap();
        assert_eq!(verifier.advance(4), Ok(false));
        assert_eq!(verifier.advance(4), Err(Error::CorruptEntry("a".into())));
        let mut verifier = bundle.verifier("b").unwrap();
        assert_eq!((verifier.advance(5), verifier.advance(5)), (Ok(false), Ok(true)));
    }

    #[test]
    fn names_what_is_wrong_with_a_whole_bundle() {
        let bytes = encode(&manifest(), &[("a", b"first")]);
        assert_eq!(Bundle::parse(b"ELF").err(), Some(Error::NotABundle));
        assert!(matches!(
            Bundle::parse(&bytes[..60]).err(),
            Some(Error::Truncated { .. })
        ));
        let mut other = bytes.clone();
        other[8] = 99;
        assert_eq!(Bundle::parse(&other).err(), Some(Error::Version(99)));
        let mut other = bytes.clone();
        other[50] ^= 1;
        assert_eq!(Bundle::parse(&other).err(), Some(Error::CorruptIndex));
        let cut = Bundle::parse(&bytes[..bytes.len() - 2]).unwrap();
        assert!(matches!(cut.content("a"), Err(Error::Truncated { .. })));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_on_foreign_bytes(mut junk in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), at in 0usize..200, flip: u8) {
            let _ = Bundle::parse(&junk);
            let mut bytes = encode(&manifest(), &[("a", b"first")]);
            bytes[at] ^= flip;
            if let Ok(bundle) = Bundle::parse(&bytes) {
                for entry in bundle.entries() {
                    let _ = bundle.content(&entry.name);
                }
            }
            junk.splice(0..0, MAGIC);
            let _ = Bundle::parse(&junk);
        }
    }
}
