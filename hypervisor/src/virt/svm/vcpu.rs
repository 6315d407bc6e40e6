//! A vCPU as SVM runs it.
#![allow(unsafe_code)] // Owns VMCBs in machine memory, enters guests.

use alloc::{boxed::Box, sync::Arc};
use core::ptr::NonNull;

use x86_64::registers::model_specific::Msr;

use super::{
    Shared,
    asid::{Asid, Flush},
    enter, exit, length,
    permissions::PORT_MAP_BYTES,
    vmcb::{self, Segment, Vmcb, exit_code, intercept, virtual_interrupt},
};
use crate::{
    memory::{Frame, FrameAllocator, GuestAddress, MachineAddress, PAGE_SIZE},
    virt::{Exit, Injection, Paging, Registers, StartSegment, StartState, VirtualCpu},
};

const EFER: u32 = 0xc000_0080;
const PAT: u32 = 0x277;
const TSC_AUX: u32 = 0xc000_0103;

/// EFER bits that a guest sees and sets: SCE, LME, NXE, FFXSR. LMA follows paging; SVME is ours.
const GUEST_EFER: u64 = 1 << 0 | 1 << 8 | 1 << 11 | 1 << 14;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const EFER_SVME: u64 = 1 << 12;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const RFLAGS_FIXED: u64 = 1 << 1;
const RFLAGS_INTERRUPTS: u64 = 1 << 9;
const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;

const CODE32: u16 = 0xc9b;
const DATA32: u16 = 0xc93;
const CODE16: u16 = 0x09b;
const DATA16: u16 = 0x093;
const TASK: u16 = 0x08b;
const LOCAL_TABLE: u16 = 0x082;

/// A vCPU: its VMCB, and what the VMCB has no place for.
pub(super) struct SvmVcpu {
    shared: Arc<Shared>,
    page: Frame,
    vmcb: NonNull<Vmcb>,
    own_ports: Option<Frame>,
    asid: Asid,
    renew_asid: bool,
    /// Where the guest stood in an interrupt shadow at the last exit. TCG does not restore the shadow at VMRUN, so as long as the guest stands there
    /// it counts as in it.
    shadow_at: Option<u64>,
    non_maskable: NonMaskable,
    tsc_aux: u64,
}

/// Where a guest is with a non-maskable interrupt, during which no other may come (APM vol. 2, 15.20 and 8.2.3): the processor does not tell, so we look
/// for the IRET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonMaskable {
    /// None is in service.
    Open,
    /// One is; IRET is intercepted.
    InService,
    /// The guest stands at the IRET here, which is no longer intercepted.
    Ends(u64),
}

// SAFETY: the VMCB is this vCPU's alone, wherever it is; what it has of a processor (its ASID) says of which.
unsafe impl Send for SvmVcpu {}

