//! Reading what loaders and firmware left in machine memory: copied out once, lengths checked by whoever reads.

use alloc::{string::String, vec, vec::Vec};

use crate::memory::MachineAddress;

/// The address cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be read")]
pub struct OutOfReach(pub MachineAddress);

/// Machine memory as a source of bytes.
pub trait PhysicalMemory {
    /// Copies out `into.len()` bytes from `at` on.
    fn read(&self, at: MachineAddress, into: &mut [u8]) -> Result<(), OutOfReach>;

    /// A copy of `length` bytes. The caller bounds `length`.
    fn bytes(&self, at: MachineAddress, length: usize) -> Result<Vec<u8>, OutOfReach> {
        let mut bytes = vec![0; length];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// The zero-terminated string at `at`, cut at `longest` bytes; what is not UTF-8 is replaced.
    fn string(&self, at: MachineAddress, longest: usize) -> Result<String, OutOfReach> {
        let mut bytes = Vec::new();
        while bytes.len() < longest {
            let mut byte = [0];
            self.read(
                MachineAddress(at.0.checked_add(bytes.len() as u64).ok_or(OutOfReach(at))?),
                &mut byte,
            )?;
            if byte[0] == 0 {
                break;
            }
            bytes.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Little-endian integers at an offset, or `None` where the bytes end.
pub trait Fields {
    /// One byte.
    fn u8_at(&self, offset: usize) -> Option<u8>;
    /// Two bytes.
    fn u16_at(&self, offset: usize) -> Option<u16>;
    /// Four bytes.
    fn u32_at(&self, offset: usize) -> Option<u32>;
    /// Eight bytes.
    fn u64_at(&self, offset: usize) -> Option<u64>;
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

impl Fields for [u8] {
    fn u8_at(&self, offset: usize) -> Option<u8> {
        self.get(offset).copied()
    }

    fn u16_at(&self, offset: usize) -> Option<u16> {
        array(self, offset).map(u16::from_le_bytes)
    }

    fn u32_at(&self, offset: usize) -> Option<u32> {
        array(self, offset).map(u32::from_le_bytes)
    }

    fn u64_at(&self, offset: usize) -> Option<u64> {
        array(self, offset).map(u64::from_le_bytes)
    }
}

/// Memory made of a few pieces, for tests.
#[cfg(test)]
#[derive(Default)]
pub struct FakeMemory(pub Vec<(u64, Vec<u8>)>);

#[cfg(test)]
impl PhysicalMemory for FakeMemory {
    fn read(&self, at: MachineAddress, into: &mut [u8]) -> Result<(), OutOfReach> {
        self.0
            .iter()
            .find_map(|(start, bytes)| {
                let offset = usize::try_from(at.0.checked_sub(*start)?).ok()?;
                bytes.get(offset..offset.checked_add(into.len())?)
            })
            .map(|bytes| into.copy_from_slice(bytes))
            .ok_or(OutOfReach(at))
    }
}
