//! What the fake controller does with a command.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::{FakeQueue, FakeState};
use crate::nvme::command::{Command, DatasetRange, admin, cns, nvm};
use crate::nvme::status::Status;
use crate::testing::bus;

fn status(kind: u8, code: u8) -> u16 {
    Status {
        kind,
        code,
        do_not_retry: true,
    }
    .field()
}

impl FakeState {
    pub(super) fn admin(&mut self, command: &Command) -> (u32, u16) {
        let [dword10, dword11, ..] = command.dwords;
        let (id, entries) = (dword10 as u16, (dword10 >> 16) as u16 + 1);
        match command.opcode {
            admin::IDENTIFY => return (0, self.identify(command)),
            admin::SET_FEATURES => return (0x3f_003f, 0),
            admin::CREATE_COMPLETION_QUEUE => {
                assert_eq!(dword11 & 3, 3, "contiguous, with interrupts");
                assert_eq!(command.prp1 % 4096, 0);
                let queue = FakeQueue {
                    completion: command.prp1,
                    completion_entries: entries,
                    phase: true,
                    ..FakeQueue::default()
                };
                self.queues.insert(id, queue);
            }
            admin::CREATE_SUBMISSION_QUEUE => {
                let Some(queue) = self.queues.get_mut(&((dword11 >> 16) as u16)) else {
                    return (0, status(1, 0));
                };
                assert_eq!(dword11 & 1, 1, "contiguous");
                (queue.submission, queue.submission_entries) = (command.prp1, entries);
            }
            _ => return (0, status(0, 1)),
        }
        (0, 0)
    }

    fn identify(&self, command: &Command) -> u16 {
        let mut data = [0u8; 4096];
        match command.dwords[0] {
            cns::CONTROLLER => {
                data[4..24].copy_from_slice(b"deadbeef            ");
                data[24..64].fill(b' ');
                data[24..38].copy_from_slice(b"QEMU NVMe Ctrl");
                data[64..72].copy_from_slice(b"7.2.0   ");
                data[77] = self.max_transfer;
                data[516..520].copy_from_slice(&256u32.to_le_bytes());
                data[520] = 0x5f;
                data[525] = 7;
            }
            cns::ACTIVE_NAMESPACES => {
                for (index, entry) in data.chunks_mut(4).take(self.namespaces.len()).enumerate() {
                    entry.copy_from_slice(&(index as u32 + 1).to_le_bytes());
                }
            }
            cns::NAMESPACE => {
                let Some(namespace) = self.namespaces.get(command.namespace as usize - 1) else {
                    return status(0, 0x0b);
                };
                let blocks = (namespace.data.len() >> namespace.shift) as u64;
                data[..8].copy_from_slice(&blocks.to_le_bytes());
                data[25] = 7;
                data[26] = 3;
                let format = u32::from(namespace.shift) << 16 | u32::from(namespace.metadata);
                data[140..144].copy_from_slice(&format.to_le_bytes());
            }
            _ => return status(0, 2),
        }
        bus::write(command.prp1, &data);
        0
    }

    pub(super) fn io(&mut self, command: &Command) -> u16 {
        let max_transfer = 4096usize << self.max_transfer;
        let Some(namespace) = self
            .namespaces
            .get_mut((command.namespace as usize).wrapping_sub(1))
        else {
            return status(0, 0x0b);
        };
        let shift = namespace.shift;
        let blocks = (namespace.data.len() >> shift) as u64;
        let [low, high, dword12, ..] = command.dwords;
        match command.opcode {
            nvm::FLUSH => 0,
            nvm::READ | nvm::WRITE => {
                let (first, count) = (
                    u64::from(high) << 32 | u64::from(low),
                    u64::from(dword12 & 0xffff) + 1,
                );
                if first + count > blocks {
                    return status(0, 0x80);
                }
                let length = (count as usize) << shift;
                if length > max_transfer {
                    return status(0, 2);
                }
                let Some(pieces) = pieces(command, length) else {
                    return status(0, 0x13);
                };
                self.transferred.push(length);
                let mut at = (first as usize) << shift;
                for (address, length) in pieces {
                    let range = at..at + length;
                    if command.opcode == nvm::READ {
                        bus::write(address, &namespace.data[range.clone()]);
                    } else {
                        namespace.data[range.clone()].copy_from_slice(&bus::read(address, length));
                    }
                    at = range.end;
                }
                0
            }
            nvm::DATASET_MANAGEMENT => {
                assert_eq!((low, high), (0, 4), "one range, deallocate");
                let mut range: DatasetRange = bus::read_value(command.prp1);
                if range.first + u64::from(range.blocks) > blocks {
                    return status(0, 0x80);
                }
                let start = (range.first as usize) << shift;
                namespace.data[start..start + ((range.blocks as usize) << shift)].fill(0);
                // The range is the command's until it completes: what a driver would read back is gone.
                range.as_mut_bytes().fill(0);
                0
            }
            _ => status(0, 1),
        }
    }
}

/// Follows a command's page list; none if it breaks the rules.
fn pieces(command: &Command, length: usize) -> Option<Vec<(u64, usize)>> {
    let first = (4096 - (command.prp1 % 4096) as usize).min(length);
    let mut pieces = vec![(command.prp1, first)];
    let mut left = length - first;
    if left == 0 {
        return Some(pieces);
    }
    if left <= 4096 {
        pieces.push((command.prp2, left));
        return (command.prp2.is_multiple_of(4096)).then_some(pieces);
    }
    if !command.prp2.is_multiple_of(8) {
        return None;
    }
    let mut entry = command.prp2;
    while left > 0 {
        assert!(
            entry == command.prp2 || !entry.is_multiple_of(4096),
            "the list crosses a page without a chain"
        );
        let address: u64 = bus::read_value(entry);
        if !address.is_multiple_of(4096) {
            return None;
        }
        let length = left.min(4096);
        pieces.push((address, length));
        left -= length;
        entry += 8;
    }
    Some(pieces)
}
