//! Frames as they pass: what `GET /v1/trace` tells, one object a line.

use serde::{Deserialize, Serialize};
use tapswitch_wire::{ChecksumState, Meta};

/// What happened to one frame that somebody watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceView {
    /// When it came, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The network.
    pub network: String,
    /// Where it came in: a container's name, `gateway`, or `uplink`.
    pub port: String,
    /// The frame in one line, as it came.
    pub frame: String,
    /// Its bytes, a super-frame counted as one.
    pub length: usize,
    /// What the stages say, in order.
    pub steps: Vec<StepView>,
    /// How it ended, in words.
    pub verdict: String,
    /// `forwarded`, `flooded`, `taken-in`, `relayed` or `dropped`.
    pub outcome: String,
    /// The reason's name, if it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it went, if that is one container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The frame as it came, in hexadecimal, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// What the sender left to do in these bytes; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<OffloadView>,
}

/// What the sender of a frame left to do: the checksum's field holds the sum of the pseudo header only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadView {
    /// Offset in the frame at which summing begins.
    pub checksum_start: u16,
    /// Offset of the checksum's field from there.
    pub checksum_offset: u16,
    /// Payload bytes of each packet that the frame is to be cut into, if it is a super-frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<u16>,
}

impl OffloadView {
    /// What is left to do in a frame, if anything is.
    pub fn of(meta: &Meta) -> Option<OffloadView> {
        match meta.checksum {
            ChecksumState::Partial { start, offset } => Some(OffloadView {
                checksum_start: start,
                checksum_offset: offset,
                segment: meta.gso.map(|gso| gso.size),
            }),
            ChecksumState::Complete | ChecksumState::Verified => None,
        }
    }
}

/// A line of `GET /v1/trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TraceLine {
    /// A frame.
    Frame(Box<TraceView>),
    /// Frames since the line before that were wanted too, or may have been, and are not told because there were too many.
    Missed {
        /// How many.
        missed: u64,
    },
}

/// One finding of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// The stage's name: `port`, `parse`, `learn`, `lookup`, `neighbour`, `gateway`, `dhcp`, `route`, `nat`, `relay` or
    /// `verdict`.
    pub stage: String,
    /// `looked-up`, `decided` or `changed`.
    pub kind: String,
    /// The finding, in words.
    pub text: String,
    /// What was rewritten in the frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeView>,
    /// Nanoseconds since the frame came; absent where nobody held a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ns: Option<u64>,
}

/// A field of a frame that was rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// Its name.
    pub field: String,
    /// What stood there.
    pub before: String,
    /// What stands there now.
    pub after: String,
}

impl From<tapswitch_wire::Step> for StepView {
    fn from(step: tapswitch_wire::Step) -> StepView {
        let change = |change: tapswitch_wire::Change| ChangeView {
            field: change.field.into(),
            before: change.before,
            after: change.after,
        };
        StepView {
            stage: step.stage.name().into(),
            kind: step.kind.name().into(),
            text: step.text,
            changes: step.changes.into_iter().map(change).collect(),
            at_ns: step.at_ns,
        }
    }
}

/// Which frames are meant: the query of `GET /v1/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// A filter, as tcpdump's; all frames if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only of this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The frames' bytes too.
    #[serde(default)]
    pub bytes: bool,
    /// At most so many a second; 1000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}
