//! Frames as they pass: what `GET /v1/trace` tells, one object a line.

use serde::{Deserialize, Serialize};

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
}

/// A line of `GET /v1/trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TraceLine {
    /// A frame.
    Frame(Box<TraceView>),
    /// Frames since the line before that were wanted too and are not told, because there were too many.
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
