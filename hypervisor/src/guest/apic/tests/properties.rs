//! The delivery rules against a simple model, and accesses at random.

use proptest::prelude::*;

use super::*;

/// What can happen to an APIC.
#[derive(Clone, Debug)]
enum Step {
    Deliver(u8),
    Take,
    End,
    TaskPriority(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u8>().prop_map(Step::Deliver),
        Just(Step::Take),
        Just(Step::End),
        any::<u8>().prop_map(Step::TaskPriority)
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Against a model that keeps lists and searches them.
    #[test]
    fn delivery_follows_the_model(steps in steps()) {
        let mut apic = enabled(0);
        let (mut requested, mut in_service, mut priority) = (Vec::<u8>::new(), Vec::<u8>::new(), 0u8);
        for step in steps {
            let expected = |requested: &[u8], in_service: &[u8], priority: u8| {
                let busy = in_service.iter().map(|vector| vector / 16).chain([priority / 16]).max().unwrap_or(0);
                requested.iter().copied().max().filter(|vector| vector / 16 > busy)
            };
            match step {
                Step::Deliver(vector) => {
                    let new = vector >= 16 && !requested.contains(&vector);
                    prop_assert_eq!(apic.deliver(fixed(vector)) == Delivered::Interrupt, new);
                    if new {
                        requested.push(vector);
                    }
                }
                Step::Take => {
                    if let Some(vector) = apic.pending_vector() {
                        apic.accept(vector);
                        requested.retain(|other| *other != vector);
                        in_service.push(vector);
                    }
                }
                Step::End => {
                    write(&mut apic, 0xb0, 0);
                    let highest = in_service.iter().copied().max();
                    in_service.retain(|vector| Some(*vector) != highest);
                }
                Step::TaskPriority(value) => {
                    write(&mut apic, 0x80, value.into());
                    priority = value;
                }
            }
            prop_assert_eq!(apic.pending_vector(), expected(&requested, &in_service, priority));
        }
    }

    /// No sequence of accesses panics, and the count never exceeds what was written.
    #[test]
    fn accesses_never_panic(accesses in prop::collection::vec((any::<u16>(), 0u8..=8, any::<u64>(), any::<bool>(), 0u64..1 << 40, any::<u32>()), 0..200)) {
        let mut apic = LocalApic::new(1, false);
        for (offset, size, value, wide, now, tsc_khz) in accesses {
            let time = Time { nanoseconds: now, guest_tsc: now.rotate_left(5), tsc_khz };
            if wide {
                let _ = apic.set_base(0xfee0_0000 | value & 0xc00);
            }
            let register = 0x800 + u32::from(offset % 0x40);
            let _ = apic.write_x2apic(register, value, time);
            let _ = apic.read_x2apic(register, time);
            apic.write_memory(offset & 0xff0, 4, value, time);
            apic.write_memory(offset, size, value, time);
            apic.read_memory(offset, size, time);
            apic.set_tsc_deadline(value, time);
            let (count, initial) = (apic.read_memory(0x390, 4, time), apic.read_memory(0x380, 4, time));
            prop_assert!(count <= initial);
            apic.expire(now);
            prop_assert!(apic.deadline().is_none_or(|next| next > now));
            if let Some(vector) = apic.pending_vector() {
                apic.accept(vector);
            }
        }
    }
}
