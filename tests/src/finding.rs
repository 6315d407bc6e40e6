//! What probes write to the log: a line a finding, `[time] domain: what name=number name=number …`.

use std::collections::BTreeMap;

/// A line of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    numbers: BTreeMap<String, u64>,
}

impl Finding {
    /// What `domain` has found about `what`, in order.
    pub fn all(log: &str, domain: &str, what: &str) -> Vec<Self> {
        let head = format!("] {domain}: {what} ");
        let numbers = |line: &str| {
            let (_, rest) = line.split_once(&head)?;
            let words = rest.split_whitespace().filter_map(|word| word.split_once('='));
            let numbers = words.filter_map(|(name, number)| Some((name.to_string(), number.parse().ok()?)));
            Some(Self {
                numbers: numbers.collect(),
            })
        };
        log.lines().filter_map(numbers).collect()
    }

    /// A number by its name.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        self.find(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.numbers))
    }

    /// A number by its name, if it is there.
    pub fn find(&self, name: &str) -> Option<u64> {
        self.numbers.get(name).copied()
    }

    /// How much a number has grown since an earlier finding.
    #[track_caller]
    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        self.get(name)
            .checked_sub(earlier.get(name))
            .unwrap_or_else(|| panic!("{name} went from {} to {}", earlier.get(name), self.get(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_a_domain() {
        let log = "[    0.1] one: watch at=5 one=3\n[    0.2] two: watch at=7\n  [    0.3] one: watch at=9 one=4 end\n[    0.4] one: watched at=1\n";
        let all = Finding::all(log, "one", "watch");
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].get("at"), all[1].get("one")), (5, 4));
        assert_eq!(all[1].since(&all[0], "at"), 4);
    }
}
