//! A set of processors, by number.

/// The most processors that the hypervisor tells apart.
pub const MOST_PROCESSORS: usize = crate::lock::MOST;
const WORDS: usize = MOST_PROCESSORS / 64;

/// Processors, by number below [`MOST_PROCESSORS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorSet([u64; WORDS]);

impl ProcessorSet {
    /// The first `count`.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Adds one; a number beyond the most is left out.
    pub fn insert(&mut self, processor: usize) {
        if let Some(word) = self.0.get_mut(processor / 64) {
            *word |= 1 << (processor % 64);
        }
    }

    /// Whether it is in.
    pub fn contains(&self, processor: usize) -> bool {
        self.0
            .get(processor / 64)
            .is_some_and(|word| word >> (processor % 64) & 1 != 0)
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        self.zip(other, |left, right| left & right)
    }

    /// Those that are in either.
    pub fn or(self, other: Self) -> Self {
        self.zip(other, |left, right| left | right)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        self.zip(other, |left, right| left & !right)
    }

    /// Its members, in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..WORDS).flat_map(move |index| {
            let mut word = self.0[index];
            core::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(index * 64 + bit)
            })
        })
    }

    fn zip(mut self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word = combine(*word, other);
        }
        self
    }
}

impl FromIterator<usize> for ProcessorSet {
    fn from_iter<I: IntoIterator<Item = usize>>(processors: I) -> Self {
        let mut set = Self::default();
        processors.into_iter().for_each(|processor| set.insert(processor));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn holds_what_was_put_in_up_to_the_most() {
        let set: ProcessorSet = [255, 0, 64, 63, 256, 1000].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert!(set.contains(255) && !set.contains(1) && !set.contains(1000));
        assert_eq!(ProcessorSet::first(256).iter().count(), 256);
        assert!(ProcessorSet::first(0).is_empty());
        let low = ProcessorSet::first(64);
        assert_eq!(set.and(low).iter().collect::<Vec<_>>(), [0, 63]);
        assert_eq!(set.without(low).iter().collect::<Vec<_>>(), [64, 255]);
        assert_eq!(set.or(low).iter().count(), 66);
    }
}
