//! The place of the IOMMU drivers: until they exist, devices of driver domains are confined by nothing, and boot says so.

pub mod amd;
pub mod description;
#[cfg(test)]
pub mod fake;
mod format;
pub mod intel;
mod tables;
pub mod unit;

pub use description::{Description, Requester};
pub use format::Format;
pub use tables::{IoTables, Shape};
pub use unit::{Unit, UnitError};

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
