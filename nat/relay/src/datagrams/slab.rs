//! Things with numbers, and chains of them: what the tables of datagrams are made of.
//!
//! A chain is a doubly linked list through the things themselves, so that joining, leaving and moving to its end cost the
//! same however long it is, and nothing is allocated. Each chain of this module is in order of use: its head is what was
//! used least recently.

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// Neighbours in a chain.
#[derive(Clone, Copy)]
pub(super) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    pub(super) const LOOSE: Link = Link { prev: NONE, next: NONE };
}

/// The two ends of a chain.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    head: u32,
    tail: u32,
}

impl Chain {
    pub(super) const EMPTY: Chain = Chain { head: NONE, tail: NONE };

    /// What was used least recently.
    pub(super) fn head(&self) -> Option<u32> {
        Some(self.head).filter(|head| *head != NONE)
    }
}

/// What can be in chains, by their number.
pub(super) trait Linked {
    fn link(&mut self, chain: usize) -> &mut Link;
}

struct Place<T> {
    generation: u16,
    what: Option<T>,
}

/// Places for things, which are used again. A generation tells the things apart that had the same place.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The place and generation that the next thing will get.
    pub(super) fn next(&mut self) -> (u32, u16) {
        let index = match self.free.last() {
            Some(index) => *index,
            None => {
                let index = self.places.len() as u32;
                self.places.push(Place { generation: 0, what: None });
                self.free.push(index);
                index
            }
        };
        (index, self.places[index as usize].generation)
    }

    /// Puts a thing where [`Slab::next`] said.
    pub(super) fn insert(&mut self, what: T) -> u32 {
        let (index, _) = self.next();
        self.free.pop();
        self.places[index as usize].what = Some(what);
        index
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.what.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.what.as_mut()
    }

    /// The generation of what is at this place, if anything is.
    pub(super) fn generation(&self, index: u32) -> Option<u16> {
        self.places.get(index as usize).filter(|place| place.what.is_some()).map(|place| place.generation)
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.places.get_mut(index as usize)?;
        let what = place.what.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        Some(what)
    }

    /// All things with their places, in the order of these.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| Some((index, place.what.as_ref()?)))
    }
}

impl<T: Linked> Slab<T> {
    fn link(&mut self, index: u32, chain: usize) -> Option<&mut Link> {
        self.get_mut(index).map(|what| what.link(chain))
    }

    /// Puts a thing at the end of a chain, where what was used last stands.
    pub(super) fn join(&mut self, ends: &mut Chain, chain: usize, index: u32) {
        let before = ends.tail;
        if let Some(link) = self.link(index, chain) {
            *link = Link { prev: before, next: NONE };
        }
        match self.link(before, chain) {
            Some(link) => link.next = index,
            None => ends.head = index,
        }
        ends.tail = index;
    }

    /// Takes a thing out of a chain that it is in.
    pub(super) fn leave(&mut self, ends: &mut Chain, chain: usize, index: u32) {
        let Some(Link { prev, next }) = self.link(index, chain).map(|link| std::mem::replace(link, Link::LOOSE)) else {
            return;
        };
        match self.link(prev, chain) {
            Some(link) => link.next = next,
            None => ends.head = next,
        }
        match self.link(next, chain) {
            Some(link) => link.prev = prev,
            None => ends.tail = prev,
        }
    }

    /// Moves a thing to the end of the chain that it is in.
    pub(super) fn renew(&mut self, ends: &mut Chain, chain: usize, index: u32) {
        if ends.tail != index {
            self.leave(ends, chain, index);
            self.join(ends, chain, index);
        }
    }

    /// The places of all in a chain, least recently used first.
    pub(super) fn chained(&mut self, ends: Chain, chain: usize) -> Vec<u32> {
        let mut all = Vec::new();
        let mut at = ends.head;
        while let Some(link) = self.link(at, chain) {
            let next = link.next;
            all.push(at);
            at = next;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    struct Thing([Link; 1]);

    impl Linked for Thing {
        fn link(&mut self, chain: usize) -> &mut Link {
            &mut self.0[chain]
        }
    }

    proptest! {
        /// Against a list whose middle is searched.
        #[test]
        fn a_chain_is_a_list_in_order_of_use(steps in proptest::collection::vec((0u8..4, 0usize..16), 0..200)) {
            let (mut slab, mut chain, mut model) = (Slab::new(), Chain::EMPTY, VecDeque::new());
            for (what, which) in steps {
                match (what, model.get(which).copied()) {
                    (0, _) => {
                        let index = slab.insert(Thing([Link::LOOSE]));
                        slab.join(&mut chain, 0, index);
                        model.push_back(index);
                    }
                    (1, Some(index)) => {
                        slab.leave(&mut chain, 0, index);
                        slab.remove(index);
                        model.remove(which);
                    }
                    (_, Some(index)) => {
                        slab.renew(&mut chain, 0, index);
                        model.remove(which);
                        model.push_back(index);
                    }
                    (_, None) => {}
                }
                prop_assert_eq!(chain.head(), model.front().copied());
                prop_assert_eq!(slab.len(), model.len());
            }
            prop_assert_eq!(slab.chained(chain, 0), Vec::from(model));
        }
    }
}
