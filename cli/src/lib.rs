//! The command `tapswitch`: its verbs, the daemon and the control API between them.
//!
//! # How it is built
//!
//! A process of tapswitch is one of two things. The **daemon** (`up`, and inside `run` and `demo` when they bring their
//! own switch) has two threads that matter: the *poll thread* owns every network and every descriptor that carries
//! frames; the *control thread* serves HTTP/JSON on a unix socket and turns each request into one command on a bounded
//! channel ([`daemon::Control`]). The **client** (all other verbs) speaks that API and nothing else, over the socket or,
//! where the switch is its own, over a socket pair ([`daemon::Daemon::connect`]); it stays single-threaded because
//! attaching forks a child that enters the container's namespaces.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | the JSON of the control API, and how a TAP is handed over |
//! | [`args`] | the command line, parsed but not judged |
//! | [`config`] | what the networks shall be: a file or options in, checked [`config::NetworkPlan`]s out |
//! | [`publish`] | published ports: how they are written and shown |
//! | [`daemon`] | the control thread and the poll thread |
//! | [`client`] | the API from the other side |
//! | [`commands`] | one module per verb |
//! | `container` | a child in namespaces of its own, for `run` and `demo` |
//! | [`error`] | what goes wrong, and the exit codes |
#![forbid(unsafe_code)]

pub mod api;
pub mod args;
pub mod client;
pub mod commands;
pub mod config;
pub(crate) mod container;
pub mod daemon;
pub mod error;
pub(crate) mod output;
pub mod publish;
pub mod threads;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The verbs that this program runs itself with: no part of the command line that people see.
    match arguments.get(1).and_then(|verb| verb.to_str()) {
        Some(container::VERB) => return container::main(),
        Some(commands::AGENT_VERB) => return commands::agent_main(),
        _ => {}
    }
    let wants_json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    match args::Cli::try_parse_from(arguments) {
        Ok(cli) => {
            let json = cli.global.json;
            match commands::execute(cli) {
                Ok(status) => ExitCode::from(status),
                Err(error) => {
                    error.report(json);
                    ExitCode::from(error.exit_code())
                }
            }
        }
        Err(error) => refuse_arguments(&error, wants_json),
    }
}

/// Help and version are answers, everything else is a usage error.
fn refuse_arguments(error: &clap::Error, json: bool) -> ExitCode {
    let missing_verb = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if json && error.use_stderr() && !missing_verb {
        let text = error.render().to_string();
        error::report(text.trim().trim_start_matches("error: "), true);
    } else if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
