//! What a probe does alone: compute, watch, exit, sleep.

use alloc::string::String;
use core::arch::x86_64::__cpuid;
use core::fmt::Write as _;
use core::hint::black_box;
use core::time::Duration;

use probe::Tally;
use unikernel_rt::event::Channel;
use unikernel_rt::hypercall::{Errno, call};
use unikernel_rt::time::Instant;
use unikernel_rt::{DomainId, System, atoll, port};

/// Steps of the computation between two looks at the clock: far less than a slice of time.
const STEPS: u64 = 20_000;
/// A port where no device is.
const EMPTY_PORT: u16 = 0x80;

/// Computes for ever. Reports come at whole multiples of `every`, or as soon after as the domain runs.
pub(super) fn spin(system: &System, every: Option<Duration>) {
    let every = every.map_or(u64::MAX, |every| every.as_nanos().max(1) as u64);
    let next = |now: Instant| now.as_nanos().saturating_add(every) / every * every;
    let mut loops: u64 = 0;
    let mut report = next(system.events.now());
    loop {
        for step in 0..STEPS {
            black_box(step);
        }
        loops += 1;
        // An emulator that runs its processors in turns goes on to the next one here, and QEMU 7.2 that counts instructions nowhere else.
        core::hint::spin_loop();
        let now = system.events.now();
        if now.as_nanos() >= report {
            report = next(now);
            let waited = call::runstate().map_or(0, |state| state.time[1]);
            log::info!("spin at={} loops={loops} waited={waited}", now.as_nanos());
        }
    }
}

/// Says of all domains at once how long they have run, and of all processors whom they ran.
pub(super) fn watch(system: &System, start: Instant, every: Duration, times: u64) -> Result<(), Errno> {
    let pause = Pause::new(system)?;
    let mut at = start;
    for _ in 0..times {
        pause.until(at);
        at += every;
        let now = system.events.now();
        let domains = atoll::domains(&*system.control)?;
        let mut line = String::new();
        for info in &domains {
            let _ = write!(line, " {}={}", atoll::name(info), info.cpu_time);
        }
        log::info!("watch at={}{line}", now.as_nanos());
        line.clear();
        let figures = |number| system.control.processor_figures(number, false).ok();
        for of in (0..).map_while(figures) {
            let _ = write!(
                line,
                " {number}.domain={} {number}.guest={} {number}.switches={} {number}.exits={}",
                of.domain,
                of.guest,
                of.switches,
                of.exits,
                number = of.processor
            );
        }
        log::info!("processors at={}{line}", now.as_nanos());
    }
    Ok(())
}

/// Measures the cheapest hypercall, CPUID and an access to a port.
pub(super) fn exits(system: &System, start: Instant, count: u64) -> Result<(), Errno> {
    Pause::new(system)?.until(start);
    each(system, "nothing", count, || {});
    each(system, "hypercall", count, || {
        let _ = call::version();
    });
    each(system, "cpuid", count, || {
        black_box(__cpuid(0));
    });
    each(system, "port", count, || {
        black_box(port::read8(EMPTY_PORT));
    });
    Ok(())
}

/// Measures something, many times. Besides the times, how many exits it took and for how long the domain ran.
pub(super) fn each(system: &System, what: &str, count: u64, mut action: impl FnMut()) {
    let own = || system.control.domain_info(DomainId::SELF).unwrap_or_default();
    // Whatever happens the first time only has happened after it.
    action();
    let mut tally = Tally::default();
    let before = own();
    let since = system.events.now();
    let mut last = since;
    for _ in 0..count {
        action();
        let now = system.events.now();
        tally.add((now - last).as_nanos() as u64);
        last = now;
    }
    let after = own();
    log::info!(
        "{what} {tally} total={} exits={} ran={}",
        (last - since).as_nanos(),
        after.exits - before.exits,
        after.cpu_time - before.cpu_time
    );
}

/// Measures how long after its time a timer's domain runs.
pub(super) fn wake(system: &System, start: Instant, count: u64, after: Duration) -> Result<(), Errno> {
    let pause = Pause::new(system)?;
    pause.until(start);
    let mut tally = Tally::default();
    for _ in 0..count {
        let deadline = system.events.now() + after;
        pause.until(deadline);
        tally.add((system.events.now() - deadline).as_nanos() as u64);
    }
    log::info!("wake {tally}");
    Ok(())
}

/// Sleeps at a port that nobody notifies.
pub(super) struct Pause {
    silent: Channel,
}

impl Pause {
    pub(super) fn new(system: &System) -> Result<Self, Errno> {
        let silent = Channel::allocate_unbound(&system.events, system.domain)?;
        Ok(Self { silent })
    }

    /// Until then, or for no time if it has passed.
    pub(super) fn until(&self, time: Instant) {
        self.silent.events().wait_for(self.silent.port(), Some(time));
    }
}
