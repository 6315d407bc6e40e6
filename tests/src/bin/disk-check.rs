//! Runs in a guest: writes to a block device around all caches, and notices every byte that is not what it should be.
//!
//! - `disk-check write DEVICE SEED STOP`: four threads, each with a part of the device of its own, write, read back, compare and flush until the file STOP is
//!   there. Prints how many operations each has done.
//! - `disk-check verify DEVICE SEED COUNT…`: compares the device with what so many operations of each thread leave.
//! - `disk-check watch DEVICE STOP MICROSECONDS`: reads blocks of 4 KiB one after the other until the file STOP is there, and prints when and how long it waited,
//!   in microseconds, wherever that was longer than so much.
//!
//! Every answer that is an error, and every wrong byte, ends it with a message and a status other than 0.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process::ExitCode,
    thread,
    time::Instant,
};

/// `O_DIRECT` of x86.
const DIRECT: i32 = 0o40_000;
const BLOCK: usize = 4096;
const THREADS: u64 = 4;
/// Blocks of one thread.
const BLOCKS: u64 = 1024;
/// Blocks that one operation moves at most.
const MOST: u64 = 16;

/// Numbers without a pattern that matters (splitmix64).
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Memory that the device can use without a copy.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; (MOST as usize + 1) * BLOCK];
        let start = (bytes.as_ptr() as usize).next_multiple_of(BLOCK) - bytes.as_ptr() as usize;
        Self { bytes, start }
    }

    fn blocks(&mut self, count: u64) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + count as usize * BLOCK]
    }
}

fn open(device: &str) -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(DIRECT)
        .open(device)
        .map_err(|error| format!("{device} cannot be opened: {error}"))
}

/// What a thread does, and what that leaves on the device; the same for the same seed.
struct Worker {
    seed: u64,
    first: u64,
    state: u64,
    done: u64,
    /// The operation that wrote each block; 0 for none.
    versions: Vec<u64>,
}

enum Operation {
    Write { first: u64, count: u64 },
    Read { first: u64, count: u64 },
    Flush,
}

impl Worker {
    fn new(seed: u64, thread: u64) -> Self {
        Self {
            seed,
            first: thread * BLOCKS,
            state: mix(seed ^ thread << 32),
            done: 0,
            versions: vec![0; BLOCKS as usize],
        }
    }

    fn next(&mut self) -> Operation {
        self.state = mix(self.state);
        self.done += 1;
        let count = 1 + (self.state >> 8) % MOST;
        let first = (self.state >> 16) % (BLOCKS - count);
        match self.state % 10 {
            0..6 => {
                self.versions[first as usize..(first + count) as usize].fill(self.done);
                Operation::Write { first, count }
            }
            6..9 => Operation::Read { first, count },
            _ => Operation::Flush,
        }
    }

    fn word(&self, block: u64, version: u64, index: usize) -> u64 {
        match version {
            0 => 0,
            _ => mix(self.seed ^ (self.first + block) << 40 ^ version << 10 ^ index as u64),
        }
    }

    fn fill(&self, first: u64, bytes: &mut [u8]) {
        for (block, bytes) in (first..).zip(bytes.chunks_mut(BLOCK)) {
            let version = self.versions[block as usize];
            for (index, word) in bytes.chunks_mut(8).enumerate() {
                word.copy_from_slice(&self.word(block, version, index).to_le_bytes());
            }
        }
    }

