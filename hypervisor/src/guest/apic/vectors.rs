//! A set of interrupt vectors.

/// 256 bits, as eight registers of 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    /// Adds a vector; answers whether it was not there.
    pub(super) fn insert(&mut self, vector: u8) -> bool {
        let word = &mut self.0[usize::from(vector / 32)];
        let bit = 1 << (vector % 32);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Removes a vector.
    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 32)] &= !(1 << (vector % 32));
    }

    /// The highest vector.
    pub(super) fn highest(&self) -> Option<u8> {
        let index = self.0.iter().rposition(|word| *word != 0)?;
        Some((index as u32 * 32 + 31 - self.0[index].leading_zeros()) as u8)
    }

    /// One of the eight registers; 0 beyond them.
    pub(super) fn word(&self, index: u16) -> u32 {
        self.0.get(usize::from(index)).copied().unwrap_or(0)
    }
}
