//! Exits that are dealt with at once.

use xen_abi::sched;

use super::{crash, interrupts};
use crate::{
    Hypervisor,
    domain::{Vcpu, VcpuId, VcpuStatus, devices::Configuration},
    guest::{apic::Time, cpuid, msr::Written, pci::PciView},
    hypercall,
    memory::{GuestAddress, PAGE_SIZE},
    platform::{self, time},
    virt::{self, Injection, PortAccess},
};

/// #UD.
pub(super) const INVALID_OPCODE: Injection = Injection::Exception {
    vector: 6,
    error: None,
};
/// #GP(0).
pub(super) const GENERAL_PROTECTION: Injection = Injection::Exception {
    vector: 13,
    error: Some(0),
};

const RFLAGS_INTERRUPTS: u64 = 1 << 9;
/// What a guest writes here becomes lines of the log, as in Bochs and QEMU; Linux' `earlyprintk=xen` does.
const DEBUG_PORT: u16 = 0xe9;
const DEBUG_LINE: usize = 256;
const NO_DEVICE: u32 = u32::MAX;
/// The interval timer, which guests do not have. Its counter stands at 0: a kernel that calibrates by it sees at once that it does not count, where ones would
/// look like a counter at its beginning for a hundred thousand reads.
const INTERVAL_TIMER: core::ops::RangeInclusive<u16> = 0x40..=0x43;

/// Goes on behind the instruction.
pub(super) fn skip(hv: &mut Hypervisor, id: VcpuId) {
    if let Some(vcpu) = hv.vcpu_mut(id) {
        vcpu.processor.skip_instruction(&mut vcpu.registers);
    }
}

/// Gives the guest an exception.
pub(super) fn inject(hv: &mut Hypervisor, id: VcpuId, event: Injection) {
    if let Some(vcpu) = hv.vcpu_mut(id) {
        vcpu.processor.inject(event);
    }
}

/// The clocks that a vCPU's local APIC counts.
pub(super) fn clocks(vcpu: &Vcpu) -> Time {
    Time {
        nanoseconds: time::now(),
        guest_tsc: platform::cpu::time_stamp().wrapping_add(vcpu.machine.tsc_offset),
        tsc_khz: time::tsc_khz() as u32,
    }
}

/// HLT. With interrupts disabled it is the end of that vCPU, until an INIT; when all of a domain's have come to it, the domain is off: that is how
/// kernels go that have no other way to say so.
pub(super) fn halt(hv: &mut Hypervisor, id: VcpuId) {
    skip(hv, id);
    let Some(vcpu) = hv.vcpu(id) else { return };
    if vcpu.registers.rflags & RFLAGS_INTERRUPTS != 0 || vcpu.non_maskable {
        return block(hv, id);
    }
    hv.take_down(id);
    let online = |vcpu: &Vcpu| vcpu.status != VcpuStatus::Offline;
    if !hv
        .body(id.domain)
        .is_some_and(|body| body.vcpus.iter().any(online))
    {
        hv.stop_domain(id.domain, sched::SHUTDOWN_poweroff);
    }
}

/// A vCPU sleeps (by HLT, or by SCHEDOP_block or SCHEDOP_poll once their own conditions are looked at) until something interrupts or wakes it.
pub(super) fn block(hv: &mut Hypervisor, id: VcpuId) {
    let Some(vcpu) = hv.vcpu(id) else { return };
    let enabled = vcpu.registers.rflags & RFLAGS_INTERRUPTS != 0;
    if vcpu.non_maskable || enabled && interrupts::pending(hv, id) {
        if let Some(vcpu) = hv.vcpu_mut(id) {
            vcpu.polling = None;
        }
        return;
    }
    hv.sleep(id);
}

pub(super) fn cpuid(hv: &mut Hypervisor, id: VcpuId) {
    let Some(body) = hv.body_mut(id.domain) else {
        return;
    };
    let Some(vcpu) = body.vcpus.get_mut(id.index as usize) else {
        return;
    };
    let cr4 = vcpu.processor.paging().cr4;
    let view = cpuid::View {
        vcpu: id.index,
        cr4,
        xcr0: virt::loaded_xcr0().unwrap_or(0),
    };
    let registers = &mut vcpu.registers;
    let leaf = body.cpuid.query(view, registers.rax as u32, registers.rcx as u32);
    (registers.rax, registers.rbx) = (leaf.eax.into(), leaf.ebx.into());
    (registers.rcx, registers.rdx) = (leaf.ecx.into(), leaf.edx.into());
    vcpu.processor.skip_instruction(registers);
}

