//! The corpus, replayed with whatever compiler is at hand.

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        // The last name shown is that of the input that failed.
        println!("{}", name.display());
        run(&fs::read(name).unwrap());
    }
}

#[test]
fn parse() {
    replay("parse", tapswitch_fuzz::parse::run);
}

#[test]
fn pipeline() {
    replay("pipeline", tapswitch_fuzz::pipeline::run);
}
