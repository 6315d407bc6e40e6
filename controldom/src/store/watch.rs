//! Watches: who wants to hear of changes where, and who hears of a given one.

use alloc::{collections::BTreeMap, rc::Rc, string::String, vec::Vec};

use super::{Path, StoreError, tree::Happened};
use crate::DomainId;

/// What the store itself announces, outside of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    /// A domain has been introduced.
    IntroduceDomain,
    /// A domain has shut down, crashed or been taken down.
    ReleaseDomain,
}

impl Special {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::IntroduceDomain, Self::ReleaseDomain];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntroduceDomain => "@introduceDomain",
            Self::ReleaseDomain => "@releaseDomain",
        }
    }

    /// The one of that name.
    pub fn parse(name: &[u8]) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|special| special.name().as_bytes() == name)
            .ok_or(StoreError::Invalid)
    }
}

/// What a watch is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A node and everything below; it need not exist.
    Node(Path),
    /// An announcement.
    Special(Special),
}

impl Target {
    /// Its name on the wire, where it is absolute.
    pub fn name(&self) -> &str {
        match self {
            Self::Node(path) => path,
            Self::Special(special) => special.name(),
        }
    }

    /// Length of its name.
    pub fn length(&self) -> usize {
        match self {
            Self::Node(path) => path.len(),
            Self::Special(special) => special.name().len(),
        }
    }
}

/// A watch event for one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Who hears it.
    pub domain: DomainId,
    /// The path that changed, relative if the watch is.
    pub path: String,
    /// The watch's token.
    pub token: Rc<[u8]>,
}

/// Watch events that may wait for one domain, here and in its connection; more are lost.
pub const EVENTS_MAX: usize = 1024;
/// Bytes of watch events that may wait for one domain, here and in its connection; more are lost.
pub const EVENT_BYTES_MAX: usize = 128 << 10;

/// The events that wait for their domains. One commit may cause a hundred thousand; what a domain may have is bounded before they
/// are made.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Vec<Notification>,
    backlog: BTreeMap<DomainId, (usize, usize)>,
}

impl Inbox {
    /// Adds an event, unless too much waits for its domain.
    pub fn push(&mut self, notification: Notification) {
        let (events, bytes) = self.backlog.entry(notification.domain).or_default();
        *events += 1;
        *bytes += notification.path.len() + notification.token.len();
        self.waiting.push(notification);
    }

    /// Whether no further event is taken for a domain.
    fn is_full(&self, domain: DomainId) -> bool {
        let full = |(events, bytes): &(usize, usize)| *events >= EVENTS_MAX || *bytes >= EVENT_BYTES_MAX;
        self.backlog.get(&domain).is_some_and(full)
    }

    /// All of them, oldest first.
    pub fn take(&mut self) -> Vec<Notification> {
        self.backlog.clear();
        core::mem::take(&mut self.waiting)
    }

    /// Drops those of a domain.
    pub fn forget(&mut self, domain: DomainId) {
        self.backlog.remove(&domain);
        self.waiting.retain(|notification| notification.domain != domain);
    }
}

#[derive(Debug)]
struct Watch {
    domain: DomainId,
    token: Rc<[u8]>,
    relative: bool,
}

impl Watch {
    fn notification(&self, path: &Path) -> Notification {
        let path = if self.relative {
            path.relative_to(&Path::home(self.domain))
        } else {
            String::from(&**path)
        };
        Notification {
            domain: self.domain,
            path,
            token: self.token.clone(),
        }
    }
}

/// All watches.
#[derive(Debug, Default)]
pub struct Watches {
    by_target: BTreeMap<Target, Vec<Watch>>,
}

