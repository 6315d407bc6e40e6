//! Accesses that the second stage refused: to the local APIC's page, where its registers are; elsewhere to nothing at all.

use super::{
    crash,
    exits::{self, GENERAL_PROTECTION},
    interrupts,
};
use crate::{
    Hypervisor,
    domain::{VcpuId, layout},
    guest::{
        apic::{Ipi, LocalApic, Time},
        instruction::{self, MAXIMUM_LENGTH, Memory, Mode},
    },
    memory::{GuestVirtual, PAGE_SIZE, walk::GuestSpace},
    virt::{NestedFault, Paging},
};

const CR0_PROTECTED: u64 = 1;

/// Carries the access out, if it is one of a plain instruction to registers or to nothing.
pub(super) fn nested_fault(hv: &mut Hypervisor, id: VcpuId, fault: NestedFault) {
    let memory = hv.memory;
    let Some(body) = hv.body_mut(id.domain) else {
        return;
    };
    let Some(vcpu) = body.vcpus.get_mut(id.index as usize) else {
        return;
    };
    if body.p2m.translate(&memory, fault.address).is_some() {
        if !fault.present {
            // It was put there after the access, by another vCPU's doing.
            return;
        }
        // It is there, and not to be written or executed.
        vcpu.processor.inject(GENERAL_PROTECTION);
        return;
    }
    let address = fault.address.0;
    if fault.fetch {
        return crash(
            hv,
            id,
            format_args!("it executed at {address:#x}, where it has no memory"),
        );
    }
    let paging = vcpu.processor.paging();
    let mut bytes = [0; MAXIMUM_LENGTH];
    let code = GuestVirtual(paging.code_base.wrapping_add(vcpu.registers.rip));
    let length = GuestSpace::new(&memory, &body.p2m, paging).fetch_bytes(code, &mut bytes);
    let instruction = match instruction::decode(&bytes[..length], mode(&paging)) {
        Ok(instruction) => instruction,
        Err(error) => {
            return crash(
                hv,
                id,
                format_args!(
                    "it reached for {address:#x}, where it has no memory, by {:02x?}: {error}",
                    &bytes[..length]
                ),
            );
        }
    };
    let time = exits::clocks(vcpu);
    let page = layout::LOCAL_APIC.0;
    let mut registers = vcpu.registers;
    let message = if (page..page + PAGE_SIZE).contains(&address) && vcpu.machine.apic.is_memory_mapped() {
        let mut access = ApicAccess {
            apic: &mut vcpu.machine.apic,
            offset: (address - page) as u16,
            time,
            message: None,
        };
        instruction.execute(&mut registers, &mut access);
        access.message
    } else {
        instruction.execute(&mut registers, &mut Nothing);
        None
    };
    vcpu.registers = registers;
    if let Some(message) = message {
        interrupts::send(hv, id, message);
    }
    hv.rearm(id);
}

/// How the code that did it is read; the size of 16-bit and 32-bit code is told by the mode alone, which is right for kernels.
fn mode(paging: &Paging) -> Mode {
    if paging.long_code {
        Mode::Bits64
    } else if paging.cr0 & CR0_PROTECTED != 0 {
        Mode::Bits32
    } else {
        Mode::Bits16
    }
}

struct ApicAccess<'a> {
    apic: &'a mut LocalApic,
    offset: u16,
    time: Time,
    message: Option<Ipi>,
}

impl Memory for ApicAccess<'_> {
    fn read(&mut self, size: u8) -> u64 {
        self.apic.read_memory(self.offset, size, self.time)
    }

    fn write(&mut self, size: u8, value: u64) {
        self.message = self.apic.write_memory(self.offset, size, value, self.time);
    }
}

/// Where no memory and no device is.
struct Nothing;

impl Memory for Nothing {
    fn read(&mut self, _: u8) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: u8, _: u64) {}
}
