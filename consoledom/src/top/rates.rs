//! What happened between two samples, by the second.

use alloc::{string::String, vec::Vec};

use xen_abi::atoll::{
    CLASS_INTERACTIVE, CLASS_REALTIME, CLASS_SHARED, DomainFigures, EXIT_REASONS, PROCESSOR_EXCLUSIVE,
    ProcessorFigures, WAIT_BUCKETS, wait_limit,
};

use super::sample::{Class, DeviceSample, Latency, Sample};

/// What happened. Shares of time are in tenths of a percent of one processor; other rates are by the second.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Nanoseconds since power-on.
    pub uptime: u64,
    /// Nanoseconds between the samples.
    pub elapsed: u64,
    /// The domains, the busiest first.
    pub domains: Vec<DomainRates>,
    /// The processors.
    pub processors: Vec<ProcessorRates>,
    /// The devices.
    pub devices: Vec<DeviceRates>,
    /// Latencies that domains measured themselves, as they published them.
    pub latencies: Vec<(String, Latency)>,
}

/// What a domain did.
#[derive(Clone, Debug, Default)]
pub struct DomainRates {
    /// Its name.
    pub name: String,
    /// A word for its state.
    pub state: &'static str,
    /// A word for its class.
    pub class: &'static str,
    /// On a processor, over all vCPUs.
    pub cpu: u64,
    /// Waiting for one, over all vCPUs.
    pub steal: u64,
    /// Exits.
    pub exits: u64,
    /// Exits by reason.
    pub reasons: [u64; EXIT_REASONS],
    /// Events sent and received.
    pub events: u64,
    /// Bytes copied by grant.
    pub copied: u64,
    /// Grants mapped now.
    pub mapped: u32,
    /// Grants mapped and unmapped.
    pub maps: u64,
    /// Wake-ups.
    pub wakes: u64,
    /// Waits from wake-up until the vCPU ran, by length: a count, not a rate.
    pub waits: [u64; WAIT_BUCKETS],
    /// The longest of all such waits since the domain was built, in nanoseconds.
    pub longest_wait: u64,
    /// Times that it was held back, by its budget or its cap.
    pub held_back: u64,
}

/// What a processor did.
#[derive(Clone, Debug, Default)]
pub struct ProcessorRates {
    /// Its number.
    pub number: u32,
    /// In guests.
    pub guest: u64,
    /// In the hypervisor.
    pub hypervisor: u64,
    /// Waiting for its lock.
    pub waiting: u64,
    /// Idle.
    pub idle: u64,
    /// Exits.
    pub exits: u64,
    /// Switches between vCPUs.
    pub switches: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Interrupts sent.
    pub ipis: u64,
    /// The longest stay in the hypervisor lately, in nanoseconds, and what it began with.
    pub recent: (u64, u32),
    /// The longest since power-on.
    pub longest: (u64, u32),
    /// The domain whose vCPU it runs; empty for none.
    pub runs: String,
    /// It is kept for the domains that are placed on it.
    pub exclusive: bool,
}

/// What a device did.
#[derive(Clone, Debug, Default)]
pub struct DeviceRates {
    /// What it is.
    pub class: Class,
    /// The domain that uses it.
    pub frontend: String,
    /// The domain that serves it.
    pub backend: String,
    /// What its user calls it.
    pub name: String,
    /// Operations and bytes towards its user (reads, packets received), and from it.
    pub towards: (u64, u64),
    /// Operations and bytes from its user (writes, packets sent).
    pub from: (u64, u64),
    /// Errors, or packets dropped, since the backend began.
    pub errors: u64,
}

