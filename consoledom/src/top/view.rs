//! What the display shows, as lines that fit the terminal: never more of them than it has rows, and none longer than it has columns.

use alloc::{format, string::String, vec::Vec};

use xen_abi::atoll::{CAUSE_IDLE, EXIT_NAMES, EXIT_REASONS, WAIT_BUCKETS};

use super::{
    format::{count, mebibytes, percent, time},
    rates::{DeviceRates, DomainRates, ProcessorRates, Rates, percentile},
};

/// Room on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Size {
    /// What every serial terminal has.
    pub const USUAL: Self = Self {
        columns: 80,
        rows: 24,
    };
}

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Processors in short, domains, devices.
    #[default]
    Domains,
    /// Exits by reason.
    Exits,
    /// Processors at length.
    Processors,
    /// How long vCPUs waited from wake-up to run, and latencies that domains measured.
    Latency,
}

/// Processors that are shown one by one beside the domains.
const PROCESSORS_IN_SHORT: usize = 4;
/// Where 1 us, 1 ms and 1 s are among the buckets.
const AXIS: &str = "  1us       1ms       1s";

/// The lines of a view.
pub fn lines(view: View, rates: &Rates, size: Size) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(format!(
        "top  up {}  {} CPUs  {} domains   d domains e exits p CPUs h latency q quit",
        time(rates.uptime),
        rates.processors.len(),
        rates.domains.len()
    ));
    match view {
        View::Domains => domains(rates, size, &mut lines),
        View::Exits => exits(rates, &mut lines),
        View::Processors => processors(rates, &mut lines),
        View::Latency => latency(rates, &mut lines),
    }
    fit(lines, size)
}

/// Cuts what has no room, and says so.
fn fit(mut lines: Vec<String>, size: Size) -> Vec<String> {
    if lines.len() > size.rows {
        let kept = size.rows.saturating_sub(1);
        let hidden = lines.len() - kept;
        lines.truncate(kept);
        if size.rows > 0 {
            lines.push(format!("({hidden} more lines)"));
        }
    }
    for line in &mut lines {
        // Names come from the manifest; what is not plain text would move the cursor.
        let plain = line
            .chars()
            .map(|character| if character.is_control() { '?' } else { character });
        *line = plain.take(size.columns).collect();
        line.truncate(line.trim_end().len());
    }
    lines
}

/// A name in so many places.
fn short(name: &str, places: usize) -> String {
    name.chars().take(places).collect()
}

fn domains(rates: &Rates, size: Size, lines: &mut Vec<String>) {
    lines.push("CPU GUESTS% HYPER%  LOCK%  IDLE%  EXITS/s  SWITCH/s  IRQS/s LONGEST STAY".into());
    if rates.processors.len() <= PROCESSORS_IN_SHORT {
        lines.extend(rates.processors.iter().map(in_short));
    } else {
        lines.push(together(&rates.processors));
    }
    let devices = if rates.devices.is_empty() {
        0
    } else {
        1 + rates.devices.len()
    };
    // The domains have what is left beside a third for the devices.
    let left = size.rows.saturating_sub(lines.len() + 1);
    let devices = devices.min(left / 3);
    let shown = rates.domains.len().min(left - devices);
    lines.push("NAME        STAT CLS   CPU% STEAL% EXITS/s WHY               EVENTS  MiB/s  MAPS".into());
    lines.extend(rates.domains.iter().take(shown).map(domain));
    if devices > 1 {
        lines.push("DEVICE    OF           BY           READ,RX/s  MiB/s WRITE,TX/s  MiB/s LOST".into());
        lines.extend(rates.devices.iter().take(devices - 1).map(device));
    }
}

fn in_short(processor: &ProcessorRates) -> String {
    format!(
        "{:>3} {:>7} {:>6} {:>6} {:>6} {:>8} {:>9} {:>7} {:>6} {}",
        processor.number,
        percent(processor.guest),
        percent(processor.hypervisor),
        percent(processor.waiting),
        percent(processor.idle),
        count(processor.exits),
        count(processor.switches),
        count(processor.interrupts),
        time(processor.recent.0),
        cause(processor.recent.1),
    )
}

/// All processors in one line: the average of shares, the sum of rates, the longest stay.
fn together(processors: &[ProcessorRates]) -> String {
    let sum = |of: fn(&ProcessorRates) -> u64| processors.iter().map(of).fold(0, u64::saturating_add);
    let average = |of| percent(sum(of) / processors.len().max(1) as u64);
    let longest = processors.iter().map(|processor| processor.recent).max();
    let longest = longest.unwrap_or((0, CAUSE_IDLE));
    format!(
        "all {:>7} {:>6} {:>6} {:>6} {:>8} {:>9} {:>7} {:>6} {}",
        average(|processor| processor.guest),
        average(|processor| processor.hypervisor),
        average(|processor| processor.waiting),
        average(|processor| processor.idle),
        count(sum(|processor| processor.exits)),
        count(sum(|processor| processor.switches)),
        count(sum(|processor| processor.interrupts)),
        time(longest.0),
        cause(longest.1),
    )
}

/// What a stay in the hypervisor began with.
pub fn cause(cause: u32) -> &'static str {
    if cause == CAUSE_IDLE {
        "idle"
    } else {
        EXIT_NAMES.get(cause as usize).copied().unwrap_or("?")
    }
}

