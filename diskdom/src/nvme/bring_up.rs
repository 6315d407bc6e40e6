//! Starting and restarting a controller: reset, admin queue, identification, I/O queues. All of it waits for the controller,
//! with the patience that the controller asks for.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::time::Duration;

use thiserror::Error;
use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::memory::MemoryError;
use unikernel_rt::pci::Registers;

use super::command::{CONTIGUOUS, CONTIGUOUS_WITH_INTERRUPT, Command, FEATURE_QUEUES, admin, cns};
use super::controller::Controller;
use super::identify::{self, ControllerInfo, LENGTH, MAX_NAMESPACES};
use super::namespace::NamespaceDisk;
use super::prp::MAX_BYTES;
use super::queue::QueuePair;
use super::registers::{
    ABSENT, ADMIN_ATTRIBUTES, ADMIN_COMPLETION, ADMIN_SUBMISSION, CONFIGURATION, Capabilities, ENABLE,
    ENTRY_SIZES, FATAL, READY, STATUS, VERSION, write64,
};
use super::status::Status;
use crate::device::Pause;

/// Entries of the admin queues.
const ADMIN_ENTRIES: u16 = 16;
/// Entries of the I/O queues, if the controller has so many.
const IO_ENTRIES: u16 = 128;
/// The I/O queues' number.
const IO_QUEUE: u16 = 1;
/// The only interrupt: entry 0 of the MSI-X table.
const VECTOR: u32 = 0;
/// How long an admin command may take.
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);

