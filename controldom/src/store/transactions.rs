//! All transactions under way, and the memory that they hold together.
//!
//! A snapshot costs nothing by itself, but it keeps every node alive that is replaced while it lasts. What that amounts to is
//! counted: a replaced node counts against the newest snapshot that has it, and passes to the next older one that has it when
//! that ends. When the sum exceeds its limit, the domain that holds most loses its oldest transaction: its requests, and its end,
//! are answered with EAGAIN, as if it had met a conflict.

use alloc::collections::BTreeMap;

use super::{Change, Replaced, StoreError, Transaction, Tree};
use crate::DomainId;

/// A transaction by its domain and the id that the domain knows.
pub type Key = (DomainId, u32);

#[derive(Debug)]
struct Open {
    /// The epoch that its snapshot began; grows from one transaction to the next.
    epoch: u64,
    /// Replaced nodes that it keeps alive.
    pinned: Replaced,
    /// `None` once it has been given up.
    transaction: Option<Transaction>,
}

/// All transactions under way.
#[derive(Debug, Default)]
pub struct Transactions {
    open: BTreeMap<Key, Open>,
    last_id: u32,
    last_epoch: u64,
}

impl Transactions {
    /// Begins one.
    pub fn begin(&mut self, domain: DomainId, live: &mut Tree) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let key = (domain, self.last_id);
            if self.last_id != 0 && !self.open.contains_key(&key) {
                self.last_epoch += 1;
                let open = Open {
                    epoch: self.last_epoch,
                    pinned: Replaced::new(),
                    transaction: Some(Transaction::begin(live, self.last_epoch)),
                };
                self.open.insert(key, open);
                return self.last_id;
            }
        }
    }

    /// There was one of that id in a former life, which cannot be told what has changed meanwhile: it goes on, and its end is a conflict.
    pub fn doomed(&mut self, key: Key, live: &mut Tree) {
        self.last_id = self.last_id.max(key.1);
        self.last_epoch += 1;
        let open = Open {
            epoch: self.last_epoch,
            pinned: Replaced::new(),
            transaction: Some(Transaction::begin(live, self.last_epoch).doomed()),
        };
        self.open.insert(key, open);
    }

    /// All that are under way, and what each has changed.
    pub fn all(&self) -> impl Iterator<Item = (Key, &[Change])> {
        self.open.iter().map(|(key, open)| {
            let changes = open.transaction.as_ref().map_or(&[][..], Transaction::changes);
            (*key, changes)
        })
    }

    /// Whether there is one of that id.
    pub fn contains(&self, key: Key) -> bool {
        self.open.contains_key(&key)
    }

    /// How many a domain has.
    pub fn count(&self, domain: DomainId) -> usize {
        self.open.range((domain, 0)..=(domain, u32::MAX)).count()
    }

    /// The one of that id.
    pub fn get(&self, key: Key) -> Result<&Transaction, StoreError> {
        let open = self.open.get(&key).ok_or(StoreError::Missing)?;
        open.transaction.as_ref().ok_or(StoreError::Conflict)
    }

    /// The one of that id, to be used.
    pub fn get_mut(&mut self, key: Key) -> Result<&mut Transaction, StoreError> {
        let open = self.open.get_mut(&key).ok_or(StoreError::Missing)?;
        open.transaction.as_mut().ok_or(StoreError::Conflict)
    }

    /// Takes out the one of that id; `None` if it has been given up.
    pub fn end(&mut self, key: Key) -> Result<Option<Transaction>, StoreError> {
        let open = self.open.remove(&key).ok_or(StoreError::Missing)?;
        self.pass_on(open.epoch, open.pinned);
        Ok(open.transaction)
    }

    /// Ends all of a domain.
    pub fn forget(&mut self, domain: DomainId) {
        while let Some(key) = self
            .open
            .range((domain, 0)..=(domain, u32::MAX))
            .next()
            .map(|(key, _)| *key)
        {
            let _ = self.end(key);
        }
    }

    /// Counts nodes of the store that have been replaced.
    pub fn replaced(&mut self, nodes: Replaced) {
        self.pass_on(u64::MAX, nodes);
    }

    /// Gives up transactions until all together hold no more than `limit`.
    pub fn keep_within(&mut self, limit: usize) {
        loop {
            let mut held: BTreeMap<DomainId, usize> = BTreeMap::new();
            for ((domain, _), open) in &self.open {
                *held.entry(*domain).or_default() += open.held();
            }
            if held.values().sum::<usize>() <= limit {
                return;
            }
            let greediest = held
                .iter()
                .max_by_key(|(_, held)| **held)
                .map(|(domain, _)| *domain);
            let alive = self
                .open
                .iter_mut()
                .filter(|(_, open)| open.transaction.is_some());
            let victim = alive
                .filter(|((domain, _), _)| Some(*domain) == greediest)
                .min_by_key(|(_, open)| open.epoch);
            let Some((_, victim)) = victim else { return };
            victim.transaction = None;
            let (epoch, pinned) = (victim.epoch, core::mem::take(&mut victim.pinned));
            self.pass_on(epoch, pinned);
        }
    }

    /// Counts nodes against the newest snapshot older than `epoch` that has them; those that none has are free.
    fn pass_on(&mut self, epoch: u64, nodes: Replaced) {
        for (made, bytes) in nodes {
            let alive = self.open.values_mut().filter(|open| open.transaction.is_some());
            let having = alive.filter(|open| open.epoch > made && open.epoch < epoch);
            if let Some(newest) = having.max_by_key(|open| open.epoch) {
                *newest.pinned.entry(made).or_default() += bytes;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.open.values().map(Open::held).sum()
    }
}

impl Open {
    fn held(&self) -> usize {
        self.pinned.values().sum::<usize>() + self.transaction.as_ref().map_or(0, Transaction::weight)
    }
}
