//! The tree of nodes, persistent: a clone is a snapshot, costs next to nothing, and shares every node that neither side
//! has changed since. A change copies the nodes from the root to its place, and only those that a snapshot still shares.

use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};

use super::{
    Access, Caller, Path, Permissions, Quota, StoreError,
    quota::{NODE_OVERHEAD, Usages},
};

/// What an entry in a node's list of children costs, beyond the child.
const CHILD_COST: usize = 48;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its value, any bytes.
    pub value: Rc<[u8]>,
    /// Who may do what with it.
    pub permissions: Rc<Permissions>,
    /// Its children by name.
    pub children: BTreeMap<Rc<str>, Rc<Node>>,
    /// When its value or its permissions last changed, by the store's count of changes.
    pub content_generation: u64,
    /// When its set of children last changed, by the store's count of changes.
    pub children_generation: u64,
    /// Length of its children's names, each with its end.
    names_length: usize,
    /// The newest snapshot that this version of it is *not* in.
    epoch: u64,
}

/// Bytes of replaced nodes by their epoch: a snapshot that began later has them.
pub type Replaced = BTreeMap<u64, usize>;

impl Node {
    fn new(value: Rc<[u8]>, permissions: Rc<Permissions>, generation: u64, epoch: u64) -> Self {
        let (content_generation, children_generation) = (generation, generation);
        Self {
            value,
            permissions,
            children: BTreeMap::new(),
            content_generation,
            children_generation,
            names_length: 0,
            epoch,
        }
    }

    /// Grows with every change of the node itself or its set of children.
    pub fn generation(&self) -> u64 {
        self.content_generation.max(self.children_generation)
    }

    /// The node at `path` below this one, its parts separated by `/`.
    pub fn descend<'a>(&'a self, path: &str) -> Option<&'a Node> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .try_fold(self, |node, part| Some(&**node.children.get(part)?))
    }

    fn cost(&self, name: &str) -> usize {
        NODE_OVERHEAD + name.len() + self.value.len() + 4 * self.permissions.count()
    }

    /// What it costs if a copy takes its place.
    fn copy_cost(&self) -> usize {
        NODE_OVERHEAD + self.value.len() + CHILD_COST * self.children.len()
    }

    fn insert(&mut self, name: &str, child: Node, generation: u64) {
        if self.children.insert(name.into(), Rc::new(child)).is_none() {
            self.names_length += name.len() + 1;
        }
        self.children_generation = generation;
    }
}

/// A change of one path.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets the value; creates the node and its missing ancestors.
    Write(Path, Rc<[u8]>),
    /// Creates the node and its missing ancestors with empty values; leaves an existing one as it is.
    Make(Path),
    /// Removes the node and everything below.
    Remove(Path),
    /// Replaces the permissions.
    Permit(Path, Rc<Permissions>),
}

impl Change {
    /// What is changed.
    pub fn path(&self) -> &Path {
        match self {
            Self::Write(path, _) | Self::Make(path) | Self::Remove(path) | Self::Permit(path, _) => path,
        }
    }

    /// Bytes that it carries.
    pub fn length(&self) -> usize {
        self.path().len()
            + match self {
                Self::Write(_, value) => value.len(),
                Self::Permit(_, permissions) => 4 * permissions.count(),
                Self::Make(_) | Self::Remove(_) => 0,
            }
    }
}

/// What a change did, for those who watch.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Where.
    pub path: Path,
    /// Whoever may read by one of these learns of it: the node's old and new permissions and its parent's.
    pub readers: Vec<Rc<Permissions>>,
    /// What was there, if it was removed.
    pub removed: Option<Rc<Node>>,
}

/// The whole tree and what its owners use.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Rc<Node>,
    usages: Usages,
    epoch: u64,
    replaced: Replaced,
}

/// How far a path leads.
pub struct Reach<'a> {
    /// The last node on the way that exists.
    pub node: &'a Rc<Node>,
    /// How many parts of the path lead to it.
    pub depth: usize,
    /// Whether it is the path's end.
    pub complete: bool,
}

impl Tree {
    /// A tree of a root alone.
    pub fn new(permissions: Permissions) -> Self {
        Self {
            root: Rc::new(Node::new(Rc::from([]), Rc::new(permissions), 0, 0)),
            usages: Usages::default(),
            epoch: 0,
            replaced: Replaced::new(),
        }
    }

