//! Where a value was written, so that an error can name the line or the option.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::Error;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This line of this file.
    Line(PathBuf, usize),
    /// This option.
    Option(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Place::Option(option) => f.write_str(option),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl<T> Set<T> {
    pub(super) fn wrong(&self, text: impl fmt::Display) -> Error {
        wrong(&self.place, text)
    }
}

/// Options are the command line's fault, a file's content is not.
pub(super) fn wrong(place: &Place, text: impl fmt::Display) -> Error {
    let text = format!("{place}: {text}");
    match place {
        Place::Line(..) => Error::Failed(text),
        Place::Option(_) => Error::Usage(text),
    }
}

/// A number within its range, or its default.
pub(super) fn within(
    value: Option<&Set<i64>>,
    range: Range<i64>,
    default: i64,
    what: &str,
    unit: &str,
) -> Result<i64, Error> {
    let Some(set) = value else { return Ok(default) };
    if range.contains(&set.value) {
        return Ok(set.value);
    }
    Err(set.wrong(format!("{what} {} is out of range; write {} to {} {unit}", set.value, range.start, range.end - 1)))
}
