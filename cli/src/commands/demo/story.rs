//! How the demo speaks: numbered steps, each with what it is for and what came of it.

use std::io::{self, IsTerminal};

use crate::api::{JourneyView, StepView};
use crate::error::Error;
use crate::output::{self, print};

/// The narrowest terminal that is still usual.
const WIDTH: usize = 80;

/// Tells the demo as it goes, or stays silent for those who want JSON at the end.
#[derive(Debug)]
pub(super) struct Story {
    silent: bool,
    bold: bool,
    step: usize,
    title: &'static str,
}

impl Story {
    pub(super) fn new(silent: bool) -> Story {
        let bold = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Story { silent, bold, step: 0, title: "" }
    }

    /// Begins a step: what will be seen, and why it is so.
    pub(super) fn step(&mut self, title: &'static str, why: &str) -> Result<(), Error> {
        self.step += 1;
        self.title = title;
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.print(&format!("\n{on}{}. {title}{off}\n{}", self.step, wrapped(why, "   ", "   ")))
    }

    /// Says what came of it.
    pub(super) fn fact(&self, text: &str) -> Result<(), Error> {
        self.print(&wrapped(text, "   * ", "     "))
    }

    /// Says something outside of the steps.
    pub(super) fn remark(&self, text: &str) -> Result<(), Error> {
        self.print(&wrapped(text, "", ""))
    }

    /// Tells the journey of a frame.
    pub(super) fn journey(&self, journey: &JourneyView) -> Result<(), Error> {
        self.print(&told(journey))
    }

    /// Where a failure happened.
    pub(super) fn blame(&self, error: &Error) -> Error {
        Error::failed(format!("the demo failed at step {}, {}: {error}", self.step, self.title))
    }

    fn print(&self, text: &str) -> Result<(), Error> {
        if self.silent { Ok(()) } else { print(text) }
    }
}

/// The stages of a journey, each with the question that it answers, and beneath it what it found.
fn told(journey: &JourneyView) -> String {
    let mut text = wrapped(&journey.frame, &format!("\n   from {}: ", journey.port), "     ");
    if journey.frame.contains(PARTIAL) {
        text += &wrapped(PARTIAL_MEANS, "     ", "     ");
    }
    let mut stage = "";
    // The frame stands above, and the verdict below, where ports have names.
    let said = |step: &&StepView| step.stage != "verdict" && !step.text.contains(&journey.frame);
    for step in journey.steps.iter().filter(said) {
        if step.stage != stage {
            stage = &step.stage;
            text += &format!("   {stage:<10} {}\n", question(stage));
        }
        let kind = match step.kind.as_str() {
            "looked-up" => "looked up",
            other => other,
        };
        text += &wrapped(&step.text, &format!("   {:<10}   {kind:<10}", ""), &" ".repeat(26));
    }
    text + &wrapped(&journey.verdict, &format!("   {:<10} ", "verdict"), &" ".repeat(14))
}

/// How a frame's line says that its checksum is unfinished, and what to say of that.
const PARTIAL: &str = "partial checksum";
const PARTIAL_MEANS: &str = "(partial checksum: the container's kernel leaves the rest of the sum to whoever needs it; \
                             here nobody does)";

/// What a stage is for.
fn question(stage: &str) -> &'static str {
    match stage {
        "port" => "how did it come in?",
        "parse" => "where does each header begin? (read once, all later stages use the offsets)",
        "learn" => "behind which port does its sender stand?",
        "lookup" => "behind which port does its receiver stand?",
        "neighbour" => "which MAC address has the next hop?",
        "gateway" => "it is addressed to the router: is it a sound packet, and may it go on?",
        "dhcp" => "who asks for an address, and which does he get?",
        "route" => "which way out?",
        "nat" => "as whom does it appear outside?",
        "relay" => "which socket of the host carries this flow?",
        "verdict" => "how did it end?",
        _ => "",
    }
}

fn wrapped(text: &str, first: &str, rest: &str) -> String {
    output::wrapped(text, WIDTH, first, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journey_says_nothing_twice_and_ends_with_the_verdict() {
        let step = |stage: &str, kind: &str, text: &str| StepView {
            stage: stage.into(),
            kind: kind.into(),
            text: text.into(),
            changes: Vec::new(),
            at_ns: None,
        };
        let text = told(&JourneyView {
            frame: "ARP, partial checksum".into(),
            port: "red".into(),
            steps: vec![
                step("port", "looked-up", "came in by port 1: ARP, partial checksum"),
                step("learn", "looked-up", "nobody yet"),
                step("learn", "changed", "red is behind port 1"),
                step("lookup", "decided", "flood"),
                step("verdict", "decided", "flooded"),
            ],
            verdict: "flooded to 1 port".into(),
        });
        for (word, times) in [("ARP", 1), ("   learn", 1), ("flooded", 1), ("verdict", 1), (PARTIAL, 2)] {
            assert_eq!(text.matches(word).count(), times, "{word} in: {text}");
        }
        assert!(text.contains("looked up nobody yet") && text.contains("changed   red is behind port 1"), "{text}");
        assert!(text.trim_end().ends_with("flooded to 1 port"), "{text}");
    }

    #[test]
    fn every_stage_has_a_question() {
        use tapswitch_wire::Stage;
        for stage in [
            Stage::Port,
            Stage::Parse,
            Stage::Learn,
            Stage::Lookup,
            Stage::Neighbour,
            Stage::Gateway,
            Stage::Dhcp,
            Stage::Route,
            Stage::Nat,
            Stage::Relay,
            Stage::Verdict,
        ] {
            assert!(!question(stage.name()).is_empty(), "{}", stage.name());
        }
    }
}
