//! Runs in a guest: a thread on each of its processors reads the clock over and over, and compares what it reads with the latest time that any of them
//! has read before. One that reads an earlier time has seen the clock go backwards, by itself or from one processor to another.
//!
//! `clock-check READINGS` takes so many readings on each processor. It prints what it did, and fails where the clock went backwards or a processor could not
//! be used.

use std::{
    process::ExitCode,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use rustix::{
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

const CLOCKS: [(&str, ClockId); 2] = [
    ("CLOCK_MONOTONIC", ClockId::Monotonic),
    ("CLOCK_MONOTONIC_RAW", ClockId::MonotonicRaw),
];

/// What a thread saw: how often the clock went backwards, and by how many nanoseconds at most.
#[derive(Clone, Copy, Default)]
struct Seen {
    backwards: u64,
    worst: u64,
}

fn main() -> ExitCode {
    let Some(readings) = std::env::args().nth(1).and_then(|text| text.parse().ok()) else {
        eprintln!("usage: clock-check READINGS");
        return ExitCode::FAILURE;
    };
    let processors = processors();
    let mut good = true;
    for (name, clock) in CLOCKS {
        match check(clock, &processors, readings) {
            Ok(seen) => {
                println!(
                    "{name}: {readings} readings on each of {} processors, {} backwards, {} ns at worst",
                    processors.len(),
                    seen.backwards,
                    seen.worst
                );
                good &= seen.backwards == 0;
            }
            Err(error) => {
                println!("{name}: {error}");
                good = false;
            }
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The processors that are online.
fn processors() -> Vec<usize> {
    let possible = 0..CpuSet::MAX_CPU;
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => possible.filter(|index| set.is_set(*index)).collect(),
        Err(_) => Vec::new(),
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn check(clock: ClockId, processors: &[usize], readings: u64) -> Result<Seen, String> {
    let (latest, barrier) = (AtomicU64::new(0), Barrier::new(processors.len()));
    let (latest, barrier) = (&latest, &barrier);
    let read = move |processor: usize| -> Result<Seen, String> {
        let mut set = CpuSet::new();
        set.set(processor);
        let pinned = sched_setaffinity(None, &set)
            .map_err(|error| format!("processor {processor} cannot be used: {error}"));
        barrier.wait();
        pinned?;
        let mut seen = Seen::default();
        for _ in 0..readings {
            let before = latest.load(Ordering::SeqCst);
            let now = nanoseconds(clock);
            if now < before {
                seen.backwards += 1;
                seen.worst = seen.worst.max(before - now);
            }
            latest.fetch_max(now, Ordering::SeqCst);
        }
        Ok(seen)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = processors
            .iter()
            .map(|processor| scope.spawn(move || read(*processor)))
            .collect();
        let mut all = Seen::default();
        for thread in threads {
            let seen = thread.join().map_err(|_| "a thread failed")??;
            all.backwards += seen.backwards;
            all.worst = all.worst.max(seen.worst);
        }
        if processors.is_empty() {
            return Err("no processor is known".into());
        }
        Ok(all)
    })
}
