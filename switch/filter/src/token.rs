//! An expression as words and signs.

use crate::error::FilterError;
use crate::{MAX_LEN, ast};

/// A word or a sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind<'a> {
    /// A keyword or a value; which of them, its place tells.
    Word(&'a str),
    /// A word behind a backslash: a value, whatever it looks like.
    Escaped(&'a str),
    Open,
    Close,
    Not,
    And,
    Or,
    End,
}

/// One of them, and where it stands, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token<'a> {
    pub kind: Kind<'a>,
    pub at: usize,
    pub len: usize,
}

/// Whether a character ends the word before it.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '!' | '&' | '|' | '\\')
}

/// Cuts an expression up. The last token is [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, FilterError> {
    if text.len() > MAX_LEN {
        let place = text.floor_char_boundary(MAX_LEN);
        let error = FilterError::at(text, place, 0, &[&format!("at most {MAX_LEN}")]);
        return Err(error.found(format!("an expression of {} bytes", text.len())));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let word = |rest: &'_ str| rest.find(ends_word).unwrap_or(rest.len());
        let (kind, len) = match first {
            _ if first.is_whitespace() => {
                at += first.len_utf8();
                continue;
            }
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            '!' => (Kind::Not, 1),
            '&' if rest.starts_with("&&") => (Kind::And, 2),
            '|' if rest.starts_with("||") => (Kind::Or, 2),
            '&' => return Err(FilterError::at(text, at, 1, &["'&&'"])),
            '|' => return Err(FilterError::at(text, at, 1, &["'||'"])),
            '\\' => match word(&rest[1..]) {
                0 => return Err(FilterError::at(text, at, 1, &["a word right behind the backslash"])),
                len => (Kind::Escaped(&rest[1..=len]), len + 1),
            },
            _ => {
                let len = word(rest);
                let kind = match &rest[..len] {
                    ast::AND => Kind::And,
                    ast::OR => Kind::Or,
                    ast::NOT => Kind::Not,
                    other => Kind::Word(other),
                };
                (kind, len)
            }
        };
        tokens.push(Token { kind, at, len });
        at += len;
    }
    tokens.push(Token { kind: Kind::End, at: text.len(), len: 0 });
    Ok(tokens)
}
