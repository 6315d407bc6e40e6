//! The pristine files that domains are built from: the boot bundle, which stays in memory for as long as the machine is up.

use alloc::{collections::BTreeSet, string::String};

use manifest::bundle::{Bundle, Error, MANIFEST_ENTRY, Verifier};

/// The bundle, and which of its files have been verified: nobody writes it, so once is enough, and a rebuild is quick.
#[derive(Default)]
pub struct Images {
    bundle: Option<Bundle<'static>>,
    verified: BTreeSet<String>,
}

impl Images {
    /// Of a bundle.
    pub fn new(bundle: Bundle<'static>) -> Self {
        Self {
            bundle: Some(bundle),
            verified: BTreeSet::new(),
        }
    }

    fn bundle(&self) -> Result<&Bundle<'static>, Error> {
        self.bundle.as_ref().ok_or(Error::NotABundle)
    }

    /// The content of a file; verify it first.
    pub fn content(&self, name: &str) -> Result<&'static [u8], Error> {
        self.bundle()?.unverified(name)
    }

    /// The encoded manifest.
    pub fn manifest(&self) -> Result<&'static [u8], Error> {
        self.content(MANIFEST_ENTRY)
    }

    /// What is left to do before the content may be used; `None` if it has been verified already.
    pub fn verifier(&self, name: &str) -> Result<Option<Verifier<'static>>, Error> {
        if self.verified.contains(name) {
            return Ok(None);
        }
        self.bundle()?.verifier(name).map(Some)
    }

    /// The verifier of that name has answered true.
    pub fn set_verified(&mut self, name: &str) {
        self.verified.insert(name.into());
    }
}
