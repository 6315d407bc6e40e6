//! Port numbers and sets of them.

use core::fmt;

/// Our end of an event channel, by number. Numbers are reused after [`close`](super::EventChannels::close).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "event channel {}", self.0)
    }
}

/// Words of 64 ports; 64 of them make the 4096 ports of the two-level interface.
const WORDS: usize = 64;

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    /// Bit `i` says that `words[i]` is not zero.
    summary: u64,
    words: [u64; WORDS],
}

impl PortSet {
    /// No port.
    pub const fn new() -> Self {
        Self {
            summary: 0,
            words: [0; WORDS],
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// Whether a port is in it.
    pub fn contains(&self, port: Port) -> bool {
        let (word, bit) = (port.0 as usize / 64, port.0 % 64);
        word < WORDS && self.words[word] & 1 << bit != 0
    }

    /// Puts a port in. Numbers beyond the two-level interface do not occur and are left out.
    pub fn insert(&mut self, port: Port) {
        let word = port.0 as usize / 64;
        if word < WORDS {
            self.insert_word(word, 1 << (port.0 % 64));
        }
    }

    /// Puts in the ports of a word.
    pub(crate) fn insert_word(&mut self, word: usize, bits: u64) {
        if bits != 0 {
            self.words[word] |= bits;
            self.summary |= 1 << word;
        }
    }

    /// Takes a port out; answers whether it was in.
    pub fn remove(&mut self, port: Port) -> bool {
        let was = self.contains(port);
        if was {
            let word = port.0 as usize / 64;
            self.words[word] &= !(1 << (port.0 % 64));
            if self.words[word] == 0 {
                self.summary &= !(1 << word);
            }
        }
        was
    }

    /// The ports, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Port> + '_ {
        bits(self.summary)
            .flat_map(|word| bits(self.words[word as usize]).map(move |bit| Port(word * 64 + bit)))
    }
}

/// The numbers of the bits that are set.
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.iter().map(|port| port.0))
            .finish()
    }
}

impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        let mut set = Self::new();
        for port in ports {
            set.insert(port);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set: PortSet = [
            Port(4095),
            Port(0),
            Port(63),
            Port(64),
            Port(4096),
            Port(u32::MAX),
        ]
        .into_iter()
        .collect();
        assert_eq!(
            set.iter().map(|port| port.0).collect::<alloc::vec::Vec<_>>(),
            [0, 63, 64, 4095]
        );
        assert!(set.remove(Port(64)) && !set.remove(Port(64)) && !set.remove(Port(5000)));
        for port in [0, 63, 4095] {
            assert!(!set.is_empty() && set.contains(Port(port)));
            set.remove(Port(port));
        }
        assert!(set.is_empty());
    }
}
