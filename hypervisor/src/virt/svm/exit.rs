//! From exit codes to [`Exit`] values.

use super::vmcb::{Control, event, exit_code};
use crate::{
    memory::GuestAddress,
    virt::{Exit, NestedFault, PortAccess, Registers},
};

const GENERAL_PROTECTION: u8 = 13;
const ALIGNMENT_CHECK: u8 = 17;
const MACHINE_CHECK: u8 = 18;

/// Why the guest left.
pub fn decode(control: &Control, registers: &Registers) -> Exit {
    let edx_eax = registers.rdx << 32 | registers.rax & 0xffff_ffff;
    let ecx = registers.rcx as u32;
    // Of VMEXIT_INVALID (-1) TCG writes 32 bits only.
    match control.exit_code & 0xffff_ffff {
        exit_code::INTERRUPT | exit_code::INIT => Exit::Interrupt,
        exit_code::NON_MASKABLE => Exit::NonMaskableInterrupt,
        exit_code::VIRTUAL_INTERRUPT | exit_code::IRET => Exit::InterruptWindow,
        exit_code::CPUID => Exit::Cpuid,
        exit_code::HLT => Exit::Halt,
        exit_code::VMMCALL => Exit::Hypercall,
        exit_code::MSR if control.exit_info1 & 1 == 0 => Exit::ReadMsr(ecx),
        exit_code::MSR => Exit::WriteMsr(ecx, edx_eax),
        exit_code::XSETBV => Exit::SetExtendedControl(ecx, edx_eax),
        exit_code::PORT => Exit::Port(port(control.exit_info1)),
        exit_code::NESTED_FAULT => Exit::NestedFault(NestedFault {
            address: GuestAddress(control.exit_info2),
            write: control.exit_info1 & 1 << 1 != 0,
            fetch: control.exit_info1 & 1 << 4 != 0,
            present: control.exit_info1 & 1 << 0 != 0,
        }),
        exit_code::INVD | exit_code::WBINVD => Exit::FlushCaches,
        exit_code::RDPMC => Exit::Exception {
            vector: GENERAL_PROTECTION,
            error: Some(0),
        },
        exit_code::SHUTDOWN => Exit::TripleFault,
        exit_code::INVLPGA
        | exit_code::VMRUN
        | exit_code::VMLOAD..=exit_code::SKINIT
        | exit_code::MONITOR..=exit_code::MWAIT_CONDITIONAL
        | exit_code::RDPRU => Exit::InvalidInstruction,
        code if code == exit_code::EXCEPTION + u64::from(MACHINE_CHECK) => Exit::MachineCheck,
        code @ exit_code::EXCEPTION..=exit_code::EXCEPTION_LAST => {
            let vector = (code - exit_code::EXCEPTION) as u8;
            Exit::Exception {
                vector,
                error: (vector == ALIGNMENT_CHECK).then_some(0),
            }
        }
        code => Exit::Unexpected(code),
    }
}

/// EXITINFO1 of an I/O exit.
fn port(info: u64) -> PortAccess {
    let size = match info >> 4 & 7 {
        1 => 1,
        2 => 2,
        _ => 4,
    };
    PortAccess {
        port: (info >> 16) as u16,
        size,
        write: info & 1 == 0,
        string: info & 1 << 2 != 0,
    }
}

/// An event whose delivery an exit interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// An external interrupt of this vector.
    Interrupt(u8),
    /// Anything else, as EVENTINJ takes it.
    Event(u64),
}

/// The event to deliver again, from what EXITINTINFO says was being delivered. INTn, INT3 and INTO are executed again instead: the instruction pointer
/// is still at them.
pub fn event_to_repeat(interrupt_info: u64) -> Option<Repeat> {
    if interrupt_info & event::VALID == 0 {
        return None;
    }
    let vector = interrupt_info as u8;
    match interrupt_info & event::TYPE {
        event::INTERRUPT => Some(Repeat::Interrupt(vector)),
        event::SOFTWARE => None,
        event::EXCEPTION if vector == 3 || vector == 4 => None,
        _ => Some(Repeat::Event(interrupt_info)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn exit(code: u64, info1: u64, info2: u64) -> Exit {
        let control = Control {
            exit_code: code,
            exit_info1: info1,
            exit_info2: info2,
            ..Control::new_zeroed()
        };
        let registers = Registers {
            rax: 0xaaaa_0000_1111,
            rcx: 0xffff_ffff_c000_0080,
            rdx: 2,
            ..Default::default()
        };
        decode(&control, &registers)
    }

    #[test]
    fn decodes_what_instructions_cause() {
        assert_eq!(exit(0x7c, 0, 0), Exit::ReadMsr(0xc000_0080));
        assert_eq!(exit(0x7c, 1, 0), Exit::WriteMsr(0xc000_0080, 0x2_0000_1111));
        assert_eq!(exit(0x81, 0, 0), Exit::Hypercall);
        assert_eq!(exit(0x82, 0, 0), Exit::InvalidInstruction);
        assert_eq!(
            exit(0x6f, 0, 0),
            Exit::Exception {
                vector: 13,
                error: Some(0)
            }
        );
        let access = PortAccess {
            port: 0xcfc,
            size: 2,
            write: false,
            string: false,
        };
        assert_eq!(exit(0x7b, 0xcfc_0021, 0x1234), Exit::Port(access));
        assert_eq!(
            exit(0x7b, 0xcfc_0044, 0),
            Exit::Port(PortAccess {
                size: 4,
                write: true,
                string: true,
                ..access
            })
        );
    }

    #[test]
    fn decodes_faults() {
        let fault = NestedFault {
            address: GuestAddress(0xfee0_00b0),
            write: true,
            fetch: false,
            present: false,
        };
        assert_eq!(exit(0x400, 0x1_0000_0006, 0xfee0_00b0), Exit::NestedFault(fault));
        assert_eq!(
            exit(0x40 + 17, 0, 0),
            Exit::Exception {
                vector: 17,
                error: Some(0)
            }
        );
        assert_eq!(exit(0x40 + 18, 0, 0), Exit::MachineCheck);
        assert_eq!(exit(0xffff_ffff, 0, 0), Exit::Unexpected(0xffff_ffff));
        assert_eq!(exit(u64::MAX, 0, 0), Exit::Unexpected(0xffff_ffff));
    }

    #[test]
    fn repeats_interrupts_and_faults_but_not_instructions() {
        for (info, repeated) in [
            (0x0000_0000_8000_0030, Some(Repeat::Interrupt(0x30))),
            (0x0000_0002_8000_0b0e, Some(Repeat::Event(0x2_8000_0b0e))), // page fault with error code 2
            (0x0000_0000_8000_0202, Some(Repeat::Event(0x8000_0202))),   // non-maskable
            (0x0000_0000_8000_0080 | 4 << 8, None),                      // INT 0x80
            (0x0000_0000_8000_0303, None),                               // INT3
            (0x0000_0000_0000_0030, None),                               // stale, as TCG leaves it
        ] {
            assert_eq!(event_to_repeat(info), repeated, "{info:#x}");
        }
    }
}
