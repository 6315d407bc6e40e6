//! A single look, as plain lines for scripts: each begins with what it is about, then come names and numbers in turn. Shares are percent of one processor,
//! times nanoseconds, amounts bytes; all but what the operator's guide calls totals are rates by the second.

use alloc::{format, string::String};
use core::fmt::Write as _;

use xen_abi::atoll::EXIT_NAMES;

use super::{
    format::percent,
    rates::{Rates, percentile},
    sample::Class,
    view::cause,
};

/// The lines.
pub fn text(rates: &Rates) -> String {
    let mut text = format!("top over {} ns up {} ns\n", rates.elapsed, rates.uptime);
    // Writing to a String does not fail.
    for processor in &rates.processors {
        let _ = writeln!(
            text,
            "processor {} guests {} hypervisor {} lock {} idle {} exits {} switches {} interrupts {} ipis {} stay {} cause {} longest {} longest-cause {} exclusive {} runs {}",
            processor.number,
            percent(processor.guest),
            percent(processor.hypervisor),
            percent(processor.waiting),
            percent(processor.idle),
            processor.exits,
            processor.switches,
            processor.interrupts,
            processor.ipis,
            processor.recent.0,
            cause(processor.recent.1),
            processor.longest.0,
            cause(processor.longest.1),
            if processor.exclusive { "yes" } else { "no" },
            if processor.runs.is_empty() {
                "-"
            } else {
                &processor.runs
            },
        );
    }
    for domain in &rates.domains {
        let _ = writeln!(
            text,
            "domain {} state {} class {} cpu {} steal {} exits {} events {} copied {} mapped {} maps {} wakes {} held {}",
            domain.name,
            domain.state,
            domain.class,
            percent(domain.cpu),
            percent(domain.steal),
            domain.exits,
            domain.events,
            domain.copied,
            domain.mapped,
            domain.maps,
            domain.wakes,
            domain.held_back,
        );
    }
    for domain in &rates.domains {
        let _ = write!(text, "exits {}", domain.name);
        for (name, count) in EXIT_NAMES.iter().zip(domain.reasons) {
            let _ = write!(text, " {name} {count}");
        }
        text.push('\n');
    }
    for domain in &rates.domains {
        let limit = |percent| percentile(&domain.waits, percent).unwrap_or(0);
        let _ = writeln!(
            text,
            "waits {} count {} half {} most {} ever {}",
            domain.name,
            domain.waits.iter().copied().fold(0, u64::saturating_add),
            limit(50),
            limit(99),
            domain.longest_wait
        );
    }
    for device in &rates.devices {
        let [kind, towards, from, lost] = match device.class {
            Class::Disk => ["disk", "reads", "writes", "errors"],
            Class::Network => ["network", "received", "sent", "dropped"],
        };
        let _ = writeln!(
            text,
            "{kind} {} of {} by {} {towards} {} {towards}-bytes {} {from} {} {from}-bytes {} {lost} {}",
            device.name,
            device.frontend,
            device.backend,
            device.towards.0,
            device.towards.1,
            device.from.0,
            device.from.1,
            device.errors,
        );
    }
    for (name, latency) in &rates.latencies {
        let [least, median, high, most] = latency.marks;
        let _ = writeln!(
            text,
            "latency {name} count {} least {least} half {median} most {high} ever {most}",
            latency.count,
        );
    }
    text
}
