//! The results in words: a table for each test, then what they were measured with.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::measure::Test;
use crate::results::{Described, Figures, Latency, Memory, Results};
use crate::stats::{Spread, median, spread};
use crate::world::World;

/// Peers that the others are held against.
const REFERENCES: [&str; 3] = ["bridge", "veth", "bridge-nft"];

/// Others that an ordinary user can start; ours are held against the best of them.
const ROOTLESS: [&str; 4] = ["pasta", "pasta-1500", "slirp4netns", "slirp4netns-1500"];

/// CPUs that other work may keep busy before the figures are in doubt.
const QUIET: f64 = 0.25;

const MIB: f64 = (1u64 << 20) as f64;

/// What a cell without a figure shows.
const NOTHING: &str = "-";

/// What the figures of a way out rest on.
const WAY_OUT: &str = "\
connect: one thread at each end, the client closes first; to 20 addresses, from the ports 32768 to 60999, tcp_tw_reuse=1;
  3 s at most; each measurement in a world of its own, with default options
up, down: from the container, to the container; CPU seconds are those of the whole machine, both ends included
";

/// What those of a translator rest on besides.
const TRANSLATED: &str = "\
sessions: UDP, one datagram each, 20 000 source ports to as many addresses as it takes; each measurement in a world of its
  own; tapswitch's resident memory, or the kernel's nf_conntrack slab (and all slabs, for a session there has parts elsewhere)
";

/// What else those of an ordinary user rest on.
const OF_USERS: &str = "\
/best rootless: against the best median of pasta and slirp4netns, whatever their MTU; where less is better, the least
relays: run by uid 65533 without capabilities in the gateway's namespaces, the container's are a user and a network
  namespace that he made in them; the kernel's peer is set up by root
up of pasta: where it stands still with idle CPUs (0.2 Gbit/s), that is what was measured; a stream that does not end is
  killed 10 s after its time, and failed
connections: idle TCP, from one thread, to 20 addresses; each measurement in a world of its own; the growth of the relay's
  resident set, or of the kernel's nf_conntrack slab. Kernel, with both ends: bytes a connection in its slabs of sockets,
  files, epoll and conntrack; both ends are in them, too, so what counts is the difference to the kernel's row
idle: CPU of the relay's processes over at least 10 s
start: until the first TCP connection of a process that tries all the time, 0.5 ms after each refusal; of the command that
  joins the container: pasta, slirp4netns, or tapswitch up and then attach, each through ip netns exec and setpriv
published: by pasta --tcp-ports, slirp4netns add_hostfwd, tapswitch publish, nft dnat
";

/// All that is printed at the end of a run.
pub(crate) fn all(results: &Results) -> String {
    let mut text = String::new();
    for described in &results.tests {
        test(&mut text, results, described);
        text.push('\n');
    }
    facts(&mut text, results);
    text
}

fn test(text: &mut String, results: &Results, described: &Described) {
    let Described { test, title, unit, work_unit } = described;
    let of = |peer: &str| results.figures(*test, peer);
    let _ = writeln!(text, "{title} ({unit}) [{}]", test.name());
    let median_of = |peer: &str| median(of(peer).iter().map(|figures| figures.value));
    let ratio_to = |name: &'static str, value: Option<f64>| Some((name, value?)).filter(|(_, value)| *value > 0.0);
    let mut references: Vec<(&str, f64)> =
        REFERENCES.into_iter().filter_map(|peer| ratio_to(peer, median_of(peer))).collect();
    let rootless = ROOTLESS.into_iter().filter_map(median_of);
    let best = if test.less_is_better() { rootless.reduce(f64::min) } else { rootless.reduce(f64::max) };
    references.extend(ratio_to("best rootless", best));
    let columns: Vec<Column> = columns(*test, work_unit, &references);
    let mut header = vec!["peer".to_owned(), "median".into(), "range".into()];
    header.extend(columns.iter().map(|column| column.title.clone()));
    let mut failures = String::new();
    let rows = results.peers.iter().filter_map(|peer| {
        let figures = of(&peer.name);
        for (round, reason) in results.failures(*test, &peer.name) {
            let _ = writeln!(failures, "  failed: {}, round {round}: {reason}", peer.name);
        }
        let mut row = vec![peer.name.clone()];
        match spread(figures.iter().map(|figures| figures.value)) {
            Some(values) => {
                row.push(number(values.median));
                row.push(format!("{} to {}", number(values.low), number(values.high)));
            }
            None if results.failures(*test, &peer.name).is_empty() => return None,
            None => row.extend(["failed".into(), NOTHING.into()]),
        }
        row.extend(columns.iter().map(|column| (column.cell)(&figures).unwrap_or_else(|| NOTHING.into())));
        Some(row)
    });
    text.push_str(&laid_out(header, rows));
    text.push_str(&failures);
}

