//! Links with impairment: one direction of one cable, as bad as its owner wants it, and bad in the same way each time.
//!
//! # Theory of operation
//!
//! **Goal.** A laboratory needs a link with the delay of an ocean, the rate of a modem or the losses of a radio, without
//! privileges, and needs it again tomorrow. [`Link`] takes frames with the time ([`Link::push`]), gives them back when
//! they are due ([`Link::pop`]), and says when that is ([`Link::deadline`]). It has no descriptor, thread or clock. What
//! it does to frames is an [`Impairment`], written in words that users of `tc netem` know.
//!
//! **The way of a frame.** The order is always this, whatever is set:
//!
//! 1. *Cut.* A super-frame becomes the frames it stands for: each has a fate of its own.
//! 2. *Queue*, if there is a rate: [`Limit`] frames or bytes wait at most, one more is `full`. A frame leaves when those
//!    before it have left and its own bits are sent.
//! 3. *Way.* It takes the [`Delay`], which jitter changes from frame to frame. A *reordered* frame skips the delay, and
//!    so overtakes those still on their way. Nothing else reorders: a frame that drew a shorter delay than its
//!    predecessor arrives right behind it. (`netem` lets jitter reorder; a queue on a real path does not, and whoever
//!    looks at TCP should not see it by surprise.) So jitter between frames closer together than itself makes bunches, and
//!    raises the mean delay.
//! 4. *Loss.* A lost frame has gone all the way, with its place in the queue and its time on the wire.
//! 5. *Corruption.* One bit somewhere in the frame is flipped. A partial checksum is completed before, and nothing vouches
//!    for the frame any more, so the receiver notices (unless the bit lies where no checksum looks: the Ethernet header,
//!    padding, ARP).
//! 6. *Duplication.* A copy arrives right behind its frame, equal to the last bit.
//!
//! **Chance.** Each kind of impairment has a generator of its own (PCG, whose values never change between versions or
//! machines), seeded from the one seed of the link, and each frame rolls all of these dice, whatever is set. Only integers
//! are calculated with. Hence the laws:
//!
//! * *Repetition*: the same seed, settings, frames and times give the same output to the last bit. With other times, the
//!   n-th frame is still lost, doubled, reordered, corrupted, or delayed as it was, as long as no queue ran over.
//! * *Independence*: setting one of delay, loss, duplication, reordering and corruption changes nothing about what the
//!   others do to the n-th frame. (Of course a lost frame has no copy.)
//!
//! Two directions of one cable want two seeds, or the same frames are lost in both.
//!
//! **Live change.** [`Link::set`] works at once. Frames under way keep their due times. Frames that still wait
//! in front of the wire are sent at the new rate, all but the first, whose bits are going out. Frames pushed after a
//! change of delay do not wait for those pushed before it: after a shorter one they overtake, as after a change of route, so
//! that a delay of an hour, set by mistake, does not hold the link for an hour. Burst loss that is set anew begins in
//! the good state.
//!
//! **Data structures.** A heap of the frames under way, by due time, then by number; a ring with the times at which
//! waiting frames leave; buffers of four sizes that are used again, so a link in its stride allocates nothing.
//!
//! **When full.** The buffers of one link together never exceed [`MEMORY`]; a frame for which there is none is `overrun`,
//! counted apart from `full`, since the cure is another: fewer bits per second times delay.
//!
//! **Counting.** [`Outcome`] names what became of each frame, and for any series of pushes
//! `frames + duplicated = queued + lost + full + overrun`. What is queued is popped once, at its due time.
#![forbid(unsafe_code)]

mod buffers;
mod delay;
mod dice;
mod impairment;
mod link;
mod loss;
mod outcome;
mod rate;
mod reorder;
mod units;
mod wire;

pub use buffers::MEMORY;
pub use delay::{Delay, Distribution};
pub use impairment::Impairment;
pub use link::{Due, Link};
pub use loss::{GilbertElliott, Loss};
pub use outcome::Outcome;
pub use rate::{Limit, Rate};
pub use reorder::Reorder;
pub use units::Chance;
