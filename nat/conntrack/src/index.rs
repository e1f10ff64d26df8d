//! From a tuple to a session's number: what every poll thread looks into for every packet.
//!
//! A hash table of numbers alone; the tuples stand in the sessions. So an entry costs five bytes, where a map with its
//! keys would cost more than twenty, and each session has two. Shards keep writers out of most readers' way.

use hashbrown::HashTable;
use parking_lot::RwLock;

const SHARDS: usize = 64;

pub(crate) struct Index {
    shards: Box<[RwLock<HashTable<u32>>]>,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index { shards: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect() }
    }

    // The table uses the lowest and the highest seven bits.
    fn shard(&self, hash: u64) -> &RwLock<HashTable<u32>> {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    /// The first number with this hash for which `is` gives something.
    #[inline]
    pub(crate) fn find<T>(&self, hash: u64, mut is: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let shard = self.shard(hash).read();
        let mut found = None;
        shard.find(hash, |number| {
            found = is(*number);
            found.is_some()
        });
        found
    }

    /// Adds a number. `rehash` is asked for the hashes of others when the table grows.
    pub(crate) fn insert(&self, hash: u64, number: u32, rehash: impl Fn(u32) -> u64) {
        self.shard(hash).write().insert_unique(hash, number, |other| rehash(*other));
    }

    pub(crate) fn remove(&self, hash: u64, number: u32) {
        let mut shard = self.shard(hash).write();
        if let Ok(entry) = shard.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
    }
}
