//! Which poll threads there are: `--workers` and `--cpus`.

use std::num::ParseIntError;
use std::str::FromStr;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::error::Error;

/// The most poll threads. More would only wait for each other.
pub const MAX_WORKERS: usize = 64;

/// CPUs by number, as taskset and isolcpus write them: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let wrong = |what: &str| format!("'{what}' is no CPU list; write numbers and ranges, as 0-3,8");
        let number = |text: &str| -> Result<usize, ParseIntError> { text.trim().parse() };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first), number(last)),
                None => (number(part), number(part)),
            };
            let (Ok(first), Ok(last)) = (first, last) else { return Err(wrong(part)) };
            if first > last || last >= CpuSet::count() {
                return Err(wrong(part));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} is named twice; each poll thread needs one of its own"));
                }
                cpus.push(cpu);
            }
        }
        Ok(CpuList(cpus))
    }
}

/// How many poll threads there are, and the CPUs they are kept on.
///
/// # Errors
/// If the CPUs are fewer than the threads, or not all of them may be used.
pub fn plan(workers: Option<usize>, cpus: Option<&CpuList>) -> Result<(usize, Vec<usize>), Error> {
    let Some(CpuList(cpus)) = cpus else { return Ok((workers.unwrap_or(1), Vec::new())) };
    let workers = workers.unwrap_or(cpus.len().min(MAX_WORKERS));
    if workers > cpus.len() {
        return Err(Error::Usage(format!(
            "{workers} poll threads need {workers} CPUs, but --cpus names {}; name more, or ask for fewer with --workers",
            cpus.len()
        )));
    }
    let allowed = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| Error::failed(format!("cannot ask which CPUs may be used: {error}; leave --cpus out")))?;
    let may = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    if let Some(cpu) = cpus.iter().find(|cpu| !may(cpu)) {
        let usable: Vec<_> = (0..CpuSet::count()).filter(may).map(|cpu| cpu.to_string()).collect();
        return Err(Error::Usage(format!(
            "CPU {cpu} of --cpus does not exist or may not be used; there are: {}",
            usable.join(",")
        )));
    }
    Ok((workers, cpus[..workers].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_taskset_reads_them() {
        let read = |text: &str| text.parse::<CpuList>().map(|list| list.0);
        assert_eq!(read("0"), Ok(vec![0]));
        assert_eq!(read("2,0-1, 7"), Ok(vec![2, 0, 1, 7]));
        for bad in ["", "a", "1-", "-1", "3-1", "0,,1", "99999999", "0-99999999999999999999"] {
            assert!(read(bad).unwrap_err().contains("no CPU list"), "{bad}");
        }
        assert!(read("0-2,1").unwrap_err().contains("twice"));
    }

    #[test]
    fn each_thread_has_a_cpu_that_it_may_use() {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let usable: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect();
        let first = CpuList(vec![usable[0]]);
        assert_eq!(plan(None, None).unwrap(), (1, vec![]));
        assert_eq!(plan(Some(3), None).unwrap(), (3, vec![]));
        assert_eq!(plan(None, Some(&first)).unwrap(), (1, vec![usable[0]]));
        assert_eq!(plan(None, Some(&CpuList(usable.clone()))).unwrap().0, usable.len().min(MAX_WORKERS));
        assert!(plan(Some(2), Some(&first)).unwrap_err().to_string().contains("--cpus names 1"));
        let error = plan(None, Some(&CpuList(vec![CpuSet::count() - 1]))).unwrap_err().to_string();
        assert!(error.contains("does not exist") && error.contains(&usable[0].to_string()), "{error}");
    }
}
