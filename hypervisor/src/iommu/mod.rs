//! The place of the IOMMU drivers: until they exist, devices of driver domains are confined by nothing, and boot says so.

pub mod description;

pub use description::Description;

/// An IOMMU that firmware describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AMD-Vi (table IVRS).
    Amd,
    /// Intel VT-d (table DMAR).
    Intel,
}

impl Kind {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd => "AMD-Vi",
            Self::Intel => "Intel VT-d",
        }
    }
}
