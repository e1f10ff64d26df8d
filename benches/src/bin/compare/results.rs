//! What is kept of a run, and its form in `results.json`.
//!
//! The form is stable: fields are added, never renamed or given another meaning without a new `schema`. Everything that
//! was measured is in `samples`, in the order in which it was measured; the table and the plots are made from nothing
//! else. Absent values are left out.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::measure::Test;
use crate::world::World;

/// Version of the form.
pub(crate) const SCHEMA: u32 = 1;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub schema: u32,
    pub facts: Facts,
    pub settings: Settings,
    /// In the order in which they are shown.
    pub peers: Vec<About>,
    /// In the order in which they are shown.
    pub tests: Vec<Described>,
    pub samples: Vec<Sample>,
}

/// The machine and the programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// UTC, `YYYY-MM-DDTHH:MMZ`.
    pub date: String,
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    /// Of tapswitch's tree, `-dirty` if it was changed since; absent outside of one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    pub iperf3: String,
    /// As given, absolute paths shortened to their last part.
    pub command: String,
}

/// What held for all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What it was measured between; absent: from container to container.
    #[serde(default)]
    pub world: World,
    pub rounds: u32,
    pub seconds: u32,
    /// As read back from the containers.
    pub congestion_control: String,
    pub mtu: u32,
    pub offload: bool,
    /// Receive buffer that the UDP tests' receivers ask for; absent: the kernel's default.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rcvbuf: Option<usize>,
    /// TCP connections that the tests of idle ones held, where they were run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flows: Option<u32>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    pub name: String,
    /// Program, version and options, for people.
    pub what: String,
}

/// A test and the units of its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Described {
    pub test: Test,
    pub title: String,
    /// Of `value`.
    pub unit: String,
    /// Of `work`.
    pub work_unit: String,
}

impl Described {
    pub(crate) fn of(test: Test, world: World) -> Self {
        Self { test, title: test.title(world).into(), unit: test.unit().into(), work_unit: test.work_unit().into() }
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// From 1.
    pub round: u32,
    pub test: Test,
    pub peer: String,
    /// CPUs that were busy just before, when nothing was measured: other work on the machine.
    pub background_cpus: f64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Measured(Figures),
    /// Why not.
    Failed(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// In the test's unit.
    pub value: f64,
    /// How long it was measured.
    pub seconds: f64,
    /// What was done meanwhile, in the test's work unit.
    pub work: f64,
    /// CPU seconds of the whole machine; absent where they say nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_seconds: Option<f64>,
    /// CPU seconds of the switch's own processes; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub switch_cpu_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retransmits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub datagrams: Option<Datagrams>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<Box<Memory>>,
}

/// Of many sessions, or connections, at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Sessions as the peer itself counts them; connections as their ends do.
    pub sessions: u64,
    /// Bytes that hold them, before there were any and with them: of the daemon, or the relay, its resident set, of the kernel
    /// the slab of its conntrack entries.
    pub before: u64,
    pub after: u64,
    /// Of the kernel: all of its slabs, whatever they hold. A session there has parts outside of its entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slabs_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slabs_after: Option<u64>,
    /// In those slabs of the kernel that connections lie in: the relay's sockets and their files, or what tracks them; and
    /// those of both ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connections_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub connections_after: Option<u64>,
}

/// Of request and response, or of connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Questions that were not answered within 200 ms, and connections not within 3 s.
    pub lost: u64,
}

