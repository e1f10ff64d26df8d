//! Memory of many sessions.

use std::time::{Duration, Instant};

use crate::load::Opened;
use crate::results::{Figures, Memory};
use crate::world::{Held, Peer};

use super::Measure;

/// Sessions begun in a second, at first. What a peer then missed is sent again, with everything else, at half the rate.
const RATE: u32 = 50_000;

/// How often all datagrams are sent at most, until every session is there.
const PASSES: u32 = 4;

/// The part of all sessions that will do.
const ENOUGH: f64 = 0.999;

/// How long what an earlier world held gets to be given back, and how long it has to stay the same to be so.
const SETTLE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_millis(500);

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer, sessions: u32) -> Result<Figures, String> {
    peer.check_room(sessions)?;
    let before = settled(peer)?;
    let from = peer.container_addr()?.to_string();
    let wanted = (f64::from(sessions) * ENOUGH) as u64;
    let mut all = Figures { cpu_seconds: Some(0.0), ..Figures::default() };
    let mut found = 0;
    for pass in 1..=PASSES {
        let rate = RATE >> (pass - 1);
        let limit = Duration::from_secs_f64(2.0 * f64::from(sessions) / f64::from(rate)) + super::GRACE;
        let args = ["open", &sessions.to_string(), &from, &rate.to_string()];
        let (said, used) = measure.metered_within(limit, peer, "load open", &mut measure.load(&peer.a, &args))?;
        let opened: Opened =
            serde_json::from_str(&said).map_err(|error| format!("cannot read what was opened: {error}"))?;
        all.seconds += opened.seconds;
        all.cpu_seconds = sum(all.cpu_seconds, used.cpu_seconds);
        all.switch_cpu_seconds = sum(all.switch_cpu_seconds, used.switch_cpu_seconds);
        // The memory first: to answer, the daemon needs some, too.
        let after = settled(peer)?;
        found = peer.sessions()?;
        if found >= wanted {
            let memory = Memory {
                sessions: found,
                before: before.bytes,
                after: after.bytes,
                slabs_before: before.slabs,
                slabs_after: after.slabs,
                connections_before: None,
                connections_after: None,
            };
            let value = after.bytes.saturating_sub(before.bytes) as f64 / found as f64;
            return Ok(Figures { value, work: found as f64 / 1e6, memory: Some(Box::new(memory)), ..all });
        }
        if found < wanted / 10 {
            return Err(format!(
                "{found} of {sessions} sessions are there after {pass} attempt(s): something refuses them"
            ));
        }
    }
    Err(format!("{found} of {sessions} sessions are there after {PASSES} attempts"))
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(|a, b| a + b)
}

/// What is held once that does not change any more: the kernel gives back what an earlier world held in its own time, and
/// a daemon works off what was sent to it.
pub(super) fn settled(peer: &Peer) -> Result<Held, String> {
    let deadline = Instant::now() + SETTLE;
    let mut last = (peer.held()?, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let (held, now) = (peer.held()?, Instant::now());
        if held.bytes != last.0.bytes {
            last = (held, now);
        }
        if now - last.1 >= SETTLED || now > deadline {
            return Ok(held);
        }
    }
}
