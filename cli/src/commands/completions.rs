//! `completions`: what a shell sources to complete our command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::output;

pub(super) fn execute(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tapswitch", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
