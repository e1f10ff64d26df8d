//! `man`: the manual pages, made from the definition of the command line.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::Cli;
use crate::error::Error;
use crate::output;

pub(super) fn execute(dir: Option<&Path>) -> Result<(), Error> {
    let Some(dir) = dir else {
        return output::print(&page().map_err(|error| failed("render the manual page", &error))?);
    };
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|error| failed(&format!("write the manual pages to {}", dir.display()), &error))
}

fn page() -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn failed(tried: &str, why: &io::Error) -> Error {
    Error::failed(format!("cannot {tried}: {why}; name a directory that exists and that you may write to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_and_the_exit_codes_are_in_it() {
        let home = tempfile::tempdir().unwrap();
        execute(Some(home.path())).unwrap();
        for verb in
            ["", "-run", "-up", "-attach", "-network-inspect", "-show", "-man", "-publish", "-flush", "-network-uplink"]
        {
            let page = home.path().join(format!("tapswitch{verb}.1"));
            assert!(page.exists(), "{} is missing", page.display());
        }
        assert!(page().unwrap().contains("no daemon listens on the control socket"));
        let error = execute(Some(Path::new("/nonexistent"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
