//! Crash reports: what is kept of a domain that did not end by itself, for the operator to read when it runs again.
//!
//! The domain's own memory is gone by then, so the report is taken when it stops: registers, the calls that its frame pointers lead back through, and
//! the lines that it logged last. All of it is foreign: it is read through the domain's own page tables, bounded, and only ever printed.

use alloc::{
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::{self, Write as _};

use xen_abi::sched;

use super::VcpuId;
use crate::{
    Hypervisor,
    memory::{GuestVirtual, walk::GuestSpace},
    virt::{Paging, Registers},
};

/// Reports that are kept of each domain.
const REPORTS: usize = 4;
/// Calls that a report goes back.
const CALLS: usize = 32;
/// Lines that a report ends with.
const LINES: usize = 24;
/// Bytes of each.
const LINE: usize = 240;
/// Bytes of the cause.
const CAUSE: usize = 400;

/// The lines that a domain logged last.
#[derive(Clone, Debug, Default)]
pub struct LastLines(VecDeque<String>);

impl LastLines {
    /// It logged another.
    pub fn push(&mut self, line: &str) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(line[..line.floor_char_boundary(LINE)].into());
    }
}

/// The crashes of one domain: the last few, and how many there were.
#[derive(Debug, Default)]
pub struct Crashes {
    count: u32,
    last: VecDeque<Report>,
}

impl Crashes {
    /// A report: 0 is that of the last crash, 1 that of the one before.
    pub fn get(&self, back: usize) -> Option<&Report> {
        self.last.get(back)
    }

    fn push(&mut self, mut report: Report) {
        self.count = self.count.saturating_add(1);
        report.number = self.count;
        self.last.truncate(REPORTS - 1);
        self.last.push_front(report);
    }
}

/// What is kept of one crash.
#[derive(Debug)]
pub struct Report {
    name: String,
    number: u32,
    generation: u32,
    /// Nanoseconds since power-on.
    at: u64,
    cause: String,
    vcpu: u32,
    registers: Registers,
    paging: Paging,
    calls: Vec<u64>,
    lines: VecDeque<String>,
}

/// Keeps the report of a domain that has stopped at `now` and still has its memory. `cause` is a sentence about what it did, where there is one.
pub fn keep_report(hv: &mut Hypervisor, vcpu: VcpuId, reason: u32, cause: Option<String>, now: u64) {
    let Some(domain) = hv.domains.get_mut(&vcpu.domain) else {
        return;
    };
    let Some(body) = &domain.body else { return };
    let Some(state) = body.vcpus.get(vcpu.index as usize) else {
        return;
    };
    let (registers, paging) = (state.registers, state.processor.paging());
    let space = GuestSpace::new(&hv.memory, &body.p2m, paging);
    let mut cause = cause.unwrap_or_else(|| words(reason).to_string());
    cause.truncate(cause.floor_char_boundary(CAUSE));
    let report = Report {
        name: domain.spec.name.clone(),
        number: 0,
        generation: domain.generation,
        at: now,
        cause,
        vcpu: vcpu.index,
        registers,
        paging,
        calls: calls(&space, registers.rbp),
        lines: body.last_lines.0.clone(),
    };
    domain.crashes.push(report);
}

fn words(reason: u32) -> &'static str {
    match reason {
        sched::SHUTDOWN_crash => "it crashed",
        sched::SHUTDOWN_watchdog => "its watchdog expired: its loop had no turn for too long",
        _ => "it stopped for a reason that nobody knows",
    }
}

