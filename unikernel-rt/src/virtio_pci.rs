//! virtio devices on PCI: the transport of the crate `virtio-drivers` over this domain's configuration space, and the interrupts that
//! the crate leaves out.
#![allow(unsafe_code)] // Configuration accesses are unsafe to call in `pci_types`.

use virtio_drivers::transport::pci::{
    PciTransport, VirtioPciError,
    bus::{ConfigurationAccess, DeviceFunction, PciRoot},
};

use crate::event::{Events, Interrupt};
use crate::pci::{Command, Config, Function, MmioRegion, PciAddress, Registers};
use crate::virtio::UnikernelHal;

/// Capability id of a vendor's own structures, and virtio's type of the common configuration (virtio 1.2, 4.1.4).
const VENDOR_CAPABILITY: u8 = 0x09;
const COMMON_CONFIGURATION: u8 = 1;
/// Registers of the common configuration (virtio 1.2, 4.1.4.3).
const DEVICE_STATUS: usize = 0x14;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_MSIX_VECTOR: usize = 0x1a;

/// Configuration space as `virtio-drivers` asks for it.
struct Space(Config);

impl Space {
    fn address(function: DeviceFunction) -> PciAddress {
        PciAddress::new(0, function.bus, function.device, function.function)
    }
}

impl ConfigurationAccess for Space {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        // SAFETY: reading configuration space of a function of this domain has no effect on memory.
        unsafe { self.0.read(Self::address(function), offset.into()) }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        // SAFETY: the hypervisor filters what is written.
        unsafe { self.0.write(Self::address(function), offset.into(), data) }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A virtio function, ready for a driver of `virtio-drivers`.
pub struct VirtioFunction {
    /// What the driver's `new` takes.
    pub transport: PciTransport,
    /// How its queues are given their interrupt once the driver has set them up.
    pub routing: Routing,
}

/// The registers that say which MSI-X entry a queue uses.
pub struct Routing {
    bar: MmioRegion,
    offset: usize,
}

impl VirtioFunction {
    /// Enables the function and finds its structures.
    pub fn open(function: &Function) -> Result<Self, VirtioPciError> {
        function.enable(Command::MEMORY);
        let routing = Routing::find(function).ok_or(VirtioPciError::MissingCommonConfig)?;
        // Not before the reset: the queues of a predecessor may lie in memory that is ours by now.
        routing.reset();
        function.enable(Command::BUS_MASTER);
        let address = function.address();
        let place = DeviceFunction {
            bus: address.bus(),
            device: address.device(),
            function: address.function(),
        };
        let mut root = PciRoot::new(Space(function.config().clone()));
        let transport = PciTransport::new::<UnikernelHal, _>(&mut root, place)?;
        Ok(Self { transport, routing })
    }
}

impl Routing {
    fn find(function: &Function) -> Option<Self> {
        let capabilities = function.capabilities();
        let (_, at) = capabilities.into_iter().find(|&(id, at)| {
            id == VENDOR_CAPABILITY && (function.read32(at.into()) >> 24) as u8 == COMMON_CONFIGURATION
        })?;
        let slot = function.read32(u16::from(at) + 4) as u8;
        let offset = function.read32(u16::from(at) + 8) as usize;
        let bar = function.map_bar(slot)?;
        offset
            .checked_add(QUEUE_MSIX_VECTOR + 2)
            .filter(|&end| end <= bar.length() && offset.is_multiple_of(4))?;
        Some(Self { bar, offset })
    }

    /// Resets the device, and waits for it a while: one that never finishes is refused by the driver, which resets it as well.
    fn reset(&self) {
        const LOOKS: u32 = 1_000_000;
        self.bar.write8(self.offset + DEVICE_STATUS, 0);
        for _ in 0..LOOKS {
            if self.bar.read8(self.offset + DEVICE_STATUS) == 0 {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Gives `queues` queues the MSI-X entry 0, bound to a port. Call it after the driver's `new`: its reset forgets vectors.
    pub fn bind(
        &self,
        function: &Function,
        events: &Events,
        queues: u16,
    ) -> Result<Interrupt, crate::hypercall::Errno> {
        let interrupt = function.bind_interrupt(events, 0)?;
        for queue in 0..queues {
            self.bar.write16(self.offset + QUEUE_SELECT, queue);
            self.bar.write16(self.offset + QUEUE_MSIX_VECTOR, 0);
        }
        Ok(interrupt)
    }
}
