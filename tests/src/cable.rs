//! Programs between two interfaces that carry frames from one to the other, not always faithfully.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::namespace::{Netns, enter};
use crate::packet;
use crate::wire::Wire;

/// Two interfaces of one namespace, joined by a thread for each direction. They part when it is dropped.
pub(crate) struct Cable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _place: Netns,
}

impl Cable {
    /// Joins two interfaces of `place`.
    pub(crate) fn join(place: Netns, [one, other]: [&str; 2], shuffle: Shuffle) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let path = crate::Enter::netns_path(&place);
        let [one, other] = [one, other].map(|interface| Wire::open(&place, interface));
        let threads = [(one.share(), other.share()), (other, one)].map(|(mut from, to)| {
            let (stop, path, mut shuffle) = (Arc::clone(&stop), path.clone(), shuffle.clone());
            thread::spawn(move || {
                enter(&path);
                while !stop.load(Ordering::Relaxed) {
                    if let Some(frame) = from.find(Duration::from_millis(20), |frame| Some(frame.to_vec())) {
                        shuffle.pass(frame, |frame| to.send(frame));
                    }
                }
            })
        });
        Self { stop, threads: threads.into(), _place: place }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in it has been printed; the test fails by what does not arrive.
            let _ = thread.join();
        }
    }
}

/// Holds back the fragments of a datagram until all are there, and passes them on in any order, one of them twice.
/// Everything else passes at once.
#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    state: u64,
    held: HashMap<[u8; 11], Vec<Vec<u8>>>,
}

impl Default for Shuffle {
    fn default() -> Self {
        Self { state: 0x2545_f491_4f6c_dd1d, held: HashMap::new() }
    }
}

impl Shuffle {
    fn pass(&mut self, frame: Vec<u8>, mut on: impl FnMut(&[u8])) {
        let Some(key) = packet::fragment_key(&frame) else { return on(&frame) };
        let held = self.held.entry(key).or_default();
        held.push(frame);
        if !packet::complete(held) {
            return;
        }
        let mut all = self.held.remove(&key).unwrap_or_default();
        let twice = self.below(all.len());
        all.push(all[twice].clone());
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
        all.iter().for_each(|frame| on(frame));
    }

    /// A number below `limit` (xorshift).
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_come_out_complete_and_in_another_order() {
        let from = "192.0.2.1:1".parse().expect("an address");
        let to = "192.0.2.2:2".parse().expect("an address");
        let whole = packet::udp(from, to, &vec![7; 9000]);
        let fragments: Vec<_> =
            packet::fragments(&whole, 1500).iter().map(|f| packet::frame([2; 6], [4; 6], f)).collect();
        let (mut shuffle, mut out) = (Shuffle::default(), Vec::new());
        for fragment in &fragments {
            shuffle.pass(fragment.clone(), |frame| out.push(frame.to_vec()));
        }
        assert_eq!(out.len(), fragments.len() + 1);
        assert_ne!(out[..fragments.len()], fragments[..]);
        assert!(fragments.iter().all(|fragment| out.contains(fragment)));
    }
}
