//! What happens on the switch: what `GET /v1/events` tells, one object a line.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use tapswitch_wire::Mac;

use crate::publish::Published;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A container was attached: `ip` if it is known, `mac`.
    Attach,
    /// A container is gone: detached, or it ended.
    Detach,
    /// An address changed hands: `ip`, `mac`, `state`.
    Lease,
    /// Ports of a container were published: `published`.
    Publish,
    /// Ports of a container are published no longer: `published`. Not said of a container that is gone.
    Unpublish,
    /// A limit was reached and something refused, for the first time in ten seconds: `reason`, `text`, and `mac` of who
    /// sent it. What was sent to everybody is refused by the `gateway`, and not at the container.
    Limit,
}

impl EventKind {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Attach => "attach",
            EventKind::Detach => "detach",
            EventKind::Lease => "lease",
            EventKind::Publish => "publish",
            EventKind::Unpublish => "unpublish",
            EventKind::Limit => "limit",
        }
    }
}

/// Something that happened. What does not apply to its kind is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// What.
    pub kind: EventKind,
    /// The network.
    pub network: String,
    /// The container, or `gateway` for what the network itself ran into; absent for an address of somebody whose name is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Its MAC address; of a limit, that of the station whose frame was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Of a lease: `bound`, `reserved`, `declined` or `released`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of a lease that ends: when, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The ports that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
    /// The drop reason of what was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// Something happened.
    Event(Box<EventView>),
    /// Events since the line before that are not told, because the reader was too slow.
    Missed {
        /// How many.
        missed: u64,
    },
}