/// Why a controller cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NvmeError {
    /// Every register reads as ones.
    #[error("the controller answers no register")]
    Absent,
    /// It is no controller of disks.
    #[error("the controller does not have the NVM command set")]
    NoNvmCommands,
    /// It wants larger pages.
    #[error("the controller works with pages of {0} bytes, and this driver with 4096")]
    PageSize(u64),
    /// The doorbells lie behind the registers that are mapped.
    #[error("the doorbells end at {end:#x}, behind the {length:#x} bytes of registers")]
    Doorbells {
        /// Where they end.
        end: usize,
        /// How long the registers are.
        length: usize,
    },
    /// It has queues of one entry.
    #[error("the controller's queues have {0} entries, which are too few")]
    Queues(u32),
    /// It took too long.
    #[error("the controller did not {what} within {after:?}")]
    Timeout {
        /// What it should have done.
        what: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// It reported a fatal status.
    #[error("the controller reported a fatal status when it was to {0}")]
    Fatal(&'static str),
    /// An admin command failed.
    #[error("the controller refused to {what}: {status}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// Why not.
        status: Status,
    },
    /// It fails again after every reset.
    #[error("it fails again after every reset")]
    Hopeless,
    /// Memory is short.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Starts a controller and answers its disks, in the order of the namespaces. A namespace that cannot be a disk is reported and
/// left out. `access` allows the controller to reach memory, or ends that. The controller's interrupt should be bound before.
pub fn start<R: Registers>(
    name: &str,
    registers: R,
    access: Box<dyn Fn(bool)>,
    clock: Rc<dyn Pause>,
) -> Result<Vec<NamespaceDisk<R>>, NvmeError> {
    let capabilities = Capabilities::read(&registers).ok_or(NvmeError::Absent)?;
    if !capabilities.nvm_commands {
        return Err(NvmeError::NoNvmCommands);
    }
    if capabilities.min_page > 4096 {
        return Err(NvmeError::PageSize(capabilities.min_page));
    }
    let end = capabilities.doorbells(IO_QUEUE).1 + 4;
    if end > registers.length() {
        return Err(NvmeError::Doorbells {
            end,
            length: registers.length(),
        });
    }
    if capabilities.max_entries < 2 {
        return Err(NvmeError::Queues(capabilities.max_entries));
    }
    let entries = capabilities.max_entries.min(IO_ENTRIES.into()) as u16;
    let admin = QueuePair::allocate(ADMIN_ENTRIES, capabilities.doorbells(0))?;
    let io = QueuePair::allocate(entries, capabilities.doorbells(IO_QUEUE))?;
    let mut controller = Controller::new(name.into(), registers, access, clock, capabilities, admin, io)?;
    let before = controller.clock.now();
    controller.restart()?;
    let name = &controller.name;
    log::info!(
        "{name} is ready; its reset took {} us",
        (controller.clock.now() - before).as_micros()
    );
    let disks = controller.identify()?;
    controller.blocks = disks
        .iter()
        .map(|(number, properties)| (*number, properties.logical_block))
        .collect();
    let controller = Rc::new(RefCell::new(controller));
    Ok(disks
        .into_iter()
        .map(|(number, properties)| NamespaceDisk::new(controller.clone(), number, properties))
        .collect())
}

impl<R: Registers> Controller<R> {
    /// Resets the controller and gives it its queues.
    pub(super) fn restart(&mut self) -> Result<(), NvmeError> {
        self.disable()?;
        // Not before: what a predecessor told the controller may lead into memory that is ours by now.
        (self.access)(true);
        self.admin.reset()?;
        self.io.reset()?;
        let (submission, completion) = self.admin.addresses();
        let last = u32::from(self.admin.entries() - 1);
        self.registers.write32(ADMIN_ATTRIBUTES, last << 16 | last);
        write64(&self.registers, ADMIN_SUBMISSION, submission);
        write64(&self.registers, ADMIN_COMPLETION, completion);
        self.registers.write32(CONFIGURATION, ENTRY_SIZES | ENABLE);
        self.wait_ready(true, "get ready")?;
        self.create_queues()
    }

    /// Stops the controller, or else its access to memory.
    pub(super) fn stop(&mut self) {
        if let Err(error) = self.disable() {
            log::error!("{}: {error}; its access to memory is taken away", self.name);
            (self.access)(false);
        }
    }

    fn disable(&self) -> Result<(), NvmeError> {
        let configuration = self.registers.read32(CONFIGURATION);
        if configuration == ABSENT {
            return Err(NvmeError::Absent);
        }
        if configuration & ENABLE != 0 {
            self.registers.write32(CONFIGURATION, configuration & !ENABLE);
        }
        self.wait_ready(false, "stop")
    }

    fn wait_ready(&self, ready: bool, what: &'static str) -> Result<(), NvmeError> {
        let after = self.capabilities.timeout;
        let deadline = self.clock.now() + after;
        loop {
            let status = self.registers.read32(STATUS);
            if status == ABSENT {
                return Err(NvmeError::Absent);
            }
            // A fatal status goes with the reset, so it says nothing while we wait for that.
            if ready && status & FATAL != 0 {
                return Err(NvmeError::Fatal(what));
            }
            if (status & READY != 0) == ready {
                return Ok(());
            }
            if self.clock.now() >= deadline {
                return Err(NvmeError::Timeout { what, after });
            }
            self.clock.pause(Duration::from_micros(200));
        }
    }

    fn create_queues(&mut self) -> Result<(), NvmeError> {
        self.admin(
            "grant a pair of queues",
            Command::new(admin::SET_FEATURES, 0).dword(10, FEATURE_QUEUES),
        )?;
        let (submission, completion) = self.io.addresses();
        let size = u32::from(self.io.entries() - 1) << 16 | u32::from(IO_QUEUE);
        let create = Command::new(admin::CREATE_COMPLETION_QUEUE, 0)
            .dword(10, size)
            .dword(11, VECTOR << 16 | CONTIGUOUS_WITH_INTERRUPT)
            .memory(completion, 0);
        self.admin("make a completion queue", create)?;
        let create = Command::new(admin::CREATE_SUBMISSION_QUEUE, 0)
            .dword(10, size)
            .dword(11, u32::from(IO_QUEUE) << 16 | CONTIGUOUS)
            .memory(submission, 0);
        self.admin("make a submission queue", create)?;
        Ok(())
    }

    /// Finds out what the controller is and which disks it has.
    fn identify(&mut self) -> Result<Vec<(u32, crate::device::Properties)>, NvmeError> {
        let buffer = DmaBuffer::allocate(LENGTH)?;
        let info =
            ControllerInfo::parse(&*self.identify_one("identify itself", cns::CONTROLLER, 0, &buffer)?);
        self.max_transfer = info.max_transfer.unwrap_or(MAX_BYTES).min(MAX_BYTES);
        let version = self.registers.read32(VERSION);
        let (major, minor) = (version >> 16, version >> 8 & 0xff);
        log::info!(
            "{}: {} (firmware {}, serial {}), NVMe {major}.{minor}, {} KiB a command, queues of {}",
            self.name,
            info.model,
            info.firmware,
            info.serial,
            self.max_transfer >> 10,
            self.io.entries()
        );
        // The list came with version 1.1.
        let numbers = if version >= 0x1_0100 {
            let list = self.identify_one("list its namespaces", cns::ACTIVE_NAMESPACES, 0, &buffer)?;
            identify::active_namespaces(&list)
        } else {
            (1..=info.namespaces.min(MAX_NAMESPACES)).collect()
        };
        let mut disks = Vec::new();
        for number in numbers {
            let found = self
                .identify_one("identify a namespace", cns::NAMESPACE, number, &buffer)
                .map_err(|error| format!("{error}"))
                .and_then(|data| {
                    identify::namespace(&data, &info, self.max_transfer).map_err(|error| format!("{error}"))
                });
            match found {
                Ok(properties) => disks.push((number, properties)),
                Err(error) => log::warn!("{} namespace {number} is left out: {error}", self.name),
            }
        }
        Ok(disks)
    }

    fn identify_one(
        &mut self,
        what: &'static str,
        which: u32,
        namespace: u32,
        buffer: &DmaBuffer,
    ) -> Result<Box<[u8; LENGTH]>, NvmeError> {
        let command = Command::new(admin::IDENTIFY, namespace)
            .dword(10, which)
            .memory(buffer.bus_address(), 0);
        self.admin(what, command)?;
        let mut data = Box::new([0; LENGTH]);
        buffer.memory().copy_out(0, &mut *data)?;
        Ok(data)
    }

    /// Has an admin command executed, and waits for it.
    fn admin(&mut self, what: &'static str, mut command: Command) -> Result<u32, NvmeError> {
        self.last_admin = self.last_admin.wrapping_add(1);
        command.identifier = self.last_admin;
        self.admin.push(&command)?;
        self.admin.ring(&self.registers);
        let deadline = self.clock.now() + ADMIN_PATIENCE;
        loop {
            if let Some(completion) = self.admin.pop()? {
                self.admin.acknowledge(&self.registers);
                if completion.identifier == command.identifier {
                    return match Status::of(completion.status) {
                        None => Ok(completion.result),
                        Some(status) => Err(NvmeError::Refused { what, status }),
                    };
                }
                continue;
            }
            let status = self.registers.read32(STATUS);
            if status == ABSENT {
                return Err(NvmeError::Absent);
            }
            if status & FATAL != 0 {
                return Err(NvmeError::Fatal(what));
            }
            if self.clock.now() >= deadline {
                return Err(NvmeError::Timeout {
                    what,
                    after: ADMIN_PATIENCE,
                });
            }
            self.clock.pause(Duration::from_micros(50));
        }
    }
}
