//! A transaction: a snapshot that its owner changes at will, and the record of what it used.
//!
//! Promise: inside, reads see the store as it was at the start plus the transaction's own changes. At the end the changes
//! happen all at once, unless someone else has changed what was used; then none does. A transaction that only read never
//! conflicts, for what it saw did hold at one moment.

use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};

use super::{Caller, Change, NODE_OVERHEAD, Path, Quota, StoreError, Tree};

/// What of a node was used, each including whether it is there at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    children: bool,
    subtree: bool,
}

impl Used {
    /// Value and permissions.
    pub const CONTENT: Self = Self {
        children: false,
        subtree: false,
    };
    /// Those and the names of the children.
    pub const CHILDREN: Self = Self {
        children: true,
        subtree: false,
    };
    /// Everything below, too.
    pub const SUBTREE: Self = Self {
        children: true,
        subtree: true,
    };
}

/// A transaction under way.
#[derive(Debug)]
pub struct Transaction {
    base: Tree,
    tree: Tree,
    used: BTreeMap<Path, Used>,
    changes: Vec<Change>,
    bytes: usize,
    doomed: bool,
}

impl Transaction {
    /// Begins with a snapshot, and the epoch that begins with it.
    pub fn begin(live: &mut Tree, epoch: u64) -> Self {
        let base = live.snapshot(epoch);
        let mut tree = base.clone();
        tree.take_replaced();
        Self {
            base,
            tree,
            used: BTreeMap::new(),
            changes: Vec::new(),
            bytes: 0,
            doomed: false,
        }
    }

    /// The same, whose end is a conflict whatever happens.
    pub fn doomed(self) -> Self {
        Self { doomed: true, ..self }
    }

    /// What it has changed.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What the transaction sees.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Bytes that it holds by itself: what it has written, copied and noted.
    pub fn weight(&self) -> usize {
        self.bytes
            + self.tree.replaced_bytes()
            + self
                .used
                .keys()
                .map(|path| path.len() + NODE_OVERHEAD)
                .sum::<usize>()
    }

    /// Notes that a path was used, and how much of it.
    pub fn note(&mut self, path: &Path, used: Used, caller: Caller, quota: &Quota) -> Result<(), StoreError> {
        // What decides about a path that is not there: the first missing part, and the node that would be its parent.
        let reach = self.tree.reach(path);
        let depth = reach.depth;
        if reach.complete {
            return self.note_exactly(path.clone(), used, caller, quota);
        }
        self.note_exactly(path.prefix(depth), Used::CONTENT, caller, quota)?;
        self.note_exactly(path.prefix(depth + 1), Used::CONTENT, caller, quota)
    }

    fn note_exactly(
        &mut self,
        path: Path,
        used: Used,
        caller: Caller,
        quota: &Quota,
    ) -> Result<(), StoreError> {
        let full = !caller.privileged && self.used.len() >= quota.transaction_paths;
        if full && !self.used.contains_key(&path) {
            return Err(StoreError::NoSpace);
        }
        let entry = self.used.entry(path).or_default();
        entry.children |= used.children;
        entry.subtree |= used.subtree;
        Ok(())
    }

    /// Changes what the transaction sees, to be repeated in the store at its end.
    pub fn apply(
        &mut self,
        caller: Caller,
        change: Change,
        quota: &Quota,
        generation: u64,
    ) -> Result<(), StoreError> {
        let bytes = self.bytes + change.length();
        let full = bytes > quota.transaction_bytes || self.changes.len() >= quota.transaction_paths;
        if full && !caller.privileged {
            return Err(StoreError::NoSpace);
        }
        if self.tree.apply(caller, &change, quota, generation)?.is_some() {
            self.bytes = bytes;
            self.changes.push(change);
        }
        Ok(())
    }

    /// Ends it: what is to be done to the store, or a conflict.
    pub fn finish(self, live: &Tree) -> Result<Vec<Change>, StoreError> {
        let conflict = self.doomed
            || !self.changes.is_empty()
                && !live.is_same(&self.base)
                && self
                    .used
                    .iter()
                    .any(|(path, used)| has_changed(&self.base, live, path, *used));
        if conflict {
            Err(StoreError::Conflict)
        } else {
            Ok(self.changes)
        }
    }
}

fn has_changed(base: &Tree, live: &Tree, path: &Path, used: Used) -> bool {
    match (base.get(path), live.get(path)) {
        (None, None) => false,
        // The snapshot holds on to its nodes, so a change anywhere below has made another node of this one.
        (Some(before), Some(now)) if Rc::ptr_eq(before, now) => false,
        (Some(before), Some(now)) => {
            used.subtree
                || before.content_generation != now.content_generation
                || used.children && before.children_generation != now.children_generation
        }
        _ => true,
    }
}
