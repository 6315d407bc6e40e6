//! The place of the IOMMU drivers: until they exist, devices of driver domains are confined by nothing, and boot says so.

use crate::platform::acpi::Tables;

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

/// The IOMMU that the tables describe. None is driven yet.
pub fn find(tables: &Tables) -> Option<Kind> {
    let kinds = [(b"IVRS", Kind::Amd), (b"DMAR", Kind::Intel)];
    kinds
        .iter()
        .find(|(table, _)| tables.get(table).is_some())
        .map(|&(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::acpi::Table;
    use alloc::vec;

    #[test]
    fn tells_by_the_table() {
        let tables = |signature| Tables {
            all: vec![Table {
                signature,
                bytes: vec![],
            }],
        };
        assert_eq!(find(&tables(*b"DMAR")), Some(Kind::Intel));
        assert_eq!(find(&tables(*b"IVRS")), Some(Kind::Amd));
        assert_eq!(find(&tables(*b"APIC")), None);
    }
}
