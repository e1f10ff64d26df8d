//! Tests against the running kernel: what it does with TAPs and namespaces, and what this crate makes of that.
//!
//! Entering a namespace demands a process of one thread, which the standard harness does not give. So this program is
//! its own harness: it starts itself once for each test. Such a process lives in namespaces of its own, is killed by an
//! alarm if it hangs and by the kernel if the harness dies, and takes with it whatever it made.
//!
//! A test that this machine cannot run says why and counts as skipped.

/// Lists the tests of a module for the harness.
macro_rules! tests {
    ($($name:ident,)*) => {
        pub(crate) const TESTS: &[(&str, crate::world::Test)] = &[$((stringify!($name), $name),)*];
    };
}

mod intake;
mod netns;
mod process;
mod tap;
mod uplink;
mod uplink_intake;
mod world;

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use world::{Skip, Test};

/// Exit status of a test that could not run here.
const SKIPPED: u8 = 77;
/// Seconds after which a test is killed.
const PATIENCE: u32 = 20;

fn tests() -> impl Iterator<Item = &'static (&'static str, Test)> {
    tap::TESTS
        .iter()
        .chain(intake::TESTS)
        .chain(netns::TESTS)
        .chain(process::TESTS)
        .chain(uplink::TESTS)
        .chain(uplink_intake::TESTS)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--test", name] => run_one(name),
        ["--container", ref options @ ..] => world::container(options),
        ["--contained", ref options @ ..] => process::contained(options),
        _ if arguments.iter().any(|a| a == "--list") => {
            tests().for_each(|(name, _)| println!("{name}: test"));
            ExitCode::SUCCESS
        }
        _ => run_all(&arguments),
    }
}

fn run_one(name: &str) -> ExitCode {
    nix::unistd::alarm::set(PATIENCE);
    world::die_with_parent();
    let Some((_, test)) = tests().find(|(n, _)| *n == name) else { return ExitCode::FAILURE };
    match test() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Skip(reason)) => {
            print!("{reason}");
            ExitCode::from(SKIPPED)
        }
    }
}

fn run_all(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let exact = arguments.iter().any(|a| a == "--exact");
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|f| if exact { name == *f } else { name.contains(f.as_str()) })
    };
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for (name, _) in tests().filter(|(name, _)| wanted(name)) {
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        let run = Command::new("/proc/self/exe").args(["--test", name]).stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        match run.status.code() {
            Some(0) => {
                println!("ok");
                passed += 1;
            }
            Some(code) if code == i32::from(SKIPPED) => {
                println!("skipped: {out}");
                skipped += 1;
            }
            _ => {
                println!("FAILED ({})\n{out}{err}", run.status);
                failed += 1;
            }
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed; {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
