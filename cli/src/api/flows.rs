//! Flows: what passes through an uplink, and what narrows a listing of them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A flow through an uplink: a session of the connection tracking, or a relayed one, which is a socket of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// The network.
    pub network: String,
    /// The container's name; absent if its container has gone, or if it is of no container.
    pub name: Option<String>,
    /// The session's number; absent for a relayed flow.
    pub id: Option<u64>,
    /// `tcp`, `udp` or `icmp`.
    pub proto: String,
    /// State of the flow.
    pub state: String,
    /// Why it passes: `outbound`, `inbound`, `forward`, `hairpin`, `routed` or `relayed`.
    pub reason: String,
    /// What the one who began it sends.
    pub original: WayView,
    /// What comes back. Where it differs from the original turned round, addresses are translated. A relayed flow is
    /// shown as its container sees it.
    pub reply: WayView,
    /// The other end of a relayed flow, as the host reaches it, where that differs.
    pub via: Option<String>,
    /// Seconds since anything passed.
    pub idle_s: u64,
    /// Seconds until it is forgotten if nothing passes.
    pub expires_s: Option<u64>,
}

/// One way of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayView {
    /// Where packets of this way come from: `ADDR:PORT`, for ICMP `ADDR id N` or `ADDR`.
    pub src: String,
    /// Where they go, written alike.
    pub dst: String,
    /// How many packets; absent where they are not counted, as in a relayed flow.
    pub packets: Option<u64>,
    /// How many bytes.
    pub bytes: u64,
}

/// What narrows a listing of flows, or the flows that are flushed. What is absent narrows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Of this network. One that does not exist is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Of this container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// With this address at one of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// With this port at one of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl FlowFilter {
    /// The flows of one network, or of all.
    pub fn network(network: Option<&str>) -> FlowFilter {
        FlowFilter { network: network.map(str::to_owned), ..FlowFilter::default() }
    }

    /// Whether it narrows nothing.
    pub fn is_empty(&self) -> bool {
        *self == FlowFilter::default()
    }

    /// Whether a flow is one of those. Address and port must be of the same end.
    pub fn matches(&self, flow: &FlowView) -> bool {
        let is_end = |text: &str| {
            let (ip, port) = end(text);
            self.address.is_none_or(|wanted| ip == Some(wanted)) && self.port.is_none_or(|wanted| port == Some(wanted))
        };
        let ends = [&flow.original.src, &flow.original.dst, &flow.reply.src, &flow.reply.dst];
        self.network.as_ref().is_none_or(|network| *network == flow.network)
            && self.container.as_ref().is_none_or(|name| Some(name) == flow.name.as_ref())
            && ends.into_iter().chain(&flow.via).any(|text| is_end(text))
    }
}

/// The address and the port of an end, as far as it has them.
fn end(text: &str) -> (Option<IpAddr>, Option<u16>) {
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return (Some(socket.ip()), Some(socket.port()));
    }
    // An echo has an identifier, not ports.
    (text.split(' ').next().and_then(|ip| ip.parse().ok()), None)
}

/// How many flows were flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// That many.
    pub flushed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(src: &str, dst: &str) -> WayView {
        WayView { src: src.into(), dst: dst.into(), packets: Some(1), bytes: 60 }
    }

    fn flow(original: WayView, reply: WayView, via: Option<&str>) -> FlowView {
        FlowView {
            network: "lab".into(),
            name: Some("web".into()),
            id: Some(7),
            proto: "tcp".into(),
            state: "established".into(),
            reason: "outbound".into(),
            original,
            reply,
            via: via.map(str::to_owned),
            idle_s: 0,
            expires_s: Some(7440),
        }
    }

    #[test]
    fn filters_look_at_every_end_of_a_flow() {
        let masqueraded =
            flow(way("10.0.0.2:4711", "192.0.2.9:443"), way("192.0.2.9:443", "192.0.2.2:50001"), Some("127.0.0.1:81"));
        let ping = flow(way("10.0.0.2 id 5", "192.0.2.9"), way("192.0.2.9", "192.0.2.2 id 9"), None);
        let v6 =
            flow(way("[2001:db8::2]:4711", "[2001:db8::9]:443"), way("[2001:db8::9]:443", "[2001:db8::2]:4711"), None);
        let filter = |container: &str, address: &str, port: u16| FlowFilter {
            network: None,
            container: (!container.is_empty()).then(|| container.to_owned()),
            address: address.parse().ok(),
            port: (port > 0).then_some(port),
        };
        for (container, address, port, found) in [
            ("", "", 0, [true, true, true]),
            ("web", "", 0, [true, true, true]),
            ("db", "", 0, [false, false, false]),
            ("", "10.0.0.2", 0, [true, true, false]),
            ("", "192.0.2.2", 0, [true, true, false]),
            ("", "127.0.0.1", 0, [true, false, false]),
            ("", "2001:db8::9", 0, [false, false, true]),
            ("", "", 443, [true, false, true]),
            ("", "", 50_001, [true, false, false]),
            ("", "", 5, [false, false, false]),
            ("", "192.0.2.9", 443, [true, false, false]),
            // Of the same end.
            ("", "192.0.2.9", 4711, [false, false, false]),
            ("db", "192.0.2.9", 443, [false, false, false]),
        ] {
            let matches = [&masqueraded, &ping, &v6].map(|flow| filter(container, address, port).matches(flow));
            assert_eq!(matches, found, "{container} {address} {port}");
        }
        assert!(FlowFilter::network(Some("lab")).matches(&ping) && !FlowFilter::network(Some("la")).matches(&ping));
        assert!(FlowFilter::network(None).is_empty() && !FlowFilter::network(Some("lab")).is_empty());
    }
}