/// How much more there is; a counter that went back began anew.
fn grown(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

/// So much in `elapsed` nanoseconds, by the second, rounded.
fn rate(amount: u64, elapsed: u64) -> u64 {
    let elapsed = u128::from(elapsed.max(1));
    ((u128::from(amount) * 1_000_000_000 + elapsed / 2) / elapsed)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// Nanoseconds of `elapsed` ones in tenths of a percent, rounded.
fn share(spent: u64, elapsed: u64) -> u64 {
    let elapsed = u128::from(elapsed.max(1));
    ((u128::from(spent) * 1000 + elapsed / 2) / elapsed)
        .try_into()
        .unwrap_or(u64::MAX)
}

fn each<const N: usize>(before: &[u64; N], after: &[u64; N]) -> [u64; N] {
    core::array::from_fn(|index| grown(before[index], after[index]))
}

impl Rates {
    /// What happened from `before` to `after`.
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let elapsed = grown(before.now, after.now);
        let mut domains: Vec<DomainRates> = after
            .domains
            .iter()
            .map(|domain| {
                let was = before.domains.iter().map(|was| &was.figures).find(|was| {
                    (was.domain, was.generation) == (domain.figures.domain, domain.figures.generation)
                });
                let rates = domain_rates(was, &domain.figures);
                DomainRates {
                    name: domain.name.clone(),
                    state: domain.state,
                    ..rates
                }
            })
            .collect();
        domains.sort_by_key(|domain| core::cmp::Reverse(domain.cpu));
        let name = |id: u16| {
            let domain = after.domains.iter().find(|domain| domain.figures.domain == id);
            domain.map_or_else(String::new, |domain| domain.name.clone())
        };
        let processors = after.processors.iter().map(|processor| {
            let same = |was: &&ProcessorFigures| was.processor == processor.processor;
            let was = before.processors.iter().find(same).copied().unwrap_or_default();
            ProcessorRates {
                runs: name(processor.domain),
                ..processor_rates(&was, processor)
            }
        });
        let devices = after.devices.iter().map(|device| {
            let same = |was: &&DeviceSample| {
                (was.class, &was.frontend, &was.backend, &was.name)
                    == (device.class, &device.frontend, &device.backend, &device.name)
            };
            let was = before.devices.iter().find(same).map_or([0; 5], |was| was.counts);
            device_rates(device, each(&was, &device.counts), elapsed)
        });
        Self {
            uptime: after.now,
            elapsed,
            domains,
            processors: processors.collect(),
            devices: devices.collect(),
            latencies: after.latencies.clone(),
        }
    }
}

/// What a domain did since `was`; without that, since it was built.
fn domain_rates(was: Option<&DomainFigures>, now: &DomainFigures) -> DomainRates {
    let nothing = DomainFigures::default();
    let lives = |figures: &DomainFigures| {
        let states = [
            figures.running,
            figures.runnable,
            figures.blocked,
            figures.offline,
        ];
        let all = states.into_iter().fold(0, u64::saturating_add);
        all / u64::from(figures.vcpus.max(1))
    };
    // A domain that was built meanwhile has lived for less than the time between the samples.
    let elapsed = match was {
        Some(was) => grown(was.now, now.now),
        None => lives(now).min(now.now).max(1),
    };
    let was = was.unwrap_or(&nothing);
    let by_second = |before, after| rate(grown(before, after), elapsed);
    DomainRates {
        class: match now.class {
            CLASS_REALTIME => "rt",
            CLASS_INTERACTIVE => "int",
            CLASS_SHARED => "shr",
            _ => "?",
        },
        cpu: share(grown(was.running, now.running), elapsed),
        steal: share(grown(was.runnable, now.runnable), elapsed),
        exits: by_second(was.exits, now.exits),
        reasons: each(&was.exits_by_reason, &now.exits_by_reason).map(|count| rate(count, elapsed)),
        events: by_second(was.events_sent, now.events_sent)
            .saturating_add(by_second(was.events_received, now.events_received)),
        copied: by_second(was.bytes_copied, now.bytes_copied),
        mapped: now.grants_mapped,
        maps: by_second(was.grant_maps, now.grant_maps)
            .saturating_add(by_second(was.grant_unmaps, now.grant_unmaps)),
        wakes: by_second(was.wakes, now.wakes),
        waits: each(&was.waits, &now.waits),
        longest_wait: now.longest_wait,
        held_back: by_second(was.budget_exhaustions, now.budget_exhaustions)
            .saturating_add(by_second(was.cap_throttlings, now.cap_throttlings)),
        ..DomainRates::default()
    }
}

fn processor_rates(was: &ProcessorFigures, now: &ProcessorFigures) -> ProcessorRates {
    let elapsed = now.now.saturating_sub(was.now);
    let by_second = |before: u64, after: u64| rate(after.saturating_sub(before), elapsed);
    // A processor never begins anew; but what it does at the moment of a reading may turn out to have ended just before.
    let part = |before: u64, after: u64| share(after.saturating_sub(before), elapsed);
    ProcessorRates {
        number: now.processor,
        guest: part(was.guest, now.guest),
        hypervisor: part(was.hypervisor, now.hypervisor),
        waiting: part(was.waiting, now.waiting),
        idle: part(was.idle, now.idle),
        exits: by_second(was.exits, now.exits),
        switches: by_second(was.switches, now.switches),
        interrupts: by_second(was.interrupts, now.interrupts),
        ipis: by_second(was.ipis, now.ipis),
        recent: (now.recent_stay, now.recent_cause),
        longest: (now.longest_stay, now.longest_cause),
        exclusive: now.flags & PROCESSOR_EXCLUSIVE != 0,
        runs: String::new(),
    }
}

fn device_rates(device: &DeviceSample, grown: [u64; 5], elapsed: u64) -> DeviceRates {
    let [first, first_bytes, second, second_bytes, _] = grown.map(|amount| rate(amount, elapsed));
    let (first, second) = ((first, first_bytes), (second, second_bytes));
    let (towards, from) = match device.class {
        Class::Disk => (first, second),
        Class::Network => (second, first),
    };
    DeviceRates {
        class: device.class,
        frontend: device.frontend.clone(),
        backend: device.backend.clone(),
        name: device.name.clone(),
        towards,
        from,
        errors: device.counts[4],
    }
}

/// The limit below which so many percent of the counted waits were, in nanoseconds; `None` without any.
pub fn percentile(waits: &[u64; WAIT_BUCKETS], percent: u64) -> Option<u64> {
    let total: u128 = waits.iter().copied().map(u128::from).sum();
    if total == 0 {
        return None;
    }
    let wanted = (total * u128::from(percent)).div_ceil(100).max(1);
    let mut seen = 0;
    let bucket = waits.iter().position(|count| {
        seen += u128::from(*count);
        seen >= wanted
    });
    bucket.map(wait_limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sample::DomainSample;

    const SECOND: u64 = 1_000_000_000;

    fn domain(name: &str, id: u16, running: u64, now: u64) -> DomainSample {
        DomainSample {
            name: name.into(),
            state: "running",
            figures: DomainFigures {
                domain: id,
                generation: 1,
                online: 1,
                vcpus: 1,
                now,
                running,
                blocked: now - running,
                exits: running / 1000,
                ..Default::default()
            },
        }
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let sample = |now, first, second| Sample {
            now,
            domains: vec![domain("a", 1, first, now), domain("b", 2, second, now)],
            ..Sample::default()
        };
        let rates = Rates::between(
            &sample(SECOND, 400_000, 500_000),
            &sample(3 * SECOND, SECOND + 400_000, 2 * SECOND + 500_000),
        );
        let seen: Vec<_> = rates
            .domains
            .iter()
            .map(|domain| (domain.name.as_str(), domain.cpu, domain.exits))
            .collect();
        assert_eq!(seen, [("b", 1000, 1_000_000), ("a", 500, 500_000)]);
    }

    #[test]
    fn a_domain_that_was_built_anew_begins_anew() {
        let mut before = Sample {
            now: SECOND,
            domains: vec![domain("a", 1, SECOND / 2, SECOND)],
            ..Sample::default()
        };
        let mut after = before.clone();
        after.now = 2 * SECOND;
        let figures = &mut after.domains[0].figures;
        (figures.generation, figures.now) = (2, 2 * SECOND);
        (figures.running, figures.blocked) = (SECOND / 4, SECOND / 4);
        assert_eq!(Rates::between(&before, &after).domains[0].cpu, 500);
        before.domains.clear();
        assert_eq!(Rates::between(&before, &after).domains[0].cpu, 500);
    }

    #[test]
    fn a_backend_that_began_anew_counts_from_nothing() {
        let device = |counts| Sample {
            now: SECOND,
            devices: vec![DeviceSample {
                counts,
                class: Class::Network,
                ..Default::default()
            }],
            ..Sample::default()
        };
        let before = Sample {
            now: 0,
            ..device([100, 1000, 10, 100, 7])
        };
        let rates = Rates::between(&before, &device([101, 1500, 5, 50, 8]));
        let device = &rates.devices[0];
        assert_eq!(
            (device.from, device.towards, device.errors),
            ((1, 500), (5, 50), 8)
        );
    }

    #[test]
    fn percentiles_are_limits_of_buckets() {
        let mut waits = [0; WAIT_BUCKETS];
        assert_eq!(percentile(&waits, 50), None);
        (waits[0], waits[3]) = (98, 2);
        assert_eq!(percentile(&waits, 50), Some(256));
        assert_eq!(percentile(&waits, 99), Some(2048));
        assert_eq!(percentile(&[u64::MAX; WAIT_BUCKETS], 100), Some(wait_limit(23)));
    }
}
