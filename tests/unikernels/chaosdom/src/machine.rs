//! The processor and the memory as an attacker uses them: hypercalls with any arguments, instructions that may fault, page tables of nonsense, further vCPUs.
//!
//! Safe to call for one reason: wild values name no memory that Rust uses (see `chaosdom::wild`); the arena is reached by Rust as shared memory alone.
#![allow(unsafe_code)] // Hypercalls, privileged instructions, descriptor and page tables.

use core::{
    arch::{asm, global_asm, x86_64::__cpuid},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use chaosdom::{
    Random, Wild,
    wild::{ARENA, ARENA_PAGES, NONSENSE, NONSENSE_PAGES, READ_ONLY},
};
use unikernel_rt::memory::{MemoryError, PAGE_SIZE, SharedMemory};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
/// Marks that the processor would set by itself.
const USED: u64 = 0x60;
/// Frames that the domain can lose.
const VICTIMS: usize = 128;
/// The first word of the arena's alias: pages by level.
const LOCAL_APIC: u64 = 0xfee0_0000;
/// Where the local APIC's page is seen, and one behind which nothing is.
const APIC_VIEW: u64 = ARENA + 128 * PAGE_SIZE as u64;
const NOTHING_VIEW: u64 = APIC_VIEW + PAGE_SIZE as u64;
/// A guest-physical page that is never there.
const NOTHING: u64 = 0x1_3000_0000;

/// Whether hypercalls go by VMMCALL.
static AMD: AtomicBool = AtomicBool::new(false);

/// Carries out a hypercall; the answer as it is.
pub(super) fn call(number: u64, arguments: [u64; 5]) -> i64 {
    let [rdi, rsi, rdx, r10, r8] = arguments;
    let mut answer = number;
    macro_rules! enter {
        ($instruction:literal) => {
            // SAFETY: by the module's head no argument makes the hypervisor change memory that Rust uses.
            unsafe {
                asm!(
                    $instruction,
                    inout("rax") answer,
                    inout("rdi") rdi => _,
                    inout("rsi") rsi => _,
                    inout("rdx") rdx => _,
                    inout("r10") r10 => _,
                    inout("r8") r8 => _,
                    options(nostack)
                )
            }
        };
    }
    if AMD.load(Ordering::Relaxed) {
        enter!("vmmcall");
    } else {
        enter!("vmcall");
    }
    answer as i64
}

/// What the domain attacks with: its arena, frames to lose, and the tables through which wild pointers go.
pub(super) struct Machine {
    /// Seen at [`ARENA`], too.
    pub(super) arena: SharedMemory,
    /// The frames to lose, by number.
    pub(super) wild: Wild,
    nonsense: SharedMemory,
    _victims: SharedMemory,
}

impl Machine {
    /// Maps everything, and takes faults. Call it once.
    pub(super) fn prepare() -> Result<Self, MemoryError> {
        AMD.store(
            matches!(&__cpuid(0).ebx.to_le_bytes(), b"Auth" | b"Hygo"),
            Ordering::Relaxed,
        );
        load_descriptors();
        let arena = SharedMemory::allocate(ARENA_PAGES as usize)?;
        let victims = SharedMemory::allocate(VICTIMS)?;
        let address = |memory: &SharedMemory, page: u64| -> Result<u64, MemoryError> {
            Ok(memory.address(page as usize * PAGE_SIZE)?.as_ptr() as u64)
        };
        let tables: [SharedMemory; 3] = [
            SharedMemory::allocate(1)?,
            SharedMemory::allocate(1)?,
            SharedMemory::allocate(1)?,
        ];
        let [third, second, first] = &tables;
        let place = |at: u64, level: u32| (at >> (12 + 9 * level) & 511) as usize * 8;
        let to = |at: u64| at | PRESENT | WRITABLE | USED;
        third.write(place(ARENA, 2), &to(address(second, 0)?))?;
        second.write(place(ARENA, 1), &to(address(first, 0)?))?;
        for page in 0..ARENA_PAGES {
            first.write(place(ARENA, 0) + page as usize * 8, &to(address(&arena, page)?))?;
        }
        first.write(place(READ_ONLY, 0), &(to(address(&arena, 0)?) & !WRITABLE))?;
        first.write(place(APIC_VIEW, 0), &to(LOCAL_APIC))?;
        first.write(place(NOTHING_VIEW, 0), &to(NOTHING))?;
        let nonsense = first.part(place(NONSENSE, 0), NONSENSE_PAGES as usize * 8)?;
        let root = root();
        let entry = (root + place(ARENA, 3) as u64) as *mut u64;
        // SAFETY: the table in use is identity-mapped data that only this processor reads; the entry was not present, so no translation changes.
        unsafe { entry.write_volatile(to(address(third, 0)?)) };
        core::mem::forget(tables);
        let first_victim = address(&victims, 0)? / PAGE_SIZE as u64;
        Ok(Self {
            arena,
            wild: Wild {
                victims: first_victim..first_victim + VICTIMS as u64,
            },
            nonsense,
            _victims: victims,
        })
    }

    /// Puts a value into the arena; the address at which hypercalls find it.
    pub(super) fn put<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> u64 {
        match self.arena.write(offset, value) {
            Ok(()) => ARENA + offset as u64,
            Err(error) => panic!("{error}"),
        }
    }

    /// Where hypercalls find a place of the arena.
    pub(super) fn arena_pointer(&self, offset: usize) -> u64 {
        ARENA + offset as u64
    }

    /// Reads a value back.
    pub(super) fn get<T: FromBytes>(&self, offset: usize) -> T {
        match self.arena.read(offset) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// Fills so many words of the arena with whatever may stand in a structure.
    pub(super) fn scribble(&self, random: &mut Random, offset: usize, words: usize) {
        for word in 0..words {
            let value = self.wild.word(random);
            self.put(offset + word * 8, &value);
        }
    }

    /// Changes the page tables where they are nonsense.
    pub(super) fn confuse(&self, random: &mut Random) {
        let place = random.below(NONSENSE_PAGES) as usize * 8;
        let _ = self.nonsense.write(place, &self.wild.entry(random));
    }
}

/// Guest-physical address of the root of the page tables.
fn root() -> u64 {
    let root: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    root & 0x000f_ffff_ffff_f000
}

// A fault goes on at `chaos_resume` with the stack of `chaos_stack`, where an instruction is tried; elsewhere it is the end.
global_asm!(
    r#"
    .pushsection .text.chaos, "ax"
    .globl chaos_fault
chaos_fault:
    cmp qword ptr [rip + {resume}], 0
    je 2f
    inc qword ptr [rip + {faults}]
    mov rsp, [rip + {stack}]
    jmp [rip + {resume}]
2:  mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rdx, [rsp + 16]
    and rsp, -16
    call {fatal}
    ud2
    .globl chaos_ignore
chaos_ignore:
    mov qword ptr [rsp + 32], 0   /* what the stack segment was is no data segment any more */
    iretq
    .popsection
    "#,
    resume = sym RESUME,
    stack = sym STACK,
    faults = sym FAULTS,
    fatal = sym fatal,
);

unsafe extern "C" {
    fn chaos_fault();
    fn chaos_ignore();
}

static RESUME: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

extern "C" fn fatal(first: u64, second: u64, third: u64) -> ! {
    panic!("a fault that was not provoked: {first:#x} {second:#x} {third:#x}")
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// An IDT with gates for all that a processor raises.
fn load_descriptors() {
    const VECTORS: usize = 256;
    const CODE: u64 = 8;
    const GATE: u64 = 0x8e00;
    let table = alloc::boxed::Box::leak(alloc::boxed::Box::new([0u64; 2 * VECTORS]));
    for (vector, gate) in table.chunks_exact_mut(2).enumerate() {
        // An NMI may come from another vCPU's doing, whatever runs here.
        let handler =
            if vector == 2 { chaos_ignore } else { chaos_fault } as unsafe extern "C" fn() as usize as u64;
        gate[0] = handler & 0xffff | CODE << 16 | GATE << 32 | (handler >> 16 & 0xffff) << 48;
        gate[1] = handler >> 32;
    }
    let pointer = Pointer {
        limit: (VECTORS * 16 - 1) as u16,
        base: table.as_ptr() as u64,
    };
    // SAFETY: the table lives for ever, and its gates lead to code that ends or resumes.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// Tries an instruction that may fault; whether it did not.
macro_rules! attempt {
    ($($code:literal),* ; $($operands:tt)*) => {{
        let before = FAULTS.load(Ordering::Relaxed);
        // SAFETY: a fault goes on behind the instruction with the same stack, and nothing but the operands has changed.
        unsafe {
            asm!(
                "lea {place}, [rip + 9f]",
                "mov [rip + {resume}], {place}",
                "mov [rip + {stack}], rsp",
                $($code,)*
                "9: mov qword ptr [rip + {resume}], 0",
                place = out(reg) _,
                resume = sym RESUME,
                stack = sym STACK,
                $($operands)*
            );
        }
        FAULTS.load(Ordering::Relaxed) == before
    }};
}

/// RDMSR, and WRMSR of whatever.
pub(super) fn read_register(number: u32) -> Option<u64> {
    let (low, high): (u32, u32);
    let done = attempt!("rdmsr"; in("ecx") number, lateout("eax") low, lateout("edx") high);
    done.then_some(u64::from(high) << 32 | u64::from(low))
}

/// Whether a model-specific register took a value.
pub(super) fn write_register(number: u32, value: u64) -> bool {
    attempt!("wrmsr"; in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// Whether an extended control register took a value.
pub(super) fn write_extended(number: u32, value: u64) -> bool {
    attempt!("xsetbv"; in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

/// An instruction of virtualization, by number: the guest has none of them.
pub(super) fn virtualize(which: u64, at: u64) -> bool {
    match which % 6 {
        0 => attempt!("vmrun rax"; in("rax") at),
        1 => attempt!("vmload rax"; in("rax") at),
        2 => attempt!("vmsave rax"; in("rax") at),
        3 => attempt!("stgi";),
        4 => attempt!("clgi";),
        _ => attempt!("skinit eax"; in("eax") at as u32),
    }
}

/// Reads or writes the local APIC's page, or a page behind which nothing is, in one of many ways.
pub(super) fn reach(apic: bool, offset: u64, form: u64, value: u64) -> bool {
    let at = if apic { APIC_VIEW } else { NOTHING_VIEW } + offset % (PAGE_SIZE as u64 - 8);
    match form % 16 {
        0 => attempt!("mov eax, [{at}]"; at = in(reg) at, out("eax") _),
        1 => attempt!("mov [{at}], eax"; at = in(reg) at, in("eax") value as u32),
        2 => attempt!("mov rax, [{at}]"; at = in(reg) at, out("rax") _),
        3 => attempt!("mov [{at}], rax"; at = in(reg) at, in("rax") value),
        4 => attempt!("mov al, [{at}]"; at = in(reg) at, out("al") _),
        5 => attempt!("mov [{at}], ax"; at = in(reg) at, in("ax") value as u16),
        6 => attempt!("movzx eax, word ptr [{at}]"; at = in(reg) at, out("eax") _),
        7 => attempt!("movsx rax, byte ptr [{at}]"; at = in(reg) at, out("rax") _),
        8 => attempt!("mov dword ptr [{at}], 0x12345678"; at = in(reg) at),
        9 => attempt!("test dword ptr [{at}], 1"; at = in(reg) at),
        10 => attempt!("xchg [{at}], eax"; at = in(reg) at, inout("eax") value as u32 => _),
        11 => attempt!("cmp eax, [{at}]"; at = in(reg) at, in("eax") value as u32),
        12 => attempt!("and eax, [{at}]"; at = in(reg) at, inout("eax") value as u32 => _),
        13 => attempt!("or dword ptr [{at}], eax"; at = in(reg) at, in("eax") value as u32),
        14 => attempt!("mov [{at}], al"; at = in(reg) at, in("al") value as u8),
        _ => attempt!("mov r15d, [{at} + 2*{zero}]"; at = in(reg) at, zero = in(reg) 0u64, out("r15") _),
    }
}
