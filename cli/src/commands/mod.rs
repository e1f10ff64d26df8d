//! The verbs. Each takes its arguments, speaks to a daemon where it needs one, and prints its answer.

mod attach;
mod capture;
mod completions;
mod demo;
mod detach;
mod events;
mod explain;
mod flush;
mod help;
mod ls;
mod man;
mod network;
mod publish;
mod run;
mod show;
mod trace;
mod up;
mod uplink;

use crate::args::{Cli, Global, Topic, Verb};
use crate::client::Client;
use crate::daemon::socket_path;
use crate::error::Error;

pub(crate) use demo::agent::{VERB as AGENT_VERB, main as agent_main};

/// Does what the command line says. Returns the status to exit with.
pub fn execute(cli: Cli) -> Result<u8, Error> {
    let global = &cli.global;
    match cli.verb {
        Verb::Demo => return demo::execute(global),
        Verb::Run(args) => return run::execute(global, &args),
        Verb::Up(args) => up::execute(global, &args)?,
        Verb::Attach(args) => attach::execute(global, &args)?,
        Verb::Detach { name } => detach::execute(global, &name)?,
        Verb::Ls => ls::execute(global)?,
        Verb::Network(verb) => network::execute(global, &verb)?,
        Verb::Publish { name, spec } => publish::publish(global, &name, &spec)?,
        Verb::Unpublish { name, spec } => publish::unpublish(global, &name, &spec)?,
        Verb::Show { what, narrow } => show::execute(global, what, &narrow)?,
        Verb::Trace(args) => trace::execute(global, &args)?,
        Verb::Events(args) => events::execute(global, &args)?,
        Verb::Capture(args) => capture::execute(global, &args)?,
        Verb::Explain(args) => explain::execute(global, &args)?,
        Verb::Flush { what, narrow } => flush::execute(global, what, &narrow)?,
        Verb::Help { topic: Topic::Drop, name } => help::drops(global, name.as_deref())?,
        Verb::Completions { shell } => completions::execute(shell)?,
        Verb::Man { dir } => man::execute(dir.as_deref())?,
    }
    Ok(0)
}

/// A connection to the daemon that the options name.
fn connect(global: &Global) -> Result<Client, Error> {
    Client::connect(&socket_path(global.socket.as_deref())?)
}
