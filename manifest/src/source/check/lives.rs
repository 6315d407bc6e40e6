//! How a domain lives: when it counts as hung, and what follows when it ends.

use alloc::format;

use super::*;
use crate::{Restart, Restarts};

const SECOND: u64 = 1_000_000_000;
/// What a unikernel has unless said otherwise, in nanoseconds.
const USUAL_WATCHDOG: u64 = 4 * SECOND;
/// The hypercall counts seconds.
const WATCHDOGS: core::ops::RangeInclusive<u64> = SECOND..=3600 * SECOND;

impl Checker<'_> {
    pub(super) fn restarts(&mut self, source: &raw::Domain) -> Restarts {
        let usual = Restarts::default();
        let policy = match source.restart {
            Some(raw::Restart::Always) => Restart::Always,
            Some(raw::Restart::OnFailure) => Restart::OnFailure,
            Some(raw::Restart::Never) => Restart::Never,
            None if source.kind.get_ref() == &raw::Kind::Unikernel => Restart::OnFailure,
            None => Restart::Never,
        };
        if let Some(limit) = source
            .restart_limit
            .as_ref()
            .filter(|limit| *limit.get_ref() == 0)
        {
            let help = "write restart = \"never\" for a domain that is not to be started again";
            self.report_with_help(limit.span(), "a limit is at least 1", help);
        }
        let mut time = |value: &Option<Spanned<String>>, usual: u64| {
            let value = value.as_ref();
            value
                .and_then(|value| self.read(value, |text| values::duration(text)))
                .unwrap_or(usual)
        };
        let rest = time(&source.restart_rest, usual.rest);
        let longest_rest = time(&source.restart_longest_rest, usual.longest_rest.max(rest));
        let healthy_after = time(&source.healthy_after, usual.healthy_after);
        if let Some(longest) = source
            .restart_longest_rest
            .as_ref()
            .filter(|_| longest_rest < rest)
        {
            self.report(longest.span(), "the longest rest is shorter than the first one");
        }
        Restarts {
            policy,
            limit: source
                .restart_limit
                .as_ref()
                .map_or(usual.limit, |limit| *limit.get_ref()),
            rest,
            longest_rest,
            healthy_after,
        }
    }

    pub(super) fn watchdog(&mut self, source: &raw::Domain) -> u64 {
        let unikernel = source.kind.get_ref() == &raw::Kind::Unikernel;
        let Some(watchdog) = &source.watchdog else {
            return if unikernel { USUAL_WATCHDOG } else { 0 };
        };
        if !unikernel {
            let name = source.name.get_ref();
            self.report_with_help(
                watchdog.span(),
                format!("{name} is no unikernel; whether it has a watchdog is for its kernel to say"),
                "Linux has one in its module xen_wdt",
            );
            return 0;
        }
        if watchdog.get_ref() == "off" {
            return 0;
        }
        let time = self
            .read(watchdog, |text| values::duration(text))
            .unwrap_or(USUAL_WATCHDOG);
        if !WATCHDOGS.contains(&time) || !time.is_multiple_of(SECOND) {
            self.report(
                watchdog.span(),
                "a watchdog has whole seconds, from 1s to 1h, or is \"off\"",
            );
        }
        time
    }
}
