//! The cyclic frame: a broadcast with one of the EtherTypes that IEEE 802 leaves to local experiments, as long as the shortest frame.

/// Bytes of a frame, without its check sequence.
pub const LENGTH: usize = 60;
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const MARK: [u8; 4] = *b"ATRT";

/// Who says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The controller: this is what the actuator shall do.
    Command,
    /// The thing that is controlled: this is what the sensor says.
    Answer,
}

/// A frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cyclic {
    /// Who says it.
    pub kind: Kind,
    /// The turn that it belongs to.
    pub sequence: u32,
    /// What the actuator shall do, or what the sensor says, in 65536ths.
    pub value: i32,
}

impl Cyclic {
    /// The frame, from a sender with this address.
    pub fn encode(&self, source: [u8; 6]) -> [u8; LENGTH] {
        let mut frame = [0; LENGTH];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&source);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[14..18].copy_from_slice(&MARK);
        frame[18] = match self.kind {
            Kind::Command => 1,
            Kind::Answer => 2,
        };
        frame[20..24].copy_from_slice(&self.sequence.to_be_bytes());
        frame[24..28].copy_from_slice(&self.value.to_be_bytes());
        frame
    }

    /// What a frame says, if it is one of ours.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        if frame.get(12..14)? != ETHERTYPE || frame.get(14..18)? != MARK {
            return None;
        }
        let kind = match frame.get(18)? {
            1 => Kind::Command,
            2 => Kind::Answer,
            _ => return None,
        };
        let word = |at: usize| frame.get(at..at + 4)?.try_into().ok();
        Some(Self {
            kind,
            sequence: u32::from_be_bytes(word(20)?),
            value: i32::from_be_bytes(word(24)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_say_what_was_put_into_them(answer in any::<bool>(), sequence in any::<u32>(), value in any::<i32>()) {
            let kind = if answer { Kind::Answer } else { Kind::Command };
            let cyclic = Cyclic { kind, sequence, value };
            prop_assert_eq!(Cyclic::decode(&cyclic.encode([2, 0, 0, 0, 0, 1])), Some(cyclic));
        }

        #[test]
        fn any_bytes_may_arrive(bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..LENGTH) {
            let _ = Cyclic::decode(&bytes);
            let frame = Cyclic { kind: Kind::Answer, sequence: 1, value: 2 }.encode([0; 6]);
            prop_assert_eq!(Cyclic::decode(&frame[..cut]).is_some(), cut >= 28);
        }
    }
}
