//! Which bytes of one packet are known.

use tapswitch_wire::DropReason;

/// Disjoint ranges of the packet's payload, in order, with a hole between any two; and where it ends, once known.
#[derive(Clone, Default)]
pub(super) struct Pieces {
    known: Vec<(u16, u16)>,
    end: Option<u16>,
}

impl Pieces {
    /// Adds the bytes from `start` to `end`, of which there is at least one. `is_last` says that the packet ends there.
    /// At most `most` ranges are kept.
    ///
    /// # Errors
    /// Nothing has changed, and the fragment is: [`DropReason::FragmentDuplicate`], wholly known already;
    /// [`DropReason::FragmentOverlap`], known in part or in contradiction to the packet's end;
    /// [`DropReason::FragmentLimit`], one range too many; [`DropReason::FragmentMalformed`], beyond all packets.
    pub(super) fn add(&mut self, start: usize, end: usize, is_last: bool, most: usize) -> Result<(), DropReason> {
        let (Ok(start), Ok(end)) = (u16::try_from(start), u16::try_from(end)) else {
            return Err(DropReason::FragmentMalformed);
        };
        let contradicts = match (self.end, is_last) {
            (Some(known), true) => end != known,
            // More bytes are promised where there are none.
            (Some(known), false) => end >= known,
            (None, true) => self.known.last().is_some_and(|(_, known)| *known > end),
            (None, false) => false,
        };
        if contradicts {
            return Err(DropReason::FragmentOverlap);
        }
        // The first range that does not end before this one begins: it touches, overlaps or follows.
        let at = self.known.partition_point(|range| range.1 < start);
        let touches_left = self.known.get(at).is_some_and(|range| range.1 == start);
        let right = at + usize::from(touches_left);
        let next = self.known.get(right).copied();
        if next.is_some_and(|next| next.0 < end) {
            let is_within = next.is_some_and(|next| next.0 <= start && end <= next.1);
            // The same bytes came as a fragment with more behind.
            let turned_last = is_last && self.end.is_none();
            return Err(if is_within && !turned_last {
                DropReason::FragmentDuplicate
            } else {
                DropReason::FragmentOverlap
            });
        }
        match (touches_left, next.is_some_and(|next| next.0 == end)) {
            (true, true) => self.known[at].1 = self.known.remove(right).1,
            (true, false) => self.known[at].1 = end,
            (false, true) => self.known[at].0 = start,
            (false, false) if self.known.len() < most => self.known.insert(at, (start, end)),
            (false, false) => return Err(DropReason::FragmentLimit),
        }
        if is_last {
            self.end = Some(end);
        }
        Ok(())
    }

    /// Where the last known byte ends.
    pub(super) fn end(&self) -> usize {
        self.known.last().map_or(0, |range| usize::from(range.1))
    }

    /// Whether all of the packet is known.
    pub(super) fn are_whole(&self) -> bool {
        matches!((&self.known[..], self.end), ([(0, known)], Some(end)) if *known == end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map of bytes.
        #[test]
        fn nu_9_ranges_say_what_a_map_of_bytes_says(
            parts in proptest::collection::vec((0usize..24, 1usize..8, proptest::bool::weighted(0.2)), 0..40),
        ) {
            let (mut pieces, mut map, mut end) = (Pieces::default(), [false; 256], None);
            for (start, len, is_last) in parts {
                let (start, stop) = (start * 8, (start + len) * 8);
                let known = map[start..stop].iter().filter(|byte| **byte).count();
                let top = map.iter().rposition(|byte| *byte).map_or(0, |at| at + 1);
                let contradicts = match end {
                    Some(end) => if is_last { stop != end } else { stop >= end },
                    None => is_last && (top > stop || known == stop - start),
                };
                let expected = match known {
                    _ if contradicts => Err(DropReason::FragmentOverlap),
                    0 => Ok(()),
                    _ if known == stop - start => Err(DropReason::FragmentDuplicate),
                    _ => Err(DropReason::FragmentOverlap),
                };
                prop_assert_eq!(pieces.add(start, stop, is_last, 64), expected);
                if expected.is_ok() {
                    map[start..stop].fill(true);
                    end = end.or(is_last.then_some(stop));
                }
                let top = map.iter().rposition(|byte| *byte).map_or(0, |at| at + 1);
                prop_assert_eq!(pieces.end(), top);
                prop_assert_eq!(pieces.are_whole(), end.is_some_and(|end| map[..end].iter().all(|byte| *byte)));
                prop_assert!(pieces.known.windows(2).all(|pair| pair[0].1 < pair[1].0), "a hole between any two");
            }
        }
    }

    #[test]
    fn nu_9_ranges_are_bounded_and_what_closes_a_hole_is_taken_when_full() {
        let mut pieces = Pieces::default();
        for at in 0..4 {
            assert_eq!(pieces.add(at * 16, at * 16 + 8, false, 4), Ok(()));
        }
        assert_eq!(pieces.add(80, 88, false, 4), Err(DropReason::FragmentLimit));
        assert_eq!(pieces.add(8, 16, false, 4), Ok(()));
        assert_eq!(pieces.add(80, 88, false, 4), Ok(()));
        assert_eq!(pieces.add(usize::from(u16::MAX), 65_536, true, 4), Err(DropReason::FragmentMalformed));
    }
}
