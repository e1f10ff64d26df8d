//! Request and response, on one connection or on a new one each time.

use crate::load::Answered;
use crate::results::{Figures, Latency};
use crate::world::Peer;

use super::Measure;

/// More connections than it can make in that time would be more than the sessions that tapswitch grants a container by
/// default, each of which stays for minutes after the end of its connection.
const LONGEST: u64 = 3;

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer, proto: &str) -> Result<Figures, String> {
    let ask = ["ask", proto, &peer.b_addr.to_string(), &measure.seconds().to_string()];
    answered(measure, peer, &["echo", proto], &ask)
}

pub(super) fn connect(measure: &Measure<'_>, peer: &Peer) -> Result<Figures, String> {
    let seconds = measure.seconds().min(LONGEST).to_string();
    answered(measure, peer, &["serve"], &["connect", &seconds])
}

fn answered(measure: &Measure<'_>, peer: &Peer, serve: &[&str], ask: &[&str]) -> Result<Figures, String> {
    let _server = measure.server(&peer.b, serve)?;
    let (said, used) = measure.metered(peer, &format!("load {}", ask[0]), &mut measure.load(&peer.a, ask))?;
    let answered: Answered =
        serde_json::from_str(&said).map_err(|error| format!("cannot read what was asked: {error}"))?;
    if answered.answers == 0 {
        return Err(format!("none of {} questions was answered", answered.lost));
    }
    Ok(Figures {
        value: answered.answers as f64 / answered.seconds / 1e3,
        seconds: answered.seconds,
        work: answered.answers as f64 / 1e6,
        latency: Some(Latency {
            p50_us: answered.p50_us,
            p99_us: answered.p99_us,
            p999_us: answered.p999_us,
            lost: answered.lost,
        }),
        ..used
    })
}
