//! The worlds that are measured. Either two containers for each peer and what stands between them, or, with `--nat`, a
//! container, its gateway and a server outside; with `--rootless` the same, of an ordinary user.

mod netns;
pub(crate) mod peers;

use serde::{Deserialize, Serialize};

pub(crate) use netns::Netns;
pub(crate) use peers::{Held, Peer, Room};

/// What lies between the two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum World {
    /// One switch: from container to container.
    #[default]
    Switch,
    /// A router that masquerades: from a container to a server outside.
    Nat,
    /// What an ordinary user can start in its place: from a container to a server outside, and back to published ports.
    Rootless,
}

impl World {
    /// Whether there is an outside.
    pub(crate) fn is_way_out(self) -> bool {
        self != Self::Switch
    }
}