    /// A snapshot, which the given epoch begins: nodes that the tree makes from here on are not in it.
    pub fn snapshot(&mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self.clone()
    }

    /// Nodes that have been replaced or removed while a snapshot may have kept them, since this was last asked.
    pub fn take_replaced(&mut self) -> Replaced {
        core::mem::take(&mut self.replaced)
    }

    /// Bytes of nodes that have been replaced or removed since [`Tree::take_replaced`].
    pub fn replaced_bytes(&self) -> usize {
        self.replaced.values().sum()
    }

    /// Whether nothing has changed between two snapshots of one tree.
    pub fn is_same(&self, other: &Tree) -> bool {
        Rc::ptr_eq(&self.root, &other.root)
    }

    /// What the owners use.
    pub fn usages(&self) -> &Usages {
        &self.usages
    }

    /// The node at a path.
    pub fn get(&self, path: &Path) -> Option<&Rc<Node>> {
        path.parts()
            .try_fold(&self.root, |node, part| node.children.get(part))
    }

    /// How far a path leads.
    pub fn reach(&self, path: &Path) -> Reach<'_> {
        let (mut node, mut depth) = (&self.root, 0);
        for part in path.parts() {
            match node.children.get(part) {
                Some(child) => (node, depth) = (child, depth + 1),
                None => {
                    return Reach {
                        node,
                        depth,
                        complete: false,
                    };
                }
            }
        }
        Reach {
            node,
            depth,
            complete: true,
        }
    }

    /// Carries out a change. The caller's permissions have been checked; quotas are checked here, before anything changes.
    /// `None` means that there was nothing to do.
    pub fn apply(
        &mut self,
        caller: Caller,
        change: &Change,
        quota: &Quota,
        generation: u64,
    ) -> Result<Option<Happened>, StoreError> {
        match change {
            Change::Write(path, value) => match self.get(path) {
                Some(_) => self.overwrite(caller, path, value, quota, generation).map(Some),
                None => self
                    .create(caller, path, value.clone(), quota, generation)
                    .map(Some),
            },
            Change::Make(path) if self.get(path).is_some() => Ok(None),
            Change::Make(path) => self
                .create(caller, path, Rc::from([]), quota, generation)
                .map(Some),
            Change::Remove(path) => self.remove(path, generation),
            Change::Permit(path, permissions) => self
                .permit(caller, path, permissions, quota, generation)
                .map(Some),
        }
    }

    fn overwrite(
        &mut self,
        caller: Caller,
        path: &Path,
        value: &Rc<[u8]>,
        quota: &Quota,
        generation: u64,
    ) -> Result<Happened, StoreError> {
        let node = self.get(path).ok_or(StoreError::Missing)?;
        let owner = node.permissions.owner;
        let used = self.usages.of(owner).bytes - node.value.len() + value.len();
        let entry_is_full = node.names_length + value.len() > quota.entry;
        // Values in nodes of someone else are bounded by the message and by the number of those nodes.
        let owner_is_full = owner == caller.domain && used > quota.bytes;
        if !caller.privileged && value.len() > node.value.len() && (entry_is_full || owner_is_full) {
            return Err(StoreError::NoSpace);
        }
        let readers = self.readers(path, &node.permissions);
        let (old, new) = (node.value.len(), value.len());
        let node = self.node_mut(path).ok_or(StoreError::Missing)?;
        node.value = value.clone();
        node.content_generation = generation;
        self.usages.add(owner, 0, new);
        self.usages.subtract(owner, 0, old);
        Ok(Happened {
            path: path.clone(),
            readers,
            removed: None,
        })
    }

    fn create(
        &mut self,
        caller: Caller,
        path: &Path,
        value: Rc<[u8]>,
        quota: &Quota,
        generation: u64,
    ) -> Result<Happened, StoreError> {
        let reach = self.reach(path);
        let depth = reach.depth;
        let inherited = &reach.node.permissions;
        let permissions = if caller.privileged || inherited.owner == caller.domain {
            inherited.clone()
        } else {
            Rc::new(Permissions {
                owner: caller.domain,
                ..Permissions::clone(inherited)
            })
        };
        let names: Vec<&str> = path.parts().skip(depth).collect();
        let (first, last) = (names.first().ok_or(StoreError::Exists)?, path.name());
        let cost = value.len()
            + names
                .iter()
                .map(|name| NODE_OVERHEAD + name.len() + 4 * permissions.count())
                .sum::<usize>();
        if !caller.privileged {
            let usage = self.usages.of(permissions.owner);
            let listing = reach.node.value.len() + reach.node.names_length + first.len() + 1;
            if usage.nodes + names.len() > quota.nodes
                || usage.bytes + cost > quota.bytes
                || listing > quota.entry
                || value.len() > quota.entry
            {
                return Err(StoreError::NoSpace);
            }
        }
        let mut readers = Vec::from([permissions.clone()]);
        if names.len() == 1 {
            readers.push(inherited.clone());
        }
        let mut node = Node::new(value, permissions.clone(), generation, self.epoch);
        for pair in names.windows(2).rev() {
            let mut parent = Node::new(Rc::from([]), permissions.clone(), generation, self.epoch);
            parent.insert(pair[1], node, generation);
            node = parent;
        }
        debug_assert_eq!(names.last(), Some(&last));
        self.node_mut(&path.prefix(depth))
            .ok_or(StoreError::Missing)?
            .insert(first, node, generation);
        self.usages.add(permissions.owner, names.len(), cost);
        Ok(Happened {
            path: path.clone(),
            readers,
            removed: None,
        })
    }

    fn remove(&mut self, path: &Path, generation: u64) -> Result<Option<Happened>, StoreError> {
        let parent = path.parent().ok_or(StoreError::Invalid)?;
        let Some(removed) = self.get(path).cloned() else {
            return Ok(None);
        };
        let readers = self.readers(path, &removed.permissions);
        let parent = self.node_mut(&parent).ok_or(StoreError::Missing)?;
        parent.children.remove(path.name());
        parent.names_length -= path.name().len() + 1;
        parent.children_generation = generation;
        let mut pending = Vec::from([(path.name(), &*removed)]);
        while let Some((name, node)) = pending.pop() {
            self.usages.subtract(node.permissions.owner, 1, node.cost(name));
            *self.replaced.entry(node.epoch).or_default() += node.copy_cost();
            pending.extend(node.children.iter().map(|(name, child)| (&**name, &**child)));
        }
        Ok(Some(Happened {
            path: path.clone(),
            readers,
            removed: Some(removed),
        }))
    }

    fn permit(
        &mut self,
        caller: Caller,
        path: &Path,
        permissions: &Rc<Permissions>,
        quota: &Quota,
        generation: u64,
    ) -> Result<Happened, StoreError> {
        if !caller.privileged && permissions.count() > quota.permissions {
            return Err(StoreError::NoSpace);
        }
        let old = self.get(path).ok_or(StoreError::Missing)?.permissions.clone();
        let mut readers = self.readers(path, &old);
        readers.push(permissions.clone());
        let name = path.name();
        let node = self.node_mut(path).ok_or(StoreError::Missing)?;
        let before = node.cost(name);
        node.permissions = permissions.clone();
        node.content_generation = generation;
        let after = node.cost(name);
        // The root counts for nobody: it is there before anyone.
        if !path.is_root() {
            self.usages.subtract(old.owner, 1, before);
            self.usages.add(permissions.owner, 1, after);
        }
        Ok(Happened {
            path: path.clone(),
            readers,
            removed: None,
        })
    }

    fn readers(&self, path: &Path, own: &Rc<Permissions>) -> Vec<Rc<Permissions>> {
        let parent = path
            .parent()
            .and_then(|parent| self.get(&parent))
            .map(|node| node.permissions.clone());
        core::iter::once(own.clone()).chain(parent).collect()
    }

    /// The node at a path that exists, its own from here on. Look before: this copies what snapshots share.
    fn node_mut(&mut self, path: &Path) -> Option<&mut Node> {
        let (mut place, mut parts) = (&mut self.root, path.parts());
        let node = loop {
            if Rc::strong_count(place) > 1 {
                *self.replaced.entry(place.epoch).or_default() += place.copy_cost();
            }
            let node = Rc::make_mut(place);
            node.epoch = self.epoch;
            match parts.next() {
                Some(part) => place = node.children.get_mut(part)?,
                None => break node,
            }
        };
        Some(node)
    }
}

/// Whether a caller may read by one of several permissions.
pub fn may_read(readers: &[Rc<Permissions>], caller: Caller) -> bool {
    readers
        .iter()
        .any(|permissions| permissions.access(caller).includes(Access::READ))
}
