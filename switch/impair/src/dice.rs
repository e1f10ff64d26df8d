//! The dice of a link: one for each kind of impairment, so that none disturbs another.

use rand_pcg::Pcg64Dxsm;
use rand_pcg::rand_core::Rng;

/// What one frame rolled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rolls {
    pub delay: [u64; 3],
    pub reorder: u64,
    /// Whether it is lost, and whether the state changes.
    pub loss: [u64; 2],
    /// Whether it is corrupted, and in which bit.
    pub corrupt: [u64; 2],
    pub duplicate: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Dice {
    delay: Pcg64Dxsm,
    reorder: Pcg64Dxsm,
    loss: Pcg64Dxsm,
    corrupt: Pcg64Dxsm,
    duplicate: Pcg64Dxsm,
}

impl Dice {
    /// The order of the fields is part of what a seed means: a new die goes to the end.
    pub fn new(seed: u64) -> Dice {
        let mut source = Pcg64Dxsm::new(u128::from(seed), 0);
        let mut stream = 0;
        let mut die = || {
            stream += 1;
            Pcg64Dxsm::new(u128::from(source.next_u64()) << 64 | u128::from(source.next_u64()), stream)
        };
        Dice { delay: die(), reorder: die(), loss: die(), corrupt: die(), duplicate: die() }
    }

    /// Rolls them all, for one frame: so each die's n-th rolls belong to the n-th frame, whatever is set.
    pub fn roll(&mut self) -> Rolls {
        Rolls {
            delay: std::array::from_fn(|_| self.delay.next_u64()),
            reorder: self.reorder.next_u64(),
            loss: std::array::from_fn(|_| self.loss.next_u64()),
            corrupt: std::array::from_fn(|_| self.corrupt.next_u64()),
            duplicate: self.duplicate.next_u64(),
        }
    }
}
