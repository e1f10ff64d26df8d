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
    fn this_process_has_used_some_time() {
        assert!(process(std::process::id()).is_ok_and(|used| used > Duration::ZERO));
        assert!(machine().is_ok_and(|busy| busy > 0.0));
    }
}
