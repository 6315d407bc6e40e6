//! The store and the journal: everything as entries, and a store made of entries.

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};

use super::{Change, Node, Path, Permissions, Quota, Special, Store, StoreError, Target};
use crate::{
    DomainId,
    journal::{Batch, Entry},
};

/// The entry of a change that a domain has made.
pub(super) fn entry(caller: DomainId, change: &Change) -> Entry {
    let path = String::from(&**change.path());
    match change {
        Change::Write(_, value) => Entry::Write(caller.0, path, value.to_vec()),
        Change::Make(_) => Entry::Make(caller.0, path),
        Change::Remove(_) => Entry::Remove(caller.0, path),
        Change::Permit(_, permissions) => Entry::Permit(caller.0, path, permissions.rights()),
    }
}

/// The change that an entry is of, and who made it.
fn change(entry: &Entry) -> Result<(DomainId, Change), StoreError> {
    Ok(match entry {
        Entry::Write(caller, path, value) => (
            DomainId(*caller),
            Change::Write(Path::absolute(path)?, value[..].into()),
        ),
        Entry::Make(caller, path) => (DomainId(*caller), Change::Make(Path::absolute(path)?)),
        Entry::Remove(caller, path) => (DomainId(*caller), Change::Remove(Path::absolute(path)?)),
        Entry::Permit(caller, path, rights) => {
            let permissions = Rc::new(Permissions::of_rights(rights)?);
            (
                DomainId(*caller),
                Change::Permit(Path::absolute(path)?, permissions),
            )
        }
        _ => return Err(StoreError::Invalid),
    })
}

fn target(name: &str) -> Result<Target, StoreError> {
    if name.starts_with('@') {
        Special::parse(name.as_bytes()).map(Target::Special)
    } else {
        Path::absolute(name).map(Target::Node)
    }
}

impl Store {
    /// Notes everything that there is.
    pub fn note_all(&self, batch: &mut Batch) {
        if let Some(root) = self.tree.get(&Path::root()) {
            let mut pending: Vec<(Path, &Node)> = Vec::from([(Path::root(), &**root)]);
            while let Some((path, node)) = pending.pop() {
                batch.note(|| {
                    Entry::Node(
                        String::from(&*path),
                        node.value.to_vec(),
                        node.permissions.rights(),
                    )
                });
                let children = node.children.iter();
                pending.extend(children.filter_map(|(name, child)| Some((path.child(name).ok()?, &**child))));
            }
        }
        for (special, permissions) in &self.special {
            batch.note(|| Entry::Special(special.name().into(), permissions.rights()));
        }
        for domain in &self.introduced {
            batch.note(|| Entry::Introduced(domain.0));
        }
        for (domain, target, token, relative) in self.watches.all() {
            batch.note(|| Entry::Watch(domain.0, target.name().into(), token.into(), relative));
        }
        for ((domain, id), changes) in self.transactions.all() {
            batch.note(|| Entry::Begun(domain.0, id));
            for change in changes {
                batch.note(|| Entry::Within(id, Box::new(entry(domain, change))));
            }
        }
    }

    /// A store as entries tell; those that are not about the store are left out. `life` is a number that no former life had: generations of nodes never come again.
    pub fn replay<'a>(
        control: DomainId,
        quota: Quota,
        life: u64,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Self, StoreError> {
        let mut store = Self::new(control, quota);
        store.changes = life;
        for entry in entries {
            store.follow(entry)?;
        }
        store.batch.take();
        store.inbox.take();
        Ok(store)
    }

    fn follow(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let control = self.control;
        match entry {
            Entry::Node(path, value, rights) => {
                let path = Path::absolute(path)?;
                self.change_quietly(control, Change::Write(path.clone(), value[..].into()))?;
                let permissions = Rc::new(Permissions::of_rights(rights)?);
                self.change_quietly(control, Change::Permit(path, permissions))
            }
            Entry::Write(..) | Entry::Make(..) | Entry::Remove(..) | Entry::Permit(..) => {
                let (domain, change) = change(entry)?;
                self.change_quietly(domain, change)
            }
            Entry::Within(id, entry) => {
                let (domain, change) = change(entry)?;
                self.changes += 1;
                let caller = self.caller(domain);
                let transaction = self.transactions.get_mut((domain, *id))?;
                transaction.apply(caller, change, &Quota::NONE, self.changes)
            }
            Entry::Special(name, rights) => {
                let special = Special::parse(name.as_bytes())?;
                self.special.insert(special, Permissions::of_rights(rights)?);
                Ok(())
            }
            Entry::Watch(domain, name, token, relative) => self
                .watches
                .add(DomainId(*domain), target(name)?, token, *relative)
                .map(drop),
            Entry::Unwatch(domain, name, token) => {
                self.watches.remove(DomainId(*domain), &target(name)?, token)
            }
            Entry::Reset(domain) => {
                self.watches.forget(DomainId(*domain));
                self.transactions.forget(DomainId(*domain));
                Ok(())
            }
            Entry::Introduced(domain) => {
                self.introduced.insert(DomainId(*domain));
                Ok(())
            }
            Entry::Released(domain) => {
                self.introduced.remove(&DomainId(*domain));
                Ok(())
            }
            Entry::Begun(domain, id) => {
                self.transactions.doomed((DomainId(*domain), *id), &mut self.tree);
                Ok(())
            }
            Entry::Ended(domain, id) => self.transactions.end((DomainId(*domain), *id)).map(drop),
            Entry::Stream(_) | Entry::Member(_) | Entry::Machine(_) => Ok(()),
        }
    }

    /// A change that happened in a former life: nobody hears of it again, and its quotas were checked.
    fn change_quietly(&mut self, domain: DomainId, change: Change) -> Result<(), StoreError> {
        self.changes += 1;
        let caller = self.caller(domain);
        self.tree.apply(caller, &change, &Quota::NONE, self.changes)?;
        Ok(())
    }
}