pub(super) fn read_msr(hv: &mut Hypervisor, id: VcpuId, msr: u32) {
    let Some(vcpu) = hv.vcpu_mut(id) else { return };
    let value = vcpu
        .processor
        .read_msr(msr)
        .or_else(|| vcpu.machine.read_msr(msr, clocks(vcpu)));
    match value {
        Some(value) => {
            (vcpu.registers.rax, vcpu.registers.rdx) = (value & 0xffff_ffff, value >> 32);
            vcpu.processor.skip_instruction(&mut vcpu.registers);
        }
        None => vcpu.processor.inject(GENERAL_PROTECTION),
    }
}

pub(super) fn write_msr(hv: &mut Hypervisor, id: VcpuId, msr: u32, value: u64) {
    let Some(vcpu) = hv.vcpu_mut(id) else { return };
    let time = clocks(vcpu);
    let written = match vcpu.processor.write_msr(msr, value) {
        Some(true) => Written::Done,
        Some(false) => Written::Fault,
        None => vcpu.machine.write_msr(msr, value, time),
    };
    if written == Written::Fault {
        vcpu.processor.inject(GENERAL_PROTECTION);
        return;
    }
    vcpu.processor.skip_instruction(&mut vcpu.registers);
    match written {
        Written::Done | Written::Fault => {}
        Written::TscOffset => {
            vcpu.processor.set_tsc_offset(vcpu.machine.tsc_offset);
            crate::guest_time::counter_changed(hv, id);
        }
        Written::HypercallPage(at) => hypercall_page(hv, id, at),
        Written::Send(ipi) => {
            interrupts::send(hv, id, ipi);
            hv.rearm(id);
        }
        Written::Apic => hv.rearm(id),
    }
}

fn hypercall_page(hv: &mut Hypervisor, id: VcpuId, at: GuestAddress) {
    let page = hypercall::page(hv.backend.hypercall_instruction());
    let at = GuestAddress(at.0 & !(PAGE_SIZE - 1));
    let Some(body) = hv.body(id.domain) else { return };
    match body.p2m.machine_address(&hv.memory, at, true) {
        Some(machine) => hv.memory.write(machine, &page),
        None => inject(hv, id, GENERAL_PROTECTION),
    }
}

pub(super) fn set_extended_control(hv: &mut Hypervisor, id: VcpuId, register: u32, value: u64) {
    let Some(body) = hv.body_mut(id.domain) else {
        return;
    };
    let allowed = body.cpuid.xcr0_valid(value);
    let Some(vcpu) = body.vcpus.get_mut(id.index as usize) else {
        return;
    };
    if allowed && virt::set_loaded_xcr0(register, value) {
        vcpu.processor.skip_instruction(&mut vcpu.registers);
    } else {
        vcpu.processor.inject(GENERAL_PROTECTION);
    }
}

/// IN and OUT: configuration space and the debug port; elsewhere is no device, so reads give ones and writes go nowhere.
pub(super) fn port(hv: &mut Hypervisor, id: VcpuId, access: PortAccess) {
    if access.string {
        return crash(
            hv,
            id,
            format_args!(
                "it moved a string to or from port {:#x}, where no device of it is",
                access.port
            ),
        );
    }
    let Some(domain) = hv.domains.get_mut(&id.domain) else {
        return;
    };
    let Some(body) = domain.body.as_mut() else { return };
    let Some(vcpu) = body.vcpus.get_mut(id.index as usize) else {
        return;
    };
    let mask = u32::MAX >> (32 - 8 * u32::from(access.size));
    let written = vcpu.registers.rax as u32 & mask;
    let mediated = PciView::owns_port(access.port);
    if access.write {
        if mediated {
            body.pci
                .write(&mut Configuration, access.port, access.size, written);
        } else if access.port == DEBUG_PORT {
            let character = written as u8 as char;
            if character == '\n' || body.debug_line.len() >= DEBUG_LINE {
                body.last_lines.push(&body.debug_line);
                platform::log::domain_line(&domain.spec.name, &body.debug_line);
                body.debug_line.clear();
            }
            if !character.is_control() || character == '\t' {
                body.debug_line.push(character);
            }
        }
    } else {
        let value = match mediated {
            true => body.pci.read(&mut Configuration, access.port, access.size),
            // The debug port says by its own number that it is there.
            false if access.port == DEBUG_PORT => DEBUG_PORT.into(),
            false if INTERVAL_TIMER.contains(&access.port) => 0,
            false => NO_DEVICE,
        } & mask;
        let rax = &mut vcpu.registers.rax;
        // A 32-bit result clears the upper half; smaller ones leave the rest alone.
        *rax = if access.size == 4 {
            value.into()
        } else {
            *rax & !u64::from(mask) | u64::from(value)
        };
    }
    vcpu.processor.skip_instruction(&mut vcpu.registers);
}
