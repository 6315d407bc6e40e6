//! Latencies in fixed memory: buckets that are narrow where values are small, and never wider than a thirty-second of their value.

use core::time::Duration;

/// Buckets of an octave, as a power of two.
const FINE: u32 = 5;
const PER_OCTAVE: usize = 1 << FINE;
/// Values from here on (68 seconds) share the last bucket.
const LIMIT: u64 = 1 << 36;
const BUCKETS: usize = (36 - FINE as usize + 1) * PER_OCTAVE;

/// How often each latency was seen, in nanoseconds. 8 KiB, whatever comes.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    least: u64,
    most: u64,
}

/// What a histogram comes down to, in nanoseconds. Quantiles are the upper end of the bucket that they fall into, so they are never too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Values seen.
    pub count: u64,
    /// The least.
    pub least: u64,
    /// Half are at most this.
    pub median: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// 999 of 1000 are at most this.
    pub p999: u64,
    /// The most.
    pub most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            count: 0,
            least: u64::MAX,
            most: 0,
        }
    }
}

impl Histogram {
    /// Adds a value.
    pub fn record(&mut self, latency: Duration) {
        let value = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &mut self.counts[place(value)];
        *bucket = bucket.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What it comes down to. One pass over the buckets between the least and the most.
    pub fn summary(&self) -> Summary {
        if self.count == 0 {
            return Summary::default();
        }
        let mut quantiles = [(1, 2, 0), (99, 100, 0), (999, 1000, 0)];
        let mut seen = 0u64;
        let (first, last) = (place(self.least), place(self.most));
        let buckets = self.counts.iter().enumerate().take(last + 1).skip(first);
        for (index, &count) in buckets.filter(|(_, count)| **count > 0) {
            let before = seen;
            seen = seen.saturating_add(count);
            for (part, whole, value) in &mut quantiles {
                // The smallest number of values that is at least this part of all.
                let wanted = (u128::from(self.count) * *part).div_ceil(*whole) as u64;
                if (before + 1..=seen).contains(&wanted) {
                    *value = (end(index) - 1).min(self.most);
                }
            }
        }
        let [(.., median), (.., p99), (.., p999)] = quantiles;
        Summary {
            count: self.count,
            least: self.least,
            median,
            p99,
            p999,
            most: self.most,
        }
    }

    /// How many values are at least `2^octave` and below twice that. The first octave (0) has zero too, and the last one all that is greater.
    pub fn octave(&self, octave: u32) -> u64 {
        if self.count == 0 || (octave + 1 < Self::OCTAVES && self.least >> (octave + 1) > 0) {
            return 0;
        }
        let first = if octave == 0 { 0 } else { place(1 << octave) };
        let behind = if octave + 1 < Self::OCTAVES {
            place(1 << (octave + 1))
        } else {
            BUCKETS
        };
        self.counts
            .get(first..behind)
            .unwrap_or_default()
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Octaves that there are.
    pub const OCTAVES: u32 = 36;

    /// The next bucket from `index` on that has something in it: its number, the least value that belongs to it, the first that does not, and
    /// how many there are.
    pub fn next(&self, index: usize) -> Option<(usize, u64, u64, u64)> {
        let found = self.counts.get(index..)?.iter().position(|count| *count > 0)?;
        let index = index + found;
        Some((index, begin(index), end(index), self.counts[index]))
    }
}

/// The bucket of a value.
fn place(value: u64) -> usize {
    if value < PER_OCTAVE as u64 {
        return value as usize;
    }
    if value >= LIMIT {
        return BUCKETS - 1;
    }
    let octave = value.ilog2() - FINE;
    // The leading one stands for the octave's own number.
    ((octave as usize + 1) << FINE) + ((value >> octave) as usize & (PER_OCTAVE - 1))
}

/// The least value of a bucket.
fn begin(index: usize) -> u64 {
    let (octave, step) = (index >> FINE, (index & (PER_OCTAVE - 1)) as u64);
    match octave {
        0 => step,
        _ => (PER_OCTAVE as u64 + step) << (octave - 1),
    }
}

/// The first value behind a bucket.
fn end(index: usize) -> u64 {
    begin(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(Duration::from_nanos(*value));
        }
        histogram
    }

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for index in 0..BUCKETS {
            assert_eq!(place(begin(index)), index);
            assert_eq!(place(end(index) - 1), index);
        }
        assert_eq!(end(BUCKETS - 1), LIMIT);
        assert_eq!(place(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_one_is_all_zero() {
        assert_eq!(Histogram::default().summary(), Summary::default());
        assert_eq!(Histogram::default().next(0), None);
    }

    #[test]
    fn extremes_are_exact_and_quantiles_not_too_low() {
        let mut values: Vec<u64> = (1..=1000).map(|value| value * 1000).collect();
        values.push(7_654_321);
        let summary = of(&values).summary();
        assert_eq!(
            (summary.count, summary.least, summary.most),
            (1001, 1000, 7_654_321)
        );
        assert!((501_000..=517_000).contains(&summary.median), "{summary:?}");
        assert!((991_000..=1_023_000).contains(&summary.p99), "{summary:?}");
        assert!((1_000_000..=1_032_000).contains(&summary.p999), "{summary:?}");
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut values in prop::collection::vec(0u64..1 << 40, 1..300)) {
            let summary = of(&values).summary();
            values.sort_unstable();
            let exact = |part: usize, whole: usize| values[(values.len() * part).div_ceil(whole) - 1];
            for (found, exact) in [(summary.median, exact(1, 2)), (summary.p99, exact(99, 100)), (summary.p999, exact(999, 1000))] {
                prop_assert!(found >= exact.min(LIMIT - 1) && found <= exact + exact / 32, "{found} {exact}");
            }
            prop_assert_eq!((summary.least, summary.most), (values[0], values[values.len() - 1]));
        }

        #[test]
        fn octaves_and_buckets_hold_every_value(values in prop::collection::vec(any::<u64>(), 0..300)) {
            let histogram = of(&values);
            let octaves: u64 = (0..Histogram::OCTAVES).map(|octave| histogram.octave(octave)).sum();
            prop_assert_eq!(octaves, values.len() as u64);
            let (mut index, mut buckets) = (0, 0);
            while let Some((found, begin, end, count)) = histogram.next(index) {
                prop_assert!(begin < end && count > 0);
                (index, buckets) = (found + 1, buckets + count);
            }
            prop_assert_eq!(buckets, values.len() as u64);
        }
    }
}
