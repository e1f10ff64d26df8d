//! What a command that fails says and which status it exits with.

use serde::Serialize;
use tapswitch_link::LinkError;

/// The exit codes, as `--help` and the manual page state them.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  refused or failed; the message says why and what to do
  2  wrong options or arguments
  3  no daemon listens on the control socket
  `run` exits with CMD's status (128 + N if signal N ended it), or
  125  if tapswitch itself failed
  126  if CMD cannot be executed
  127  if there is no CMD";

/// Why a command failed: what was tried, on what, why it did not work, and what to do next, in one text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was refused, or it failed.
    #[error("{0}")]
    Failed(String),
    /// The options make no sense together, which the parser could not see.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens on the control socket.
    #[error("{0}")]
    NoDaemon(String),
}

impl Error {
    /// A failure with this text.
    pub fn failed(text: impl Into<String>) -> Error {
        Error::Failed(text.into())
    }

    /// The status that the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Usage(_) => 2,
            Error::NoDaemon(_) => 3,
        }
    }

    /// Says it on stderr: `tapswitch: TEXT`, or `{"error": TEXT}` for `--json`.
    pub fn report(&self, json: bool) {
        report(&self.to_string(), json);
    }
}

/// Says why something failed on stderr, for people or for programs.
pub(crate) fn report(text: &str, json: bool) {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
    }
    match serde_json::to_string(&Body { error: text }) {
        Ok(body) if json => eprintln!("{body}"),
        _ => eprintln!("tapswitch: {text}"),
    }
}

impl From<LinkError> for Error {
    fn from(error: LinkError) -> Error {
        Error::Failed(error.to_string())
    }
}
