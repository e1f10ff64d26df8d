//! Streams, by iperf3.

use serde::Deserialize;

use crate::process::Process;
use crate::results::Figures;
use crate::world::{Netns, Peer};
use std::net::Ipv4Addr;

use super::{Measure, START};

const GIB: f64 = (1u64 << 30) as f64;

/// What is read of the answer of `iperf3 --json`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    end: Option<End>,
}

/// Empty if iperf3 failed.
#[derive(Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
    sender_tcp_congestion: Option<String>,
}

#[derive(Deserialize)]
struct Sum {
    seconds: f64,
    bytes: f64,
    bits_per_second: f64,
    #[serde(default)]
    retransmits: Option<u64>,
}

/// Who listens, who connects to it, and under which address.
struct Ends<'a> {
    server: &'a Netns,
    client: &'a Netns,
    addr: Ipv4Addr,
}

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer, streams: u32, reverse: bool) -> Result<Figures, String> {
    stream(measure, peer, Ends { server: &peer.b, client: &peer.a, addr: peer.b_addr }, streams, reverse)
}

/// Through a published port, from outside; or, reversed, to the outside.
pub(super) fn published(measure: &Measure<'_>, peer: &Peer, reverse: bool) -> Result<Figures, String> {
    let (server, client, addr) = peer.published()?;
    stream(measure, peer, Ends { server, client, addr }, 1, reverse)
}

fn stream(measure: &Measure<'_>, peer: &Peer, ends: Ends<'_>, streams: u32, reverse: bool) -> Result<Figures, String> {
    let mut server = Process::start("iperf3 -s", ends.server.command("iperf3").args(["-s", "-1", "--forceflush"]))?;
    server.expect("listening", START)?;
    let mut command = ends.client.command("iperf3");
    command.args(["--json", "--connect-timeout", "3000", "-c", &ends.addr.to_string()]);
    command.args(["-t", &measure.seconds().to_string(), "-P", &streams.to_string()]);
    if reverse {
        command.arg("-R");
    }
    let (said, used) = measure.metered(peer, "iperf3 -c", &mut command).map_err(|reason| why(&reason))?;
    let figures = parse(&said, measure.options.cc.name())?;
    Ok(Figures { cpu_seconds: used.cpu_seconds, switch_cpu_seconds: used.switch_cpu_seconds, ..figures })
}

/// iperf3 says why it failed in the same form as what it measured.
fn why(reason: &str) -> String {
    let said = serde_json::from_str::<Answer>(reason).ok().and_then(|answer| answer.error);
    said.map_or_else(|| reason.to_owned(), |error| format!("iperf3: {error}"))
}

fn parse(text: &str, cc: &str) -> Result<Figures, String> {
    let answer: Answer = serde_json::from_str(text).map_err(|error| format!("cannot read iperf3's answer: {error}"))?;
    if let Some(error) = answer.error {
        return Err(format!("iperf3: {error}"));
    }
    let Some(End { sum_sent, sum_received: Some(received), sender_tcp_congestion }) = answer.end else {
        return Err("iperf3 said nothing about what was received".into());
    };
    match sender_tcp_congestion {
        Some(used) if used != cc => return Err(format!("the sender used {used} instead of {cc}")),
        _ => {}
    }
    Ok(Figures {
        value: received.bits_per_second / 1e9,
        seconds: received.seconds,
        work: received.bytes / GIB,
        retransmits: sum_sent.and_then(|sent| sent.retransmits),
        ..Figures::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"start": {}, "end": {
        "sum_sent": {"seconds": 2.0, "bytes": 5368709120, "bits_per_second": 2.1e10, "retransmits": 3},
        "sum_received": {"seconds": 2.0, "bytes": 5368709120, "bits_per_second": 2.0e10},
        "sender_tcp_congestion": "cubic"}}"#;

    #[test]
    fn what_was_received_counts() {
        let figures = parse(ANSWER, "cubic").expect("figures");
        assert_eq!((figures.value, figures.work, figures.retransmits), (20.0, 5.0, Some(3)));
    }

    #[test]
    fn another_congestion_control_is_a_failure() {
        assert_eq!(parse(ANSWER, "bbr"), Err("the sender used cubic instead of bbr".into()));
    }

    #[test]
    fn the_reason_of_a_failure_is_found() {
        let failed = r#"{"start": {}, "end": {}, "error": "unable to connect"}"#;
        assert_eq!(parse(failed, "cubic"), Err("iperf3: unable to connect".into()));
        assert_eq!(why(failed), "iperf3: unable to connect");
        assert_eq!(why("killed"), "killed");
    }
}
