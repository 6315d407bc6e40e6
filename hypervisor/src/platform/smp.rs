//! The other processors: started at boot, all at once, set to work once there is work, and stopped when the hypervisor fails.
//!
//! A start-up message makes a processor begin in real mode at a page below 1 MiB. The few instructions that are copied there lead to the image, in
//! protected mode; from there the boot processor's early tables, which map the image twice, carry it into 64-bit mode. Memory below 1 MiB is never given
//! away, so the page need not be kept apart for longer than that.
//!
//! Each draws a ticket, which is the place of its stacks, says which local APIC is its own, and sleeps. When all have come, or no more are coming, the
//! boot processor compares time-stamp counters with each and numbers those that are in step, in the order of firmware's list: so a processor has the
//! same number at each boot. One that does not come costs a wait once, however many there are; it is left alone, as is one whose counter differs, and the
//! others work.
#![allow(unsafe_code)] // Assembly.

use alloc::{vec, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use spin::Once;

use super::{
    acpi::madt::Processor, address_space, cpu, cpu::Features, descriptors, interrupts, local_apic, time,
};
use crate::{
    boot::memory_map::{self, Region},
    memory::{MachineAddress, PAGE_SIZE},
};

/// The most processors that are used.
pub const MOST: usize = crate::lock::MOST;
/// Nanoseconds from the INIT to the start-up message, and from there until it is repeated.
const INIT: u64 = 10_000_000;
const REPEAT: u64 = 2_000_000;
/// How long the next one may take to come, or to answer, before none is waited for any more: as long as an emulator on a busy machine needs.
const PATIENCE: u64 = 2_000_000_000;
/// How often time-stamp counters are compared, and for how long at most: an emulator takes turns with its processors.
const COMPARISONS: u64 = 8;
const COMPARISON_TIME: u64 = 1_000_000;

/// What a processor that begins has to know, as the assembly reads it.
#[repr(C)]
struct Start {
    root: AtomicU64,
    /// The next ticket; those from `end` on are none.
    ticket: AtomicU64,
    end: AtomicU64,
    /// End of the main stack in place 0, and the way from place to place.
    stack: AtomicU64,
    distance: AtomicU64,
}

static START: Start = Start {
    root: AtomicU64::new(0),
    ticket: AtomicU64::new(1),
    end: AtomicU64::new(0),
    stack: AtomicU64::new(descriptors::MAIN_STACKS.1),
    distance: AtomicU64::new(descriptors::MAIN_STACKS.0),
};

/// What is between the boot processor and one with a ticket.
struct Arrival {
    state: AtomicU32,
    apic_id: AtomicU32,
    number: AtomicUsize,
    /// Odd when it is asked for its time-stamp counter, even when it has answered.
    turn: AtomicU64,
    time_stamp: AtomicU64,
}

/// Nobody has come.
const EXPECTED: u32 = 0;
/// It sleeps.
const HERE: u32 = 1;
/// It is to answer with its time-stamp counter.
const COMPARES: u32 = 2;
/// It has a number, and waits for work.
const NUMBERED: u32 = 3;
/// It is not used.
const LEFT: u32 = 4;

static ARRIVALS: [Arrival; MOST] = [const {
    Arrival {
        state: AtomicU32::new(EXPECTED),
        apic_id: AtomicU32::new(0),
        number: AtomicUsize::new(0),
        turn: AtomicU64::new(0),
        time_stamp: AtomicU64::new(0),
    }
}; MOST];

static FEATURES: Once<Features> = Once::new();
static ONLINE: Once<Vec<u32>> = Once::new();
/// Some have been started.
static STARTED: AtomicBool = AtomicBool::new(false);
/// What processors do from now on.
static WORK: Once<fn(usize) -> !> = Once::new();
/// The processor that has failed and stops the others.
static FAILED: AtomicUsize = AtomicUsize::new(NONE);
const NONE: usize = usize::MAX;

/// Starts the other processors that firmware lists as usable; they wait. The local APIC ids of all that run now, by number: first this processor's.
/// Their stacks come out of `free`.
pub(super) fn start(
    features: &Features,
    listed: &[Processor],
    ram: &[Region],
    free: &mut Vec<Region>,
) -> Vec<u32> {
    let own = local_apic::id();
    let others = usable(listed, own, local_apic::is_x2apic());
    if others.is_empty() {
        return vec![own];
    }
    let Some(page) = place(ram).filter(|_| features.no_execute) else {
        log::warn!("one processor works: there is no memory below 640 KiB for the others to start in");
        return vec![own];
    };
    if !make_stacks(others.len(), free) {
        log::warn!("one processor works: there is no memory for the stacks of the others");
        return vec![own];
    }
    let code = start_code();
    assert!(code.len() <= PAGE_SIZE as usize);
    address_space::direct_map().write(page, code);
    FEATURES.call_once(|| features.clone());
    START.root.store(address_space::root(), Ordering::Release);
    START.end.store(1 + others.len() as u64, Ordering::Release);
    STARTED.store(true, Ordering::Release);
    send_for(&others, page);
    number(own, &others)
}

/// Local APIC ids of those to start: each once, and those alone that a message can name.
fn usable(listed: &[Processor], own: u32, x2apic: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    for processor in listed.iter().filter(|processor| processor.enabled) {
        let id = processor.apic_id;
        if id == own || ids.contains(&id) {
            continue;
        }
        if !x2apic && id >= local_apic::BROADCAST_8_BIT {
            log::warn!(
                "the processor with APIC id {id} is left alone: this machine has no x2APIC to reach it"
            );
        } else if 1 + ids.len() == MOST {
            log::warn!("{MOST} processors work, which is the most that this version uses");
            break;
        } else {
            ids.push(id);
        }
    }
    ids
}

/// Stacks for so many, in the places from 1 on.
fn make_stacks(count: usize, free: &mut Vec<Region>) -> bool {
    let Some(memory) = memory_map::take(free, count as u64 * descriptors::STACK_MEMORY) else {
        return false;
    };
    (1..=count).all(|place| {
        let from = memory.start.0 + (place as u64 - 1) * descriptors::STACK_MEMORY;
        descriptors::map_stacks(place, MachineAddress(from)).is_ok()
    })
}

fn arrived(apic_id: u32) -> Option<&'static Arrival> {
    let here = |arrival: &&Arrival| {
        arrival.state.load(Ordering::Acquire) == HERE && arrival.apic_id.load(Ordering::Relaxed) == apic_id
    };
    ARRIVALS.iter().find(here)
}