impl SvmVcpu {
    /// A vCPU whose VMCB is the zeroed frame `page`, which is reached at `vmcb`.
    pub(super) fn new(
        shared: Arc<Shared>,
        page: Frame,
        vmcb: NonNull<Vmcb>,
        own_ports: Option<Frame>,
    ) -> Self {
        let mut this = Self {
            shared,
            page,
            vmcb,
            own_ports,
            asid: Asid::default(),
            renew_asid: false,
            shadow_at: None,
            non_maskable: NonMaskable::Open,
            tsc_aux: 0,
        };
        this.prepare();
        this
    }

    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is this vCPU's alone until `release`, and the processor writes it only inside `enter`, while `run` has the vCPU
        // exclusively and holds no reference.
        unsafe { self.vmcb.as_ref() }
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `vmcb`.
        unsafe { self.vmcb.as_mut() }
    }

    /// Everything that does not depend on where the guest starts.
    fn prepare(&mut self) {
        let (port_map, msr_map) = (
            self.own_ports.map_or(self.shared.port_map, Frame::address),
            self.shared.msr_map,
        );
        let control = &mut self.vmcb_mut().control;
        control.intercept = [intercept::ALWAYS as u32, (intercept::ALWAYS >> 32) as u32, 0];
        control.intercept_exceptions = intercept::EXCEPTIONS;
        control.port_map = port_map.0;
        control.msr_map = msr_map.0;
        control.nested = 1;
        self.reset();
    }

    /// The state after a reset, without a place to start.
    fn reset(&mut self) {
        let control = &mut self.vmcb_mut().control;
        control.event_injection = 0;
        control.virtual_interrupt = virtual_interrupt::MASKING;
        control.intercept[0] &= !(intercept::VIRTUAL_INTERRUPT as u32);
        control.interrupt_shadow = 0;
        let save = &mut self.vmcb_mut().save;
        let data = Segment {
            selector: 0,
            attributes: DATA32,
            limit: u32::MAX,
            base: 0,
        };
        (save.ds, save.es, save.ss, save.fs, save.gs) = (data, data, data, data, data);
        save.gdtr = Segment {
            limit: 0xffff,
            ..Default::default()
        };
        save.idtr = Segment {
            limit: 0xffff,
            ..Default::default()
        };
        save.ldtr = Segment {
            attributes: LOCAL_TABLE,
            limit: 0xffff,
            ..Default::default()
        };
        save.tr = Segment {
            attributes: TASK,
            limit: 0x67,
            ..Default::default()
        };
        save.cpl = 0;
        save.efer = EFER_SVME;
        (save.cr0, save.cr2, save.cr3, save.cr4) = (CR0_ET, 0, 0, 0);
        (save.dr6, save.dr7) = (0xffff_0ff0, 0x400);
        save.pat = PAT_AT_RESET;
        (
            save.star,
            save.lstar,
            save.cstar,
            save.sfmask,
            save.kernel_gs_base,
        ) = (0, 0, 0, 0, 0);
        (save.sysenter_cs, save.sysenter_eip, save.sysenter_esp) = (0, 0, 0);
        self.shadow_at = None;
        self.set_non_maskable(NonMaskable::Open);
        self.renew_asid = true;
    }

    fn set_non_maskable(&mut self, state: NonMaskable) {
        self.non_maskable = state;
        let intercepts = &mut self.vmcb_mut().control.intercept[0];
        if state == NonMaskable::InService {
            *intercepts |= intercept::IRET as u32;
        } else {
            *intercepts &= !(intercept::IRET as u32);
        }
    }

    /// What an exit says about a non-maskable interrupt in service.
    fn note_return(&mut self, code: u64, rip: u64) {
        match self.non_maskable {
            NonMaskable::InService if code == exit_code::IRET => {
                self.set_non_maskable(NonMaskable::Ends(rip))
            }
            NonMaskable::Ends(at) if at != rip => self.set_non_maskable(NonMaskable::Open),
            _ => {}
        }
    }

    /// The external interrupt that waits to be delivered. It is queued as a virtual interrupt rather than as an injected event, which means the same to a
    /// processor that can take it at once, since TCG delivers an injected one a second time when something makes it leave its loop before the next exit
    /// or exception, and then with the guest's interrupts off, too.
    fn queued(&self) -> Option<u8> {
        let control = &self.vmcb().control;
        let window = control.intercept[0] & intercept::VIRTUAL_INTERRUPT as u32 != 0;
        (control.virtual_interrupt & virtual_interrupt::PENDING != 0 && !window)
            .then_some((control.virtual_interrupt >> virtual_interrupt::VECTOR) as u8)
    }

    /// Asks for a virtual interrupt whatever the guest's task priority, which the caller has looked at; `None` takes it back.
    fn request_virtual_interrupt(&mut self, vector: Option<u8>) {
        const ASKED: u64 = virtual_interrupt::PENDING
            | virtual_interrupt::PRIORITY
            | virtual_interrupt::IGNORE_PRIORITY
            | 0xff << virtual_interrupt::VECTOR;
        let control = &mut self.vmcb_mut().control;
        control.virtual_interrupt &= !ASKED;
        if let Some(vector) = vector {
            control.virtual_interrupt |=
                ASKED & !(0xff << virtual_interrupt::VECTOR) | u64::from(vector) << virtual_interrupt::VECTOR;
        }
    }

    /// What an exit says about an event whose delivery it interrupted: it is delivered again.
    fn note_interrupted_event(&mut self) {
        let queued = self.queued();
        let control = &mut self.vmcb_mut().control;
        control.event_injection = 0;
        match exit::event_to_repeat(control.exit_interrupt_info) {
            Some(exit::Repeat::Interrupt(vector)) => {
                self.vmcb_mut().control.intercept[0] &= !(intercept::VIRTUAL_INTERRUPT as u32);
                self.request_virtual_interrupt(Some(vector));
            }
            // TCG takes a virtual interrupt back only behind its delivery, and calls it an exception.
            Some(exit::Repeat::Event(event)) if queued == Some(event as u8) => {}
            Some(exit::Repeat::Event(event)) => control.event_injection = event,
            None => {}
        }
    }

    fn in_shadow(&self, registers: &Registers) -> bool {
        self.vmcb().control.interrupt_shadow & 1 != 0 || self.shadow_at == Some(registers.rip)
    }
}

