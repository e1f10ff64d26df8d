//! Frames with numbers, and a loop in virtual time.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tapswitch_impair::{Impairment, Link, Outcome};
use tapswitch_wire::{ETHERNET_HEADER_LEN, Instant, Meta};

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub fn words(words: &str) -> Impairment {
    words.parse().unwrap()
}

/// A frame of an experimental EtherType, with a number behind its header. `len` is 18 at least.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; len];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[ETHERNET_HEADER_LEN..ETHERNET_HEADER_LEN + 4].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A frame that came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub number: u32,
    pub sent: Instant,
    pub due: Instant,
    pub bytes: Vec<u8>,
}

impl Arrival {
    pub fn delay(&self) -> Duration {
        self.due - self.sent
    }
}

/// A link with frames that are numbered from 0, and the time of each.
pub struct World {
    pub link: Link,
    pub now: Instant,
    pub sent: Vec<Instant>,
    pub arrivals: Vec<Arrival>,
    pub outcome: Outcome,
}

impl World {
    pub fn new(impairment: &str, seed: u64) -> World {
        World {
            link: Link::new(words(impairment), seed),
            now: Instant::from_secs(1),
            sent: Vec::new(),
            arrivals: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// So many frames of one length, one each `every`, and waits for the last to arrive.
    pub fn run(impairment: &str, seed: u64, count: u32, every: Duration, len: usize) -> World {
        let mut world = World::new(impairment, seed);
        for _ in 0..count {
            world.push(len);
            world.advance(every);
        }
        world.drain();
        world
    }

    /// Sends a frame now.
    pub fn push(&mut self, len: usize) -> Outcome {
        let number = self.sent.len() as u32;
        self.sent.push(self.now);
        let outcome = self.link.push(self.now, &Meta::PLAIN, &frame(number, len)).unwrap();
        self.outcome += outcome;
        outcome
    }

    /// Lets time go by, and takes what arrives at the very time when it is due.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while self.link.deadline().is_some_and(|deadline| deadline <= end) {
            self.now = self.now.max(self.link.deadline().unwrap());
            let due = self.link.pop(self.now).expect("at its deadline the link gives a frame");
            assert!(due.due <= self.now);
            let number = due.bytes[ETHERNET_HEADER_LEN..ETHERNET_HEADER_LEN + 4].try_into().unwrap();
            let number = u32::from_be_bytes(number);
            // A corrupted number is that of no frame.
            let sent = self.sent.get(number as usize).copied().unwrap_or_default();
            let (due, bytes) = (due.due, due.bytes.to_vec());
            self.arrivals.push(Arrival { number, sent, due, bytes });
        }
        self.now = end;
    }

    /// Waits until nothing is under way.
    pub fn drain(&mut self) {
        while let Some(deadline) = self.link.deadline() {
            self.advance(deadline - self.now);
        }
    }

    /// The numbers of the frames in the order of their arrival.
    pub fn numbers(&self) -> Vec<u32> {
        self.arrivals.iter().map(|arrival| arrival.number).collect()
    }

    /// A hash of all that came out, bytes and times.
    pub fn hash(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for arrival in &self.arrivals {
            hasher.write(&arrival.due.as_nanos().to_be_bytes());
            hasher.write(&arrival.bytes);
        }
        hasher.finish()
    }
}
