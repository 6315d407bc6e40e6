//! AMD SVM with nested paging (Architecture Programmer's Manual, volume 2, chapter 15).
//!
//! What a guest may do without an exit is listed in [`permissions`] and [`vmcb::intercept`]. Emulators lack conveniences of newer processors
//! (next instruction pointer, flush by ASID, decode assists), so none is needed.
#![allow(unsafe_code)] // Enables SVM.

mod asid;
mod enter;
mod exit;
mod length;
pub mod permissions;
mod vcpu;
pub mod vmcb;

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::ptr::NonNull;

use raw_cpuid::{CpuId, native_cpuid::CpuIdReaderNative};
use spin::Mutex;
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};

use self::{
    asid::Asids,
    permissions::{MSR_MAP_BYTES, PORT_MAP_BYTES},
    vcpu::SvmVcpu,
    vmcb::Vmcb,
};
use super::{Backend, Flushes, Unsupported, VirtualCpu};
use crate::{
    memory::{DirectMap, FrameAllocator, MachineAddress, OutOfMemory, PAGE_SIZE},
    platform::cpu,
};

const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVM_DISABLED: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xc001_0117;
/// The rate of guests' time-stamp counters in units of the machine's, with 32 bits behind the point (APM vol. 2, 15.30.5). Ours are the machine's: what
/// is added to them, `tsc_offset`, would be wrong otherwise.
const TSC_RATIO: u32 = 0xc000_0104;
const TSC_RATIO_ONE: u64 = 1 << 32;

/// What all vCPUs share.
struct Shared {
    port_map: MachineAddress,
    msr_map: MachineAddress,
    /// Guests' time-stamp counters can run at another rate than the machine's.
    tsc_scaling: bool,
    /// By number. Each is locked by its own processor alone, and not while a guest runs.
    processors: Vec<Mutex<Processor>>,
}

/// What belongs to a processor.
struct Processor {
    /// Where VMRUN keeps the host's state.
    save_area: MachineAddress,
    /// Filled by VMSAVE, loaded after each exit.
    host: MachineAddress,
    asids: Asids,
    /// What the register holds now; the VMCB has no place for it.
    tsc_aux: u64,
}

/// The backend.
pub struct Svm {
    shared: Arc<Shared>,
}

impl Svm {
    /// Prepares SVM for so many processors; says what is missing where it cannot.
    pub fn find(
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        processors: usize,
    ) -> Result<Self, Unsupported> {
        let cpuid = CpuId::with_cpuid_reader(CpuIdReaderNative);
        if !cpuid
            .get_extended_processor_and_feature_identifiers()
            .is_some_and(|features| features.has_svm())
        {
            return Err(Unsupported::Missing);
        }
        let svm = cpuid.get_svm_info().ok_or(Unsupported::Missing)?;
        // SAFETY: the register exists where SVM does.
        if unsafe { Msr::new(VM_CR).read() } & VM_CR_SVM_DISABLED != 0 {
            return Err(Unsupported::LockedOff);
        }
        if !svm.has_nested_paging() {
            return Err(Unsupported::NoNestedPaging);
        }
        let mut page = |count: usize| -> Result<MachineAddress, Unsupported> {
            let first = frames
                .allocate_contiguous(count as u64, 1)
                .ok_or(OutOfMemory)?
                .address();
            memory.zero(first, count * PAGE_SIZE as usize);
            Ok(first)
        };
        let processors = (0..processors)
            .map(|index| {
                Ok(Mutex::new(Processor {
                    save_area: page(1)?,
                    host: page(1)?,
                    asids: Asids::new(index, svm.supported_asids(), svm.has_flush_by_asid()),
                    tsc_aux: u64::MAX,
                }))
            })
            .collect::<Result<_, Unsupported>>()?;
        let (port_map, msr_map) = (page(PORT_MAP_BYTES / 4096)?, page(MSR_MAP_BYTES / 4096)?);
        memory.write(port_map, &[0xff; PORT_MAP_BYTES]);
        memory.write(msr_map, &permissions::msr_map());
        Ok(Self {
            shared: Arc::new(Shared {
                port_map,
                msr_map,
                tsc_scaling: svm.has_tsc_rate_msr(),
                processors,
            }),
        })
    }
}

impl Shared {
    /// What belongs to the running processor.
    fn here(&self) -> &Mutex<Processor> {
        &self.processors[cpu::current().index()]
    }
}

impl Backend for Svm {
    fn enable_here(&self) {
        let processor = self.shared.here().lock();
        // SAFETY: `find` saw SVM present and not locked off, and processors of a machine are alike; the pages are this processor's for good, zeroed, and
        // reached by nobody else.
        unsafe {
            Efer::update(|efer| efer.insert(EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE));
            Msr::new(VM_HSAVE_PA).write(processor.save_area.0);
            enter::save_host(processor.host.0);
            if self.shared.tsc_scaling {
                Msr::new(TSC_RATIO).write(TSC_RATIO_ONE);
            }
        }
    }

    fn name(&self) -> &'static str {
        "AMD SVM with nested paging"
    }

    fn hypercall_instruction(&self) -> [u8; 3] {
        [0x0f, 0x01, 0xd9]
    }

    fn flushes(&self, processor: usize) -> Flushes {
        let processor = self.shared.processors.get(processor);
        processor.map_or(Flushes::default(), |processor| processor.lock().asids.flushes)
    }

    fn create(
        &self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        ports: &[(u16, u16)],
    ) -> Result<Box<dyn VirtualCpu>, OutOfMemory> {
        let own_ports = match ports {
            [] => None,
            ports => {
                let map = frames
                    .allocate_contiguous(PORT_MAP_BYTES as u64 / PAGE_SIZE, 1)
                    .ok_or(OutOfMemory)?;
                let mut bytes = [0xff; PORT_MAP_BYTES];
                ports
                    .iter()
                    .for_each(|&(first, count)| permissions::allow_ports(&mut bytes, first, count));
                memory.write(map.address(), &bytes);
                Some(map)
            }
        };
        let Some(page) = frames.allocate() else {
            own_ports.inspect(|&map| frames.free(map, PORT_MAP_BYTES as u64 / PAGE_SIZE));
            return Err(OutOfMemory);
        };
        memory.zero(page.address(), PAGE_SIZE as usize);
        let pointer = NonNull::new(memory.pointer(page.address(), PAGE_SIZE as usize).cast::<Vmcb>())
            .expect("the direct map does not begin at address 0");
        Ok(Box::new(SvmVcpu::new(
            self.shared.clone(),
            page,
            pointer,
            own_ports,
        )))
    }
}
