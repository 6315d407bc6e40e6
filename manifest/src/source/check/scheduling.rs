//! Classes, budgets, placement: how a domain competes for processors.

use alloc::{format, vec::Vec};
use core::ops::RangeInclusive;

use super::*;

/// Nanoseconds. Shorter ones would be spent on switching.
const PERIODS: RangeInclusive<u64> = 100_000..=10_000_000_000;
/// Nanoseconds. A unikernel that looks for longer had better not sleep at all.
const LONGEST_POLL: u64 = 10_000_000;
const MOST_PROCESSORS: u32 = 256;

impl Checker<'_> {
    pub(super) fn scheduling(&mut self, source: &raw::Domain) -> Scheduling {
        let class = self.class(source);
        let (processors, exclusive) = self.placement(source);
        Scheduling {
            class,
            processors,
            exclusive,
            cap: self.cap(source),
            polling: self.polling(source),
        }
    }

    fn class(&mut self, source: &raw::Domain) -> Class {
        let usual = match source.kind.get_ref() {
            raw::Kind::Unikernel => raw::Class::Interactive,
            raw::Kind::Linux => raw::Class::Shared,
        };
        let class = source.class.unwrap_or(usual);
        let name = source.name.get_ref();
        let mut only = |span: Option<Range<usize>>, key: &str, needed: raw::Class, word: &str| {
            if let Some(span) = span.filter(|_| class != needed) {
                let message = format!("{name} is {}, which has no {key}", word_of(class));
                self.report_with_help(
                    span,
                    message,
                    format!("leave {key} out, or set class = \"{word}\""),
                );
            }
        };
        only(
            source.weight.as_ref().map(Spanned::span),
            "weight",
            raw::Class::Shared,
            "shared",
        );
        only(
            source.priority.as_ref().map(Spanned::span),
            "priority",
            raw::Class::Realtime,
            "realtime",
        );
        only(
            source.budget.as_ref().map(Spanned::span),
            "budget",
            raw::Class::Realtime,
            "realtime",
        );
        only(
            source.period.as_ref().map(Spanned::span),
            "period",
            raw::Class::Realtime,
            "realtime",
        );
        match class {
            raw::Class::Interactive => Class::Interactive,
            raw::Class::Shared => self.shared(source),
            raw::Class::Realtime => self.realtime(source),
        }
    }

    fn shared(&mut self, source: &raw::Domain) -> Class {
        let weight = source.weight.as_ref();
        if let Some(weight) = weight.filter(|weight| !(1..=65535).contains(weight.get_ref())) {
            self.report(
                weight.span(),
                "a weight is a number from 1 to 65535; 256 is the usual one",
            );
        }
        Class::Shared {
            weight: weight.map_or(USUAL_WEIGHT, |weight| *weight.get_ref()),
        }
    }

    fn realtime(&mut self, source: &raw::Domain) -> Class {
        let (Some(budget), Some(period)) = (&source.budget, &source.period) else {
            let message = format!("{} is realtime without a budget", source.name.get_ref());
            let help = "say how long it runs at most, and how often: budget = \"200us\" and period = \"1ms\"";
            self.report_with_help(source.name.span(), message, help);
            return Class::Interactive;
        };
        let length = self.read(period, |text| values::duration(text));
        let most = length.unwrap_or(*PERIODS.end());
        if !PERIODS.contains(&most) {
            self.report(period.span(), "a period is from 100us to 10s");
        }
        let runs = self.read(budget, |text| values::duration(text));
        if runs.is_some_and(|runs| runs == 0 || runs > most) {
            self.report(
                budget.span(),
                "a budget is more than nothing, and at most the period",
            );
        }
        Class::Realtime {
            priority: source.priority.as_ref().map_or(1, |priority| *priority.get_ref()),
            budget: runs.unwrap_or(most),
            period: most,
        }
    }

    fn placement(&mut self, source: &raw::Domain) -> (Vec<u32>, bool) {
        let mut processors = Vec::new();
        for processor in source.cpus.iter().flat_map(|cpus| cpus.get_ref()) {
            let number = *processor.get_ref();
            if number >= MOST_PROCESSORS {
                self.report(
                    processor.span(),
                    format!("processors have the numbers 0 to {}", MOST_PROCESSORS - 1),
                );
            } else if processors.contains(&number) {
                self.report(processor.span(), format!("processor {number} is named twice"));
            } else {
                processors.push(number);
            }
        }
        if let Some(cpus) = source.cpus.as_ref().filter(|cpus| cpus.get_ref().is_empty()) {
            self.report_with_help(
                cpus.span(),
                format!("{} may run nowhere", source.name.get_ref()),
                "leave cpus out to let it run anywhere",
            );
        }
        processors.sort_unstable();
        let exclusive = source.exclusive.as_ref().filter(|exclusive| *exclusive.get_ref());
        if let Some(exclusive) = exclusive.filter(|_| source.cpus.is_none()) {
            self.report_with_help(
                exclusive.span(),
                format!("{} would have every processor to itself", source.name.get_ref()),
                "say which: cpus = [1]",
            );
        }
        (processors, exclusive.is_some() && source.cpus.is_some())
    }

    fn cap(&mut self, source: &raw::Domain) -> Option<u32> {
        let cap = source.cap.as_ref()?;
        let most = source.vcpus.as_ref().map_or(1, |vcpus| *vcpus.get_ref()) * 100;
        if !(1..=most).contains(cap.get_ref()) {
            self.report(
                cap.span(),
                format!("a cap is in hundredths of one processor: from 1 to {most} here"),
            );
        }
        Some(*cap.get_ref())
    }

    fn polling(&mut self, source: &raw::Domain) -> u64 {
        let Some(poll) = &source.poll else { return 0 };
        if source.kind.get_ref() != &raw::Kind::Unikernel {
            self.report(
                poll.span(),
                format!(
                    "{} is no unikernel; how it waits is for its kernel to say",
                    source.name.get_ref()
                ),
            );
        }
        let longest = self.read(poll, |text| values::duration(text)).unwrap_or(0);
        if longest > LONGEST_POLL {
            self.report(poll.span(), "nobody polls for longer than 10ms");
        }
        longest
    }

    /// No processor is exclusive to one domain and named by another.
    pub(super) fn check_placement(&mut self, sources: &[Spanned<raw::Domain>]) {
        let exclusive = |domain: &raw::Domain| domain.exclusive.as_ref().is_some_and(|it| *it.get_ref());
        for owner in sources
            .iter()
            .map(Spanned::get_ref)
            .filter(|domain| exclusive(domain))
        {
            let owned: Vec<u32> = numbers(owner).map(|number| *number.get_ref()).collect();
            for other in sources.iter().map(Spanned::get_ref) {
                if core::ptr::eq(owner, other) {
                    continue;
                }
                for number in numbers(other).filter(|number| owned.contains(number.get_ref())) {
                    self.report(
                        number.span(),
                        format!(
                            "processor {} is {}'s alone",
                            number.get_ref(),
                            owner.name.get_ref()
                        ),
                    );
                }
            }
        }
    }
}

fn numbers(domain: &raw::Domain) -> impl Iterator<Item = &Spanned<u32>> {
    domain.cpus.iter().flat_map(|cpus| cpus.get_ref())
}

fn word_of(class: raw::Class) -> &'static str {
    match class {
        raw::Class::Realtime => "realtime",
        raw::Class::Interactive => "interactive",
        raw::Class::Shared => "shared",
    }
}
