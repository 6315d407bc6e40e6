//! A xenstore in memory, shared by the fakes of several domains.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::DomainId;
use crate::event::Port;
use crate::xenstore::{Permission, Rights, Store, StoreError, Transaction, WatchEvent};

/// One domain's connection to a xenstore. [`as_domain`](Self::as_domain) gives another domain's to the same tree.
///
/// Transactions see a copy of the tree, and conflict with any change that happened meanwhile. Permissions are kept, not
/// enforced.
#[derive(Clone)]
pub struct FakeStore {
    own: DomainId,
    tree: Rc<RefCell<Tree>>,
}

type Nodes = BTreeMap<String, Node>;

#[derive(Default)]
struct Tree {
    nodes: Nodes,
    generation: u64,
    watches: Vec<Watch>,
    events: BTreeMap<DomainId, VecDeque<WatchEvent>>,
    transactions: BTreeMap<Transaction, Pending>,
    last_transaction: u32,
    failures: VecDeque<String>,
}

#[derive(Clone, Default)]
struct Node {
    value: Vec<u8>,
    permissions: Vec<Permission>,
}

struct Pending {
    nodes: Nodes,
    generation: u64,
    changed: Vec<String>,
}

struct Watch {
    domain: DomainId,
    path: String,
    /// The path in full.
    full: String,
    token: String,
}

impl FakeStore {
    /// A domain's connection to an empty tree.
    pub fn new(own: DomainId) -> Self {
        Self {
            own,
            tree: Rc::default(),
        }
    }

    /// Another domain's connection to the same tree.
    pub fn as_domain(&self, domain: DomainId) -> Self {
        Self {
            own: domain,
            tree: self.tree.clone(),
        }
    }

    /// Writes nodes without ceremony: `(path, value)`.
    pub fn put(&self, nodes: &[(&str, &str)]) {
        for (path, value) in nodes {
            self.write(Transaction::NONE, path, value.as_bytes())
                .expect("a write to a fake succeeds");
        }
    }

    /// A node's value as text; empty if there is none.
    pub fn get(&self, path: &str) -> String {
        let value = self.read(Transaction::NONE, path).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }

    /// Has the next request of any connection refused, with the server's name of the error. Several calls queue up.
    pub fn fail_next(&self, name: &str) {
        self.tree.borrow_mut().failures.push_back(name.to_owned());
    }

    /// Ends this domain's connection, as its death does: watches and waiting events are gone.
    pub fn disconnect(&self) {
        let mut tree = self.tree.borrow_mut();
        tree.watches.retain(|watch| watch.domain != self.own);
        tree.events.remove(&self.own);
    }

    fn full(&self, path: &str) -> Result<String, StoreError> {
        let full = match path {
            "/" => return Ok(String::new()),
            _ if path.starts_with('/') || path.starts_with('@') => path.to_owned(),
            _ => format!("/local/domain/{}/{path}", self.own.0),
        };
        if full.ends_with('/') || full.contains("//") || path.is_empty() {
            return Err(StoreError::refused(path, "EINVAL"));
        }
        Ok(full)
    }

    /// Reads from the tree, or from a transaction's copy.
    fn look<R>(
        &self,
        transaction: Transaction,
        path: &str,
        action: impl FnOnce(&Nodes, &str) -> Option<R>,
    ) -> Result<R, StoreError> {
        let full = self.full(path)?;
        let mut tree = self.tree.borrow_mut();
        tree.check_failure(path)?;
        let nodes = match transaction {
            Transaction::NONE => &tree.nodes,
            _ => {
                &tree
                    .transactions
                    .get(&transaction)
                    .ok_or(StoreError::refused(path, "ENOENT"))?
                    .nodes
            }
        };
        action(nodes, &full).ok_or_else(|| StoreError::refused(path, "ENOENT"))
    }

    /// Changes the tree, or a transaction's copy.
    fn change<R>(
        &self,
        transaction: Transaction,
        path: &str,
        action: impl FnOnce(&mut Nodes, &str) -> Option<R>,
    ) -> Result<R, StoreError> {
        let full = self.full(path)?;
        let missing = || StoreError::refused(path, "ENOENT");
        let mut tree = self.tree.borrow_mut();
        tree.check_failure(path)?;
        if transaction == Transaction::NONE {
            let result = action(&mut tree.nodes, &full).ok_or_else(missing)?;
            tree.announce(&full);
            Ok(result)
        } else {
            let pending = tree.transactions.get_mut(&transaction).ok_or_else(missing)?;
            let result = action(&mut pending.nodes, &full).ok_or_else(missing)?;
            pending.changed.push(full);
            Ok(result)
        }
    }
}

impl Tree {
    fn check_failure(&mut self, path: &str) -> Result<(), StoreError> {
        self.failures
            .pop_front()
            .map_or(Ok(()), |name| Err(StoreError::refused(path, &name)))
    }

