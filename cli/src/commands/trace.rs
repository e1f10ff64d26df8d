//! `trace`: what happened to real frames, stage by stage, as they pass.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use super::connect;
use crate::api::{StepView, TraceLine, TraceRequest, TraceView};
use crate::args::{Global, TraceArgs};
use crate::error::Error;
use crate::output::{print, visible, wrapped};

/// No line is longer, but for words that are.
const WIDTH: usize = 100;
/// Where the text of a stage begins.
const INDENT: usize = 26;
const DAY_NS: u64 = 86_400_000_000_000;

pub(super) fn execute(global: &Global, args: &TraceArgs) -> Result<(), Error> {
    let TraceArgs { filter, network, count, rate, bytes } = args;
    let wanted = TraceRequest { filter: expression(filter), network: network.clone(), bytes: *bytes, rate: *rate };
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut left = *count;
    connect(global)?.trace(&wanted, |line, raw| {
        match (&line, global.json) {
            (_, true) => print(&format!("{raw}\n"))?,
            (TraceLine::Frame(view), _) => print(&told(view, colours))?,
            (TraceLine::Missed { missed }, _) => {
                eprintln!("({missed} more frames were or may have been wanted and are not shown; narrow the filter, or raise --rate)");
            }
        }
        if let (TraceLine::Frame(_), Some(left)) = (&line, &mut left) {
            *left = left.saturating_sub(1);
        }
        Ok(left != Some(0))
    })
}

/// The words of a filter as one expression.
pub(super) fn expression(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

/// A frame and its journey, for people.
fn told(view: &TraceView, colours: bool) -> String {
    let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() };
    let head = format!("{}  {}/{}", clock(view.time_ns), view.network, visible(&view.port));
    let mut text = paint("1", &head) + "\n";
    text += &wrapped(&visible(&view.frame), WIDTH, "  ", "    ");
    for step in view.steps.iter().filter(|step| is_news(step, view)) {
        let time = step.at_ns.map_or_else(String::new, |ns| format!("{:.1} us", ns as f64 / 1000.0));
        let first = format!("  {time:>10}  {:<10}  ", step.stage);
        text += &wrapped(&visible(&step.text), WIDTH, &first, &" ".repeat(INDENT));
        for change in &step.changes {
            let line = format!("{}: {} -> {}", change.field, change.before, change.after);
            text += &wrapped(&visible(&line), WIDTH, &" ".repeat(INDENT + 2), &" ".repeat(INDENT + 4));
        }
    }
    let colour = match view.outcome.as_str() {
        "dropped" => "31",
        _ => "32",
    };
    let verdict = wrapped(&visible(&view.verdict), WIDTH, "  = ", "    ");
    text += &paint(colour, verdict.trim_end());
    text.push('\n');
    if let Some(bytes) = &view.bytes {
        dump(bytes, &mut text);
    }
    text
}

/// What stands above and below already is not said again.
pub(super) fn is_news(step: &StepView, view: &TraceView) -> bool {
    step.stage != "verdict" && !step.text.contains(&view.frame)
}

/// Sixteen bytes a line.
fn dump(bytes: &str, text: &mut String) {
    for (at, line) in bytes.as_bytes().chunks(32).enumerate() {
        let pairs: Vec<&str> = line.chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {:04x}  {}", at * 16, pairs.join(" "));
    }
}

/// The time of the day in UTC.
pub(super) fn clock(time_ns: u64) -> String {
    let of_day = time_ns % DAY_NS;
    let (seconds, micros) = (of_day / 1_000_000_000, of_day / 1_000 % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ChangeView;

    fn view() -> TraceView {
        let step = |stage: &str, text: &str, at_ns| StepView {
            stage: stage.into(),
            kind: "decided".into(),
            text: text.into(),
            changes: Vec::new(),
            at_ns: Some(at_ns),
        };
        let mut ttl = step("gateway", "routed", 1_250);
        ttl.changes.push(ChangeView { field: "TTL".into(), before: "64".into(), after: "63".into() });
        TraceView {
            time_ns: 3_723_000_004_000,
            network: "lab".into(),
            port: "web".into(),
            frame: "10.0.0.2 > 192.0.2.1 ICMP echo request".into(),
            length: 98,
            steps: vec![
                step("port", "came in by port 1: 10.0.0.2 > 192.0.2.1 ICMP echo request", 0),
                ttl,
                step("relay", &"word ".repeat(40), 99_900),
                step("verdict", "dropped", 100_000),
            ],
            verdict: "dropped, no-route: There is no way.".into(),
            outcome: "dropped".into(),
            reason: Some("no-route".into()),
            to: Vec::new(),
            bytes: Some("000102".into()),
            offload: None,
        }
    }

    #[test]
    fn a_journey_fits_a_hundred_columns_and_says_each_thing_once() {
        let text = told(&view(), false);
        let expected = "01:02:03.000004  lab/web\n  10.0.0.2 > 192.0.2.1 ICMP echo request\n      1.2 us  gateway     \
                        routed\n                            TTL: 64 -> 63\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("  = dropped, no-route: There is no way.\n    0000  00 01 02\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn colours_are_for_terminals_and_a_container_cannot_steer_one() {
        let mut view = view();
        view.port = "a\x1b[2J".into();
        assert!(!told(&view, false).contains('\x1b'));
        assert!(told(&view, true).contains("\x1b[31m  = dropped"));
    }
}