fn domain(domain: &DomainRates) -> String {
    format!(
        "{:<11} {:<4} {:<3} {:>6} {:>6} {:>7} {:<17} {:>6} {:>6} {:>5}",
        short(&domain.name, 11),
        match domain.state {
            "running" => "run",
            "building" => "new",
            "absent" => "none",
            "failed" => "fail",
            "stopped" => "stop",
            _ => "?",
        },
        domain.class,
        percent(domain.cpu),
        percent(domain.steal),
        count(domain.exits),
        short(&reasons(&domain.reasons), 17),
        count(domain.events),
        mebibytes(domain.copied),
        domain.mapped,
    )
}

/// The two most frequent reasons, with their shares in percent.
pub fn reasons(reasons: &[u64; EXIT_REASONS]) -> String {
    let total: u128 = reasons.iter().copied().map(u128::from).sum();
    let mut order: Vec<usize> = (0..EXIT_REASONS).filter(|&index| reasons[index] > 0).collect();
    order.sort_by_key(|&index| core::cmp::Reverse(reasons[index]));
    let mut text = String::new();
    for &index in order.iter().take(2) {
        if !text.is_empty() {
            text.push(' ');
        }
        text += &format!(
            "{:.5} {}",
            EXIT_NAMES[index],
            u128::from(reasons[index]) * 100 / total
        );
    }
    text
}

fn device(device: &DeviceRates) -> String {
    format!(
        "{:<9} {:<12} {:<12} {:>9} {:>6} {:>10} {:>6} {:>4}",
        short(&device.name, 9),
        short(&device.frontend, 12),
        short(&device.backend, 12),
        count(device.towards.0),
        mebibytes(device.towards.1),
        count(device.from.0),
        mebibytes(device.from.1),
        count(device.errors),
    )
}

fn exits(rates: &Rates, lines: &mut Vec<String>) {
    let mut title = format!("{:<12}", "EXITS/s BY");
    for name in EXIT_NAMES {
        title += &format!(" {:>5}", short(name, 5).to_uppercase());
    }
    lines.push(title);
    for domain in &rates.domains {
        let mut line = format!("{:<12}", short(&domain.name, 12));
        for reason in domain.reasons {
            line += &format!(" {:>5}", count(reason));
        }
        lines.push(line);
    }
}

fn processors(rates: &Rates, lines: &mut Vec<String>) {
    lines.push("CPU GUEST HYPER  LOCK  IDLE EXITS/s  IPIS/s RECENT STAY LONGEST STAY RUNS".into());
    for processor in &rates.processors {
        lines.push(format!(
            "{:>3} {:>5} {:>5} {:>5} {:>5} {:>7} {:>7} {:>6} {:<5.5} {:>6} {:<5.5} {}{}",
            processor.number,
            percent(processor.guest),
            percent(processor.hypervisor),
            percent(processor.waiting),
            percent(processor.idle),
            count(processor.exits),
            count(processor.ipis),
            time(processor.recent.0),
            cause(processor.recent.1),
            time(processor.longest.0),
            cause(processor.longest.1),
            if processor.exclusive { "!" } else { "" },
            processor.runs,
        ));
    }
}

fn latency(rates: &Rates, lines: &mut Vec<String>) {
    lines.push(format!(
        "{:<12} {:>7} {:>6} {:>6} {:>6}  {AXIS}  HELD/s",
        "WAKE TO RUN", "WAKES/s", "HALF<", "99%<", "EVER"
    ));
    let limit = |waits: &_, percent| percentile(waits, percent).map_or_else(|| "-".into(), time);
    for domain in &rates.domains {
        lines.push(format!(
            "{:<12} {:>7} {:>6} {:>6} {:>6}  {}  {}",
            short(&domain.name, 12),
            count(domain.wakes),
            limit(&domain.waits, 50),
            limit(&domain.waits, 99),
            time(domain.longest_wait),
            shape(&domain.waits),
            count(domain.held_back),
        ));
    }
    if rates.latencies.is_empty() {
        return;
    }
    lines.push(format!(
        "{:<12} {:>7} {:>6} {:>6} {:>6}  {AXIS}  LEAST",
        "MEASURED BY", "TIMES", "HALF", "99%", "MOST"
    ));
    for (name, latency) in &rates.latencies {
        let [least, median, high, most] = latency.marks.map(time);
        lines.push(format!(
            "{:<12} {:>7} {median:>6} {high:>6} {most:>6}  {}  {least}",
            short(name, 12),
            count(latency.count),
            shape(&latency.buckets),
        ));
    }
}

/// A histogram as a line: a character a bucket, the heavier the more of all are in it; one alone can be seen.
fn shape(buckets: &[u64; WAIT_BUCKETS]) -> String {
    let total: u128 = buckets.iter().copied().map(u128::from).sum();
    let character = |count: &u64| match u128::from(*count) * 1000 {
        0 => ' ',
        share if share >= total * 300 => '#',
        share if share >= total * 100 => '*',
        share if share >= total * 10 => '+',
        share if share >= total => '-',
        _ => '.',
    };
    buckets.iter().map(character).collect()
}
