//! The other processors: started one after the other at boot, set to work once there is work, and stopped when the hypervisor fails.
//!
//! A start-up message makes a processor begin in real mode at a page below 1 MiB. The few instructions that are copied there lead to the image, in
//! protected mode; from there the boot processor's early tables, which map the image twice, carry it into 64-bit mode. Memory below 1 MiB is never given
//! away, so the page need not be kept apart for longer than that.
#![allow(unsafe_code)] // Assembly.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::Once;

use super::{
    acpi::madt::Processor, address_space, cpu, cpu::Features, descriptors, interrupts, local_apic, time,
};
use crate::{
    boot::memory_map::Region,
    memory::{MachineAddress, PAGE_SIZE},
};

/// The most processors that are used: each takes stacks from the heap.
pub const MOST: usize = 16;
/// Nanoseconds that a processor has to come after an INIT, and after each start-up message.
const INIT: u64 = 10_000_000;
const FIRST_WAIT: u64 = 2_000_000;
const SECOND_WAIT: u64 = 2_000_000_000;

/// What a processor that begins has to know; the assembly reads the first three.
#[repr(C)]
struct Start {
    root: AtomicU64,
    stack: AtomicU64,
    index: AtomicU64,
    apic_id: AtomicU64,
    /// The time-stamp counter of the boot processor before, and of the new one.
    before: AtomicU64,
    after: AtomicU64,
}

static START: Start = Start {
    root: AtomicU64::new(0),
    stack: AtomicU64::new(0),
    index: AtomicU64::new(0),
    apic_id: AtomicU64::new(0),
    before: AtomicU64::new(0),
    after: AtomicU64::new(0),
};
/// The last that has come.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static FEATURES: Once<Features> = Once::new();
static ONLINE: Once<Vec<u32>> = Once::new();
/// What processors do from now on.
static WORK: Once<fn(usize) -> !> = Once::new();
/// The processor that has failed and stops the others.
static FAILED: AtomicUsize = AtomicUsize::new(NONE);
const NONE: usize = usize::MAX;

/// Starts the other processors that firmware lists as usable; they wait. The local APIC ids of all that run now, by number: first this processor's.
pub(super) fn start(features: &Features, listed: &[Processor], ram: &[Region]) -> Vec<u32> {
    let own = local_apic::id();
    let mut online = alloc::vec![own];
    let others: Vec<u32> = listed
        .iter()
        .filter(|processor| processor.enabled && processor.apic_id != own)
        .filter(|processor| local_apic::is_x2apic() || processor.apic_id < 0xff)
        .map(|processor| processor.apic_id)
        .collect();
    if others.is_empty() {
        return online;
    }
    let Some(page) = place(ram).filter(|_| features.no_execute) else {
        log::warn!("one processor works: there is no memory below 640 KiB for the others to start in");
        return online;
    };
    let code = start_code();
    assert!(code.len() <= PAGE_SIZE as usize);
    address_space::direct_map().write(page, code);
    FEATURES.call_once(|| features.clone());
    START.root.store(address_space::root(), Ordering::Release);
    for apic_id in others {
        if online.len() == MOST {
            log::warn!("{MOST} processors work, which is the most that this version uses");
            break;
        }
        match start_one(online.len(), apic_id, page) {
            Ok(()) => online.push(apic_id),
            Err(reason) => {
                log::warn!(
                    "the processor with APIC id {apic_id} is left alone, and those behind it: {reason}"
                );
                break;
            }
        }
    }
    online
}

fn start_one(index: usize, apic_id: u32, page: MachineAddress) -> Result<(), &'static str> {
    let stack = descriptors::new_main_stack(index).map_err(|_| "no memory for its stack")?;
    START.stack.store(stack, Ordering::Relaxed);
    START.index.store(index as u64, Ordering::Relaxed);
    START.apic_id.store(apic_id.into(), Ordering::Relaxed);
    START.before.store(cpu::time_stamp(), Ordering::Release);
    local_apic::send_init(apic_id);
    time::spin_for(INIT);
    for wait in [FIRST_WAIT, SECOND_WAIT] {
        local_apic::send_start_up(apic_id, (page.0 / PAGE_SIZE) as u8);
        let end = time::now() + wait;
        while time::now() < end {
            if ARRIVED.load(Ordering::Acquire) == index {
                return in_step();
            }
            core::hint::spin_loop();
        }
    }
    local_apic::send_init(apic_id);
    Err("it does not start")
}

/// Whether the time-stamp counter of the processor that came lies between two readings of ours: time must not go back from processor to processor.
fn in_step() -> Result<(), &'static str> {
    let (before, after) = (
        START.before.load(Ordering::Relaxed),
        START.after.load(Ordering::Relaxed),
    );
    if before <= after && after <= cpu::time_stamp() {
        Ok(())
    } else {
        Err("its time-stamp counter differs from ours")
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
    let here = cpu::current_index();
    if let Err(other) = FAILED.compare_exchange(NONE, here, Ordering::AcqRel, Ordering::Acquire) {
        return other == here;
    }
    if ARRIVED.load(Ordering::Acquire) > 0 {
        local_apic::send_non_maskable_to_others();
        time::spin_for(1_000_000);
    }
    true
}

/// Whether another processor has failed, so that this one is to halt.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
pub(super) fn is_stopped() -> bool {
    let failed = FAILED.load(Ordering::Acquire);
    failed != NONE && failed != cpu::current_index()
}

/// The first Rust of a processor that was started.
#[cfg_attr(not(target_os = "none"), expect(dead_code))]
extern "C" fn arrive(index: usize) -> ! {
    let apic_id = START.apic_id.load(Ordering::Relaxed) as u32;
    let began = FEATURES.get().is_some_and(|features| {
        cpu::enable_protections(features);
        cpu::initialize(index, apic_id).is_ok() && local_apic::initialize(features).is_ok()
    });
    if !began {
        cpu::halt();
    }
    START.after.store(cpu::time_stamp(), Ordering::Relaxed);
    ARRIVED.store(index, Ordering::Release);
    loop {
        if let Some(work) = WORK.get() {
            work(index);
        }
        interrupts::wait();
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
    mov %rax, %cr3                                  // the hypervisor's own address space, which has the stack
    mov 8(%rbx), %rsp
    mov 16(%rbx), %rdi
    xor %ebp, %ebp
    push %rbp                                       // the end of every backtrace
    push %rbp
    call {arrive}
    ud2
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
    fn starts_in_conventional_memory() {
        let region = |start, length| Region::new(MachineAddress(start), length);
        let ram = [region(0, 0x9_fc00), region(0x10_0000, 1 << 30)];
        assert_eq!(place(&ram), Some(MachineAddress(0x8000)));
        assert_eq!(place(&[region(0x9_d800, 0x2000)]), Some(MachineAddress(0x9_e000)));
        assert_eq!(place(&ram[1..]), None);
    }
}
