//! What is wrong with an expression, shown where it is wrong.

use std::fmt;

/// Why a text is no filter. Its [`Display`](fmt::Display) is two lines: the expression, and a caret beneath the place
/// with what was found, what was expected there and, where something is near, what may have been meant.
///
/// ```
/// let error = tapswitch_filter::Filter::parse("host 10.0.0.1 adn port 80").unwrap_err();
/// assert_eq!(error.offset, 14);
/// assert_eq!(
///     error.to_string(),
///     "host 10.0.0.1 adn port 80\n              ^^^ found 'adn', expected 'and', 'or' or the end; did you mean 'and'?"
/// );
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FilterError {
    /// Where it is wrong, in bytes from the beginning of the expression.
    pub offset: usize,
    /// What stands there, as shown to the user.
    pub found: String,
    /// What could stand there instead, each as shown to the user. Never empty.
    pub expected: Vec<String>,
    /// What may have been meant.
    pub meant: Option<String>,
    /// The part of the expression around the place, on one line.
    excerpt: String,
    /// Where in the excerpt the carets begin and how many there are, in characters.
    carets: (usize, usize),
}

/// Characters of the expression shown on either side of the place.
const AROUND: usize = 48;

/// The most carets, and the most characters of what was found.
const SHOWN: usize = 40;

impl FilterError {
    /// An error at `len` bytes from `offset` of `text`, both on character boundaries.
    pub(crate) fn at(text: &str, offset: usize, len: usize, expected: &[&str]) -> FilterError {
        let (before, rest) = text.split_at_checked(offset).unwrap_or((text, ""));
        let (word, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        let found = if word.is_empty() { "the end".to_owned() } else { format!("'{}'", shorten(word)) };
        let skipped = before.chars().count().saturating_sub(AROUND);
        let mut excerpt = if skipped > 0 { "...".to_owned() } else { String::new() };
        excerpt.extend(before.chars().skip(skipped).map(visible));
        let begin = excerpt.chars().count();
        let mut shown = word.chars();
        excerpt.extend(shown.by_ref().take(SHOWN).map(visible));
        let carets = (begin, (excerpt.chars().count() - begin).max(1));
        let mut after = shown.chain(after.chars());
        excerpt.extend(after.by_ref().take(AROUND).map(visible));
        if after.next().is_some() {
            excerpt.push_str("...");
        }
        let expected = expected.iter().map(|&what| what.to_owned()).collect();
        FilterError { offset, found, expected, meant: None, excerpt, carets }
    }

    /// Says what was found in other words than the expression's own.
    pub(crate) fn found(mut self, found: String) -> FilterError {
        self.found = found;
        self
    }

    /// Says what may have been meant.
    pub(crate) fn meant(mut self, meant: Option<String>) -> FilterError {
        self.meant = meant;
        self
    }
}

/// One column and no effect on the terminal, whatever the character is.
fn visible(c: char) -> char {
    match c {
        _ if c.is_whitespace() => ' ',
        _ if c.is_control() => '\u{fffd}',
        _ => c,
    }
}

fn shorten(word: &str) -> String {
    let mut chars = word.chars();
    let mut short: String = chars.by_ref().take(SHOWN).map(visible).collect();
    if chars.next().is_some() {
        short.push_str("...");
    }
    short
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, carets) = self.carets;
        writeln!(f, "{}", self.excerpt)?;
        write!(f, "{:begin$}{:^<carets$} found {}, expected ", "", "", self.found)?;
        for (index, what) in self.expected.iter().enumerate() {
            let joint = match self.expected.len() - index {
                _ if index == 0 => "",
                1 => " or ",
                _ => ", ",
            };
            write!(f, "{joint}{what}")?;
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean '{meant}'?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FilterError {}

/// A filter names a container that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownContainer {
    /// The name as it stands in the filter.
    pub name: String,
}

impl fmt::Display for UnknownContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the filter names the container '{}', and no container here has that name", self.name)
    }
}

impl std::error::Error for UnknownContainer {}

/// The candidate that `word` is most likely a slip for: one slip away (a letter too many, missing, wrong, or changed
/// places with its neighbour), or two if the word has more than three letters. Upper and lower case are one.
///
/// ```
/// use tapswitch_filter::nearest;
/// assert_eq!(nearest("conatiner", ["host", "container"]), Some("container"));
/// assert_eq!(nearest("xyz", ["host", "container"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No candidate is longer, and what a user typed may be of any length.
    const LONGEST: usize = 80;
    if word.len() > LONGEST {
        return None;
    }
    let word: Vec<u8> = word.bytes().map(|b| b.to_ascii_lowercase()).collect();
    let most = if word.len() > 3 { 2 } else { 1 };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= most)
        .map(|candidate| (slips(&word, candidate.as_bytes()), candidate))
        .filter(|(slips, candidate)| *slips <= most && *slips < candidate.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Edit distance in which two neighbours that changed places count once (optimal string alignment).
fn slips(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().map(u8::to_ascii_lowercase).enumerate() {
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            let crossed = i > 0 && j > 0 && a[i - 1] == y && x == b[j - 1].to_ascii_lowercase();
            if crossed {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted_as_a_typist_counts_them() {
        let table = [("", "", 0), ("and", "and", 0), ("adn", "and", 1), ("an", "and", 1), ("andd", "and", 1)];
        let more = [("xnd", "and", 1), ("prot", "port", 1), ("abcd", "cdab", 4), ("", "abc", 3), ("HOST", "host", 4)];
        for (a, b, expected) in table.into_iter().chain(more) {
            assert_eq!(slips(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
        assert_eq!(nearest("HOST", ["host"]), Some("host"));
        assert_eq!(nearest("cntaner", ["host", "container"]), Some("container"));
        assert_eq!(nearest("ntaner", ["host", "container"]), None, "three letters are missing");
        assert_eq!(nearest("xrx", ["arp"]), None, "two of three letters are wrong");
        assert_eq!(nearest("a", ["b"]), None, "of one letter nothing is left");
    }

    #[test]
    fn a_long_expression_is_shown_in_part_and_the_caret_stands_beneath_the_place() {
        let text = format!("{} é\u{1b}bad {}", "host 10.0.0.1 or ".repeat(40), "or ip".repeat(40));
        let offset = text.find("bad").unwrap();
        let shown = FilterError::at(&text, offset, 3, &["x"]).to_string();
        let (line, carets) = shown.split_once('\n').unwrap();
        assert!(line.chars().count() < 120, "{line}");
        assert!(!shown.contains('\u{1b}'));
        let column = carets.chars().take_while(|&c| c == ' ').count();
        assert_eq!(line.chars().skip(column).take(3).collect::<String>(), "bad");
        assert!(carets.trim_start().starts_with("^^^ found 'bad', expected x"), "{carets}");
    }
}
