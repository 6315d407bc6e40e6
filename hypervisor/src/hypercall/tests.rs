//! Hypercalls as a guest makes them: registers and structures in its memory.

use super::*;
use crate::{
    domain::{DomainId, State, VcpuStatus},
    memory::{Frame, GuestAddress, PageKind},
    testing::{self, FakeCpu, KERNEL, RAM_PAGES, hypervisor, peek, poke, vcpu},
};
use machine::fake::{LOG, NOW, POWER};
use proptest::prelude::*;
use xen_abi::{
    atoll::*, event_channel::*, features::*, grant_table::*, hvm::hvm_op::*, hvm::hvm_vcpu::*,
    hvm::params::*, memory::*, physdev::*, sched::*, vcpu::*, version::*,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the tests put structures and arrays in a guest's memory.
const AT: u64 = 0x8000;
const LIST: u64 = 0xa000;

fn once(hv: &mut Hypervisor, id: VcpuId, number: u64, arguments: &[u64]) -> Outcome {
    let mut all = [0; 5];
    all[..arguments.len()].copy_from_slice(arguments);
    let registers = &mut hv.vcpu_mut(id).unwrap().registers;
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
    ] = all;
    registers.rax = number;
    dispatch(hv, id)
}

/// Makes a hypercall until it is done.
fn call(hv: &mut Hypervisor, id: VcpuId, number: u64, arguments: &[u64]) -> i64 {
    let mut outcome = once(hv, id, number, arguments);
    while outcome == Outcome::Again {
        outcome = dispatch(hv, id);
    }
    assert_eq!(outcome, Outcome::Complete);
    hv.vcpu(id).unwrap().registers.rax as i64
}

fn put<T: IntoBytes + Immutable>(hv: &Hypervisor, domain: u16, at: u64, value: &T) {
    poke(hv, domain, at, value.as_bytes());
}

fn get<T: FromBytes + IntoBytes>(hv: &Hypervisor, domain: u16, at: u64) -> T {
    let mut value = T::new_zeroed();
    hv.memory
        .read(testing::machine(hv, domain, at), value.as_mut_bytes());
    value
}

/// Makes a hypercall with a structure; answers the result and what became of the structure.
fn with<T>(hv: &mut Hypervisor, id: VcpuId, number: u64, operation: u64, value: &T) -> (i64, T)
where
    T: FromBytes + IntoBytes + Immutable,
{
    put(hv, id.domain.0, AT, value);
    let result = call(hv, id, number, &[operation, AT, 1]);
    (result, get(hv, id.domain.0, AT))
}

fn error(error: Errno) -> i64 {
    error.result()
}

mod accounts;
mod calls;
mod events;
mod figures;
mod keep;
mod memory;
mod vcpus;
