//! What was measured, and its text.

use alloc::{format, string::String};
use core::fmt::{self, Write};

use xen_abi::atoll::WAIT_BUCKETS;

use crate::histogram::Histogram;

/// Latencies and counts since the start, or since they were last forgotten.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From a deadline to the first instruction behind the wait for it.
    pub wake: Histogram,
    /// From the doorbell that hands the card a frame to the handler of the interrupt that says that it was sent.
    pub interrupt: Histogram,
    /// Deadlines that had no turn.
    pub missed: u64,
    /// Turns in which no frame had come back from the turn before.
    pub silent: u64,
    /// Turns whose frame the card has not announced.
    pub unannounced: u64,
}

/// Which of the two histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// [`Figures::wake`].
    Wake,
    /// [`Figures::interrupt`].
    Interrupt,
}

impl Figures {
    /// Forgets everything.
    pub fn reset(&mut self) {
        self.wake.reset();
        self.interrupt.reset();
        (self.missed, self.silent, self.unannounced) = (0, 0, 0);
    }

    /// One of the histograms.
    pub fn histogram(&self, which: Which) -> &Histogram {
        match which {
            Which::Wake => &self.wake,
            Which::Interrupt => &self.interrupt,
        }
    }

    /// A histogram as `data/latency` and `data/interrupt-latency` have it: five numbers and 24 buckets.
    pub fn node(&self, which: Which) -> String {
        let histogram = self.histogram(which);
        let summary = histogram.summary();
        let mut text = String::with_capacity(256);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{} {} {} {} {}",
            summary.count, summary.least, summary.median, summary.p99, summary.most
        );
        for bucket in 0..WAIT_BUCKETS as u32 {
            let first = if bucket == 0 { 0 } else { bucket + 7 };
            let last = if bucket as usize + 1 == WAIT_BUCKETS {
                Histogram::OCTAVES - 1
            } else {
                bucket + 7
            };
            let count: u64 = (first..=last).map(|octave| histogram.octave(octave)).sum();
            let _ = write!(text, " {count}");
        }
        text
    }

    /// What the histograms do not say, as `data/turns` has it: turns, deadlines that had none, the lateness that 999 of 1000 do not exceed, turns without an
    /// input, and turns whose frame the card has not announced.
    pub fn turns(&self) -> String {
        let wake = self.wake.summary();
        format!(
            "{} {} {} {} {}",
            wake.count, self.missed, wake.p999, self.silent, self.unannounced
        )
    }
}

/// A line for people.
impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wake, interrupt) = (self.wake.summary(), self.interrupt.summary());
        write!(
            formatter,
            "{} turns, {} missed; late by least {} median {} 99% {} 99.9% {} most {}",
            wake.count,
            self.missed,
            Short(wake.least),
            Short(wake.median),
            Short(wake.p99),
            Short(wake.p999),
            Short(wake.most)
        )?;
        write!(
            formatter,
            "; interrupts {} median {} most {}; {} turns without an input",
            interrupt.count,
            Short(interrupt.median),
            Short(interrupt.most),
            self.silent
        )
    }
}

/// Nanoseconds as people read them.
pub struct Short(pub u64);

impl fmt::Display for Short {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(formatter, "{}ns", self.0),
            1_000..1_000_000 => write!(formatter, "{}.{:02}us", self.0 / 1000, self.0 % 1000 / 10),
            _ => write!(
                formatter,
                "{}.{:02}ms",
                self.0 / 1_000_000,
                self.0 % 1_000_000 / 10_000
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use xen_abi::atoll::wait_bucket;

    #[test]
    fn text_says_what_was_measured() {
        let mut figures = Figures::default();
        let empty = figures.node(Which::Wake);
        assert_eq!(empty.split(' ').count(), 5 + 24);
        assert!(empty.split(' ').all(|number| number == "0"), "{empty}");
        for nanoseconds in [700, 5_000, 5_100, 1_250_000] {
            figures.wake.record(Duration::from_nanos(nanoseconds));
        }
        figures.missed = 1;
        let node = figures.node(Which::Wake);
        assert!(node.starts_with("4 700 "), "{node}");
        let numbers: Vec<u64> = node.split(' ').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers[4], 1_250_000);
        for (index, count) in numbers[5..].iter().enumerate() {
            let wanted = [700, 5_000, 5_100, 1_250_000]
                .iter()
                .filter(|value| wait_bucket(**value) == index)
                .count();
            assert_eq!(*count, wanted as u64, "bucket {index} of {node}");
        }
        figures.wake.record(Duration::from_secs(100));
        assert!(
            figures.node(Which::Wake).ends_with(" 1"),
            "the last one has all that is longer"
        );
        figures.reset();
        assert_eq!(figures.turns(), "0 0 0 0 0");
        for nanoseconds in [700, 5_000, 5_100, 1_250_000] {
            figures.wake.record(Duration::from_nanos(nanoseconds));
        }
        figures.missed = 1;
        assert_eq!(figures.turns(), "4 1 1250000 0 0");
        let line = figures.to_string();
        assert!(
            line.starts_with("4 turns, 1 missed; late by least 700ns median 5.11us"),
            "{line}"
        );
        assert!(line.contains("most 1.25ms;"), "{line}");
    }
}
