//! Finding a place: what is left of memory beside what is occupied.

use core::ops::Range;

/// The largest range that lies in one of `free` and meets none of `taken`. Both may be in any order.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
pub(crate) fn largest(free: &[Range<u64>], taken: &[Range<u64>]) -> Option<Range<u64>> {
    let mut best: Option<Range<u64>> = None;
    for region in free {
        let mut start = region.start;
        while start < region.end {
            // The next occupied byte at or behind `start` ends the gap; if `start` itself is occupied, the gap is empty.
            let occupied = taken
                .iter()
                .filter(|range| range.start < range.end && range.end > start);
            let first = occupied.min_by_key(|range| range.start);
            let end = first.map_or(region.end, |range| range.start.clamp(start, region.end));
            if best
                .as_ref()
                .is_none_or(|best| end - start > best.end - best.start)
                && end > start
            {
                best = Some(start..end);
            }
            start = first.map_or(region.end, |range| range.end);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_hole_wins() {
        let ram = [0..0xa0000, 0x100000..0x1000000];
        let taken = [0x100000..0x280000, 0xf00000..0xf01000, 0x2000..0x3000];
        assert_eq!(largest(&ram, &taken), Some(0x280000..0xf00000));
        let all = 0..10;
        assert_eq!(
            largest(core::slice::from_ref(&all), core::slice::from_ref(&all)),
            None
        );
        assert_eq!(largest(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn the_answer_is_free(
            free in prop::collection::vec((0u64..200, 0u64..80), 0..5),
            taken in prop::collection::vec((0u64..250, 0u64..30), 0..8),
        ) {
            let ranges = |list: &[(u64, u64)]| -> Vec<Range<u64>> {
                list.iter().map(|&(start, length)| start..start + length).collect()
            };
            let (free, taken) = (ranges(&free), ranges(&taken));
            let is_free = |byte: u64| {
                free.iter().any(|range| range.contains(&byte)) && !taken.iter().any(|range| range.contains(&byte))
            };
            match largest(&free, &taken) {
                Some(range) => prop_assert!(!range.is_empty() && range.clone().all(is_free)),
                None => prop_assert!(!(0..300).any(is_free)),
            }
        }
    }
}
