//! The world that is measured: two containers for each peer, and what stands between them.

mod netns;
pub(crate) mod peers;

pub(crate) use netns::Netns;
pub(crate) use peers::Peer;
