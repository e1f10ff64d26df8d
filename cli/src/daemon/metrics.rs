//! `GET /metrics`: the daemon's figures in Prometheus' text format, version 0.0.4.
//!
//! [`FAMILIES`] is the whole list; `docs/metrics.md` is made from it. A family has one unit, a base unit that its name ends
//! with (`_seconds`, `_bytes`), counters end with `_total`, and labels are few and bounded: networks, attached containers,
//! drop reasons, poll threads. Addresses and flows are never labels.
//!
//! The format is written here and not by a library: what exists for it keeps counters of its own, which the poll threads
//! would have to feed, and writes OpenMetrics, which Prometheus' linter does not take.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tapswitch_switch::PortCounters;
use tapswitch_wire::DropCounters;

use super::command::Command;
use super::control::Control;
use super::server::Failure;
use super::worker::{Figures, Histogram, NetworkFigures, ThreadFigures};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a scrape.
pub(super) async fn metrics(State(control): State<Control>) -> Result<Response, Failure> {
    let figures = control.ask(Command::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text(&figures)).into_response())
}

/// What a family counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Metrics of one name.
struct Family {
    name: &'static str,
    kind: Kind,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the table in docs/metrics.md"))]
    labels: &'static str,
    help: &'static str,
    samples: fn(&Figures, &mut Samples<'_>),
}

/// A family of counters of a port.
macro_rules! of_ports {
    ($name:literal, $counter:ident, $help:literal) => {
        Family {
            name: $name,
            kind: Kind::Counter,
            labels: "network, port",
            help: $help,
            samples: |figures, out| each_port(figures, out, |counters| counters.$counter),
        }
    };
}

/// Everything that is told, in this order.
const FAMILIES: &[Family] = &[
    Family {
        name: "tapswitch_build_info",
        kind: Kind::Gauge,
        labels: "version",
        help: "Always 1; the label says which version of the daemon runs.",
        samples: |_, out| out.value(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64),
    },
    Family {
        name: "tapswitch_start_time_seconds",
        kind: Kind::Gauge,
        labels: "",
        help: "When the daemon started, in seconds since 1970.",
        samples: |figures, out| out.value(&[], figures.started.as_secs_f64()),
    },
    Family {
        name: "tapswitch_ports",
        kind: Kind::Gauge,
        labels: "network",
        help: "Attached containers.",
        samples: |figures, out| each_network(figures, out, |network| network.ports.len()),
    },
    of_ports!("tapswitch_port_receive_frames_total", rx_frames, "Frames that a container sent; a super-frame is one."),
    of_ports!("tapswitch_port_receive_bytes_total", rx_bytes, "Bytes of the frames that a container sent."),
    of_ports!("tapswitch_port_transmit_frames_total", tx_frames, "Frames that a container got; a super-frame is one."),
    of_ports!("tapswitch_port_transmit_bytes_total", tx_bytes, "Bytes of the frames that a container got."),
    of_ports!("tapswitch_port_flooded_frames_total", flooded, "Frames of a container that were flooded."),
    of_ports!("tapswitch_port_learned_stations_total", learned, "Stations that were learned behind a port."),
    of_ports!(
        "tapswitch_port_refused_stations_total",
        learn_refused,
        "Frames whose station was not learned, because the FDB or the port's share of it was full."
    ),
    of_ports!("tapswitch_port_moved_stations_total", moves, "Stations that moved to a port from another one."),
    Family {
        name: "tapswitch_drops_total",
        kind: Kind::Counter,
        labels: "network, port, reason",
        help: "Dropped frames. The port gateway is the network's own: what it, or the uplink, could not deliver. `tapswitch \
               help drop REASON` explains a reason.",
        samples: |figures, out| {
            for network in &figures.networks {
                each_drop(network, "gateway", &network.gateway, out);
                network.ports.iter().for_each(|(port, counters)| each_drop(network, port, &counters.drops, out));
            }
        },
    },
    Family {
        name: "tapswitch_fdb_entries",
        kind: Kind::Gauge,
        labels: "network",
        help: "Stations in the FDB, static ones too.",
        samples: |figures, out| each_network(figures, out, |network| network.stations),
    },
    Family {
        name: "tapswitch_leases",
        kind: Kind::Gauge,
        labels: "network, state",
        help: "Addresses in use: offered, bound, reserved, or declined by a client that found them taken.",
        samples: |figures, out| {
            for network in &figures.networks {
                for (state, count) in &network.leases {
                    out.value(&[("network", &network.name), ("state", state)], *count);
                }
            }
        },
    },
    Family {
        name: "tapswitch_sessions",
        kind: Kind::Gauge,
        labels: "network",
        help: "Live flows through the uplink: sockets of the host, or sessions of the NAT.",
        samples: |figures, out| each_network(figures, out, |network| network.flows),
    },
    Family {
        name: "tapswitch_poll_ports",
        kind: Kind::Gauge,
        labels: "thread",
        help: "Ports that a poll thread reads; of a port with several queues, each counts.",
        samples: |figures, out| each_thread(figures, out, |thread| thread.ports as u64),
    },
    Family {
        name: "tapswitch_poll_cpu_seconds_total",
        kind: Kind::Counter,
        labels: "thread",
        help: "Time that a poll thread had a CPU; its rate is the load. Absent where the kernel does not tell.",
        samples: |figures, out| {
            for (number, thread) in figures.threads.iter().enumerate() {
                if let Some(seconds) = cpu_seconds(thread) {
                    out.value(&[("thread", &number.to_string())], seconds);
                }
            }
        },
    },
    Family {
        name: "tapswitch_poll_turns_total",
        kind: Kind::Counter,
        labels: "thread",
        help: "Turns of a poll thread's loop.",
        samples: |figures, out| each_thread(figures, out, |thread| thread.turns),
    },
    Family {
        name: "tapswitch_poll_sleeps_total",
        kind: Kind::Counter,
        labels: "thread",
        help: "Turns that waited in the kernel until there was something to do.",
        samples: |figures, out| each_thread(figures, out, |thread| thread.sleeps),
    },
    Family {
        name: "tapswitch_poll_batch_frames",
        kind: Kind::Histogram,
        labels: "thread",
        help: "Frames that a turn read, of turns that read any.",
        samples: |figures, out| each_histogram(figures, out, 0..=12, 1.0, |thread| &thread.batches),
    },
    Family {
        name: "tapswitch_poll_turn_duration_seconds",
        kind: Kind::Histogram,
        labels: "thread",
        help: "How long a turn took that read frames, to the beginning of the next. Turns after which the thread slept are left \
               out.",
        samples: |figures, out| each_histogram(figures, out, 10..=30, 1e-9, |thread| &thread.durations),
    },
];

fn each_network(figures: &Figures, out: &mut Samples<'_>, count: impl Fn(&NetworkFigures) -> usize) {
    figures.networks.iter().for_each(|network| out.value(&[("network", &network.name)], count(network)));
}

fn each_port(figures: &Figures, out: &mut Samples<'_>, count: impl Fn(&PortCounters) -> u64) {
    for network in &figures.networks {
        for (port, counters) in &network.ports {
            out.value(&[("network", &network.name), ("port", port)], count(counters));
        }
    }
}

fn each_drop(network: &NetworkFigures, port: &str, drops: &DropCounters, out: &mut Samples<'_>) {
    for (reason, count) in drops.iter() {
        out.value(&[("network", &network.name), ("port", port), ("reason", reason.name())], count);
    }
}

fn each_thread(figures: &Figures, out: &mut Samples<'_>, count: impl Fn(&ThreadFigures) -> u64) {
    for (number, thread) in figures.threads.iter().enumerate() {
        out.value(&[("thread", &number.to_string())], count(thread));
    }
}

/// `bounds` are powers of two in what is recorded, of which `unit` is one.
fn each_histogram(
    figures: &Figures,
    out: &mut Samples<'_>,
    bounds: std::ops::RangeInclusive<usize>,
    unit: f64,
    histogram: impl Fn(&ThreadFigures) -> &Histogram,
) {
    for (number, thread) in figures.threads.iter().enumerate() {
        out.histogram(&number.to_string(), histogram(thread), bounds.clone(), unit);
    }
}

/// How long a thread had a CPU.
fn cpu_seconds(thread: &ThreadFigures) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", thread.id?)).ok()?;
    let nanos: u64 = stat.split_whitespace().next()?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}