impl VirtualCpu for SvmVcpu {
    fn run(&mut self, registers: &mut Registers, second_stage: MachineAddress) -> Exit {
        let shared = self.shared.clone();
        let mut processor = shared.here().lock();
        let tlb = match processor.asids.assign(&mut self.asid, self.renew_asid) {
            Flush::Nothing => vmcb::TLB_KEEP,
            Flush::Guest => vmcb::TLB_FLUSH_GUEST,
            Flush::All => vmcb::TLB_FLUSH_ALL,
        };
        self.renew_asid = false;
        let asid = self.asid.number;
        let vmcb = self.vmcb_mut();
        vmcb.control.asid = asid;
        vmcb.control.tlb_control = tlb;
        vmcb.control.nested_cr3 = second_stage.0;
        (vmcb.save.rax, vmcb.save.rsp) = (registers.rax, registers.rsp);
        (vmcb.save.rip, vmcb.save.rflags) = (registers.rip, registers.rflags);
        if processor.tsc_aux != self.tsc_aux {
            // SAFETY: the register holds a value for RDTSCP and means nothing to the processor; `write_msr` kept it to 32 bits.
            unsafe { Msr::new(TSC_AUX).write(self.tsc_aux) };
            processor.tsc_aux = self.tsc_aux;
        }
        let host = processor.host;
        drop(processor);
        // SAFETY: `Svm::enable_here` enabled SVM on this processor and filled the host page; the VMCB is this vCPU's; the caller vouches for the second-stage
        // tables.
        unsafe { enter::enter(registers, self.page.address().0, host.0) };
        let vmcb = self.vmcb_mut();
        (registers.rax, registers.rsp) = (vmcb.save.rax, vmcb.save.rsp);
        (registers.rip, registers.rflags) = (vmcb.save.rip, vmcb.save.rflags);
        let exit = exit::decode(&vmcb.control, registers);
        let (shadow, code) = (vmcb.control.interrupt_shadow & 1 != 0, vmcb.control.exit_code);
        self.note_return(code, registers.rip);
        self.note_interrupted_event();
        if shadow {
            self.shadow_at = Some(registers.rip);
        } else if self.shadow_at != Some(registers.rip) {
            self.shadow_at = None;
        }
        exit
    }

    fn skip_instruction(&mut self, registers: &mut Registers) {
        let control = &mut self.vmcb_mut().control;
        registers.rip = match (control.exit_code, control.next_rip) {
            (exit_code::PORT, _) => control.exit_info2,
            (_, next) if next != 0 => next,
            (code, _) => registers.rip.wrapping_add(length::of(code).unwrap_or(0)),
        };
        control.interrupt_shadow = 0;
        self.shadow_at = None;
    }

    fn interruptible(&self, registers: &Registers) -> bool {
        registers.rflags & RFLAGS_INTERRUPTS != 0 && !self.in_shadow(registers) && !self.injection_pending()
    }

    fn in_interrupt_shadow(&self, registers: &Registers) -> bool {
        self.in_shadow(registers)
    }

    fn injection_pending(&self) -> bool {
        self.queued().is_some() || self.vmcb().control.event_injection & vmcb::event::VALID != 0
    }

    fn takes_non_maskable(&self, _: &Registers) -> bool {
        self.non_maskable == NonMaskable::Open
            && self.vmcb().control.event_injection & vmcb::event::VALID == 0
    }

    fn ends_non_maskable(&self, registers: &Registers) -> bool {
        self.non_maskable == NonMaskable::Ends(registers.rip)
    }

    fn inject(&mut self, event: Injection) {
        use vmcb::event;
        let injected = match event {
            Injection::Interrupt(vector) => {
                self.request_interrupt_window(false);
                return self.request_virtual_interrupt(Some(vector));
            }
            Injection::NonMaskableInterrupt => {
                self.set_non_maskable(NonMaskable::InService);
                event::NON_MASKABLE | 2
            }
            Injection::Exception { vector, error } => {
                let error = error.map_or(0, |code| event::HAS_ERROR | u64::from(code) << 32);
                event::EXCEPTION | u64::from(vector) | error
            }
        };
        self.vmcb_mut().control.event_injection = event::VALID | injected;
    }

    fn request_interrupt_window(&mut self, wanted: bool) -> bool {
        if self.queued().is_some() {
            return false;
        }
        self.request_virtual_interrupt(wanted.then_some(0));
        let intercepts = &mut self.vmcb_mut().control.intercept[0];
        if wanted {
            *intercepts |= intercept::VIRTUAL_INTERRUPT as u32;
        } else {
            *intercepts &= !(intercept::VIRTUAL_INTERRUPT as u32);
        }
        true
    }

    fn task_priority(&self) -> u8 {
        (self.vmcb().control.virtual_interrupt & virtual_interrupt::TASK_PRIORITY) as u8
    }

    fn set_task_priority(&mut self, priority: u8) {
        let control = &mut self.vmcb_mut().control;
        let rest = control.virtual_interrupt & !virtual_interrupt::TASK_PRIORITY;
        control.virtual_interrupt = rest | u64::from(priority) & virtual_interrupt::TASK_PRIORITY;
    }

