//! CPU time: of the machine, and of single processes.

use std::time::Duration;

/// What the clock of `/proc/stat` counts, per second: USER_HZ, the same on every architecture of Linux that tapswitch
/// runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds that all CPUs together were busy since boot.
pub(crate) fn machine() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/stat").map_err(|error| format!("cannot read /proc/stat: {error}"))?;
    busy(&text).ok_or_else(|| "no line of all CPUs in /proc/stat".into())
}

/// The busy seconds of `/proc/stat`: user, nice, system, irq and softirq. Neither idle nor iowait, nor what was stolen
/// from the machine; guest time is part of user.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else { return None };
    Some((user + nice + system + irq + softirq) as f64 / TICKS_PER_SECOND)
}

/// CPU time that the process `pid` used so far, in user and kernel mode, over all of its threads that still run.
///
/// From the scheduler's own account, which counts nanoseconds: over a few idle seconds the hundredths of `/proc/PID/stat`
/// would be too coarse.
pub(crate) fn process(pid: u32) -> Result<Duration, String> {
    let missing = |error| format!("cannot read the CPU time of process {pid}: {error}");
    let mut sum = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).map_err(missing)?.flatten() {
        // A thread may end between the two reads.
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        sum += Duration::from_nanos(text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0));
    }
    Ok(sum)
}

/// The process `pid` and all that descend from it, as far as the kernel tells.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&member) = family.get(at) {
        at += 1;
        let tasks = std::fs::read_dir(format!("/proc/{member}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_time_leaves_out_what_was_idle_waiting_or_stolen() {
        let stat = "cpu  100 20 300 5000 600 7 8 900 50 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 1\n";
        assert_eq!(busy(stat), Some(4.35));
        assert_eq!(busy("cpu0 1 2 3 4 5 6 7\n"), None);
        assert_eq!(busy("cpu  1 2 3\n"), None);
    }

    #[test]
    fn a_family_has_its_children_and_theirs() {
        let script = "sleep 60 & echo; read -r _; kill $!";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = [0; 1];
        std::io::Read::read_exact(&mut shell.stdout.take().expect("its stdout"), &mut line).expect("a line");
        let family = family(std::process::id());
        assert!(family.contains(&shell.id()));
        // This one, the shell, and its child.
        assert!(family.len() >= 3, "{family:?}");
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
    }

    #[test]
    fn this_process_has_used_some_time() {
        assert!(process(std::process::id()).is_ok_and(|used| used > Duration::ZERO));
        assert!(machine().is_ok_and(|busy| busy > 0.0));
    }
}
