//! `HYPERVISOR_console_io`: lines of a domain for the hypervisor's log. They are tagged there with the domain's name, so whole lines go out at a time.

use alloc::string::String;

use xen_abi::xen::{CONSOLEIO_read, CONSOLEIO_write};

use super::{Answer, Call, Result, context, machine};
use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    errno::Errno,
    memory::GuestVirtual,
};

/// Bytes that a domain writes in one piece of work.
const PIECE: usize = 512;
/// A line that grows longer is broken.
const LINE: usize = 1024;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, count, buffer, ..] = call.arguments;
    match operation {
        CONSOLEIO_write => {
            let mut bytes = [0; PIECE];
            // The count is an int in the ABI.
            let count = i32::try_from(count as i64).map_err(|_| Errno::INVAL)?;
            let count = usize::try_from(count).map_err(|_| Errno::INVAL)?;
            let piece = &mut bytes[..count.min(PIECE)];
            context::space(hv, caller)?.read_bytes(GuestVirtual(buffer), piece)?;
            append(hv, caller.domain, piece);
            if count > piece.len() {
                call.arguments[1] = (count - piece.len()) as u64;
                call.arguments[2] = buffer.checked_add(PIECE as u64).ok_or(Errno::FAULT)?;
                return Ok(Answer::Again);
            }
            Ok(Answer::OK)
        }
        CONSOLEIO_read => Ok(Answer::OK),
        _ => Err(Errno::NOSYS),
    }
}

fn append(hv: &mut Hypervisor, domain: DomainId, bytes: &[u8]) {
    for &byte in bytes {
        let Some(body) = hv.body_mut(domain) else { return };
        let line = &mut body.calls.line;
        match byte {
            b'\n' => end_line(hv, domain),
            b'\r' | 0 => {}
            _ => {
                line.push(byte);
                if line.len() >= LINE {
                    end_line(hv, domain);
                }
            }
        }
    }
}

fn end_line(hv: &mut Hypervisor, domain: DomainId) {
    let Some(body) = hv.body_mut(domain) else { return };
    let line = core::mem::take(&mut body.calls.line);
    let line = String::from_utf8_lossy(&line);
    body.last_lines.push(&line);
    machine::log_line(&context::name(hv, domain), &line);
}

/// Logs what a domain has begun of a line: when it stops.
pub fn flush(hv: &mut Hypervisor, domain: DomainId) {
    if hv.body(domain).is_some_and(|body| !body.calls.line.is_empty()) {
        end_line(hv, domain);
    }
}
