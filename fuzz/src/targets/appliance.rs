//! What the host writes, and people do.

use std::path::Path;

use manifest::{
    bundle::{Bundle, MAGIC, VERSION},
    source::{Place, parse},
};

/// Where the index begins, and the place of its hash and length.
const INDEX: usize = 48;
const INDEX_LENGTH: core::ops::Range<usize> = 12..16;
const INDEX_HASH: core::ops::Range<usize> = 16..48;

/// A bundle, also one whose index has the right hash: whoever made it could make that, too.
pub(crate) fn bundle(bytes: &[u8]) {
    read_bundle(bytes);
    let Some(index) = bytes.get(INDEX..) else { return };
    let claimed = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let length = claimed.min(index.len());
    let mut sealed = bytes.to_vec();
    sealed[..8].copy_from_slice(&MAGIC);
    sealed[8..12].copy_from_slice(&VERSION.to_le_bytes());
    sealed[INDEX_LENGTH].copy_from_slice(&(length as u32).to_le_bytes());
    sealed[INDEX_HASH].copy_from_slice(blake3::hash(&index[..length]).as_bytes());
    read_bundle(&sealed);
}

fn read_bundle(bytes: &[u8]) {
    let Ok(bundle) = Bundle::parse(bytes) else { return };
    let _ = bundle.manifest();
    for entry in bundle.entries() {
        let _ = (bundle.unverified(&entry.name), bundle.content(&entry.name));
        if let Ok(mut verifier) = bundle.verifier(&entry.name) {
            while matches!(verifier.advance(64), Ok(false)) {}
        }
    }
}

/// The text of an appliance.toml.
pub(crate) fn source(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let place = Place {
        file: Path::new("appliance.toml"),
        name: "sample",
        folder: Path::new("/nonexistent"),
        workspace: None,
    };
    let _ = parse(&text, place);
}