    fn compare(&self, first: u64, bytes: &[u8]) -> Result<(), String> {
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK)) {
            let version = self.versions[block as usize];
            for (index, word) in bytes.chunks(8).enumerate() {
                let wanted = self.word(block, version, index).to_le_bytes();
                // Nobody knows what a block holds that was never written.
                if version != 0 && word != wanted {
                    return Err(format!(
                        "block {} is wrong from byte {} on: {word:02x?} instead of {wanted:02x?} of operation {version}",
                        self.first + block,
                        index * 8
                    ));
                }
            }
        }
        Ok(())
    }

    fn write_until(&mut self, file: &File, stop: &Path) -> Result<(), String> {
        let mut buffer = Buffer::new();
        while !stop.exists() {
            let number = self.done + 1;
            let failed = |what: &str, error: std::io::Error| format!("operation {number}: {what}: {error}");
            match self.next() {
                Operation::Write { first, count } => {
                    self.fill(first, buffer.blocks(count));
                    file.write_all_at(buffer.blocks(count), (self.first + first) * BLOCK as u64)
                        .map_err(|error| failed("write", error))?;
                }
                Operation::Read { first, count } => {
                    file.read_exact_at(buffer.blocks(count), (self.first + first) * BLOCK as u64)
                        .map_err(|error| failed("read", error))?;
                    self.compare(first, buffer.blocks(count))?;
                }
                Operation::Flush => file.sync_data().map_err(|error| failed("flush", error))?,
            }
        }
        file.sync_data()
            .map_err(|error| format!("the last flush: {error}"))
    }
}

fn write(device: &str, seed: u64, stop: &Path) -> Result<(), String> {
    let file = &open(device)?;
    let outcomes: Vec<Result<u64, String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut worker = Worker::new(seed, thread);
                    worker.write_until(file, stop).map(|()| worker.done)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread failed".into())))
            .collect()
    });
    let counts = outcomes.into_iter().collect::<Result<Vec<u64>, String>>()?;
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    println!("done {}", counts.join(" "));
    Ok(())
}

fn verify(device: &str, seed: u64, counts: &[u64]) -> Result<(), String> {
    let file = open(device)?;
    let mut buffer = Buffer::new();
    let mut written = 0;
    for (thread, &count) in (0..).zip(counts) {
        let mut worker = Worker::new(seed, thread);
        for _ in 0..count {
            worker.next();
        }
        for first in (0..BLOCKS).step_by(MOST as usize) {
            file.read_exact_at(buffer.blocks(MOST), (worker.first + first) * BLOCK as u64)
                .map_err(|error| format!("read: {error}"))?;
            worker.compare(first, buffer.blocks(MOST))?;
        }
        written += worker.versions.iter().filter(|version| **version != 0).count();
    }
    println!("verified {written} blocks");
    Ok(())
}

fn watch(device: &str, stop: &Path, threshold: u64) -> Result<(), String> {
    let file = open(device)?;
    let mut buffer = Buffer::new();
    let (begin, mut state, mut reads, mut gaps) = (Instant::now(), 1, 0_u64, Vec::new());
    let mut usual: Vec<u64> = Vec::new();
    while !stop.exists() {
        state = mix(state);
        let before = begin.elapsed().as_micros() as u64;
        let block = state % (THREADS * BLOCKS);
        file.read_exact_at(buffer.blocks(1), block * BLOCK as u64)
            .map_err(|error| format!("read: {error}"))?;
        let took = begin.elapsed().as_micros() as u64 - before;
        reads += 1;
        if took >= threshold {
            gaps.push((before, took));
        } else if usual.len() < 1 << 20 {
            usual.push(took);
        }
    }
    usual.sort_unstable();
    println!(
        "reads={reads} median={}",
        usual.get(usual.len() / 2).copied().unwrap_or(0)
    );
    for (at, took) in gaps {
        println!("gap at={at} us={took}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    let outcome = match *words {
        ["write", device, seed, stop] => number(seed).and_then(|seed| write(device, seed, Path::new(stop))),
        ["watch", device, stop, threshold] => {
            number(threshold).and_then(|threshold| watch(device, Path::new(stop), threshold))
        }
        ["verify", device, seed, ref counts @ ..] => number(seed).and_then(|seed| {
            let counts = counts.iter().map(|text| number(text)).collect::<Result<Vec<_>, _>>()?;
            verify(device, seed, &counts)
        }),
        _ => Err("usage: disk-check write DEVICE SEED STOP | verify DEVICE SEED COUNT… | watch DEVICE STOP MICROSECONDS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("failed: {message}");
            ExitCode::FAILURE
        }
    }
}