fn count_arrived() -> usize {
    ARRIVALS
        .iter()
        .filter(|arrival| arrival.state.load(Ordering::Acquire) == HERE)
        .count()
}

/// Starts them, and waits until all are here or none is coming.
fn send_for(others: &[u32], page: MachineAddress) {
    let page = (page.0 / PAGE_SIZE) as u8;
    others.iter().for_each(|id| local_apic::send_init(*id));
    time::spin_for(INIT);
    others.iter().for_each(|id| local_apic::send_start_up(*id, page));
    if wait_for(others.len(), REPEAT) {
        return;
    }
    // Those that have begun ignore it.
    others.iter().for_each(|id| local_apic::send_start_up(*id, page));
    wait_for(others.len(), PATIENCE);
    START.end.store(0, Ordering::Release);
    for arrival in &ARRIVALS {
        let _ = arrival
            .state
            .compare_exchange(EXPECTED, LEFT, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Waits until so many are here, or until the next one has taken longer than `patience`.
fn wait_for(count: usize, patience: u64) -> bool {
    let (mut here, mut since) = (0, time::now());
    loop {
        let now_here = count_arrived();
        if now_here >= count {
            return true;
        }
        if now_here > here {
            (here, since) = (now_here, time::now());
        } else if time::now() - since > patience {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Numbers those that came and are in step; ids by number.
fn number(own: u32, others: &[u32]) -> Vec<u32> {
    let mut online = vec![own];
    for id in others {
        let result = match arrived(*id) {
            Some(arrival) => compare(arrival, *id).map(|()| arrival),
            None => {
                local_apic::send_init(*id);
                Err("it does not start")
            }
        };
        match result {
            Ok(arrival) => {
                arrival.number.store(online.len(), Ordering::Relaxed);
                arrival.state.store(NUMBERED, Ordering::Release);
                online.push(*id);
            }
            Err(reason) => log::warn!("the processor with APIC id {id} is left alone: {reason}"),
        }
    }
    online
}

/// Whether the time-stamp counter of a processor lies between two readings of ours, each time: time must not go back from processor to processor.
fn compare(arrival: &Arrival, apic_id: u32) -> Result<(), &'static str> {
    arrival.state.store(COMPARES, Ordering::Release);
    local_apic::send(apic_id, interrupts::WAKE);
    let result = ask(arrival);
    if result.is_err() {
        arrival.state.store(LEFT, Ordering::Release);
    }
    result
}

fn ask(arrival: &Arrival) -> Result<(), &'static str> {
    let mut first_answer = None;
    for round in 0..COMPARISONS {
        let asked = time::now();
        if first_answer.is_some_and(|first| asked - first > COMPARISON_TIME) {
            break;
        }
        let before = cpu::time_stamp();
        arrival.turn.store(2 * round + 1, Ordering::Release);
        while arrival.turn.load(Ordering::Acquire) != 2 * round + 2 {
            if time::now() - asked > PATIENCE {
                return Err("it does not answer");
            }
            core::hint::spin_loop();
        }
        let (theirs, after) = (arrival.time_stamp.load(Ordering::Relaxed), cpu::time_stamp());
        if !(before..=after).contains(&theirs) {
            return Err("its time-stamp counter differs from the boot processor's");
        }
        first_answer.get_or_insert_with(time::now);
    }
    Ok(())
}

/// The other side of [`ask`].
fn answer(arrival: &Arrival) {
    while arrival.state.load(Ordering::Acquire) == COMPARES {
        let turn = arrival.turn.load(Ordering::Acquire);
        if turn % 2 == 1 {
            arrival.time_stamp.store(cpu::time_stamp(), Ordering::Relaxed);
            arrival.turn.store(turn + 1, Ordering::Release);
        }
        core::hint::spin_loop();
    }
}

/// A page of RAM that a start-up message can name, beyond what firmware has at the bottom.
fn place(ram: &[Region]) -> Option<MachineAddress> {
    (0x8..0x9f)
        .map(|frame| MachineAddress(frame * PAGE_SIZE))
        .find(|page| {
            ram.iter()
                .any(|region| Region::new(*page, PAGE_SIZE).is_within(region))
        })
}

/// Lets the processors that wait do this, with their number.
pub fn set_to_work(work: fn(usize) -> !, online: &[u32]) {
    ONLINE.call_once(|| online.to_vec());
    WORK.call_once(|| work);
    (1..online.len()).for_each(wake);
}

/// Interrupts another processor that is at work.
pub fn wake(processor: usize) {
    if let Some(apic_id) = ONLINE.get().and_then(|online| online.get(processor)) {
        local_apic::send(*apic_id, interrupts::WAKE);
    }
}

/// Stops all other processors for good: this one has failed, and reports. False if another has failed before, and is about to stop this one.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(super) fn stop_others() -> bool {
    let here = cpu::try_current().map_or(0, cpu::PerCpu::index);
    if let Err(other) = FAILED.compare_exchange(NONE, here, Ordering::AcqRel, Ordering::Acquire) {
        return other == here;
    }
    if STARTED.load(Ordering::Acquire) {
        local_apic::send_non_maskable_to_others();
        time::spin_for(1_000_000);
    }
    true
}

/// Whether another processor has failed, so that this one is to halt.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(super) fn is_stopped() -> bool {
    let failed = FAILED.load(Ordering::Acquire);
    failed != NONE && failed != cpu::try_current().map_or(0, cpu::PerCpu::index)
}

/// The first Rust of a processor that was started, with the place of its stacks.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
extern "C" fn arrive(place: usize) -> ! {
    let (Some(features), Some(arrival)) = (FEATURES.get(), ARRIVALS.get(place)) else {
        cpu::halt();
    };
    cpu::enable_protections(features);
    cpu::initialize(place);
    if local_apic::initialize(features).is_err() {
        cpu::halt();
    }
    arrival.apic_id.store(local_apic::id(), Ordering::Relaxed);
    // Whether it is waited for still.
    let _ = arrival
        .state
        .compare_exchange(EXPECTED, HERE, Ordering::AcqRel, Ordering::Acquire);
    loop {
        match arrival.state.load(Ordering::Acquire) {
            COMPARES => answer(arrival),
            NUMBERED => {
                let number = arrival.number.load(Ordering::Relaxed);
                cpu::current().set_index(number);
                if let Some(work) = WORK.get() {
                    work(number);
                }
                interrupts::sleep();
            }
            HERE => interrupts::sleep(),
            _ => cpu::halt(),
        }
    }
}

#[cfg(not(target_os = "none"))]
fn start_code() -> &'static [u8] {
    unreachable!("only the machine has start-up code")
}

#[cfg(target_os = "none")]
fn start_code() -> &'static [u8] {
    unsafe extern "C" {
        static atoll_start_code: u8;
        static atoll_start_code_end: u8;
    }
    let start = &raw const atoll_start_code;
    let length = &raw const atoll_start_code_end as usize - start as usize;
    // SAFETY: the two symbols of the assembly below enclose read-only bytes of the image.
    unsafe { core::slice::from_raw_parts(start, length) }
}

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
.set IMAGE, {image_offset}

