//! The id of a domain: the type that keeps it apart from other numbers.

use core::fmt;

/// A domain's id, fixed by the manifest for as long as the machine is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The id of the domain at `index` of the manifest, if a domain id can hold it.
    pub fn of_index(index: usize) -> Option<Self> {
        u16::try_from(index).ok()?.checked_add(1).map(Self)
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
