//! What a backend's devices did, published for the operator: below `data/statistics/CLASS` of its home, a node for each device, a line of numbers in it.
//!
//! The event loop calls [`Statistics::publish`] in every turn, at no cost worth naming: numbers travel at most once a second, and only those that changed.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::DeviceId;
use crate::time::Instant;
use crate::xenstore::{Store, StoreError, StoreExt, Transaction};

/// The least time between two publications.
const PERIOD: Duration = Duration::from_secs(1);
/// How many numbers there are of a device.
pub const NUMBERS: usize = 5;

/// The numbers of a device, in the order that `docs/developer/contracts.md` gives for its class.
pub type Numbers = [u64; NUMBERS];

/// What was published of a class of devices.
#[derive(Debug)]
pub struct Statistics {
    root: String,
    published: BTreeMap<DeviceId, Numbers>,
    next: Instant,
}

impl Statistics {
    /// Nothing yet, for a class (`vbd`, `vif`). The first publication is a second from now: a domain that was just built has better things to do.
    pub fn new(class: &str, now: Instant) -> Self {
        Self {
            root: format!("data/statistics/{class}"),
            published: BTreeMap::new(),
            next: now + PERIOD,
        }
    }

    /// Publishes what has changed, if it is time. Answers when to call again although nothing happens; `None` if all is published. Only the loss of
    /// xenstore itself is an error.
    pub fn publish<'a>(
        &mut self,
        store: &dyn Store,
        now: Instant,
        devices: impl Iterator<Item = (&'a DeviceId, Numbers)>,
    ) -> Result<Option<Instant>, StoreError> {
        if now < self.next {
            // Whether there is anything is looked at when there would be nothing else to do.
            let changed = self.differs(devices);
            return Ok(changed.then_some(self.next));
        }
        let mut present = Vec::new();
        let mut written = false;
        for (id, numbers) in devices {
            present.push(id.clone());
            if self.published.get(id) != Some(&numbers) {
                let line = numbers.map(|number| number.to_string()).join(" ");
                tolerate(store.write_display(&self.path(id), line))?;
                self.published.insert(id.clone(), numbers);
                written = true;
            }
        }
        let gone: Vec<DeviceId> = self
            .published
            .keys()
            .filter(|id| !present.contains(id))
            .cloned()
            .collect();
        for id in gone {
            tolerate(store.remove(Transaction::NONE, &self.path(&id)))?;
            self.published.remove(&id);
            written = true;
        }
        if written {
            self.next = now + PERIOD;
        }
        Ok(None)
    }

    fn differs<'a>(&self, devices: impl Iterator<Item = (&'a DeviceId, Numbers)>) -> bool {
        let mut count = 0;
        for (id, numbers) in devices {
            count += 1;
            if self.published.get(id) != Some(&numbers) {
                return true;
            }
        }
        count != self.published.len()
    }

    fn path(&self, id: &DeviceId) -> String {
        format!("{}/{}/{}", self.root, id.peer.0, id.index)
    }
}

/// A refusal (a quota) costs the operator a number, and nobody anything else.
fn tolerate(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(error) if error.is_of_one_request() => {
            log::debug!("statistics are not published: {error}");
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DomainId;
    use crate::fake::FakeStore;

    fn id(peer: u16) -> DeviceId {
        DeviceId {
            peer: DomainId(peer),
            index: 0,
        }
    }

    #[test]
    fn numbers_travel_once_a_second_and_when_they_changed() {
        let store = FakeStore::new(DomainId(3));
        let second = |number: u64| Instant::from_nanos(number * 1_000_000_000);
        let mut statistics = Statistics::new("vbd", second(0));
        let (one, other) = (id(5), id(6));
        let mut publish = |now, devices: &[(&DeviceId, Numbers)]| {
            statistics.publish(&store, now, devices.iter().copied()).unwrap()
        };
        let shown = |peer: u16| {
            let path = format!("data/statistics/vbd/{peer}/0");
            store.read_optional(&path).unwrap()
        };
        let early = Instant::from_nanos(10);
        assert_eq!(publish(early, &[(&one, [0; 5])]), Some(second(1)));
        assert_eq!(shown(5), None);
        assert_eq!(publish(second(1), &[(&one, [0; 5]), (&other, [1; 5])]), None);
        assert_eq!(shown(5).as_deref(), Some("0 0 0 0 0"));
        let now = second(1) + Duration::from_millis(500);
        assert_eq!(publish(now, &[(&one, [0; 5]), (&other, [1; 5])]), None);
        assert_eq!(
            publish(now, &[(&one, [1, 2, 3, 4, 5]), (&other, [1; 5])]),
            Some(second(2))
        );
        assert_eq!(shown(5).as_deref(), Some("0 0 0 0 0"));
        assert_eq!(publish(now, &[(&one, [0; 5])]), Some(second(2)));
        assert_eq!(publish(second(2), &[(&one, [1, 2, 3, 4, 5])]), None);
        assert_eq!((shown(5).as_deref(), shown(6)), (Some("1 2 3 4 5"), None));
        // After a quiet time a change travels at once.
        assert_eq!(publish(second(9), &[(&one, [2; 5])]), None);
        assert_eq!(shown(5).as_deref(), Some("2 2 2 2 2"));
    }
}
