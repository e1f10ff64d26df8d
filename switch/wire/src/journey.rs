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

/// One finding of one stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// Who says it.
    pub stage: Stage,
    /// What kind of finding it is.
    pub kind: Kind,
    /// The finding, in words.
    pub text: String,
}

impl Step {
    /// "I looked this up."
    pub fn looked_up(stage: Stage, text: impl Into<String>) -> Step {
        Step { stage, kind: Kind::LookedUp, text: text.into() }
    }

    /// "I decided this."
    pub fn decided(stage: Stage, text: impl Into<String>) -> Step {
        Step { stage, kind: Kind::Decided, text: text.into() }
    }

    /// "I changed this."
    pub fn changed(stage: Stage, text: impl Into<String>) -> Step {
        Step { stage, kind: Kind::Changed, text: text.into() }
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
}

impl Journey for Recorded {
    fn note(&mut self, step: impl FnOnce() -> Step) {
        self.steps.push(step());
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
        assert_eq!(heard.steps, [Step { stage: Stage::Lookup, kind: Kind::Decided, text: "flood".into() }]);
    }
}
