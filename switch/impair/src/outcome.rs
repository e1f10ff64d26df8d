//! What became of frames.

use std::ops::AddAssign;

use serde::Serialize;

/// What became of the frames of one push, or of many, added up.
///
/// Always `frames + duplicated = queued + lost + full + overrun`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Outcome {
    /// Frames that came: the segments of a super-frame each for itself.
    pub frames: u64,
    /// Frames and copies that will arrive.
    pub queued: u64,
    /// Dropped on purpose.
    pub lost: u64,
    /// Dropped since the queue in front of the rate had reached its limit.
    pub full: u64,
    /// Dropped since as much was under way as a link may hold ([`MEMORY`](crate::MEMORY)).
    pub overrun: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames that skip the delay. A lost one is counted in `lost` only.
    pub reordered: u64,
    /// Frames with a bit flipped, not counting their copies.
    pub corrupted: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Outcome) {
        self.frames += other.frames;
        self.queued += other.queued;
        self.lost += other.lost;
        self.full += other.full;
        self.overrun += other.overrun;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
    }
}
