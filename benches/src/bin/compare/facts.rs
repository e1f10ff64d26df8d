//! What machine and what programs it was measured with.

use std::process::Command;

use crate::options::shown;
use crate::process::output;
use crate::results::Facts;

pub(crate) fn gather() -> Result<Facts, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let cpuinfo = read("/proc/cpuinfo")?;
    let stat = read("/proc/stat")?;
    Ok(Facts {
        date: first_line("date", &["-u", "+%Y-%m-%dT%H:%MZ"]).ok_or("date does not tell the date")?,
        cpu: cpu_model(&cpuinfo).unwrap_or("unknown").to_owned(),
        cpus: cpus(&stat),
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease")?.trim()),
        // Fails where there is no tree, or no git; then the version has to do.
        commit: first_line("git", &["-c", "safe.directory=*", "describe", "--always", "--dirty"]),
        iperf3: first_line("iperf3", &["--version"]).unwrap_or_else(|| "none".into()),
        command: shown(std::iter::once("compare".to_owned()).chain(std::env::args().skip(1))),
    })
}

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let text = output(program, Command::new(program).args(args)).ok()?;
    text.lines().next().map(str::to_owned)
}

/// Where there is none (some ARM machines), `None`.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let named = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    named.into_iter().find(|(name, _)| name.trim() == "model name").map(|(_, model)| model.trim())
}

/// CPUs that are online.
fn cpus(stat: &str) -> usize {
    stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_and_counted() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n"), Some("A CPU @ 2 GHz"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
        assert_eq!(cpus("cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 5\n"), 2);
    }
}