/// The return addresses on a stack with frame pointers: each frame has that of the caller's frame, which lies above, and the return address. Where that
/// does not hold the frames have come to an end.
fn calls(space: &GuestSpace<'_>, mut frame: u64) -> Vec<u64> {
    let mut calls = Vec::new();
    while calls.len() < CALLS && frame != 0 && frame.is_multiple_of(8) {
        let mut words = [0; 16];
        if space.read_bytes(GuestVirtual(frame), &mut words).is_err() {
            break;
        }
        let (next, address) = words.split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        calls.push(word(address));
        if word(next) <= frame {
            break;
        }
        frame = word(next);
    }
    calls
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Registers {
            rip,
            rsp,
            rbp,
            rflags,
            ..
        } = self.registers;
        let (seconds, micros) = (self.at / 1_000_000_000, self.at / 1000 % 1_000_000);
        writeln!(
            to,
            "{} crashed at {seconds}.{micros:06} (crash {}, of life {}): {}",
            self.name, self.number, self.generation, self.cause
        )?;
        writeln!(to, "vCPU {}", self.vcpu)?;
        let of = &self.registers;
        let named = [
            ("rip", rip),
            ("rsp", rsp),
            ("rbp", rbp),
            ("rfl", rflags),
            ("rax", of.rax),
            ("rbx", of.rbx),
            ("rcx", of.rcx),
            ("rdx", of.rdx),
            ("rsi", of.rsi),
            ("rdi", of.rdi),
            ("r8 ", of.r8),
            ("r9 ", of.r9),
            ("r10", of.r10),
            ("r11", of.r11),
            ("r12", of.r12),
            ("r13", of.r13),
            ("r14", of.r14),
            ("r15", of.r15),
            ("cr0", self.paging.cr0),
            ("cr3", self.paging.cr3),
            ("cr4", self.paging.cr4),
            ("efer", self.paging.efer),
        ];
        for row in named.chunks(4) {
            let mut line = String::new();
            for (name, value) in row {
                write!(line, " {name} {value:#018x}")?;
            }
            writeln!(to, "{line}")?;
        }
        let calls: String = self
            .calls
            .iter()
            .map(|address| format!(" {address:#x}"))
            .collect();
        writeln!(to, "calls: {rip:#x}{calls}")?;
        writeln!(to, "last lines of its log:")?;
        self.lines.iter().try_for_each(|line| writeln!(to, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::DomainId,
        testing::{hypervisor, poke, vcpu},
    };

    const GUEST: u16 = 3;

    fn text(hv: &Hypervisor, back: usize) -> Option<String> {
        hv.domain(DomainId(GUEST))
            .unwrap()
            .crashes
            .get(back)
            .map(ToString::to_string)
    }

    /// A frame at 0x1000 that was called from 0xaaaa, in one at 0x1040 that was called from 0xbbbb, and no more.
    fn with_frames() -> Hypervisor {
        let mut hv = hypervisor();
        let words = |next: u64, address: u64| [next.to_le_bytes(), address.to_le_bytes()].concat();
        poke(&hv, GUEST, 0x1000, &words(0x1040, 0xaaaa));
        poke(&hv, GUEST, 0x1040, &words(0, 0xbbbb));
        let registers = &mut hv.vcpu_mut(vcpu(GUEST)).unwrap().registers;
        (registers.rip, registers.rbp, registers.r15) = (0xcccc, 0x1000, 15);
        hv
    }

    #[test]
    fn says_where_it_was_and_what_it_said() {
        let mut hv = with_frames();
        hv.body_mut(DomainId(GUEST))
            .unwrap()
            .last_lines
            .push("crash: out of ideas");
        hv.crash_domain(vcpu(GUEST), "it divided by zero".into());
        let text = text(&hv, 0).unwrap();
        assert!(text.starts_with("guest crashed at "), "{text}");
        for part in [
            "(crash 1, of life 1): it divided by zero\n",
            "rip 0x000000000000cccc",
            "r15 0x000000000000000f",
            "calls: 0xcccc 0xaaaa 0xbbbb\n",
            "\n  crash: out of ideas\n",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn frames_that_lead_nowhere_or_in_circles_end_the_calls() {
        for (frame, next, expected) in [
            (0x1000, 0x1000u64, "calls: 0xcccc 0xaaaa\n"),
            (0x1000, 0x800, "calls: 0xcccc 0xaaaa\n"),
            (0x1000, u64::MAX - 7, "calls: 0xcccc 0xaaaa\n"),
            (0x1001, 0, "calls: 0xcccc\n"),
            (u64::MAX - 7, 0, "calls: 0xcccc\n"),
            (0x7000_0000, 0, "calls: 0xcccc\n"),
        ] {
            let mut hv = with_frames();
            poke(&hv, GUEST, 0x1000, &next.to_le_bytes());
            hv.vcpu_mut(vcpu(GUEST)).unwrap().registers.rbp = frame;
            hv.stop_domain(DomainId(GUEST), sched::SHUTDOWN_crash);
            let text = text(&hv, 0).unwrap();
            assert!(text.contains(expected), "{frame:#x} {next:#x}: {text}");
        }
    }

    #[test]
    fn survives_a_rebuild_and_the_oldest_make_room() {
        let mut hv = hypervisor();
        for _ in 0..REPORTS + 2 {
            hv.stop_domain(DomainId(GUEST), sched::SHUTDOWN_watchdog);
            hv.destroy_domain(DomainId(GUEST));
            crate::testing::build(&mut hv, DomainId(GUEST));
        }
        assert!(
            text(&hv, 0)
                .unwrap()
                .contains("(crash 6, of life 6): its watchdog expired")
        );
        assert!(text(&hv, REPORTS - 1).unwrap().contains("(crash 3,"));
        assert_eq!(text(&hv, REPORTS), None);
    }

    #[test]
    fn who_ends_by_itself_leaves_none() {
        let mut hv = hypervisor();
        hv.stop_domain(DomainId(GUEST), sched::SHUTDOWN_poweroff);
        assert_eq!(text(&hv, 0), None);
    }

    #[test]
    fn keeps_the_last_lines_and_not_more_of_each_than_a_screen_shows() {
        let mut lines = LastLines::default();
        (0..100).for_each(|number| lines.push(&format!("{number}{}", "é".repeat(LINE))));
        assert_eq!(lines.0.len(), LINES);
        assert!(lines.0.iter().all(|line| line.len() <= LINE));
        assert!(lines.0[0].starts_with("76é"));
    }
}