.pushsection .rodata.start, "a"
.balign 16
.globl atoll_start_code
atoll_start_code:                                   // copied to a page below 1 MiB, where CS points
.code16
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl start_segments_pointer - atoll_start_code
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $(start_protected - IMAGE)
.balign 4
start_segments_pointer:
    .word 31
    .long start_segments - IMAGE
.globl atoll_start_code_end
atoll_start_code_end:
.code64
.popsection

.pushsection .boot.text, "ax"
.balign 8
start_segments:
    .quad 0
    .quad 0x00af9b000000ffff                        // 64-bit code
    .quad 0x00cf93000000ffff                        // data
    .quad 0x00cf9b000000ffff                        // 32-bit code
.code32
start_protected:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $(atoll_early_root - IMAGE), %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax                                  // physical address extension
    mov %eax, %cr4
    mov $0xc0000080, %ecx                           // EFER
    rdmsr
    or $0x900, %eax                                 // long mode, no-execute bits
    wrmsr
    mov %cr0, %eax
    and $0x9fffffff, %eax                           // caches on
    or $0x80010001, %eax                            // paging, write protection, protected mode
    mov %eax, %cr0
    ljmp $8, $(start_long - IMAGE)
.code64
start_long:
    movabs $7f, %rax                                // from the identity mapping to the image's
    jmp *%rax