    /// Counts a change, and tells those who watch the path, what is above it, or (for removals) below it.
    fn announce(&mut self, full: &str) {
        self.generation += 1;
        for watch in &self.watches {
            let below = |path: &str, root: &str| {
                path.strip_prefix(root)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let path = if below(full, &watch.full) {
                format!("{}{}", watch.path, &full[watch.full.len()..])
            } else if below(&watch.full, full) && !self.nodes.contains_key(&watch.full) {
                watch.path.clone()
            } else {
                continue;
            };
            let event = WatchEvent {
                path,
                token: watch.token.clone(),
            };
            self.events.entry(watch.domain).or_default().push_back(event);
        }
    }
}

/// Makes a node's parents, and the node if need be.
fn insert<'a>(nodes: &'a mut Nodes, full: &str, owner: DomainId) -> &'a mut Node {
    let fresh = || Node {
        value: Vec::new(),
        permissions: vec![Permission {
            domain: owner,
            rights: Rights::None,
        }],
    };
    for (slash, _) in full.match_indices('/').skip(1) {
        nodes.entry(full[..slash].to_owned()).or_insert_with(fresh);
    }
    nodes.entry(full.to_owned()).or_insert_with(fresh)
}

impl Store for FakeStore {
    fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.look(transaction, path, |nodes, full| {
            nodes.get(full).map(|node| node.value.clone())
        })
    }

    fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.change(transaction, path, |nodes, full| {
            insert(nodes, full, self.own).value = value.to_vec();
            Some(())
        })
    }

    fn make_directory(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.change(transaction, path, |nodes, full| {
            insert(nodes, full, self.own);
            Some(())
        })
    }

    fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.change(transaction, path, |nodes, full| {
            nodes.remove(full)?;
            let below = format!("{full}/");
            nodes.retain(|path, _| !path.starts_with(&below));
            Some(())
        })
    }

    fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.look(transaction, path, |nodes, full| {
            (full.is_empty() || nodes.contains_key(full)).then_some(())?;
            let below = format!("{full}/");
            let children = nodes
                .range(below.clone()..)
                .take_while(|(path, _)| path.starts_with(&below));
            Some(
                children
                    .map(|(path, _)| &path[below.len()..])
                    .filter(|name| !name.contains('/'))
                    .map(ToOwned::to_owned)
                    .collect(),
            )
        })
    }

    fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<Permission>, StoreError> {
        self.look(transaction, path, |nodes, full| {
            nodes.get(full).map(|node| node.permissions.clone())
        })
    }

    fn set_permissions(
        &self,
        transaction: Transaction,
        path: &str,
        permissions: &[Permission],
    ) -> Result<(), StoreError> {
        self.change(transaction, path, |nodes, full| {
            nodes.get_mut(full)?.permissions = permissions.to_vec();
            Some(())
        })
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        let full = self.full(path)?;
        let mut tree = self.tree.borrow_mut();
        tree.check_failure(path)?;
        if tree
            .watches
            .iter()
            .any(|watch| (watch.domain, &*watch.path, &*watch.token) == (self.own, path, token))
        {
            return Err(StoreError::refused(path, "EEXIST"));
        }
        let (path, token) = (path.to_owned(), token.to_owned());
        let event = WatchEvent {
            path: path.clone(),
            token: token.clone(),
        };
        tree.events.entry(self.own).or_default().push_back(event);
        tree.watches.push(Watch {
            domain: self.own,
            path,
            full,
            token,
        });
        Ok(())
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        let mut tree = self.tree.borrow_mut();
        tree.check_failure(path)?;
        let before = tree.watches.len();
        tree.watches
            .retain(|watch| (watch.domain, &*watch.path, &*watch.token) != (self.own, path, token));
        if tree.watches.len() == before {
            Err(StoreError::refused(path, "ENOENT"))
        } else {
            Ok(())
        }
    }

    fn begin(&self) -> Result<Transaction, StoreError> {
        let mut tree = self.tree.borrow_mut();
        tree.check_failure("")?;
        tree.last_transaction += 1;
        let transaction = Transaction(tree.last_transaction);
        let pending = Pending {
            nodes: tree.nodes.clone(),
            generation: tree.generation,
            changed: Vec::new(),
        };
        tree.transactions.insert(transaction, pending);
        Ok(transaction)
    }

    fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        let mut tree = self.tree.borrow_mut();
        tree.check_failure("")?;
        let pending = tree
            .transactions
            .remove(&transaction)
            .ok_or(StoreError::refused("", "ENOENT"))?;
        if commit {
            if pending.generation != tree.generation {
                return Err(StoreError::refused("", "EAGAIN"));
            }
            tree.nodes = pending.nodes;
            pending.changed.iter().for_each(|path| tree.announce(path));
        }
        Ok(())
    }

    fn domain_path(&self, domain: DomainId) -> Result<String, StoreError> {
        Ok(format!("/local/domain/{}", domain.0))
    }

    fn take_event(&self) -> Result<Option<WatchEvent>, StoreError> {
        Ok(self
            .tree
            .borrow_mut()
            .events
            .get_mut(&self.own)
            .and_then(VecDeque::pop_front))
    }

    fn port(&self) -> Option<Port> {
        None
    }
}
