//! Request and response.

use crate::load::Answered;
use crate::results::{Figures, Latency};
use crate::world::Peer;

use super::Measure;

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer, proto: &str) -> Result<Figures, String> {
    let _server = measure.server(&peer.b, &["echo", proto])?;
    let args = ["ask", proto, &peer.b_addr.to_string(), &measure.seconds().to_string()];
    let (said, used) = measure.metered(peer, "load ask", &mut measure.load(&peer.a, &args))?;
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