/// Where the samples of one family go.
struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    /// A sample with these labels.
    fn value(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.line("", labels, value);
    }

    // Writing to a string does not fail.
    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(value));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn histogram(&mut self, thread: &str, values: &Histogram, bounds: std::ops::RangeInclusive<usize>, unit: f64) {
        let label = ("thread", thread);
        for bound in bounds {
            let count: u64 = values.buckets[..=bound].iter().sum();
            let bound = (1_u64 << bound) as f64 * unit;
            // The unit is a power of ten, so what is beyond nine digits is an error of the floating point.
            let bound = format!("{bound:.9}");
            let bound = bound.trim_end_matches('0').trim_end_matches('.');
            self.line("_bucket", &[label, ("le", bound)], count);
        }
        let count: u64 = values.buckets.iter().sum();
        self.line("_bucket", &[label, ("le", "+Inf")], count);
        self.line("_sum", &[label], values.sum as f64 * unit);
        self.line("_count", &[label], count);
    }
}

/// A label's value: backslash, quotation mark and line feed are written as the format wants them.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All figures.
fn text(figures: &Figures) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples, .. } in FAMILIES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        samples(figures, &mut Samples { name, text: &mut text });
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use tapswitch_wire::DropReason;

    use super::*;

    /// At least one sample of every family.
    fn figures() -> Figures {
        let mut counters = PortCounters { rx_frames: 7, rx_bytes: 700, ..PortCounters::default() };
        counters.drops.count(DropReason::NoRoute);
        let mut thread = ThreadFigures { id: Some(nix::unistd::gettid()), turns: 9, ..ThreadFigures::default() };
        [1, 3, 64, 5_000].into_iter().for_each(|frames| thread.batches.record(frames));
        [900, 2_000, 1 << 36].into_iter().for_each(|nanos| thread.durations.record(nanos));
        let network = NetworkFigures {
            name: "a\"b\\c\nd".into(),
            ports: vec![("web".into(), counters)],
            leases: [("bound", 2)].into(),
            stations: 3,
            flows: 4,
            ..NetworkFigures::default()
        };
        Figures { networks: vec![network], threads: vec![thread], ..Figures::default() }
    }

    /// Whatever in a text looks like one of our names.
    fn names(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("tapswitch_")).collect()
    }

    fn docs(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
    }

    #[test]
    fn figures_are_in_the_text_format() {
        let text = text(&figures());
        for line in [
            "# HELP tapswitch_ports Attached containers.\n# TYPE tapswitch_ports gauge\n",
            "\ntapswitch_ports{network=\"a\\\"b\\\\c\\nd\"} 1\n",
            "\ntapswitch_port_receive_bytes_total{network=\"a\\\"b\\\\c\\nd\",port=\"web\"} 700\n",
            ",port=\"web\",reason=\"no-route\"} 1\n",
            "\ntapswitch_start_time_seconds 0\n",
            "\ntapswitch_poll_batch_frames_bucket{thread=\"0\",le=\"2\"} 1\n",
            "\ntapswitch_poll_batch_frames_bucket{thread=\"0\",le=\"64\"} 3\n",
            "\ntapswitch_poll_batch_frames_bucket{thread=\"0\",le=\"4096\"} 3\n",
            "\ntapswitch_poll_batch_frames_bucket{thread=\"0\",le=\"+Inf\"} 4\n",
            "\ntapswitch_poll_batch_frames_sum{thread=\"0\"} 5068\n",
            "\ntapswitch_poll_turn_duration_seconds_bucket{thread=\"0\",le=\"0.000001024\"} 1\n",
            "\ntapswitch_poll_turn_duration_seconds_bucket{thread=\"0\",le=\"0.000002048\"} 2\n",
            "\ntapswitch_poll_turn_duration_seconds_bucket{thread=\"0\",le=\"1.073741824\"} 2\n",
            "\ntapswitch_poll_turn_duration_seconds_count{thread=\"0\"} 3\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = BTreeSet::new();
        for family in FAMILIES {
            let Family { name, kind, help, .. } = family;
            assert!(seen.insert(name), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n']), "{name}: {help}");
            assert!(!["gauge", "counter", "histogram"].iter().any(|kind| name.contains(kind)), "{name}");
        }
    }

    #[test]
    fn promtool_finds_nothing_to_say() {
        let mut tool = Command::new("promtool");
        tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tool = match tool.spawn() {
            Ok(tool) => tool,
            Err(error) => return eprintln!("skipped: promtool (Debian's package prometheus) cannot run: {error}"),
        };
        tool.stdin.take().unwrap().write_all(text(&figures()).as_bytes()).unwrap();
        let done = tool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.trim().is_empty(), "{said}");
    }

    const TABLE: &str = "| metric | type | labels | what it is |\n|---|---|---|---|\n";

    fn table() -> String {
        let row = |Family { name, kind, labels, help, .. }: &Family| {
            let labels = if labels.is_empty() { "-" } else { labels };
            format!("| `{name}` | {} | {labels} | {help} |\n", kind.name())
        };
        FAMILIES.iter().map(row).collect()
    }

    /// The end of `docs/metrics.md` is this table. To write it anew: `TAPSWITCH_WRITE_DOCS=1 cargo test -p tapswitch
    /// metrics_md`.
    #[test]
    fn docs_metrics_md_says_what_the_program_says() {
        let path = docs("metrics.md");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let (words, written) = text.split_once(TABLE).expect("docs/metrics.md ends with the table of metrics");
        if std::env::var_os("TAPSWITCH_WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{words}{TABLE}{}", table())).unwrap();
        } else {
            assert!(
                written == table(),
                "docs/metrics.md is old: TAPSWITCH_WRITE_DOCS=1 cargo test -p tapswitch metrics_md"
            );
        }
    }

    #[test]
    fn the_dashboard_shows_only_metrics_that_exist() {
        let dashboard = std::fs::read_to_string(docs("dashboard.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        let panels = value["panels"].as_array().unwrap();
        let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        let queries: Vec<_> = queries.map(|target| target["expr"].as_str().unwrap()).collect();
        assert!(panels.len() >= 6 && queries.iter().all(|query| !names(query).is_empty()), "{queries:?}");
        let text = text(&figures());
        let exist: BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let unknown: Vec<_> = names(&dashboard).difference(&exist).copied().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
