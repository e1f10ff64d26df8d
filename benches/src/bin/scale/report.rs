//! The figures, as a table and as JSON. In JSON all are in units without a prefix: seconds, bytes, bits.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// All of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    kernel: String,
    cpus: usize,
    rounds: u32,
    seconds: u64,
    /// How many descriptors the daemon may open.
    descriptor_limit: u64,
    pub(crate) steps: Vec<Step>,
}

/// One number of containers.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) containers: u32,
    /// Seconds from start to end of `tapswitch attach`.
    pub(crate) attach_median: f64,
    pub(crate) attach_max: f64,
    pub(crate) rss: u64,
    pub(crate) peak_rss: u64,
    /// What each container added since the step before.
    pub(crate) bytes_per_port: Option<f64>,
    pub(crate) descriptors: usize,
    /// Share of one core that the daemon takes when nobody has anything to say.
    pub(crate) idle: f64,
    pub(crate) traffic: Option<Traffic>,
}

/// Two containers, the others silent.
#[derive(Debug, Serialize)]
pub(crate) struct Traffic {
    /// TCP requests of one byte in a second.
    pub(crate) turns: Figure,
    /// Microseconds of the daemon's processor for each frame of those.
    pub(crate) cpu: Figure,
    /// Shortest UDP packets that arrive in a second.
    pub(crate) packets: Figure,
    /// One TCP stream, bits in a second.
    pub(crate) bits: Figure,
}

/// One figure among all containers and, measured in turn, on a switch with two.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    median: f64,
    median_of_two: f64,
    samples: Vec<f64>,
    samples_of_two: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(samples: Vec<f64>, samples_of_two: Vec<f64>) -> Figure {
        let (median, median_of_two) = (median(samples.clone()), median(samples_of_two.clone()));
        Figure { median, median_of_two, samples, samples_of_two }
    }

    fn cell(&self, unit: f64, digits: usize) -> String {
        format!("{:.digits$} ({:.2})", self.median / unit, self.median / self.median_of_two)
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(samples[middle - 1], samples[middle]),
        _ => samples[middle],
    }
}

impl Run {
    pub(crate) fn new(rounds: u32, seconds: u64, descriptor_limit: u64) -> Run {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Run { kernel: release.trim().to_owned(), cpus, rounds, seconds, descriptor_limit, steps: Vec::new() }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEADER: [&str; 11] = [
            "containers",
            "attach ms",
            "max",
            "RSS MiB",
            "KiB/port",
            "fds",
            "idle %",
            "TCP RR/s",
            "CPU us/frame",
            "UDP kpkt/s",
            "TCP Gbit/s",
        ];
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(HEADER);
        for step in &self.steps {
            let traffic = step.traffic.as_ref();
            let cell =
                |figure: Option<&Figure>, unit, digits| figure.map_or("-".into(), |figure| figure.cell(unit, digits));
            let row = [
                step.containers.to_string(),
                format!("{:.1}", step.attach_median * 1e3),
                format!("{:.1}", step.attach_max * 1e3),
                format!("{:.1}", step.rss as f64 / f64::from(1 << 20)),
                step.bytes_per_port.map_or("-".into(), |bytes| format!("{:.1}", bytes / 1024.0)),
                step.descriptors.to_string(),
                format!("{:.2}", step.idle * 100.0),
                cell(traffic.map(|traffic| &traffic.turns), 1.0, 0),
                cell(traffic.map(|traffic| &traffic.cpu), 1.0, 2),
                cell(traffic.map(|traffic| &traffic.packets), 1e3, 0),
                cell(traffic.map(|traffic| &traffic.bits), 1e9, 1),
            ];
            table.add_row(row.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "Traffic between two containers, median of {} x {} s; in brackets the ratio to a switch with two containers, measured \
             in turn.\nLinux {}, {} CPUs, the daemon may open {} descriptors.",
            self.rounds, self.seconds, self.kernel, self.cpus, self.descriptor_limit
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_none_one_even_and_odd() {
        for (samples, middle) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0], 2.5), (vec![9.0, 1.0, 2.0], 2.0)] {
            assert_eq!(median(samples.clone()), middle, "{samples:?}");
        }
    }
}
