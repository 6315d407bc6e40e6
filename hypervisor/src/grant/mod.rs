//! Grants: what a domain lets others map and copy, and what it has mapped of theirs.

/// The grants of a domain and its maps of others' grants.
#[derive(Default)]
pub struct GrantTable {}