impl Watches {
    /// Adds a watch and returns its first event, which it gets at once.
    pub fn add(
        &mut self,
        domain: DomainId,
        target: Target,
        token: &[u8],
        relative: bool,
    ) -> Result<Notification, StoreError> {
        let watches = self.by_target.entry(target.clone()).or_default();
        if watches
            .iter()
            .any(|watch| watch.domain == domain && *watch.token == *token)
        {
            return Err(StoreError::Exists);
        }
        let watch = Watch {
            domain,
            token: token.into(),
            relative,
        };
        let notification = match &target {
            Target::Node(path) => watch.notification(path),
            Target::Special(special) => Notification {
                domain,
                path: special.name().into(),
                token: watch.token.clone(),
            },
        };
        watches.push(watch);
        Ok(notification)
    }

    /// Removes a watch.
    pub fn remove(&mut self, domain: DomainId, target: &Target, token: &[u8]) -> Result<(), StoreError> {
        let watches = self.by_target.get_mut(target).ok_or(StoreError::Missing)?;
        let at = watches
            .iter()
            .position(|watch| watch.domain == domain && *watch.token == *token)
            .ok_or(StoreError::Missing)?;
        watches.remove(at);
        if watches.is_empty() {
            self.by_target.remove(target);
        }
        Ok(())
    }

    /// All of them: domain, target, token, whether it is relative.
    pub fn all(&self) -> impl Iterator<Item = (DomainId, &Target, &[u8], bool)> {
        self.by_target.iter().flat_map(|(target, watches)| {
            let of = move |watch: &Watch| (watch.domain, watch.relative);
            watches.iter().map(move |watch| {
                let (domain, relative) = of(watch);
                (domain, target, &*watch.token, relative)
            })
        })
    }

    /// Removes every watch of a domain.
    pub fn forget(&mut self, domain: DomainId) {
        self.by_target.retain(|_, watches| {
            watches.retain(|watch| watch.domain != domain);
            !watches.is_empty()
        });
    }

    /// How many watches a domain has, and the bytes of their paths and tokens.
    pub fn usage(&self, domain: DomainId) -> (usize, usize) {
        let mut usage = (0, 0);
        for (target, watches) in &self.by_target {
            for watch in watches.iter().filter(|watch| watch.domain == domain) {
                usage = (usage.0 + 1, usage.1 + target.length() + watch.token.len());
            }
        }
        usage
    }

    /// Who hears of a change: every watch at its path or above and, when something was removed, every watch on what went
    /// with it. `permitted` says whether a domain may read by the given permissions.
    pub fn matching(
        &self,
        happened: &Happened,
        permitted: impl Fn(DomainId, &[Rc<super::Permissions>]) -> bool,
        inbox: &mut Inbox,
    ) {
        let path = &happened.path;
        let depth = path.parts().count();
        for count in 0..=depth {
            let above = Target::Node(path.prefix(count));
            for watch in self.by_target.get(&above).into_iter().flatten() {
                if !inbox.is_full(watch.domain) && permitted(watch.domain, &happened.readers) {
                    inbox.push(watch.notification(path));
                }
            }
        }
        let Some(removed) = &happened.removed else { return };
        for (target, watches) in self.by_target.range(Target::Node(path.clone())..) {
            let Target::Node(target) = target else { break };
            let Some(below) = target.below(path) else {
                // Siblings whose names continue with a byte below `/` sort between a node and its children.
                if target.starts_with(&**path) {
                    continue;
                } else {
                    break;
                }
            };
            let Some(node) = removed.descend(below).filter(|_| !below.is_empty()) else {
                continue;
            };
            let parent = below
                .rfind('/')
                .map_or(Some(&**removed), |end| removed.descend(&below[..end]));
            let readers: Vec<_> = core::iter::once(node)
                .chain(parent)
                .map(|node| node.permissions.clone())
                .collect();
            for watch in watches {
                if inbox.is_full(watch.domain) || !permitted(watch.domain, &readers) {
                    continue;
                }
                inbox.push(watch.notification(target));
            }
        }
    }

    /// Who hears of an announcement.
    pub fn announced(&self, special: Special, inbox: &mut Inbox) {
        for watch in self
            .by_target
            .get(&Target::Special(special))
            .into_iter()
            .flatten()
        {
            inbox.push(Notification {
                domain: watch.domain,
                path: special.name().into(),
                token: watch.token.clone(),
            });
        }
    }
}
