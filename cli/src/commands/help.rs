//! `help`: what the words mean that the switch uses.

use serde::Serialize;
use tapswitch_wire::DropReason;

use crate::args::Global;
use crate::error::Error;
use crate::output::{print, print_json, wrapped};

const WIDTH: usize = 100;

/// A reason, for programs.
#[derive(Serialize)]
struct Entry {
    reason: &'static str,
    meaning: &'static str,
    causes: &'static str,
    remedy: &'static str,
}

impl Entry {
    fn of(reason: DropReason) -> Entry {
        let help = reason.help();
        Entry { reason: reason.name(), meaning: reason.text(), causes: help.causes, remedy: help.remedy }
    }
}

/// Explains one drop reason, or all.
pub(super) fn drops(global: &Global, name: Option<&str>) -> Result<(), Error> {
    let reasons = match name {
        None => DropReason::ALL.to_vec(),
        Some(name) => vec![find(name)?],
    };
    let entries: Vec<Entry> = reasons.into_iter().map(Entry::of).collect();
    if global.json {
        return print_json(&entries);
    }
    let texts: Vec<String> = entries.iter().map(told).collect();
    print(&texts.join("\n"))
}

fn find(name: &str) -> Result<DropReason, Error> {
    DropReason::from_name(name).ok_or_else(|| {
        let names = DropReason::ALL.iter().map(|reason| reason.name());
        let meant = tapswitch_filter::nearest(name, names);
        let hint = meant.map_or_else(String::new, |meant| format!(" (did you mean {meant}?)"));
        Error::Usage(format!("there is no drop reason '{name}'{hint}; see all of them: tapswitch help drop"))
    })
}

fn told(entry: &Entry) -> String {
    let mut text = format!("{}\n", entry.reason);
    for (title, words) in [("means", entry.meaning), ("causes", entry.causes), ("to do", entry.remedy)] {
        text += &wrapped(words, WIDTH, &format!("  {title:<8}"), &" ".repeat(10));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// `docs/drops.md` is this text. To write it anew: `TAPSWITCH_WRITE_DOCS=1 cargo test -p tapswitch drops_md`.
    fn drops_md() -> String {
        let mut text = String::from(
            "# Why frames are dropped\n\nEvery drop has a name and a counter (`tapswitch show drops`). This page is made \
             from the program; `tapswitch help drop REASON` says the same.\n\n| reason | means | usual causes | what to do \
             |\n|---|---|---|---|\n",
        );
        for entry in DropReason::ALL.iter().map(|reason| Entry::of(*reason)) {
            let Entry { reason, meaning, causes, remedy } = entry;
            let _ = writeln!(text, "| `{reason}` | {meaning} | {causes} | {remedy} |");
        }
        text
    }

    #[test]
    fn docs_drops_md_says_what_the_program_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drops.md");
        if std::env::var_os("TAPSWITCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, drops_md()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == drops_md(), "docs/drops.md is old: TAPSWITCH_WRITE_DOCS=1 cargo test -p tapswitch drops_md");
    }

    #[test]
    fn a_reason_that_is_not_known_is_guessed_at() {
        let error = find("policy-denyed").unwrap_err().to_string();
        assert!(error.contains("did you mean policy-denied?"), "{error}");
        assert!(told(&Entry::of(DropReason::NoRoute)).starts_with("no-route\n  means   There is no way"));
    }
}
