//! Address-space identifiers: each vCPU that runs on a processor has one of its own there, so a switch between guests flushes nothing.
//!
//! What a vCPU may have cached of its memory is worth nothing once pages were taken away from it ([`VirtualCpu::flush_translations`]). Nobody is
//! interrupted for that who does not run the domain at that moment: before the vCPU runs again it flushes its own identifier where the processor can do
//! that, and takes one that was never used where it cannot. Old translations stay behind, on this processor and on those where it ran before, under
//! numbers that nobody uses. Only when a processor has used all its numbers does it flush everything, which begins a generation in which every vCPU
//! takes a new one.
//!
//! [`VirtualCpu::flush_translations`]: crate::virt::VirtualCpu::flush_translations

use crate::virt::Flushes;

/// What a vCPU holds: worth something only in its generation, on its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asid {
    /// 0 before the first.
    generation: u64,
    processor: usize,
    /// What goes into the VMCB.
    pub number: u32,
}

/// What an entry flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing.
    Nothing,
    /// All translations under the identifier that is entered with.
    Guest,
    /// All translations of the processor.
    All,
}

/// The identifiers of one processor.
#[derive(Clone, Copy, Debug)]
pub struct Asids {
    processor: usize,
    generation: u64,
    next: u32,
    count: u32,
    /// One can be flushed by itself.
    flush_by_asid: bool,
    /// What has been done.
    pub flushes: Flushes,
}

impl Asids {
    /// Of a processor that offers `count` of them, 0 (the host's) included. The first entry flushes everything: who knows what ran before us.
    pub fn new(processor: usize, count: u32, flush_by_asid: bool) -> Self {
        let count = count.max(2);
        Self {
            processor,
            generation: 0,
            next: count,
            count,
            flush_by_asid,
            flushes: Flushes::default(),
        }
    }

    /// Makes `asid` good for the next entry, and says what that must flush. With `renew`, translations under the old number are never used again.
    pub fn assign(&mut self, asid: &mut Asid, renew: bool) -> Flush {
        self.flushes.guest += u64::from(renew);
        let known = asid.generation == self.generation && asid.processor == self.processor;
        if known && asid.generation != 0 {
            if !renew {
                return Flush::Nothing;
            }
            if self.flush_by_asid {
                return Flush::Guest;
            }
        }
        let exhausted = self.next >= self.count;
        if exhausted {
            self.generation += 1;
            self.next = 1;
            self.flushes.all += 1;
        }
        *asid = Asid {
            generation: self.generation,
            processor: self.processor,
            number: self.next,
        };
        self.next += 1;
        if exhausted { Flush::All } else { Flush::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_used_once_between_global_flushes() {
        use Flush::{All, Nothing};
        let mut asids = Asids::new(0, 4, false);
        let mut vcpus = [Asid::default(); 4];
        assert_eq!(
            vcpus.each_mut().map(|vcpu| asids.assign(vcpu, false)),
            [All, Nothing, Nothing, All]
        );
        assert_eq!(vcpus.map(|vcpu| vcpu.number), [1, 2, 3, 1]);
        // The fourth began a generation: the others take new numbers, it keeps its own.
        assert_eq!(asids.assign(&mut vcpus[3], false), Nothing);
        assert_eq!(asids.assign(&mut vcpus[0], false), Nothing);
        assert_eq!((vcpus[3].number, vcpus[0].number), (1, 2));
        assert_eq!(asids.assign(&mut vcpus[0], true), Nothing);
        assert_eq!(vcpus[0].number, 3);
        assert_eq!(asids.assign(&mut vcpus[0], true), All);
        assert_eq!(asids.flushes, Flushes { guest: 2, all: 3 });
    }

    #[test]
    fn a_number_of_its_own_is_flushed_by_itself_where_that_can_be() {
        let mut asids = Asids::new(0, 16, true);
        let mut vcpu = Asid::default();
        assert_eq!(asids.assign(&mut vcpu, true), Flush::All);
        let number = vcpu.number;
        assert_eq!(asids.assign(&mut vcpu, true), Flush::Guest);
        assert_eq!(
            (vcpu.number, asids.assign(&mut vcpu, false)),
            (number, Flush::Nothing)
        );
    }

    #[test]
    fn another_processor_has_other_numbers() {
        let (mut first, mut second) = (Asids::new(0, 16, false), Asids::new(1, 16, false));
        let mut vcpu = Asid::default();
        first.assign(&mut vcpu, false);
        let before = vcpu;
        second.assign(&mut vcpu, false);
        assert_ne!(before, vcpu);
    }

    proptest! {
        /// Processors that remember under each number the state of memory of whoever ran with it: no vCPU ever meets what was before its last
        /// flush, or what is another's.
        #[test]
        fn nobody_meets_what_is_stale(
            count in 2u32..6,
            by_asid: bool,
            steps in proptest::collection::vec((0usize..5, 0usize..3, proptest::bool::weighted(0.3)), 1..300),
        ) {
            let mut processors: Vec<_> = (0..3).map(|index| Asids::new(index, count, by_asid)).collect();
            // Before us somebody used every number.
            let foreign: BTreeMap<u32, (usize, u32)> = (1..count).map(|number| (number, (usize::MAX, 0))).collect();
            let mut caches = [foreign.clone(), foreign.clone(), foreign];
            let mut vcpus = [(Asid::default(), 0u32, false); 5];
            for (who, processor, changes) in steps {
                let (asid, memory, renew) = &mut vcpus[who];
                if changes {
                    (*memory, *renew) = (*memory + 1, true);
                    continue;
                }
                let flush = processors[processor].assign(asid, core::mem::take(renew));
                match flush {
                    Flush::Nothing => {}
                    Flush::Guest => {
                        caches[processor].remove(&asid.number);
                    }
                    Flush::All => caches[processor].clear(),
                }
                prop_assert!((1..count).contains(&asid.number));
                let cached = *caches[processor].entry(asid.number).or_insert((who, *memory));
                prop_assert_eq!(cached, (who, *memory));
            }
        }
    }
}
