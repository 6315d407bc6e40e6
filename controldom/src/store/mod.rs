//! xenstore: the tree, its permissions, transactions, watches and quotas, and the answers to requests.
//!
//! Promise: whatever a domain sends, the answer is a reply or an error that the protocol knows, in time and memory that the
//! domain's quotas bound. What the control plane does itself goes through the same tree and fires the same watches.

mod error;
mod path;
mod permissions;
mod quota;
mod replay;
mod request;
mod transaction;
mod transactions;
mod tree;
mod watch;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use path::{DEPTH_MAX, Path, is_valid_name};
pub use permissions::{Access, Caller, Permissions};
pub use quota::{NODE_OVERHEAD, Quota, Usage, Usages};
pub use transaction::{Transaction, Used};
pub use transactions::{Key, Transactions};
pub use tree::{Change, Happened, Node, Reach, Replaced, Tree};
pub use watch::{EVENT_BYTES_MAX, EVENTS_MAX, Inbox, Notification, Special, Target, Watches};

use alloc::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    string::String,
    vec::Vec,
};

use crate::{
    DomainId,
    journal::{Batch, Entry},
};

/// The store.
#[derive(Debug)]
pub struct Store {
    control: DomainId,
    quota: Quota,
    tree: Tree,
    changes: u64,
    watches: Watches,
    special: BTreeMap<Special, Permissions>,
    transactions: Transactions,
    introduced: BTreeSet<DomainId>,
    inbox: Inbox,
    batch: Batch,
}

impl Store {
    /// A store of an empty root that belongs to the control domain.
    pub fn new(control: DomainId, quota: Quota) -> Self {
        let private = || Permissions::private(control);
        Self {
            control,
            quota,
            tree: Tree::new(private()),
            changes: 0,
            watches: Watches::default(),
            special: Special::ALL
                .into_iter()
                .map(|special| (special, private()))
                .collect(),
            transactions: Transactions::default(),
            introduced: BTreeSet::new(),
            inbox: Inbox::default(),
            batch: Batch::default(),
        }
    }

    /// The control domain's id.
    pub fn control(&self) -> DomainId {
        self.control
    }

    /// The tree as it is.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The watch events that wait for their domains, oldest first; the caller delivers them.
    pub fn take_notifications(&mut self) -> Vec<Notification> {
        self.inbox.take()
    }

    /// The value of a node, for the control plane.
    pub fn read(&self, path: &Path) -> Option<&[u8]> {
        self.tree.get(path).map(|node| &*node.value)
    }

    /// Makes a change on behalf of the control plane, and fires watches.
    pub fn change(&mut self, change: Change) -> Result<(), StoreError> {
        self.change_as(self.caller(self.control), change)
    }

    /// Sets a value on behalf of the control plane.
    pub fn write(&mut self, path: &Path, value: &[u8]) -> Result<(), StoreError> {
        self.change(Change::Write(path.clone(), value.into()))
    }

    /// Sets a value, and the permissions where they differ, on behalf of the control plane.
    pub fn put(&mut self, path: &Path, value: &[u8], permissions: &Permissions) -> Result<(), StoreError> {
        let known = self
            .tree
            .get(path)
            .map(|node| (*node.value == *value, *node.permissions == *permissions));
        if !known.is_some_and(|(same, _)| same) {
            self.write(path, value)?;
        }
        if self
            .tree
            .get(path)
            .is_some_and(|node| *node.permissions != *permissions)
        {
            self.change(Change::Permit(path.clone(), Rc::new(permissions.clone())))?;
        }
        Ok(())
    }

    /// Removes a node and what is below, if it is there, on behalf of the control plane.
    pub fn remove(&mut self, path: &Path) -> Result<(), StoreError> {
        self.change(Change::Remove(path.clone()))
    }

    /// Watches on behalf of the control plane; the events come with the others, for the control domain.
    pub fn watch(&mut self, path: &Path, token: &[u8]) -> Result<(), StoreError> {
        self.add(self.control, Target::Node(path.clone()), token, false)
    }

    /// Lets a domain watch an announcement.
    pub fn permit_special(&mut self, special: Special, domain: DomainId) {
        if let Some(permissions) = self.special.get_mut(&special) {
            permissions.list.push((domain, Access::READ));
            let rights = permissions.rights();
            self.batch.note(|| Entry::Special(special.name().into(), rights));
        }
    }

    /// Begins to serve a domain, and announces it.
    pub fn introduce(&mut self, domain: DomainId) {
        self.introduced.insert(domain);
        self.batch.note(|| Entry::Introduced(domain.0));
        self.announce(Special::IntroduceDomain);
    }

    /// Stops to serve a domain: its watches and transactions end. It is announced by [`Store::announce`].
    pub fn forget(&mut self, domain: DomainId) {
        self.introduced.remove(&domain);
        self.batch.note(|| Entry::Released(domain.0));
        self.reset(domain);
        self.inbox.forget(domain);
    }

    /// Ends a domain's watches and transactions.
    pub fn reset(&mut self, domain: DomainId) {
        self.watches.forget(domain);
        self.transactions.forget(domain);
        self.batch.note(|| Entry::Reset(domain.0));
    }

    /// Fires the watches on an announcement.
    pub fn announce(&mut self, special: Special) {
        self.watches.announced(special, &mut self.inbox);
    }

    /// What has been changed since this was last taken, for the journal.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    fn add(
        &mut self,
        domain: DomainId,
        target: Target,
        token: &[u8],
        relative: bool,
    ) -> Result<(), StoreError> {
        let name = String::from(target.name());
        let first = self.watches.add(domain, target, token, relative)?;
        self.batch
            .note(|| Entry::Watch(domain.0, name, token.into(), relative));
        self.inbox.push(first);
        Ok(())
    }

    fn caller(&self, domain: DomainId) -> Caller {
        Caller {
            domain,
            privileged: domain == self.control,
        }
    }

    fn change_as(&mut self, caller: Caller, change: Change) -> Result<(), StoreError> {
        self.changes += 1;
        if let Some(happened) = self.tree.apply(caller, &change, &self.quota, self.changes)? {
            self.batch.note(|| replay::entry(caller.domain, &change));
            self.fire(&happened);
        }
        self.account();
        Ok(())
    }

    /// Counts what the transactions under way keep alive.
    fn account(&mut self) {
        self.transactions.replaced(self.tree.take_replaced());
        self.transactions.keep_within(self.quota.transaction_memory);
    }

    fn fire(&mut self, happened: &Happened) {
        let control = self.control;
        let permitted = |domain: DomainId, readers: &[Rc<Permissions>]| {
            tree::may_read(
                readers,
                Caller {
                    domain,
                    privileged: domain == control,
                },
            )
        };
        self.watches.matching(happened, permitted, &mut self.inbox);
    }

    fn commit(&mut self, caller: Caller, transaction: Transaction) -> Result<(), StoreError> {
        let changes = transaction.finish(&self.tree)?;
        // One change happens or fails by itself.
        let before = (changes.len() > 1).then(|| self.tree.clone());
        let mut all_happened = Vec::new();
        for change in &changes {
            self.changes += 1;
            match self.tree.apply(caller, change, &self.quota, self.changes) {
                Ok(happened) => all_happened.extend(happened),
                // Only a quota can have run out since.
                Err(error) => {
                    if let Some(before) = before {
                        self.tree = before;
                    }
                    return Err(error);
                }
            }
        }
        drop(before);
        for change in &changes {
            self.batch.note(|| replay::entry(caller.domain, change));
        }
        self.account();
        for happened in &all_happened {
            self.fire(happened);
        }
        Ok(())
    }
}
