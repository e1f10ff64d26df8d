//! What is said about a packet: how it ended, and its journey.

use std::fmt::Write as _;

use crate::api::TraceView;
use crate::commands::trace::is_news;
use crate::output::visible;

/// The comment of a packet, some lines of text. The first one says how it ended. `gap` is how many frames before it are
/// missing.
pub(super) fn comment(view: &TraceView, gap: u64) -> String {
    let mut text = visible(&view.verdict);
    // Writing to a string does not fail.
    if gap > 0 {
        let _ = write!(text, "\n{gap} frames before this one were wanted too and are missing here");
    }
    if let Some(size) = view.offload.and_then(|offload| offload.segment) {
        let _ = write!(text, "\na super-frame, to be cut into packets of {size} bytes of payload");
    }
    for step in view.steps.iter().filter(|step| is_news(step, view)) {
        let time = step.at_ns.map_or_else(String::new, |ns| format!("{:.1} us  ", ns as f64 / 1000.0));
        let _ = write!(text, "\n{time}{}: {}", step.stage, visible(&step.text));
        for change in &step.changes {
            let line = format!("{}: {} -> {}", change.field, change.before, change.after);
            let _ = write!(text, "\n    {}", visible(&line));
        }
    }
    text
}
