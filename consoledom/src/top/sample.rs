//! What is counted at one moment: by the hypervisor, and by backends and unikernels that publish it in xenstore.
//!
//! What a domain publishes is its own claim: it is parsed strictly, and what does not parse is not shown.

use alloc::{format, string::String, vec::Vec};

use unikernel_rt::xenstore::{Store, StoreExt, Transaction};
use xen_abi::atoll::{DomainFigures, ProcessorFigures, WAIT_BUCKETS};

/// Devices of one class that a backend may publish; more are not looked at.
const MOST_DEVICES: usize = 64;
/// xvda: block devices of this major number have sixteen minors each.
const XEN_VIRTUAL_DISK: u32 = 202;

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When, in nanoseconds since power-on.
    pub now: u64,
    /// The domains.
    pub domains: Vec<DomainSample>,
    /// The processors.
    pub processors: Vec<ProcessorFigures>,
    /// The devices that backends serve.
    pub devices: Vec<DeviceSample>,
    /// Latencies that domains measured themselves.
    pub latencies: Vec<(String, Latency)>,
}

/// A domain.
#[derive(Clone, Debug, Default)]
pub struct DomainSample {
    /// Its name.
    pub name: String,
    /// A word for its state.
    pub state: &'static str,
    /// Its figures.
    pub figures: DomainFigures,
}

/// What a served device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// A disk.
    #[default]
    Disk,
    /// A network interface.
    Network,
}

/// A device that a backend serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSample {
    /// What it is.
    pub class: Class,
    /// The domain that uses it.
    pub frontend: String,
    /// The domain that serves it.
    pub backend: String,
    /// What the user calls it.
    pub name: String,
    /// For a disk: reads, bytes read, writes, bytes written, errors; for a network interface: packets that its user sent, their bytes,
    /// packets that it received, their bytes, packets dropped.
    pub counts: [u64; 5],
}

/// Latencies that a domain measured: `data/latency` of its home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// The least, the median, the 99th percentile and the greatest, in nanoseconds.
    pub marks: [u64; 4],
    /// How many by length, in the buckets of [`xen_abi::atoll::wait_bucket`].
    pub buckets: [u64; WAIT_BUCKETS],
}

impl Latency {
    /// Reads `COUNT MIN MEDIAN P99 MAX` and up to 24 buckets.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut latency = Self {
            count: numbers.next()?.ok()?,
            ..Self::default()
        };
        for mark in &mut latency.marks {
            *mark = numbers.next()?.ok()?;
        }
        for bucket in &mut latency.buckets {
            match numbers.next() {
                Some(number) => *bucket = number.ok()?,
                None => return Some(latency),
            }
        }
        numbers.next().is_none().then_some(latency)
    }
}

/// The five numbers of a device.
fn counts(text: &str) -> Option<[u64; 5]> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let mut counts = [0; 5];
    for count in &mut counts {
        *count = numbers.next()?.ok()?;
    }
    numbers.next().is_none().then_some(counts)
}

/// What the user calls a device with this number.
fn device_name(class: Class, number: u32) -> String {
    match class {
        Class::Network => format!("vif{number}"),
        Class::Disk if number >> 8 == XEN_VIRTUAL_DISK => {
            let letter = char::from(b'a' + (number >> 4 & 0xf) as u8);
            match number & 0xf {
                0 => format!("xvd{letter}"),
                partition => format!("xvd{letter}{partition}"),
            }
        }
        Class::Disk => format!("{number}"),
    }
}

/// What the domains publish: their devices' counts, and latencies. `domains` are ids and names.
pub fn published(
    store: &dyn Store,
    domains: &[(u16, String)],
) -> (Vec<DeviceSample>, Vec<(String, Latency)>) {
    let (mut devices, mut latencies) = (Vec::new(), Vec::new());
    for (id, name) in domains {
        let home = format!("/local/domain/{id}/data");
        // One look tells apart those who publish from those who do not.
        let kinds = store.directory(Transaction::NONE, &home).unwrap_or_default();
        if kinds.iter().any(|kind| kind == "latency")
            && let Ok(Some(text)) = store.read_optional(&format!("{home}/latency"))
            && let Some(latency) = Latency::parse(&text)
        {
            latencies.push((name.clone(), latency));
        }
        if kinds.iter().any(|kind| kind == "statistics") {
            for (class, folder) in [(Class::Disk, "vbd"), (Class::Network, "vif")] {
                let folder = format!("{home}/statistics/{folder}");
                devices_below(store, domains, class, &folder, name, &mut devices);
            }
        }
    }
    (devices, latencies)
}

