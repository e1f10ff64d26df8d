//! What happened to one frame, told by the stages it passed.
//!
//! A stage is generic over [`Journey`]. With [`Unheard`] the closures that would build the text are never called and
//! the compiler removes them, so forwarding pays nothing; with [`Recorded`] each stage's findings are kept in order.

use serde::Serialize;

/// Where on its way the frame was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Read from or written to a port.
    Port,
    /// Offsets found.
    Parse,
    /// Source address learned.
    Learn,
    /// Destination looked up in the FDB.
    Lookup,
    /// ARP and the neighbour table of the gateway.
    Neighbour,
    /// Checks of the IP header, TTL, ICMP of the gateway.
    Gateway,
    /// Address service.
    Dhcp,
    /// Next hop chosen.
    Route,
    /// Addresses and ports translated.
    Nat,
    /// Turned into a socket of the host, or made from one.
    Relay,
    /// The end.
    Verdict,
}

impl Stage {
    /// The stage's name, as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Port => "port",
            Stage::Parse => "parse",
            Stage::Learn => "learn",
            Stage::Lookup => "lookup",
            Stage::Neighbour => "neighbour",
            Stage::Gateway => "gateway",
            Stage::Dhcp => "dhcp",
            Stage::Route => "route",
            Stage::Nat => "nat",
            Stage::Relay => "relay",
            Stage::Verdict => "verdict",
        }
    }
}

/// What a stage did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Read something from the frame or from a table.
    LookedUp,
    /// Chose among ways to go on.
    Decided,
    /// Changed the frame or a table.
    Changed,
}

impl Kind {
    /// The kind's name, as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LookedUp => "looked-up",
            Kind::Decided => "decided",
            Kind::Changed => "changed",
        }
    }
}

/// A field of the frame that was rewritten.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// Its name, as Wireshark has it in words: `source address`, `TTL`, `header checksum`.
    pub field: &'static str,
    /// What stood there.
    pub before: String,
    /// What stands there now.
    pub after: String,
}

/// One finding of one stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// Who says it.
    pub stage: Stage,
    /// What kind of finding it is.
    pub kind: Kind,
    /// The finding, in words.
    pub text: String,
    /// What was rewritten.
    pub changes: Vec<Change>,
    /// Nanoseconds since the frame came, if somebody holds a clock.
    pub at_ns: Option<u64>,
}

impl Step {
    fn new(stage: Stage, kind: Kind, text: String) -> Step {
        Step { stage, kind, text, changes: Vec::new(), at_ns: None }
    }

    /// "I looked this up."
    pub fn looked_up(stage: Stage, text: impl Into<String>) -> Step {
        Step::new(stage, Kind::LookedUp, text.into())
    }

    /// "I decided this."
    pub fn decided(stage: Stage, text: impl Into<String>) -> Step {
        Step::new(stage, Kind::Decided, text.into())
    }

    /// "I changed this."
    pub fn changed(stage: Stage, text: impl Into<String>) -> Step {
        Step::new(stage, Kind::Changed, text.into())
    }

    /// Adds a rewritten field; nothing, if it is as it was.
    #[must_use]
    pub fn with(mut self, field: &'static str, before: impl ToString, after: impl ToString) -> Step {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            self.changes.push(Change { field, before, after });
        }
        self
    }
}

/// Listens to the stages.
pub trait Journey {
    /// Takes a finding. The closure runs only when somebody listens.
    fn note(&mut self, step: impl FnOnce() -> Step);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard;

impl Journey for Unheard {
    #[inline(always)]
    fn note(&mut self, _: impl FnOnce() -> Step) {}
}

/// Keeps every finding in order.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The findings so far.
    pub steps: Vec<Step>,
    /// A clock in nanoseconds, and what it said when the frame came.
    clock: Option<(fn() -> u64, u64)>,
}

impl Recorded {
    /// One that says of each step when it was, by a clock that is lent to it.
    pub fn timed(clock: fn() -> u64) -> Recorded {
        Recorded { steps: Vec::new(), clock: Some((clock, clock())) }
    }
}

impl Journey for Recorded {
    fn note(&mut self, step: impl FnOnce() -> Step) {
        let at_ns = self.clock.map(|(clock, came)| clock().saturating_sub(came));
        self.steps.push(Step { at_ns, ..step() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listening_means_nothing_is_built() {
        Unheard.note(|| unreachable!("the text must not be built"));
        let mut heard = Recorded::default();
        heard.note(|| Step::decided(Stage::Lookup, "flood"));
        assert_eq!(heard.steps, [Step::decided(Stage::Lookup, "flood")]);
    }

    #[test]
    fn each_step_says_when_it_was_and_what_it_rewrote() {
        let mut heard = Recorded::timed(|| 5_000);
        heard.note(|| Step::changed(Stage::Gateway, "TTL").with("TTL", 64, 63).with("protocol", 6, 6));
        assert_eq!(heard.steps[0].at_ns, Some(0));
        let ttl = Change { field: "TTL", before: "64".into(), after: "63".into() };
        assert_eq!(heard.steps[0].changes, [ttl], "what is as it was is no change");
    }
}
