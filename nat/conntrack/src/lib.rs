//! Connection tracking and translation.
#![forbid(unsafe_code)]

mod config;
mod conntrack;
mod control;
pub mod fragment;
mod hops;
mod index;
mod mapping;
mod pool;
mod quota;
mod session;
pub mod tcp;
mod tuple;
mod wheel;

pub use config::{Config, Dependence, Forward, Limits, PortChoice, Timers};
pub use conntrack::{Conntrack, Passed, Refusal, Related, Way};
pub use control::ForwardError;
pub use quota::Usage;
pub use session::{Reason, SessionId, SessionView};
pub use tuple::{Protocol, Realm, Tuple};

/// Which way a packet of a session goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// As the packet that began the session.
    Original,
    /// The other way.
    Reply,
}

impl Direction {
    /// The other one.
    pub const fn other(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}
