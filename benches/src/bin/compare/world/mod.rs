//! The worlds that are measured. Either two containers for each peer and what stands between them, or, with `--nat`, a
//! container, its gateway and a server outside.

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
}
