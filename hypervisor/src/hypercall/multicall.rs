//! `HYPERVISOR_multicall`: several hypercalls in one. The calls are carried out in order, each with its result in its entry; an entry that needs
//! another go keeps what is left of it in its arguments.

use xen_abi::xen::{__HYPERVISOR_multicall, MulticallEntry};

use super::{
    Answer, Call, Result, carry_out_one,
    context::{read, write},
};
use crate::{Hypervisor, domain::VcpuId, errno::Errno};

/// Calls in one piece of work.
const PIECE: u32 = 16;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    for _ in 0..PIECE {
        let [at, left, ..] = call.arguments;
        if left == 0 {
            return Ok(Answer::OK);
        }
        let mut entry: MulticallEntry = read(hv, caller, at)?;
        let [arguments @ .., _] = entry.args;
        let mut one = Call {
            number: entry.op,
            arguments,
        };
        let answer = match entry.op {
            __HYPERVISOR_multicall => Err(Errno::NOSYS),
            _ => carry_out_one(hv, caller, &mut one),
        };
        let result = match answer {
            Ok(Answer::Done(result)) => result,
            Err(error) => error.result(),
            Ok(Answer::Stopped) => return Ok(Answer::Stopped),
            Ok(Answer::Again) => {
                entry.args[..5].copy_from_slice(&one.arguments);
                write(hv, caller, at, &entry)?;
                return Ok(Answer::Again);
            }
            Ok(Answer::Yield) => 0,
            // Only the last call can wait; one before it returns at once, as the ABI allows any wait to.
            Ok(Answer::Block) => {
                entry.result = 0;
                write(hv, caller, at, &entry)?;
                if left == 1 {
                    return Ok(Answer::Block);
                }
                if let Some(vcpu) = hv.vcpu_mut(caller) {
                    vcpu.polling = None;
                }
                0
            }
        };
        entry.result = result as u64;
        write(hv, caller, at, &entry)?;
        call.arguments[0] = at
            .checked_add(size_of::<MulticallEntry>() as u64)
            .ok_or(Errno::FAULT)?;
        call.arguments[1] = left - 1;
    }
    Ok(Answer::Again)
}
