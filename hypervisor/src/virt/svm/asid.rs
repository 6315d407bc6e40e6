//! Address-space identifiers: each vCPU that runs on a processor has one of its own, so a switch between guests flushes nothing. When they
//! have all been used, one global flush starts a new generation, in which every vCPU takes a new one.

/// What a vCPU holds: worth something only in its generation, on its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asid {
    /// 0 before the first.
    generation: u64,
    processor: usize,
    /// What goes into the VMCB.
    pub number: u32,
}

/// The identifiers of one processor.
#[derive(Clone, Copy, Debug)]
pub struct Asids {
    processor: usize,
    generation: u64,
    next: u32,
    count: u32,
}

impl Asids {
    /// Of a processor that offers `count` of them, 0 (the host's) included.
    pub fn new(processor: usize, count: u32) -> Self {
        Self {
            processor,
            generation: 1,
            next: 1,
            count: count.max(2),
        }
    }

    /// Makes `asid` good for the next entry; true if the entry must flush all translations of the processor. With `renew`, translations under the old number
    /// are never used again.
    pub fn assign(&mut self, asid: &mut Asid, renew: bool) -> bool {
        if !renew && asid.generation == self.generation && asid.processor == self.processor {
            return false;
        }
        let exhausted = self.next >= self.count;
        if exhausted {
            self.generation += 1;
            self.next = 1;
        }
        *asid = Asid {
            generation: self.generation,
            processor: self.processor,
            number: self.next,
        };
        self.next += 1;
        exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_once_between_global_flushes() {
        let mut asids = Asids::new(0, 4);
        let mut vcpus = [Asid::default(); 4];
        assert_eq!(
            vcpus.each_mut().map(|vcpu| asids.assign(vcpu, false)),
            [false, false, false, true]
        );
        assert_eq!(vcpus.map(|vcpu| vcpu.number), [1, 2, 3, 1]);
        // The fourth began a generation: the others take new numbers, it keeps its own.
        assert!(!asids.assign(&mut vcpus[3], false));
        assert!(!asids.assign(&mut vcpus[0], false));
        assert_eq!((vcpus[3].number, vcpus[0].number), (1, 2));
        assert!(!asids.assign(&mut vcpus[0], true));
        assert_eq!(vcpus[0].number, 3);
        assert!(asids.assign(&mut vcpus[0], true));
    }

    #[test]
    fn another_processor_has_other_numbers() {
        let (mut first, mut second) = (Asids::new(0, 16), Asids::new(1, 16));
        let mut vcpu = Asid::default();
        first.assign(&mut vcpu, false);
        let before = vcpu;
        second.assign(&mut vcpu, false);
        assert_ne!(before, vcpu);
    }
}
