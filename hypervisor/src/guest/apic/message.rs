//! Messages between local APICs, and from devices to them.

use super::LocalApic;

/// What an interrupt message delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An interrupt with this vector to every processor reached.
    Fixed(u8),
    /// An interrupt with this vector to one of the processors reached.
    LowestPriority(u8),
    /// A non-maskable interrupt.
    NonMaskable,
    /// Resets the processor, which then waits for a start-up.
    Init,
    /// Starts the processor in real mode at this page number.
    StartUp(u8),
}

/// Whom an interrupt message reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender.
    Itself,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
    /// The processor with a physical id, or everyone.
    Physical {
        /// The id; all ones (0xff if not `wide`) is everyone.
        id: u32,
        /// The message has 32 bits for it: it comes from an APIC in x2APIC mode.
        wide: bool,
    },
    /// The processors that a logical address names.
    Logical {
        /// The address; all ones (0xff if not `wide`) is everyone.
        address: u32,
        /// The message has 32 bits for it: it comes from an APIC in x2APIC mode.
        wide: bool,
    },
}

/// A message between processors, or of a device (MSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// What.
    pub delivery: Delivery,
    /// To whom.
    pub destination: Destination,
    /// Level-triggered. Devices of guests have none such, but a message may say so.
    pub level: bool,
}

const EVERYONE_NARROW: u32 = 0xff;
const EVERYONE_WIDE: u32 = u32::MAX;

/// The delivery mode and vector of a command or message; `None` where it has no meaning here (SMI, external interrupts, reserved ones).
pub(super) fn delivery(low: u32) -> Option<Delivery> {
    let vector = low as u8;
    match low >> 8 & 7 {
        0 => Some(Delivery::Fixed(vector)),
        1 => Some(Delivery::LowestPriority(vector)),
        4 => Some(Delivery::NonMaskable),
        5 => Some(Delivery::Init),
        6 => Some(Delivery::StartUp(vector)),
        _ => None,
    }
}

impl Ipi {
    /// The message that a device sends by writing `data` to `address` (Intel SDM 3A, 11.11); `None` if the address is not one of the APIC's or the
    /// delivery mode has no meaning for a guest.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        const LOGICAL: u64 = 1 << 2;
        if address >> 20 != 0xfee {
            return None;
        }
        let delivery = match delivery(data)? {
            Delivery::StartUp(_) => return None,
            delivery => delivery,
        };
        let id = (address >> 12) as u32 & 0xff;
        let destination = if address & LOGICAL == 0 {
            Destination::Physical { id, wide: false }
        } else {
            Destination::Logical {
                address: id,
                wide: false,
            }
        };
        Some(Self {
            delivery,
            destination,
            level: data >> 15 & 1 == 1,
        })
    }

    /// Whether it reaches the processor with this APIC; `sender` says that it is the one that sent it. A lowest-priority message reaches several: the
    /// caller delivers it to the one of least [`LocalApic::processor_priority`].
    pub fn reaches(&self, target: &LocalApic, sender: bool) -> bool {
        match self.destination {
            Destination::Itself => sender,
            Destination::All => true,
            Destination::Others => !sender,
            Destination::Physical { id, wide } => id == target.id() || is_everyone(id, wide),
            Destination::Logical { address, wide } => {
                is_everyone(address, wide) || target.has_logical_address(address)
            }
        }
    }
}

fn is_everyone(address: u32, wide: bool) -> bool {
    address == if wide { EVERYONE_WIDE } else { EVERYONE_NARROW }
}
