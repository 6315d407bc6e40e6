//! Which processors each domain may run on, once for the life of the machine: what the manifest names, as far as the machine has it, without what
//! is another domain's alone.
//!
//! Whatever the manifest asks for, every domain gets at least one processor.

use alloc::{format, string::String, vec::Vec};

use super::set::ProcessorSet;

/// Where a domain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Not empty.
    pub allowed: ProcessorSet,
    /// Nobody else runs there.
    pub exclusive: bool,
}

/// A domain's wish.
struct Wish<'a> {
    name: &'a str,
    /// Those of the named ones that exist; all where none is named or exists.
    wanted: ProcessorSet,
    exclusive: bool,
}

/// Places domains, in the order of the manifest, on the first `processors` processors. The sentences are for the operator.
pub fn plan<'a>(
    domains: impl IntoIterator<Item = (&'a str, &'a manifest::Scheduling)>,
    processors: usize,
) -> (Vec<Place>, Vec<String>) {
    let existing = ProcessorSet::first(processors);
    let mut messages = Vec::new();
    let mut wishes: Vec<Wish<'_>> = domains
        .into_iter()
        .map(|(name, scheduling)| wish(name, scheduling, existing, &mut messages))
        .collect();
    let mut taken = ProcessorSet::default();
    for wish in wishes.iter_mut().filter(|wish| wish.exclusive) {
        if wish.wanted.and(taken).is_empty() {
            taken = taken.or(wish.wanted);
        } else {
            wish.exclusive = false;
            messages.push(format!(
                "{} does not get its processors to itself: another domain has one of them already",
                wish.name
            ));
        }
    }
    let taken = loop {
        let taken = wishes
            .iter()
            .filter(|wish| wish.exclusive)
            .fold(ProcessorSet::default(), |taken, wish| taken.or(wish.wanted));
        let homeless = wishes
            .iter()
            .find(|wish| !wish.exclusive && wish.wanted.without(taken).is_empty());
        let Some(homeless) = homeless else { break taken };
        let (name, wanted) = (homeless.name, homeless.wanted);
        let last = wishes
            .iter_mut()
            .rfind(|wish| wish.exclusive && !wish.wanted.and(wanted).is_empty());
        // There is one: it is what made the other homeless.
        let Some(last) = last else { break taken };
        last.exclusive = false;
        messages.push(format!(
            "{} does not get its processors to itself: nothing would be left for {name}",
            last.name
        ));
    };
    let places = wishes
        .iter()
        .map(|wish| Place {
            allowed: if wish.exclusive {
                wish.wanted
            } else {
                wish.wanted.without(taken)
            },
            exclusive: wish.exclusive,
        })
        .collect();
    (places, messages)
}

fn wish<'a>(
    name: &'a str,
    scheduling: &manifest::Scheduling,
    existing: ProcessorSet,
    messages: &mut Vec<String>,
) -> Wish<'a> {
    let named = scheduling.processors.iter().map(|number| *number as usize);
    let found = named.clone().collect::<ProcessorSet>().and(existing);
    let missing: Vec<usize> = named.filter(|number| !existing.contains(*number)).collect();
    if !missing.is_empty() {
        let what_now = match (found.is_empty(), scheduling.exclusive) {
            (false, _) => "it runs on the others that were named for it",
            (true, false) => "it runs anywhere",
            (true, true) => "it runs anywhere, and together with other domains",
        };
        messages.push(format!(
            "{name} was to run on processors that this machine lacks ({missing:?}): {what_now}"
        ));
    }
    Wish {
        name,
        wanted: if found.is_empty() { existing } else { found },
        exclusive: scheduling.exclusive && !found.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scheduling(processors: &[u32], exclusive: bool) -> manifest::Scheduling {
        manifest::Scheduling {
            processors: processors.into(),
            exclusive,
            ..Default::default()
        }
    }

    fn planned(wishes: &[manifest::Scheduling], processors: usize) -> (Vec<(Vec<usize>, bool)>, Vec<String>) {
        let named = ["a", "b", "c", "d"].into_iter().zip(wishes);
        let (places, messages) = plan(named, processors);
        let places = places
            .iter()
            .map(|place| (place.allowed.iter().collect(), place.exclusive));
        (places.collect(), messages)
    }

    #[test]
    fn everybody_keeps_away_from_what_is_one_domains_alone() {
        let wishes = [
            scheduling(&[], false),
            scheduling(&[1], true),
            scheduling(&[0, 2], false),
        ];
        let (places, messages) = planned(&wishes, 4);
        assert_eq!(
            places,
            [(vec![0, 2, 3], false), (vec![1], true), (vec![0, 2], false)]
        );
        assert!(messages.is_empty());
    }

    #[test]
    fn processors_that_the_machine_lacks_are_named() {
        let wishes = [
            scheduling(&[1, 5], true),
            scheduling(&[7], true),
            scheduling(&[8], false),
        ];
        let (places, messages) = planned(&wishes, 2);
        assert_eq!(places, [(vec![1], true), (vec![0], false), (vec![0], false)]);
        assert_eq!(
            messages,
            [
                "a was to run on processors that this machine lacks ([5]): it runs on the others that were named for it",
                "b was to run on processors that this machine lacks ([7]): it runs anywhere, and together with other domains",
                "c was to run on processors that this machine lacks ([8]): it runs anywhere",
            ]
        );
    }

    #[test]
    fn the_last_exclusive_one_makes_room() {
        let wishes = [
            scheduling(&[0], true),
            scheduling(&[1], true),
            scheduling(&[], false),
        ];
        let (places, messages) = planned(&wishes, 2);
        assert_eq!(places, [(vec![0], true), (vec![1], false), (vec![1], false)]);
        assert_eq!(
            messages,
            ["b does not get its processors to itself: nothing would be left for c"]
        );
        // Nobody else needs one.
        let (places, messages) = planned(&wishes[..2], 2);
        assert_eq!(places, [(vec![0], true), (vec![1], true)]);
        assert!(messages.is_empty());
    }

    #[test]
    fn one_processor_is_for_all() {
        let wishes = [scheduling(&[], false), scheduling(&[0], true)];
        let (places, messages) = planned(&wishes, 1);
        assert_eq!(places, [(vec![0], false), (vec![0], false)]);
        assert_eq!(messages.len(), 1);
    }

    proptest! {
        #[test]
        fn everybody_has_a_place_and_exclusive_ones_are_alone(
            wishes in prop::collection::vec((prop::collection::vec(0u32..8, 0..4), any::<bool>()), 1..5),
            processors in 1usize..6,
        ) {
            let wishes: Vec<_> = wishes.iter().map(|(named, exclusive)| scheduling(named, *exclusive)).collect();
            let (places, _) = planned(&wishes, processors);
            for (index, (allowed, exclusive)) in places.iter().enumerate() {
                prop_assert!(!allowed.is_empty());
                prop_assert!(allowed.iter().all(|number| *number < processors));
                for (other, (others, _)) in places.iter().enumerate() {
                    prop_assert!(!exclusive || other == index || allowed.iter().all(|number| !others.contains(number)));
                }
            }
        }
    }
}