7:
    mov $16, %eax
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    lea {start}(%rip), %rbx
    mov (%rbx), %rax
    mov %rax, %cr3                                  // the hypervisor's own address space, which has the stacks
    mov $1, %edi
    lock xadd %rdi, 8(%rbx)                         // its ticket
    cmp 16(%rbx), %rdi
    jae 9f
    mov %rdi, %rax
    imul 32(%rbx), %rax
    add 24(%rbx), %rax
    mov %rax, %rsp
    xor %ebp, %ebp
    push %rbp                                       // the end of every backtrace
    push %rbp
    call {arrive}
    ud2
9:
    cli                                             // it came too late
    hlt
    jmp 9b
.popsection
"#,
    image_offset = const crate::boot::layout::IMAGE_OFFSET,
    start = sym START,
    arrive = sym arrive,
    options(att_syntax)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_started_once_if_it_can_be_reached() {
        let processor = |apic_id, enabled| Processor { apic_id, enabled };
        let listed = [
            processor(0, true),
            processor(2, true),
            processor(4, false),
            processor(2, true),
            processor(255, true),
            processor(300, true),
        ];
        assert_eq!(usable(&listed, 0, false), [2]);
        assert_eq!(usable(&listed, 0, true), [2, 255, 300]);
        let many: Vec<Processor> = (0..2 * MOST as u32).map(|id| processor(id, true)).collect();
        assert_eq!(usable(&many, 0, true).len(), MOST - 1);
    }

    #[test]
    fn time_stamps_are_compared_with_one_that_answers() {
        let arrival = &ARRIVALS[MOST - 1];
        arrival.state.store(COMPARES, Ordering::Release);
        let other = std::thread::spawn(|| answer(&ARRIVALS[MOST - 1]));
        assert_eq!(ask(arrival), Ok(()));
        arrival.state.store(LEFT, Ordering::Release);
        other.join().unwrap();
    }

    #[test]
    fn a_time_stamp_from_elsewhere_is_noticed() {
        let arrival = &ARRIVALS[MOST - 2];
        arrival.time_stamp.store(1, Ordering::Relaxed);
        let other = std::thread::spawn(|| {
            let arrival = &ARRIVALS[MOST - 2];
            while arrival.turn.load(Ordering::Acquire) != 1 {
                std::thread::yield_now();
            }
            arrival.turn.store(2, Ordering::Release);
        });
        assert!(ask(arrival).is_err());
        other.join().unwrap();
    }

    #[test]
    fn starts_in_conventional_memory() {
        let region = |start, length| Region::new(MachineAddress(start), length);
        let ram = [region(0, 0x9_fc00), region(0x10_0000, 1 << 30)];
        assert_eq!(place(&ram), Some(MachineAddress(0x8000)));
        assert_eq!(place(&[region(0x9_d800, 0x2000)]), Some(MachineAddress(0x9_e000)));
        assert_eq!(place(&ram[1..]), None);
    }
}
