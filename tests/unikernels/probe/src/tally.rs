//! Lengths of time that were measured: how many, and from where to where they go.

use core::fmt;

/// A tally of measurements, in whatever unit they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    count: u64,
    sum: u64,
    least: u64,
    most: u64,
}

impl Tally {
    /// Adds a measurement.
    pub fn add(&mut self, value: u64) {
        self.least = if self.count == 0 {
            value
        } else {
            self.least.min(value)
        };
        self.most = self.most.max(value);
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }
}

/// As settings: `count=3 mean=20 least=10 most=30`.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.mean();
        let Self {
            count, least, most, ..
        } = self;
        write!(formatter, "count={count} mean={mean} least={least} most={most}")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;

    #[test]
    fn tells_mean_and_bounds() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "count=0 mean=0 least=0 most=0");
        for value in [20, 30, 10] {
            tally.add(value);
        }
        assert_eq!(tally.to_string(), "count=3 mean=20 least=10 most=30");
        tally.add(u64::MAX);
        assert_eq!((tally.least, tally.most), (10, u64::MAX));
    }
}
