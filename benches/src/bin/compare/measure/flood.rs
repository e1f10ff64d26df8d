//! Datagrams: how many arrive, and where the others stay.

use std::collections::BTreeMap;

use crate::load::{Received, Sent};
use crate::results::{Datagrams, Figures};
use crate::world::Peer;

use super::Measure;

pub(super) use crate::load::Kind;

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer, kind: Kind) -> Result<Figures, String> {
    let name = name(kind);
    let rcvbuf = rcvbuf(measure);
    let args: Vec<&str> = ["receive", name].into_iter().chain(rcvbuf.as_deref()).collect();
    let receiver = measure.server(&peer.b, &args)?;
    let before = peer.drops()?;
    let args = ["send", name, &peer.b_addr.to_string(), &measure.seconds().to_string()];
    let (said, used) = measure.metered(peer, "load send", &mut measure.load(&peer.a, &args))?;
    let sent: Sent = serde_json::from_str(&said).map_err(|error| format!("cannot read what was sent: {error}"))?;
    let said = receiver.finish(measure.limit())?;
    let received: Received = serde_json::from_str(&said).map_err(|error| format!("cannot read what came: {error}"))?;
    figures(kind, &sent, &received, since(&before, peer.drops()?), used)
}

/// From outside, to a container that asked for it.
pub(super) fn down(measure: &Measure<'_>, peer: &Peer, kind: Kind) -> Result<Figures, String> {
    let name = name(kind);
    let sender = measure.server(&peer.b, &["pour", name, &measure.seconds().to_string()])?;
    let before = peer.drops()?;
    let (addr, rcvbuf) = (peer.b_addr.to_string(), rcvbuf(measure));
    let args: Vec<&str> = ["fetch", name, &addr].into_iter().chain(rcvbuf.as_deref()).collect();
    let (said, used) = measure.metered(peer, "load fetch", &mut measure.load(&peer.a, &args))?;
    let received: Received = serde_json::from_str(&said).map_err(|error| format!("cannot read what came: {error}"))?;
    let said = sender.finish(measure.limit())?;
    let sent: Sent = serde_json::from_str(&said).map_err(|error| format!("cannot read what was sent: {error}"))?;
    figures(kind, &sent, &received, since(&before, peer.drops()?), used)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Small => "small",
        Kind::Gso => "gso",
    }
}

fn rcvbuf(measure: &Measure<'_>) -> Option<String> {
    measure.options.rcvbuf.map(|bytes| format!("--rcvbuf={bytes}"))
}

fn figures(
    kind: Kind,
    sent: &Sent,
    received: &Received,
    by_switch: BTreeMap<String, u64>,
    used: Figures,
) -> Result<Figures, String> {
    if received.datagrams == 0 {
        return Err(format!("none of {} datagrams arrived", sent.datagrams));
    }
    Ok(Figures {
        // Over the sender's time: what it left in queues is delivered later, but was not delivered in that time.
        value: received.datagrams as f64 / received.seconds.max(sent.seconds) / 1e3,
        seconds: sent.seconds,
        work: received.datagrams as f64 / 1e6,
        datagrams: Some(Datagrams {
            sent: sent.datagrams,
            sent_per_second: sent.datagrams as f64 / sent.seconds,
            delivered: received.datagrams,
            dropped: losses(kind, sent, received, by_switch),
        }),
        ..used
    })
}

fn since(before: &BTreeMap<String, u64>, mut after: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    for (reason, count) in &mut after {
        *count -= before.get(reason).copied().unwrap_or(0).min(*count);
    }
    after
}

/// Where datagrams were lost. What nobody counted is `uncounted`, where datagrams are frames and can be subtracted.
fn losses(kind: Kind, sent: &Sent, received: &Received, by_switch: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> =
        by_switch.into_iter().map(|(reason, count)| (format!("switch: {reason}"), count)).collect();
    all.insert("sender's interface".into(), sent.interface_drops);
    all.insert("receiver's interface".into(), received.interface_drops);
    all.insert("receiver's socket".into(), received.socket_errors);
    if kind == Kind::Small {
        let counted: u64 = all.values().sum();
        all.insert("uncounted".into(), sent.datagrams.saturating_sub(received.datagrams).saturating_sub(counted));
    }
    all.retain(|_, count| *count > 0);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|&(reason, count)| (reason.to_owned(), count)).collect()
    }

    #[test]
    fn every_lost_datagram_has_a_place() {
        let sent = Sent { datagrams: 100, seconds: 1.0, interface_drops: 20 };
        let received = Received { datagrams: 60, seconds: 1.0, interface_drops: 0, socket_errors: 5 };
        let switch = since(&counts(&[("b tx-full", 3)]), counts(&[("b tx-full", 11), ("a runt", 0)]));
        let expected =
            [("sender's interface", 20), ("receiver's socket", 5), ("switch: b tx-full", 8), ("uncounted", 7)];
        assert_eq!(losses(Kind::Small, &sent, &received, switch), counts(&expected));
    }

    #[test]
    fn frames_are_not_subtracted_from_the_datagrams_they_hold() {
        let sent = Sent { datagrams: 100, seconds: 1.0, interface_drops: 2 };
        let received = Received { datagrams: 10, seconds: 1.0, interface_drops: 0, socket_errors: 0 };
        let expected = counts(&[("sender's interface", 2)]);
        assert_eq!(losses(Kind::Gso, &sent, &received, BTreeMap::new()), expected);
    }
}
