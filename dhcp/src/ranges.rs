//! A set of numbers kept as ranges, so that the untouched rest of a /8 costs one entry.

use std::collections::BTreeMap;

/// Disjoint, never adjacent ranges: start to end, both inclusive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    /// All numbers from `first` to `last`, both included.
    pub(crate) fn new(first: u32, last: u32) -> Ranges {
        Ranges(if first <= last { BTreeMap::from([(first, last)]) } else { BTreeMap::new() })
    }

    /// Takes `number` out. Returns whether it was in.
    pub(crate) fn remove(&mut self, number: u32) -> bool {
        let Some((start, end)) = self.around(number) else { return false };
        self.0.remove(&start);
        if start < number {
            self.0.insert(start, number - 1);
        }
        if number < end {
            self.0.insert(number + 1, end);
        }
        true
    }

    /// Puts `number` in.
    pub(crate) fn insert(&mut self, number: u32) {
        if self.around(number).is_some() {
            return;
        }
        let (mut start, mut end) = (number, number);
        if let Some((left, _)) = number.checked_sub(1).and_then(|n| self.around(n)) {
            start = left;
        }
        if let Some((right, far)) = number.checked_add(1).and_then(|n| self.around(n)) {
            self.0.remove(&right);
            end = far;
        }
        self.0.insert(start, end);
    }

    /// Every number, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(start, end)| *start..=*end)
    }

    /// Whether `number` is in.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.around(number).is_some()
    }

    fn around(&self, number: u32) -> Option<(u32, u32)> {
        let (start, end) = self.0.range(..=number).next_back()?;
        (number <= *end).then_some((*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_number_range_do_not_overflow() {
        let mut ranges = Ranges::new(0, u32::MAX);
        for number in [0, u32::MAX, 7] {
            assert!(ranges.remove(number) && !ranges.remove(number));
        }
        for number in [u32::MAX, 0, 7, 7] {
            ranges.insert(number);
        }
        assert_eq!(ranges.0.len(), 1, "put back, all is one range again");
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 10u32..30), 0..100)) {
            let mut ranges = Ranges::new(12, 25);
            let mut model: BTreeSet<u32> = (12..=25).collect();
            for (put, number) in steps {
                if put {
                    ranges.insert(number);
                    model.insert(number);
                } else {
                    prop_assert_eq!(ranges.remove(number), model.remove(&number));
                }
                prop_assert!(ranges.iter().eq(model.iter().copied()));
                prop_assert_eq!(ranges.contains(number), put);
                prop_assert!(ranges.0.iter().zip(ranges.0.keys().skip(1)).all(|((_, end), next)| end + 1 < *next));
            }
        }
    }
}
