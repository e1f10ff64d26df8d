//! `detach`: takes a container off its network.

use serde::Serialize;

use super::connect;
use crate::args::Global;
use crate::error::Error;
use crate::output;

#[derive(Serialize)]
struct Detached<'a> {
    detached: &'a str,
}

pub(super) fn execute(global: &Global, name: &str) -> Result<(), Error> {
    connect(global)?.detach(name)?;
    match global.json {
        true => output::print_json(&Detached { detached: name }),
        false => output::print(&format!("{name} detached\n")),
    }
}