/// A column: its title, and how it is made from the figures of a peer.
struct Column<'a> {
    title: String,
    cell: Box<Cell<'a>>,
}

type Cell<'a> = dyn Fn(&[&Figures]) -> Option<String> + 'a;

impl<'a> Column<'a> {
    fn new(title: impl Into<String>, cell: impl Fn(&[&Figures]) -> Option<String> + 'a) -> Self {
        Self { title: title.into(), cell: Box::new(cell) }
    }

    /// The median of what `of` finds in the figures.
    fn median(title: impl Into<String>, of: impl Fn(&Figures) -> Option<f64> + 'a) -> Self {
        Self::new(title, move |all| median(all.iter().filter_map(|figures| of(figures))).map(number))
    }
}

fn columns<'a>(test: Test, work_unit: &str, references: &[(&'a str, f64)]) -> Vec<Column<'a>> {
    let mut columns = Vec::new();
    if matches!(test, Test::Idle | Test::FlowIdle) {
        return columns;
    }
    for &(name, reference) in references {
        columns.push(Column::new(format!("/{name}"), move |all| {
            median(all.iter().map(|figures| figures.value)).map(|value| format!("{:.2}x", value / reference))
        }));
    }
    match test {
        Test::TcpRr | Test::UdpRr | Test::TcpRrLoad | Test::UdpRrLoad | Test::Connect => {
            let latency = |title: &str, of: fn(&Latency) -> f64| {
                Column::median(title, move |figures: &Figures| figures.latency.as_ref().map(of))
            };
            columns.push(latency("p50 us", |latency| latency.p50_us));
            columns.push(latency("p99 us", |latency| latency.p99_us));
            columns.push(latency("p99.9 us", |latency| latency.p999_us));
            columns.push(latency("lost", |latency| latency.lost as f64));
        }
        Test::UdpSmall | Test::UdpGso | Test::UdpDown => {
            columns.push(Column::median("sent", |figures| Some(figures.datagrams.as_ref()?.sent_per_second / 1e3)));
        }
        Test::Startup => return columns,
        Test::Sessions100k | Test::Sessions1m | Test::FlowMemory => {
            let memory = |title: &str, of: fn(&Memory) -> Option<f64>| {
                Column::median(title, move |figures: &Figures| of(figures.memory.as_ref()?))
            };
            let what = if test == Test::FlowMemory { "connections" } else { "sessions" };
            columns.push(memory(what, |memory| Some(memory.sessions as f64)));
            columns.push(memory("MiB before", |memory| Some(memory.before as f64 / MIB)));
            columns.push(memory("MiB after", |memory| Some(memory.after as f64 / MIB)));
            if test == Test::FlowMemory {
                columns.push(memory("kernel, with both ends", |memory| {
                    grown(memory.connections_before, memory.connections_after, memory)
                }));
                return columns;
            }
            columns.push(memory("with all slabs", |memory| grown(memory.slabs_before, memory.slabs_after, memory)));
        }
        _ => columns.push(Column::median("retransmits", |figures| figures.retransmits.map(|count| count as f64))),
    }
    let per = |seconds: Option<f64>, figures: &Figures| Some(seconds? / figures.work).filter(|value| value.is_finite());
    columns.push(Column::median(format!("CPU s/{work_unit}"), move |figures| per(figures.cpu_seconds, figures)));
    columns.push(Column::median("of it switch", move |figures| per(figures.switch_cpu_seconds, figures)));
    if let Test::UdpSmall | Test::UdpGso | Test::UdpDown = test {
        columns.push(Column::new("lost where", move |all| losses(test, all)));
    }
    columns
}

