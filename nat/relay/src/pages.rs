//! Places with numbers, in pages that come and go.
//!
//! A growing vector doubles, so that it may be half empty, and it moves all that it holds; and it never becomes smaller.
//! Here each [`PAGE`] places are allocated together, and freed when none of them is taken. The lowest free place is given
//! out first, so that the upper pages become empty.

use std::array;

/// Places in one page: one bit each of a word.
const PAGE: usize = 64;

struct Page<T> {
    /// One bit for each place that is taken, whether something was put there or not.
    taken: u64,
    places: [Option<T>; PAGE],
}

pub(crate) struct Pages<T> {
    pages: Vec<Option<Box<Page<T>>>>,
    /// No page before this one has a free place.
    roomy: usize,
    taken: usize,
}

impl<T> Pages<T> {
    pub(crate) fn new() -> Pages<T> {
        Pages { pages: Vec::new(), roomy: 0, taken: 0 }
    }

    /// Number of places that are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.as_ref()?.places[at % PAGE].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at / PAGE)?.as_mut()?.places[at % PAGE].as_mut()
    }

    /// Takes the lowest free place. Nothing is there until [`Pages::put`].
    pub(crate) fn reserve(&mut self) -> usize {
        let has_room = |page: &Option<Box<Page<T>>>| page.as_ref().is_none_or(|page| page.taken != u64::MAX);
        let ahead = self.pages[self.roomy..].iter().position(has_room);
        self.roomy = ahead.map_or(self.pages.len(), |ahead| self.roomy + ahead);
        let at = match self.pages.get(self.roomy).and_then(Option::as_ref) {
            Some(page) => self.roomy * PAGE + page.taken.trailing_ones() as usize,
            None => self.roomy * PAGE,
        };
        self.take(at);
        at
    }

    fn take(&mut self, at: usize) -> &mut Option<T> {
        if self.pages.len() <= at / PAGE {
            self.pages.resize_with(at / PAGE + 1, || None);
        }
        let empty = || Box::new(Page { taken: 0, places: array::from_fn(|_| None) });
        let page = self.pages[at / PAGE].get_or_insert_with(empty);
        self.taken += usize::from(page.taken >> (at % PAGE) & 1 == 0);
        page.taken |= 1 << (at % PAGE);
        &mut page.places[at % PAGE]
    }

    /// Puts something at a place, which is taken by that if it was free. Returns what was there.
    pub(crate) fn put(&mut self, at: usize, what: T) -> Option<T> {
        self.take(at).replace(what)
    }

    /// Frees a place. Returns what was there.
    pub(crate) fn free(&mut self, at: usize) -> Option<T> {
        let slot = self.pages.get_mut(at / PAGE)?;
        let page = slot.as_mut()?;
        if page.taken >> (at % PAGE) & 1 == 0 {
            return None;
        }
        let was = page.places[at % PAGE].take();
        page.taken &= !(1 << (at % PAGE));
        self.taken -= 1;
        self.roomy = self.roomy.min(at / PAGE);
        if page.taken == 0 {
            *slot = None;
            let needed = self.pages.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.pages.truncate(needed);
            if needed == 0 {
                self.pages = Vec::new();
            }
            self.roomy = self.roomy.min(needed);
        }
        was
    }

    /// What there is, with its place, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let pages = self.pages.iter().zip(0..).filter_map(|(page, number)| Some((page.as_ref()?, number)));
        pages.flat_map(|(page, number)| {
            let places = page.places.iter().zip(number * PAGE..);
            places.filter_map(|(what, at)| Some((at, what.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_are_given_out_lowest_first_and_hold_what_was_put_there(
            steps in prop::collection::vec((0usize..300, 0u8..4), 1..600)
        ) {
            let (mut pages, mut model) = (Pages::new(), BTreeMap::new());
            for (number, (place, what)) in steps.into_iter().enumerate() {
                if what > 0 {
                    let lowest = (0..).find(|at| !model.contains_key(at)).unwrap();
                    prop_assert_eq!(pages.reserve(), lowest);
                    if what > 1 {
                        prop_assert_eq!(pages.put(lowest, number), None);
                    }
                    model.insert(lowest, (what > 1).then_some(number));
                } else {
                    prop_assert_eq!(pages.free(place), model.remove(&place).flatten());
                }
                prop_assert_eq!(pages.taken(), model.len());
            }
            let there: Vec<_> = pages.iter().map(|(at, number)| (at, *number)).collect();
            let wanted: Vec<_> = model.iter().filter_map(|(at, number)| Some((*at, (*number)?))).collect();
            prop_assert_eq!(there, wanted);
            for at in model.keys() {
                pages.free(*at);
            }
            prop_assert!(pages.pages.capacity() == 0, "nothing is left of them");
        }
    }
}