/// Of a flood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Datagrams {
    pub sent: u64,
    pub sent_per_second: f64,
    pub delivered: u64,
    /// Where the others were lost, as far as anybody counted it. With UDP GSO these are frames or buffers, of which each
    /// may hold many datagrams.
    pub dropped: BTreeMap<String, u64>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let results: Self =
            serde_json::from_str(&text).map_err(|error| format!("{} is no results.json: {error}", path.display()))?;
        if results.schema != SCHEMA {
            return Err(format!("{} has schema {}, not {SCHEMA}", path.display(), results.schema));
        }
        Ok(results)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// What was measured of one test on one peer.
    pub(crate) fn figures(&self, test: Test, peer: &str) -> Vec<&Figures> {
        self.outcomes(test, peer)
            .filter_map(|outcome| match outcome {
                Outcome::Measured(figures) => Some(figures),
                Outcome::Failed(_) => None,
            })
            .collect()
    }

    /// Round and reason of each measurement that failed.
    pub(crate) fn failures(&self, test: Test, peer: &str) -> Vec<(u32, &str)> {
        let samples = self.samples.iter().filter(|sample| sample.test == test && sample.peer == peer);
        samples
            .filter_map(|sample| match &sample.outcome {
                Outcome::Measured(_) => None,
                Outcome::Failed(reason) => Some((sample.round, reason.as_str())),
            })
            .collect()
    }

    fn outcomes(&self, test: Test, peer: &str) -> impl Iterator<Item = &Outcome> {
        let samples = self.samples.iter().filter(move |sample| sample.test == test && sample.peer == peer);
        samples.map(|sample| &sample.outcome)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two peers, one test, three rounds, one of which failed.
    pub(crate) fn example() -> Results {
        let sample = |round, peer: &str, outcome| Sample {
            round,
            test: Test::Tcp1,
            peer: peer.into(),
            background_cpus: f64::from(round) / 10.0,
            outcome,
        };
        let measured = |value: f64| {
            let figures = Figures {
                value,
                seconds: 1.0,
                work: value / 8.0,
                cpu_seconds: Some(value / 4.0),
                ..Figures::default()
            };
            Outcome::Measured(figures)
        };
        Results {
            schema: SCHEMA,
            facts: Facts {
                date: "2026-11-21T10:00Z".into(),
                cpu: "a CPU".into(),
                cpus: 2,
                kernel: "6.18".into(),
                commit: None,
                iperf3: "iperf 3.12".into(),
                command: "compare".into(),
            },
            settings: Settings {
                world: World::Switch,
                rounds: 3,
                seconds: 1,
                congestion_control: "cubic".into(),
                mtu: 1500,
                offload: true,
                rcvbuf: None,
                flows: None,
            },
            peers: ["tapswitch", "bridge"].map(|name| About { name: name.into(), what: "a switch".into() }).into(),
            tests: vec![Described::of(Test::Tcp1, World::Switch)],
            samples: vec![
                sample(1, "tapswitch", measured(40.0)),
                sample(1, "bridge", measured(50.0)),
                sample(2, "bridge", measured(20.0)),
                sample(2, "tapswitch", measured(44.0)),
                sample(3, "tapswitch", Outcome::Failed("no answer".into())),
                sample(3, "bridge", measured(30.0)),
            ],
        }
    }

    #[test]
    fn json_and_back_is_the_identity() {
        let mut results = example();
        if let Outcome::Measured(figures) = &mut results.samples[0].outcome {
            figures.latency = Some(Latency { p50_us: 1.5, p99_us: 2.5, p999_us: 3.5, lost: 4 });
            let dropped = BTreeMap::from([("switch: b tx-full".to_owned(), 7)]);
            figures.datagrams = Some(Datagrams { sent: 10, sent_per_second: 10.0, delivered: 3, dropped });
            let (slabs_before, slabs_after) = (Some(3), None);
            let (connections_before, connections_after) = (None, Some(5));
            figures.memory = Some(Box::new(Memory {
                sessions: 7,
                before: 1,
                after: 2,
                slabs_before,
                slabs_after,
                connections_before,
                connections_after,
            }));
        }
        let text = serde_json::to_string(&results).expect("JSON");
        assert_eq!(serde_json::from_str::<Results>(&text).expect("results"), results);
        assert!(
            text.contains(r#""test":"tcp1","peer":"tapswitch","background_cpus":0.3,"failed":"no answer""#),
            "{text}"
        );
    }

    #[test]
    fn failures_are_kept_apart_from_figures() {
        let results = example();
        assert_eq!(results.figures(Test::Tcp1, "tapswitch").len(), 2);
        assert_eq!(results.failures(Test::Tcp1, "tapswitch"), [(3, "no answer")]);
    }
}