/// Bytes of a session or connection.
fn grown(before: Option<u64>, after: Option<u64>, memory: &Memory) -> Option<f64> {
    Some((after? as f64 - before? as f64) / memory.sessions as f64)
}

/// Where datagrams were lost: as a part of what was sent, or, where frames and buffers were counted, as their rate.
fn losses(test: Test, all: &[&Figures]) -> Option<String> {
    let mut places: BTreeMap<&str, f64> = BTreeMap::new();
    let (mut sent, mut seconds) = (0.0, 0.0);
    for (figures, datagrams) in all.iter().filter_map(|figures| Some((figures, figures.datagrams.as_ref()?))) {
        for (place, count) in &datagrams.dropped {
            *places.entry(place).or_default() += *count as f64;
        }
        sent += datagrams.sent as f64;
        seconds += figures.seconds;
    }
    let mut places: Vec<(&str, f64)> = places.into_iter().collect();
    places.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let words = places.into_iter().map(|(place, count)| match test {
        Test::UdpSmall | Test::UdpDown => format!("{place} {:.1} %", 100.0 * count / sent),
        _ => format!("{place} {} thousand frames/s", number(count / seconds / 1e3)),
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn facts(text: &mut String, results: &Results) {
    let (facts, settings) = (&results.facts, &results.settings);
    let _ = writeln!(text, "{} round(s) of {} s, interleaved", settings.rounds, settings.seconds);
    let background = || results.samples.iter().map(|sample| sample.background_cpus);
    if let Some(Spread { median, low, high }) = spread(background()) {
        let disturbed = background().filter(|&cpus| cpus > QUIET).count();
        let _ = writeln!(text, "other work kept {median:.2} CPUs busy ({low:.2} to {high:.2})");
        if disturbed > 0 {
            let all = results.samples.len();
            let _ = writeln!(text, "the machine was not quiet before {disturbed} of {all} measurements: doubt them");
        }
    }
    if settings.world.is_way_out() {
        text.push_str(WAY_OUT);
    }
    match settings.world {
        World::Switch => {}
        World::Nat => text.push_str(TRANSLATED),
        World::Rootless => text.push_str(OF_USERS),
    }
    let offload = if settings.offload { "each with the offloads it has" } else { "offloads off" };
    let elsewhere = if settings.world == World::Rootless { " unless it says otherwise below" } else { "" };
    let rcvbuf = settings.rcvbuf.map_or_else(|| "the kernel's default".into(), |bytes| format!("{bytes} bytes"));
    let _ = writeln!(
        text,
        "TCP {}, MTU {}{elsewhere}, {offload}, UDP receive buffer {rcvbuf}",
        settings.congestion_control, settings.mtu
    );
    let _ = writeln!(text, "{}, {} CPUs, {}, {}", facts.cpu, facts.cpus, facts.kernel, facts.iperf3);
    for peer in &results.peers {
        let _ = writeln!(text, "{}: {}", peer.name, peer.what);
    }
    let commit = facts.commit.as_ref().map(|commit| format!(", tapswitch's tree at {commit}")).unwrap_or_default();
    let _ = writeln!(text, "{}{commit}", facts.date);
    let _ = writeln!(text, "{}", facts.command);
}

/// Without borders; figures to the right, words to the left.
fn laid_out(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let words: Vec<bool> = header.iter().map(|title| ["peer", "lost where"].contains(&title.as_str())).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (column, words) in table.column_iter_mut().zip(words) {
        column.set_padding((0, 2));
        column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Three digits that say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;
    use crate::results::{About, Datagrams, Outcome, Sample};

    #[test]
    fn the_table_shows_medians_ranges_ratios_and_failures() {
        let text = all(&example());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let row = |peer: &str| lines.iter().find(|line| line.first() == Some(&peer)).expect("a row").join(" ");
        // CPU seconds are a quarter of the value, work an eighth.
        assert_eq!(row("tapswitch"), "tapswitch 42.0 40.0 to 44.0 1.40x - 2.00 -");
        assert_eq!(row("bridge"), "bridge 30.0 20.0 to 50.0 1.00x - 2.00 -");
        assert!(text.contains("failed: tapswitch, round 3: no answer"), "{text}");
        assert!(text.contains("TCP cubic, MTU 1500"), "{text}");
        assert!(text.contains("other work kept 0.20 CPUs busy (0.10 to 0.30)"), "{text}");
        assert!(text.contains("not quiet before 2 of 6 measurements"), "{text}");
    }

    #[test]
    fn a_peer_that_always_failed_has_a_row_all_the_same() {
        let mut results = example();
        results.samples.retain(|sample| sample.peer == "bridge" || sample.round == 3);
        let text = all(&results);
        assert!(text.lines().any(|line| line.starts_with("tapswitch") && line.contains("failed")), "{text}");
    }

    #[test]
    fn losses_are_shown_largest_first() {
        let dropped = [("uncounted", 10), ("receiver's socket", 40)];
        let dropped = dropped.map(|(place, count)| (place.to_owned(), count)).into();
        let datagrams = Datagrams { sent: 100, sent_per_second: 100.0, delivered: 50, dropped };
        let figures = Figures { seconds: 2.0, datagrams: Some(datagrams), ..Figures::default() };
        let shown = losses(Test::UdpSmall, &[&figures]);
        assert_eq!(shown.as_deref(), Some("receiver's socket 40.0 %, uncounted 10.0 %"));
        let shown = losses(Test::UdpGso, &[&figures]);
        let expected = "receiver's socket 0.020 thousand frames/s, uncounted 0.005 thousand frames/s";
        assert_eq!(shown.as_deref(), Some(expected));
        assert_eq!(losses(Test::UdpSmall, &[&Figures::default()]), None);
    }

    #[test]
    fn ours_is_held_against_the_best_of_the_rootless_peers() {
        let row = |test: Test| {
            let mut results = example();
            results.tests = vec![Described::of(test, World::Rootless)];
            results.peers[0].name = "user".into();
            let other = |name: &str| About { name: name.into(), ..results.peers[1].clone() };
            results.peers.extend([other("pasta"), other("slirp4netns-1500")]);
            results.samples = [("user", 30.0), ("bridge", 60.0), ("pasta", 40.0), ("slirp4netns-1500", 10.0)]
                .map(|(peer, value)| Sample {
                    round: 1,
                    test,
                    peer: peer.into(),
                    background_cpus: 0.0,
                    outcome: Outcome::Measured(Figures { value, ..Figures::default() }),
                })
                .into();
            let text = all(&results);
            let line = text.lines().find(|line| line.starts_with("user")).expect("a row").to_owned();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(row(Test::Tcp1).starts_with("user 30.0 30.0 to 30.0 0.50x 0.75x"), "{}", row(Test::Tcp1));
        assert_eq!(row(Test::Startup), "user 30.0 30.0 to 30.0 0.50x 3.00x");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.0, 0.1234, 1.234, 12.34, 123.4, 12_345.0].map(number),
            ["0.00", "0.123", "1.23", "12.3", "123", "12345"]
        );
    }
}
