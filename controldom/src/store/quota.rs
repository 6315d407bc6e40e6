//! How much of the store one domain may use. The control domain is not bound.

use alloc::collections::BTreeMap;

use crate::DomainId;

/// Limits of a single domain.
#[derive(Clone, Debug)]
pub struct Quota {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Bytes of the nodes that it owns: names, values, permissions, and [`NODE_OVERHEAD`] each.
    pub bytes: usize,
    /// Bytes of one node: its value and the names of its children.
    pub entry: usize,
    /// Entries in the permissions of one node.
    pub permissions: usize,
    /// Watches.
    pub watches: usize,
    /// Transactions at a time.
    pub transactions: usize,
    /// Paths that one transaction reads or changes.
    pub transaction_paths: usize,
    /// Bytes that one transaction writes.
    pub transaction_bytes: usize,
    /// Bytes that the transactions of all domains hold together.
    pub transaction_memory: usize,
    /// Bytes of the paths and tokens of its watches.
    pub watch_bytes: usize,
}

impl Quota {
    /// No limits.
    pub const NONE: Self = Self {
        nodes: usize::MAX,
        bytes: usize::MAX,
        entry: usize::MAX,
        permissions: usize::MAX,
        watches: usize::MAX,
        transactions: usize::MAX,
        transaction_paths: usize::MAX,
        transaction_bytes: usize::MAX,
        transaction_memory: usize::MAX,
        watch_bytes: usize::MAX,
    };
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1500,
            bytes: 512 << 10,
            entry: 8 << 10,
            permissions: 16,
            watches: 128,
            transactions: 10,
            transaction_paths: 1024,
            transaction_bytes: 128 << 10,
            transaction_memory: 1 << 20,
            watch_bytes: 64 << 10,
        }
    }
}

/// What a node costs beyond its strings.
pub const NODE_OVERHEAD: usize = 256;

/// What a domain uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What every owner uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usages(BTreeMap<DomainId, Usage>);

impl Usages {
    /// What a domain uses.
    pub fn of(&self, owner: DomainId) -> Usage {
        self.0.get(&owner).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, owner: DomainId, nodes: usize, bytes: usize) {
        let usage = self.0.entry(owner).or_default();
        usage.nodes += nodes;
        usage.bytes += bytes;
    }

    pub(super) fn subtract(&mut self, owner: DomainId, nodes: usize, bytes: usize) {
        let usage = self.0.entry(owner).or_default();
        usage.nodes = usage.nodes.saturating_sub(nodes);
        usage.bytes = usage.bytes.saturating_sub(bytes);
        if *usage == Usage::default() {
            self.0.remove(&owner);
        }
    }
}
