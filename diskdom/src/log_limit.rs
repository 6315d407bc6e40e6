//! A limit on what others can make us log: a broken disk or a hostile guest gets a few lines, then one that counts the rest.

use core::time::Duration;

use unikernel_rt::time::Instant;

/// How many lines pass in a period.
const LINES: u32 = 5;
/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets a few lines pass in each period.
#[derive(Debug, Default)]
pub struct LogLimit {
    period: Option<Instant>,
    passed: u32,
    withheld: u32,
}

/// A line may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// How many lines were withheld since the last permit; worth a word if it is not 0.
    pub withheld: u32,
}

impl LogLimit {
    /// Whether a line may be written now.
    pub fn permit(&mut self, now: Instant) -> Option<Permit> {
        if self.period.is_none_or(|start| now - start >= PERIOD) {
            self.period = Some(now);
            self.passed = 0;
        }
        if self.passed >= LINES {
            self.withheld = self.withheld.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(Permit {
            withheld: core::mem::take(&mut self.withheld),
        })
    }

    /// Writes a warning if one may be written.
    pub fn warn(&mut self, now: Instant, line: core::fmt::Arguments<'_>) {
        match self.permit(now) {
            Some(Permit { withheld: 0 }) => log::warn!("{line}"),
            Some(Permit { withheld }) => log::warn!("{line} ({withheld} like it were not shown)"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_trickle() {
        let mut limit = LogLimit::default();
        let start = Instant::from_nanos(1);
        let passed = (0..100).filter(|_| limit.permit(start).is_some()).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(
            limit.permit(start + PERIOD),
            Some(Permit {
                withheld: 100 - LINES
            })
        );
    }
}
