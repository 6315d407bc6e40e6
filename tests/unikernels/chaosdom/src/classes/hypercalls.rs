//! Every hypercall by number, every operation, anything as arguments.
//!
//! Left out, since they end the domain or put it to sleep for ever, which shows nothing: `SCHEDOP_shutdown` but once in a long while, `SCHEDOP_block`,
//! `SCHEDOP_poll` (the class of events has both), `SCHEDOP_watchdog`, `SCHEDOP_shutdown_code`, and `VCPUOP_down` of the only vCPU. Extents of memory are single pages here or
//! far too large: those between would take the domain's own code.
#![allow(
    non_upper_case_globals,
    reason = "constants of the public headers in patterns"
)]

use xen_abi::{
    sched::{SCHEDOP_block, SCHEDOP_poll, SCHEDOP_shutdown, SCHEDOP_shutdown_code, SCHEDOP_watchdog},
    vcpu::VCPUOP_down,
    xen::*,
};

use super::Chaos;
use crate::machine::call;

/// Words that a structure has at most, roughly.
const WORDS: usize = 12;
/// Once in so many operations the domain ends in a crash.
const END: u64 = 400_000;
/// Offset of `extent_order` in `xen_memory_reservation`.
const ORDER: usize = 16;
/// The numbers that mean something.
const KNOWN: [u64; 14] = [
    __HYPERVISOR_memory_op,
    __HYPERVISOR_multicall,
    __HYPERVISOR_set_timer_op,
    __HYPERVISOR_xen_version,
    __HYPERVISOR_console_io,
    __HYPERVISOR_grant_table_op,
    __HYPERVISOR_vm_assist,
    __HYPERVISOR_vcpu_op,
    __HYPERVISOR_sched_op,
    __HYPERVISOR_event_channel_op,
    __HYPERVISOR_physdev_op,
    __HYPERVISOR_hvm_op,
    55, // Atoll's own.
    __HYPERVISOR_sched_op,
];

pub(super) fn run(chaos: &mut Chaos<'_>) {
    while chaos.tally.goes_on() {
        if chaos.random.once_in(16) {
            chaos.machine.confuse(&mut chaos.random);
        }
        if chaos.random.once_in(END) {
            log::info!("crashes now");
            let at = chaos.machine.put(0, &xen_abi::sched::SHUTDOWN_crash);
            call(__HYPERVISOR_sched_op, [SCHEDOP_shutdown, at, 0, 0, 0]);
        }
        let (number, arguments) = if chaos.random.once_in(8) {
            let calls = 1 + chaos.random.below(20);
            for index in 0..calls {
                let (number, [first, second, third, fourth, fifth]) = wild_call(chaos);
                let entry = [number, 0, first, second, third, fourth, fifth, 0];
                chaos.machine.put(MULTICALL + index as usize * 64, &entry);
            }
            let at = chaos.machine.put(MULTICALL, &());
            let count = if chaos.random.once_in(8) {
                chaos.machine.wild.count(&mut chaos.random)
            } else {
                calls
            };
            // What lies behind the entries is no call that it could not have made otherwise.
            let count = count.min(calls);
            (__HYPERVISOR_multicall, [at, count, 0, 0, 0])
        } else {
            wild_call(chaos)
        };
        let answer = call(number, arguments);
        chaos.tally.answer(answer);
    }
}

/// Where entries of a multicall are: structures of wild calls stay below.
const MULTICALL: usize = 62 * 4096;

/// Any call but those that the module's head names.
pub(super) fn wild_call(chaos: &mut Chaos<'_>) -> (u64, [u64; 5]) {
    let Chaos { machine, random, .. } = chaos;
    let wild = &machine.wild;
    let number = match random.below(8) {
        0 => random.below(64),
        1 => wild.word(random),
        _ => random.one_of(&KNOWN),
    };
    // A multicall of garbage could be any call.
    let number = if number == __HYPERVISOR_multicall {
        64
    } else {
        number
    };
    let operation = match random.below(8) {
        0 => wild.word(random),
        _ => random.below(40),
    };
    let offset = random.below(60 * 512) as usize * 8;
    let structure = machine.arena_pointer(offset);
    machine.scribble(random, offset, WORDS);
    let mut arguments = [
        operation,
        if random.once_in(3) {
            wild.pointer(random)
        } else {
            structure
        },
        if random.once_in(2) {
            wild.count(random)
        } else {
            wild.pointer(random)
        },
        wild.word(random),
        wild.word(random),
    ];
    match number {
        __HYPERVISOR_sched_op
            if matches!(
                operation,
                SCHEDOP_block | SCHEDOP_poll | SCHEDOP_shutdown | SCHEDOP_watchdog | SCHEDOP_shutdown_code
            ) =>
        {
            arguments[0] = 40;
        }
        __HYPERVISOR_vcpu_op => {
            arguments[1] = if operation == VCPUOP_down {
                1
            } else {
                random.below(4)
            };
            arguments[2] = if random.once_in(3) {
                wild.pointer(random)
            } else {
                structure
            };
        }
        __HYPERVISOR_memory_op => {
            arguments[1] = structure;
            let order = random.one_of(&[0u32, 0, 0, 0, 10, 31, 32, 63, 64, 255, u32::MAX]);
            machine.put(offset + ORDER, &order);
        }
        __HYPERVISOR_console_io => {
            arguments[1] = if random.once_in(4) {
                wild.count(random)
            } else {
                random.below(64)
            };
            arguments[2] = wild.pointer(random);
        }
        __HYPERVISOR_set_timer_op | __HYPERVISOR_vm_assist => arguments[0] = wild.word(random),
        _ => {}
    }
    (number, arguments)
}
