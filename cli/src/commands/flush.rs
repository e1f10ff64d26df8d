//! `flush`: ends flows.

use super::connect;
use super::show::filter;
use crate::api::Flushed;
use crate::args::{Flushable, Global, NarrowArgs};
use crate::error::Error;
use crate::output;

pub(super) fn execute(global: &Global, what: Flushable, narrow: &NarrowArgs) -> Result<(), Error> {
    match what {
        Flushable::Flows => {
            let flushed = connect(global)?.flush(&filter(narrow))?;
            match global.json {
                true => output::print_json(&Flushed { flushed }),
                false => output::print(&line(flushed)),
            }
        }
    }
}

fn line(flushed: u64) -> String {
    match flushed {
        0 => "no flow was flushed: none is like this\n".into(),
        1 => "1 flow was flushed\n".into(),
        count => format!("{count} flows were flushed\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_many() {
        assert_eq!(line(1), "1 flow was flushed\n");
        assert_eq!(line(12), "12 flows were flushed\n");
        assert!(line(0).starts_with("no flow"));
    }
}
