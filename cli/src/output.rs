//! How answers are printed: JSON for programs, plain aligned columns for people and pipes.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Error;

/// Prints text on stdout. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("cannot write to stdout: {error}; check where it leads")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::failed(format!("cannot write the answer as JSON: {error}; please report this")))?;
    print(&(text + "\n"))
}

/// Columns under a header line, without borders; `empty` instead if there are no rows. What a container had a say in
/// (as its host name) cannot steer the terminal: control characters are shown escaped.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>, empty: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table.add_rows(rows.map(|row| row.map(|cell| visible(&cell))));
    if table.is_empty() {
        return format!("{empty}\n");
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What a container had a say in, with its control characters escaped.
pub(crate) fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, next| {
        if next.is_control() {
            shown.extend(next.escape_default())
        } else {
            shown.push(next)
        }
        shown
    })
}

/// Breaks text into lines of `width` characters: the first begins with `first`, the others with `rest`. A word that is too
/// long stays whole.
pub(crate) fn wrapped(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines += line.trim_end();
            lines.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    lines + line.trim_end() + "\n"
}

/// One fact a line, names left, values in one column.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// A value, or a dash where there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// `0 B`, `1023 B`, `1.0 KiB`, `12.3 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut amount = count as f64;
    let mut unit = "B";
    for next in UNITS {
        // What would be rounded up to 1024.0 is one of the next unit.
        if amount < 1023.95 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{amount:.1} {unit}") }
}

/// `7s`, `2m05s`, `3h00m`, `12d04h`.
pub(crate) fn seconds(count: u64) -> String {
    let (minutes, hours, days) = (count / 60, count / 3600, count / 86_400);
    match count {
        0..60 => format!("{count}s"),
        60..3600 => format!("{minutes}m{:02}s", count % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_tables_say_so() {
        let rows = [["web", "10.0.0.2"], ["database", "-"]].map(|row| row.map(str::to_owned));
        let text = table(["NAME", "IP"], rows.into_iter(), "nothing");
        assert_eq!(text, "NAME      IP\nweb       10.0.0.2\ndatabase  -\n");
        let evil = table(["NAME"], [["a\nb\x1b[2J".to_owned()]].into_iter(), "");
        assert_eq!(evil, "NAME\na\\nb\\u{1b}[2J\n");
        assert_eq!(table(["NAME"], std::iter::empty(), "no containers"), "no containers\n");
    }

    #[test]
    fn text_is_broken_between_words_and_hangs() {
        let text = wrapped(&"word ".repeat(30), 80, "   * ", "     ");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines.iter().all(|line| line.len() <= 80), "{text}");
        assert!(lines[0].starts_with("   * word") && lines[1].starts_with("     word"), "{text}");
        assert_eq!(wrapped(&"x".repeat(200), 80, "* ", "  "), format!("* {}\n", "x".repeat(200)));
        assert_eq!(wrapped("", 80, "", ""), "\n");
    }

    #[test]
    fn amounts_are_readable() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [(0, "0s"), (59, "59s"), (125, "2m05s"), (10_800, "3h00m"), (1_051_200, "12d04h")] {
            assert_eq!(seconds(count), text);
        }
    }
}
