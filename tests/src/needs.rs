//! What a test needs of the machine, and what happens when it is not there.

use std::fs::OpenOptions;
use std::io::Write;

/// Where a test writes why it could not run; `tests/run` counts the lines.
const SKIPPED: &str = "TAPSWITCH_TESTS_SKIPPED";
/// Set where every test has to run.
const NO_SKIP: &str = "TAPSWITCH_TESTS_NO_SKIP";

/// Whether all these programs are installed. If not, the reason is noted for the summary of `tests/run`, or the test
/// fails where nothing may be skipped. Use it through [`crate::needs!`].
pub fn installed(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).copied().collect();
    if missing.is_empty() {
        return true;
    }
    skip(&format!("needs {}, which this machine lacks", missing.join(", ")));
    false
}

/// Notes why this test cannot run here, for the summary of `tests/run`, or fails it where nothing may be skipped. The
/// caller then returns.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let reason = format!("{test}: {why}");
    assert!(std::env::var_os(NO_SKIP).is_none(), "{reason}");
    let file = std::env::var_os(SKIPPED).expect("tests/run says where skipped tests are noted");
    let mut file = OpenOptions::new().append(true).create(true).open(file).expect("the list of skipped tests");
    writeln!(file, "{reason}").expect("the list of skipped tests grows");
}

/// Ends the test unless these programs are installed: `needs!("nmap", "curl")`.
#[macro_export]
macro_rules! needs {
    ($($program:literal),+) => {
        if !$crate::installed(&[$($program),+]) {
            return;
        }
    };
}
