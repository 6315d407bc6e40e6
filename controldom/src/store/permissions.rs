//! Who may do what with a node.

use alloc::{format, string::String, vec::Vec};

use super::StoreError;
use crate::{DomainId, journal::Rights};

/// Whoever makes a request. The control domain is privileged: permissions and quotas do not bind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its id.
    pub domain: DomainId,
    /// Whether it is the control domain.
    pub privileged: bool,
}

/// What someone may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Read the value and list the children.
    pub read: bool,
    /// Change the value, add children, remove it.
    pub write: bool,
}

impl Access {
    /// Nothing.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };
    /// Reading.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Writing.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };
    /// Both.
    pub const BOTH: Self = Self {
        read: true,
        write: true,
    };

    /// Whether it includes all that `needed` names.
    pub fn includes(self, needed: Self) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write)
    }

    fn of(letter: u8) -> Result<Self, StoreError> {
        Ok(match letter {
            b'n' => Self::NONE,
            b'r' => Self::READ,
            b'w' => Self::WRITE,
            b'b' => Self::BOTH,
            _ => return Err(StoreError::Invalid),
        })
    }

    fn letter(self) -> char {
        match (self.read, self.write) {
            (false, false) => 'n',
            (true, false) => 'r',
            (false, true) => 'w',
            (true, true) => 'b',
        }
    }
}

/// The permissions of a node: its owner may do everything, the domains in the list what it says, all others the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Whom it belongs to, and whose quota it counts against.
    pub owner: DomainId,
    /// What a domain that the list does not name may do.
    pub others: Access,
    /// What single domains may do; the first entry of a domain counts.
    pub list: Vec<(DomainId, Access)>,
}

impl Permissions {
    /// Of the owner alone.
    pub fn private(owner: DomainId) -> Self {
        Self {
            owner,
            others: Access::NONE,
            list: Vec::new(),
        }
    }

    /// The same with an entry more.
    pub fn and(mut self, domain: DomainId, access: Access) -> Self {
        self.list.push((domain, access));
        self
    }

    /// What a caller may do.
    pub fn access(&self, caller: Caller) -> Access {
        if self.owned_by(caller) {
            return Access::BOTH;
        }
        self.list
            .iter()
            .find(|(domain, _)| *domain == caller.domain)
            .map_or(self.others, |(_, access)| *access)
    }

    /// Whether a caller owns the node, or may act as its owner.
    pub fn owned_by(&self, caller: Caller) -> bool {
        caller.privileged || self.owner == caller.domain
    }

    /// The journal's form.
    pub fn rights(&self) -> Rights {
        let first = (self.owner, self.others);
        let all = core::iter::once(first).chain(self.list.iter().copied());
        all.map(|(domain, access)| (domain.0, access.letter() as u8))
            .collect()
    }

    /// Reads the journal's form.
    pub fn of_rights(rights: &Rights) -> Result<Self, StoreError> {
        let mut all = rights
            .iter()
            .map(|(domain, letter)| Ok((DomainId(*domain), Access::of(*letter)?)));
        let (owner, others) = all.next().ok_or(StoreError::Invalid)??;
        let list = all.collect::<Result<_, StoreError>>()?;
        Ok(Self { owner, others, list })
    }

    /// How many entries it has on the wire.
    pub fn count(&self) -> usize {
        1 + self.list.len()
    }

    /// Reads the wire's form: the owner's entry (its letter is for everyone else), then the list.
    pub fn parse<'a>(mut entries: impl Iterator<Item = &'a [u8]>) -> Result<Self, StoreError> {
        let (owner, others) = parse_entry(entries.next().ok_or(StoreError::Invalid)?)?;
        let list = entries.map(parse_entry).collect::<Result<_, _>>()?;
        Ok(Self { owner, others, list })
    }

    /// The wire's form.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        let first = (self.owner, self.others);
        core::iter::once(first)
            .chain(self.list.iter().copied())
            .map(|(domain, access)| format!("{}{domain}", access.letter()))
    }
}

fn parse_entry(entry: &[u8]) -> Result<(DomainId, Access), StoreError> {
    let (letter, digits) = entry.split_first().ok_or(StoreError::Invalid)?;
    let access = Access::of(*letter)?;
    Ok((parse_domain(digits)?, access))
}

/// A domain id in decimal digits.
pub(super) fn parse_domain(digits: &[u8]) -> Result<DomainId, StoreError> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(StoreError::Invalid);
    }
    let digits = core::str::from_utf8(digits).map_err(|_| StoreError::Invalid)?;
    digits.parse().map(DomainId).map_err(|_| StoreError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(domain: u16) -> Caller {
        Caller {
            domain: DomainId(domain),
            privileged: domain == 1,
        }
    }

    fn parse(text: &str) -> Result<Permissions, StoreError> {
        Permissions::parse(text.split(',').map(str::as_bytes))
    }

    #[test]
    fn the_owner_the_list_and_the_rest() {
        let permissions = parse("r4,w5,n6,b7,r5").unwrap();
        assert_eq!(permissions.access(caller(4)), Access::BOTH);
        assert_eq!(permissions.access(caller(5)), Access::WRITE);
        assert_eq!(permissions.access(caller(6)), Access::NONE);
        assert_eq!(permissions.access(caller(7)), Access::BOTH);
        assert_eq!(permissions.access(caller(8)), Access::READ);
        assert_eq!(permissions.access(caller(1)), Access::BOTH);
        assert!(
            permissions.owned_by(caller(4))
                && permissions.owned_by(caller(1))
                && !permissions.owned_by(caller(7))
        );
        assert_eq!(
            permissions.entries().collect::<Vec<_>>(),
            ["r4", "w5", "n6", "b7", "r5"]
        );
    }

    #[test]
    fn refuses_what_is_no_permission() {
        for refused in ["", "r", "x1", "r-1", "r+1", "r65536", "r1x", "r1,", "r 1"] {
            assert_eq!(parse(refused), Err(StoreError::Invalid), "{refused:?}");
        }
    }
}
