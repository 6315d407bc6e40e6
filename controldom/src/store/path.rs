//! Paths of nodes: what one may look like, and how one that a domain names relative to its home becomes absolute.

use alloc::{format, rc::Rc, string::String};
use core::{borrow::Borrow, fmt, ops::Deref};
use xen_abi::io::xs_wire::{XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX};

use super::StoreError;
use crate::DomainId;

/// Deeper nodes are refused. The protocol has no such limit; it keeps recursion over the tree within a small stack.
pub const DEPTH_MAX: usize = 64;

/// An absolute path of permitted form: `/`, or `/` before every one of its parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Rc<str>);

impl Path {
    /// The path of the root.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The home of a domain, below which its relative paths resolve.
    pub fn home(domain: DomainId) -> Self {
        Self(format!("/local/domain/{domain}").into())
    }

    /// What a request of `caller` names.
    pub fn parse(caller: DomainId, name: &[u8]) -> Result<Self, StoreError> {
        let name = core::str::from_utf8(name).map_err(|_| StoreError::Invalid)?;
        if name.starts_with('/') {
            return Self::absolute(name);
        }
        if name.len() > XENSTORE_REL_PATH_MAX {
            return Err(StoreError::Invalid);
        }
        Self::absolute(&format!("{}/{name}", Self::home(caller)))
    }

    /// A path that is absolute already.
    pub fn absolute(name: &str) -> Result<Self, StoreError> {
        let below = name.strip_prefix('/').ok_or(StoreError::Invalid)?;
        let well_formed = below.is_empty() || below.split('/').all(is_valid_part);
        if !well_formed || name.len() > XENSTORE_ABS_PATH_MAX || below.split('/').count() > DEPTH_MAX {
            return Err(StoreError::Invalid);
        }
        Ok(Self(name.into()))
    }

    /// The path of a child. `name` must be a permitted part, or several with `/` between.
    pub fn child(&self, name: &str) -> Result<Self, StoreError> {
        if self.is_root() {
            Self::absolute(&format!("/{name}"))
        } else {
            Self::absolute(&format!("{self}/{name}"))
        }
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The parts from the root down; none for the root.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The path one part shorter; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].into())),
        }
    }

    /// The path of its first `count` parts.
    pub fn prefix(&self, count: usize) -> Self {
        let ends = self
            .0
            .match_indices('/')
            .map(|(at, _)| at)
            .skip(1)
            .chain([self.0.len()]);
        match count.checked_sub(1) {
            None => Self::root(),
            Some(count) => Self(self.0[..ends.into_iter().nth(count).unwrap_or(self.0.len())].into()),
        }
    }

    /// What remains of it below `base`: `None` if it is elsewhere, empty if it is `base`.
    pub fn below(&self, base: &Path) -> Option<&str> {
        if base.is_root() {
            return Some(&self.0[1..]);
        }
        let rest = self.0.strip_prefix(&*base.0)?;
        if rest.is_empty() {
            Some(rest)
        } else {
            rest.strip_prefix('/')
        }
    }

    /// How it is spelled relative to a home; as it is, if it lies elsewhere.
    pub fn relative_to(&self, home: &Path) -> String {
        self.below(home).unwrap_or(&self.0).into()
    }
}

fn is_valid_part(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@'))
}

/// Whether a name can be one part of a path.
pub fn is_valid_name(name: &str) -> bool {
    is_valid_part(name)
}

impl Deref for Path {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Path {
        Path::absolute(name).unwrap()
    }

    #[test]
    fn accepts_and_refuses_as_the_protocol_says() {
        let parse = |name: &str| Path::parse(DomainId(3), name.as_bytes()).map(|path| path.to_string());
        assert_eq!(parse("/"), Ok("/".into()));
        assert_eq!(parse("/a/b-c/d_e@0"), Ok("/a/b-c/d_e@0".into()));
        assert_eq!(parse("device/vbd"), Ok("/local/domain/3/device/vbd".into()));
        for refused in ["", "/a/", "//", "/a//b", "a/", "/a b", "/a.b", "/ä", "a\0"] {
            assert_eq!(parse(refused), Err(StoreError::Invalid), "{refused:?}");
        }
        assert_eq!(Path::parse(DomainId(3), &[b'/', 0xff]), Err(StoreError::Invalid));
    }

    #[test]
    fn limits_length_and_depth() {
        let name = |length: usize| "a".repeat(length);
        assert!(Path::absolute(&format!("/{}", name(3071))).is_ok());
        assert!(Path::absolute(&format!("/{}", name(3072))).is_err());
        assert!(Path::parse(DomainId(3), name(2048).as_bytes()).is_ok());
        assert!(Path::parse(DomainId(3), name(2049).as_bytes()).is_err());
        assert!(Path::absolute(&"/a".repeat(DEPTH_MAX)).is_ok());
        assert!(Path::absolute(&"/a".repeat(DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn takes_paths_apart() {
        assert_eq!(path("/a/bc").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
        assert_eq!(path("/a/bc").name(), "bc");
        assert_eq!(path("/a/bc/d").prefix(0), Path::root());
        assert_eq!(path("/a/bc/d").prefix(2), path("/a/bc"));
        assert_eq!(path("/a/bc/d").prefix(3), path("/a/bc/d"));
        assert_eq!(path("/a/bc/d").below(&path("/a")), Some("bc/d"));
        assert_eq!(path("/a").below(&Path::root()), Some("a"));
        assert_eq!(path("/ab").below(&path("/a")), None);
        assert_eq!(path("/a").below(&path("/a")), Some(""));
    }
}