fn devices_below(
    store: &dyn Store,
    domains: &[(u16, String)],
    class: Class,
    folder: &str,
    backend: &str,
    devices: &mut Vec<DeviceSample>,
) {
    let below = |path: &str| store.directory(Transaction::NONE, path).unwrap_or_default();
    let places = below(folder).into_iter().flat_map(|frontend| {
        let inside = below(&format!("{folder}/{frontend}"));
        inside.into_iter().map(move |device| (frontend.clone(), device))
    });
    for (frontend, device) in places.take(MOST_DEVICES) {
        let (Ok(id), Ok(number)) = (frontend.parse::<u16>(), device.parse::<u32>()) else {
            continue;
        };
        let Some((_, name)) = domains.iter().find(|(domain, _)| *domain == id) else {
            continue;
        };
        let text = store.read_optional(&format!("{folder}/{frontend}/{device}"));
        if let Ok(Some(text)) = text
            && let Some(counts) = counts(&text)
        {
            devices.push(DeviceSample {
                class,
                frontend: name.clone(),
                backend: backend.into(),
                name: device_name(class, number),
                counts,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unikernel_rt::fake::FakeStore;

    #[test]
    fn reads_what_domains_publish_and_no_nonsense() {
        let store = FakeStore::new(unikernel_rt::DomainId(2));
        for (path, value) in [
            ("/local/domain/3/data/statistics/vbd/5/51712", "1 2 3 4 5"),
            ("/local/domain/3/data/statistics/vbd/5/51728", "1 2 3 4"),
            ("/local/domain/3/data/statistics/vbd/99/51712", "1 2 3 4 5"),
            ("/local/domain/3/data/statistics/vbd/x/51712", "1 2 3 4 5"),
            ("/local/domain/4/data/statistics/vif/5/0", "6 7 8 9 10"),
            ("/local/domain/5/data/latency", "4 10 20 30 40 1 3"),
            ("/local/domain/4/data/latency", "soon"),
        ] {
            store.write_display(path, value).unwrap();
        }
        let domains = [(3, "diskdom"), (4, "netdom"), (5, "linux")].map(|(id, name)| (id, name.into()));
        let (devices, latencies) = published(&store, &domains);
        let device = |class, backend: &str, name: &str, counts| DeviceSample {
            class,
            frontend: "linux".into(),
            backend: backend.into(),
            name: name.into(),
            counts,
        };
        assert_eq!(
            devices,
            [
                device(Class::Disk, "diskdom", "xvda", [1, 2, 3, 4, 5]),
                device(Class::Network, "netdom", "vif0", [6, 7, 8, 9, 10])
            ]
        );
        assert_eq!(latencies.len(), 1);
        assert_eq!(latencies[0].1.marks, [10, 20, 30, 40]);
        assert_eq!(latencies[0].1.buckets[..3], [1, 3, 0]);
    }

    #[test]
    fn devices_have_the_names_that_their_users_know() {
        assert_eq!(device_name(Class::Disk, 51712 + 16 + 3), "xvdb3");
        assert_eq!(device_name(Class::Disk, 768), "768");
        assert_eq!(device_name(Class::Network, 2), "vif2");
    }

    proptest! {
        #[test]
        fn whatever_is_published_is_taken_or_left(text in "[0-9 a-z-]{0,80}", full in prop::collection::vec(any::<u64>(), 0..40)) {
            let _ = (counts(&text), Latency::parse(&text));
            let line = full.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(counts(&line).is_some(), full.len() == 5);
            prop_assert_eq!(Latency::parse(&line).is_some(), (5..=29).contains(&full.len()));
        }
    }
}