    fn paging(&self) -> Paging {
        let save = &self.vmcb().save;
        let long_code = save.efer & EFER_LMA != 0 && save.cs.attributes & 1 << 9 != 0;
        Paging {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: save.efer & !EFER_SVME,
            // TCG does not keep CPL in the VMCB before the first exit; SS.DPL is the same by definition.
            privilege: save.cpl & 3,
            long_code,
            code_base: if long_code { 0 } else { save.cs.base },
        }
    }

    fn enter_pvh(&mut self, registers: &mut Registers, entry: GuestAddress, start_info: GuestAddress) {
        self.reset();
        let save = &mut self.vmcb_mut().save;
        save.cs = Segment {
            selector: 0,
            attributes: CODE32,
            limit: u32::MAX,
            base: 0,
        };
        save.cr0 = CR0_PE | CR0_ET;
        *registers = Registers {
            rbx: start_info.0,
            rip: entry.0,
            rflags: RFLAGS_FIXED,
            ..Default::default()
        };
    }

    fn enter_startup(&mut self, registers: &mut Registers, vector: u8) {
        self.reset();
        let save = &mut self.vmcb_mut().save;
        let data = Segment {
            selector: 0,
            attributes: DATA16,
            limit: 0xffff,
            base: 0,
        };
        (save.ds, save.es, save.ss, save.fs, save.gs) = (data, data, data, data, data);
        let selector = u16::from(vector) << 8;
        save.cs = Segment {
            selector,
            attributes: CODE16,
            limit: 0xffff,
            base: u64::from(vector) << 12,
        };
        *registers = Registers {
            rflags: RFLAGS_FIXED,
            ..Default::default()
        };
    }

    fn enter_at(&mut self, start: &StartState) {
        self.reset();
        let segment = |given: StartSegment| Segment {
            selector: 0,
            attributes: given.attributes,
            limit: given.limit,
            base: given.base.into(),
        };
        let save = &mut self.vmcb_mut().save;
        (save.cs, save.ds) = (segment(start.cs), segment(start.ds));
        (save.ss, save.es) = (segment(start.ss), segment(start.es));
        save.tr = segment(start.tr);
        (save.cr0, save.cr3, save.cr4) = (start.cr0 | CR0_ET, start.cr3, start.cr4);
        let long = start.efer & EFER_LME != 0 && start.cr0 & CR0_PG != 0;
        save.efer = start.efer & GUEST_EFER | if long { EFER_LMA } else { 0 } | EFER_SVME;
    }

    fn read_msr(&self, msr: u32) -> Option<u64> {
        let save = &self.vmcb().save;
        Some(match msr {
            EFER => save.efer & !EFER_SVME,
            PAT => save.pat,
            TSC_AUX => self.tsc_aux,
            0x174 => save.sysenter_cs,
            0x175 => save.sysenter_esp,
            0x176 => save.sysenter_eip,
            0xc000_0081 => save.star,
            0xc000_0082 => save.lstar,
            0xc000_0083 => save.cstar,
            0xc000_0084 => save.sfmask,
            0xc000_0100 => save.fs.base,
            0xc000_0101 => save.gs.base,
            0xc000_0102 => save.kernel_gs_base,
            _ => return None,
        })
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Option<bool> {
        let save = &mut self.vmcb_mut().save;
        match msr {
            EFER => {
                // Linux writes back what it read, LMA included.
                let foreign = value & !(GUEST_EFER | EFER_LMA) != 0;
                let switches = (value ^ save.efer) & EFER_LME != 0 && save.cr0 & CR0_PG != 0;
                if foreign || switches {
                    return Some(false);
                }
                // NXE changes the meaning of entries that are cached.
                let meaning = (value ^ save.efer) & EFER_NXE != 0;
                save.efer = value & GUEST_EFER | save.efer & EFER_LMA | EFER_SVME;
                self.renew_asid |= meaning;
            }
            PAT => {
                // Each of the eight types is one of UC, WC, WT, WP, WB, UC-.
                if !value
                    .to_le_bytes()
                    .iter()
                    .all(|kind| matches!(kind, 0 | 1 | 4..=7))
                {
                    return Some(false);
                }
                save.pat = value;
            }
            TSC_AUX => {
                if value >> 32 != 0 {
                    return Some(false);
                }
                self.tsc_aux = value;
            }
            _ => return None,
        }
        Some(true)
    }

    fn flush_translations(&mut self) {
        self.renew_asid = true;
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().control.tsc_offset = offset;
    }

    fn release(self: Box<Self>, frames: &mut FrameAllocator) {
        frames.free(self.page, 1);
        if let Some(map) = self.own_ports {
            frames.free(map, PORT_MAP_BYTES as u64 / PAGE_SIZE);
        }
    }
}

#[cfg(test)]
mod tests;
