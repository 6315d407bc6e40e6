//! IOMMUs: a device of a driver domain reaches the memory of its domain and the pages granted to that, and nothing else; one that belongs to nobody reaches nothing.
//!
//! [`unit`] is what a driver of one promises, [`intel`] and [`amd`] are the drivers. [`units`] makes one of all, [`confine`] is what the hypervisor does with it. Devices
//! of a domain use its guest-physical addresses, by tables of their own ([`IoTables`]).

pub mod amd;
pub mod confine;
pub mod description;
#[cfg(test)]
pub mod fake;
mod format;
pub mod intel;
pub mod start;
mod tables;
pub mod topology;
pub mod unit;
pub mod units;

pub use description::{Description, Requester};
pub use format::Format;
pub use tables::{IoTables, Shape};
pub use unit::{Unit, UnitError};
pub use units::Iommu;

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
