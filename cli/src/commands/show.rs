//! `show`: what the daemon knows, one table at a time.

use serde::Serialize;

use super::connect;
use crate::api::{ArpView, DropView, FdbView, FlowFilter, FlowView, LeaseView, PortView, StatsView};
use crate::args::{Global, NarrowArgs, Table};
use crate::error::Error;
use crate::output::{bytes, facts, or_dash, print, print_json, seconds, table};

/// No line of drops is longer; `--json` has the whole frame.
const WIDTH: usize = 100;

pub(super) fn execute(global: &Global, what: Table, narrow: &NarrowArgs) -> Result<(), Error> {
    check(what, narrow)?;
    let network = narrow.network.as_deref();
    let mut client = connect(global)?;
    match what {
        Table::Ports => answer(global, &client.ports(network)?, |rows| ports(rows)),
        Table::Fdb => answer(global, &client.fdb(network)?, |rows| fdb(rows)),
        Table::Arp => answer(global, &client.arp(network)?, |rows| arp(rows)),
        Table::Leases => answer(global, &client.leases(network)?, |rows| leases(rows)),
        Table::Flows => answer(global, &client.flows(&filter(narrow))?, |rows| flows(rows)),
        Table::Drops => answer(global, &client.drops(network)?, |rows| drops(rows)),
        Table::Stats => answer(global, &client.stats()?, stats),
    }
}

/// What the parser could not judge.
fn check(what: Table, narrow: &NarrowArgs) -> Result<(), Error> {
    let NarrowArgs { network, container, address, port } = narrow;
    let of_flows = container.is_some() || address.is_some() || port.is_some();
    if of_flows && what != Table::Flows {
        return Err(Error::Usage(
            "--container, --address and --port are for `tapswitch show flows`; leave them out".into(),
        ));
    }
    if what == Table::Stats && network.is_some() {
        return Err(Error::Usage(
            "show stats takes no --network: its figures are the daemon's; see `tapswitch network inspect NAME`".into(),
        ));
    }
    Ok(())
}

/// The flows that the options name.
pub(super) fn filter(narrow: &NarrowArgs) -> FlowFilter {
    let NarrowArgs { network, container, address, port } = narrow.clone();
    FlowFilter { network, container, address, port }
}

fn answer<T: Serialize>(global: &Global, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Error> {
    if global.json { print_json(value) } else { print(&text(value)) }
}

fn ports(rows: &[PortView]) -> String {
    let header =
        ["NETWORK", "PORT", "NAME", "MTU", "OFFLOAD", "AGE", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "DROPS"];
    let rows = rows.iter().map(|port| {
        let counters = &port.counters;
        [
            port.network.clone(),
            port.port.to_string(),
            port.name.clone(),
            port.mtu.to_string(),
            if port.offload { "yes" } else { "no" }.into(),
            seconds(port.age_s),
            counters.rx_frames.to_string(),
            bytes(counters.rx_bytes),
            counters.tx_frames.to_string(),
            bytes(counters.tx_bytes),
            counters.drops.values().sum::<u64>().to_string(),
        ]
    });
    table(header, rows, "no ports")
}

fn fdb(rows: &[FdbView]) -> String {
    let rows = rows.iter().map(|entry| {
        let age = entry.age_s.map_or_else(|| "static".into(), seconds);
        [entry.network.clone(), entry.mac.to_string(), entry.port.to_string(), entry.name.clone(), age]
    });
    table(["NETWORK", "MAC", "PORT", "NAME", "AGE"], rows, "no station has been learned")
}

fn arp(rows: &[ArpView]) -> String {
    let rows = rows.iter().map(|neighbour| {
        [
            neighbour.network.clone(),
            neighbour.ip.to_string(),
            or_dash(neighbour.mac),
            neighbour.state.clone(),
            seconds(neighbour.age_s),
        ]
    });
    table(["NETWORK", "ADDRESS", "MAC", "STATE", "AGE"], rows, "the gateway knows no neighbour")
}

fn leases(rows: &[LeaseView]) -> String {
    let rows = rows.iter().map(|lease| {
        [
            lease.network.clone(),
            lease.ip.to_string(),
            lease.mac.to_string(),
            or_dash(lease.name.as_ref()),
            or_dash(lease.hostname.as_ref()),
            lease.state.clone(),
            lease.expires_s.map_or_else(|| "never".into(), seconds),
        ]
    });
    table(["NETWORK", "ADDRESS", "MAC", "NAME", "HOSTNAME", "STATE", "EXPIRES"], rows, "no address is in use")
}

/// Two lines for each flow, so that both ways fit side by side: what was sent, and below it what comes back.
fn flows(rows: &[FlowView]) -> String {
    let several = rows.iter().any(|flow| flow.network != rows[0].network);
    let rows = rows.iter().flat_map(|flow| {
        let name = flow.name.as_deref().unwrap_or("-");
        let name = if several { format!("{}/{name}", flow.network) } else { name.to_owned() };
        let expires = flow.expires_s.map_or_else(|| "never".into(), seconds);
        let (original, reply) = (&flow.original, &flow.reply);
        // Where a relayed flow really leads is worth more than its other end once more.
        let from = flow.via.as_ref().unwrap_or(&reply.src);
        [
            [
                name,
                format!("{} {}", flow.proto, flow.state),
                original.src.clone(),
                original.dst.clone(),
                bytes(original.bytes),
                format!("expires {expires}"),
            ],
            [
                String::new(),
                format!("  {}", flow.reason),
                from.clone(),
                reply.dst.clone(),
                bytes(reply.bytes),
                format!("idle {}", seconds(flow.idle_s)),
            ],
        ]
    });
    table(["CONTAINER", "FLOW", "FROM", "TO", "BYTES", "TIME"], rows, "no flow passes through an uplink")
}

fn drops(rows: &[DropView]) -> String {
    let table = table(
        ["NETWORK", "NAME", "REASON", "COUNT", "RATE", "LAST FRAME"],
        rows.iter().map(|drop| {
            [
                drop.network.clone(),
                drop.name.clone(),
                drop.reason.clone(),
                drop.count.to_string(),
                rate(drop.rate),
                or_dash(drop.sample.as_deref().map(without_macs)),
            ]
        }),
        "no frame was dropped",
    );
    if rows.is_empty() {
        return table;
    }
    let cut: String = table.lines().map(|line| shortened(line) + "\n").collect();
    cut + "What a reason means, and what to do: tapswitch help drop REASON\n"
}

/// A frame without its MAC addresses, if it has others: those say more, and there is room for few.
fn without_macs(frame: &str) -> &str {
    let mut words = frame.splitn(4, ' ');
    match (words.nth(1), words.nth(1)) {
        (Some(">"), Some(rest)) if rest.starts_with("IPv") || rest.starts_with("ARP") => rest,
        _ => frame,
    }
}

/// Of which the frame, at the end, is the last that fits.
fn shortened(line: &str) -> String {
    if line.chars().count() <= WIDTH {
        return line.to_owned();
    }
    line.chars().take(WIDTH - 1).chain(['\u{2026}']).collect()
}

/// Per second; what is less often than once in a hundred seconds is shown as that.
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0/s".into(),
        0.0..0.01 => "<0.01/s".into(),
        0.01..10.0 => format!("{rate:.2}/s"),
        _ => format!("{rate:.0}/s"),
    }
}

fn stats(stats: &StatsView) -> String {
    let facts = facts(&[
        ("version", stats.version.clone()),
        ("pid", stats.pid.to_string()),
        ("uptime", seconds(stats.uptime_s)),
        ("networks", stats.networks.to_string()),
        ("containers", stats.ports.to_string()),
        ("flows", stats.flows.to_string()),
        ("rx frames", stats.rx_frames.to_string()),
        ("tx frames", stats.tx_frames.to_string()),
        ("drops", stats.drops.to_string()),
    ]);
    let threads = stats.threads.iter().map(|thread| {
        [
            thread.thread.to_string(),
            or_dash(thread.cpu),
            thread.io.clone(),
            thread.poll.clone(),
            thread.spin_us.map_or_else(|| "always".into(), |micros| format!("{micros} us")),
            thread.ports.to_string(),
            thread.turns.to_string(),
            thread.sleeps.to_string(),
        ]
    });
    let header = ["THREAD", "CPU", "IO", "POLL", "SPIN", "PORTS", "TURNS", "SLEEPS"];
    facts + "\n" + &table(header, threads, "no poll threads")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WayView;

    fn way(src: &str, dst: &str, bytes: u64) -> WayView {
        WayView { src: src.into(), dst: dst.into(), packets: None, bytes }
    }

    fn masqueraded() -> FlowView {
        FlowView {
            network: "default".into(),
            name: Some("web".into()),
            id: Some(1),
            proto: "tcp".into(),
            state: "established".into(),
            reason: "outbound".into(),
            original: way("10.210.0.102:51234", "203.0.113.134:44300", 1_234),
            reply: way("203.0.113.134:44300", "198.51.100.2:51234", 1 << 40),
            via: None,
            idle_s: 3,
            expires_s: Some(7437),
        }
    }

    #[test]
    fn flows_show_both_ways_in_a_hundred_columns() {
        let relayed = FlowView {
            id: None,
            reason: "relayed".into(),
            original: way("10.210.0.3:4000", "10.210.0.1:8080", 5),
            reply: way("10.210.0.1:8080", "10.210.0.3:4000", 0),
            via: Some("127.0.0.1:8080".into()),
            expires_s: None,
            ..masqueraded()
        };
        let text = flows(&[masqueraded(), relayed.clone()]);
        assert_eq!(
            text,
            "CONTAINER  FLOW             FROM                 TO                   BYTES    TIME\n\
             web        tcp established  10.210.0.102:51234   203.0.113.134:44300  1.2 KiB  expires 2h03m\n\
             \x20            outbound       203.0.113.134:44300  198.51.100.2:51234   1.0 TiB  idle 3s\n\
             web        tcp established  10.210.0.3:4000      10.210.0.1:8080      5 B      expires never\n\
             \x20            relayed        127.0.0.1:8080       10.210.0.3:4000      0 B      idle 3s\n"
        );
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let text = flows(&[masqueraded(), FlowView { network: "lab".into(), name: None, ..relayed }]);
        assert!(text.contains("\ndefault/web  tcp") && text.contains("\nlab/-"), "{text}");
    }

    #[test]
    fn drops_fit_a_hundred_columns_and_say_where_the_reasons_are_explained() {
        let drop = |rate, sample: Option<&str>| DropView {
            network: "default".into(),
            name: "web".into(),
            reason: "policy-denied".into(),
            count: 12,
            rate,
            text: "Out of reach.".into(),
            sample: sample.map(str::to_owned),
        };
        let other = "02:42:0a:00:00:02 > 01:80:c2:00:00:00 ethertype 88cc, 60 bytes, partial checksum";
        let tcp =
            "02:42:0a:00:00:02 > 02:42:0a:00:00:01 IPv4 10.0.0.2 > 169.254.169.254 ttl 64 TCP 4000 > 80 [S] seq 1";
        let text =
            drops(&[drop(0.25, Some(tcp)), drop(0.0, Some(other)), drop(0.001, Some("short")), drop(1234.5, None)]);
        let expected = "NETWORK  NAME  REASON         COUNT  RATE     LAST FRAME\n\
                        default  web   policy-denied  12     0.25/s   IPv4 10.0.0.2 > 169.254.169.254 ttl 64 TCP 4000 > 80 \u{2026}\n\
                        default  web   policy-denied  12     0/s      02:42:0a:00:00:02 > 01:80:c2:00:00:00 ethertype 88cc,\u{2026}\n\
                        default  web   policy-denied  12     <0.01/s  short\n\
                        default  web   policy-denied  12     1234/s   -\n\
                        What a reason means, and what to do: tapswitch help drop REASON\n";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(drops(&[]), "no frame was dropped\n");
    }

    #[test]
    fn only_flows_are_narrowed_by_their_ends() {
        let narrow = NarrowArgs { port: Some(80), ..NarrowArgs::default() };
        assert!(check(Table::Flows, &narrow).is_ok());
        assert!(matches!(check(Table::Ports, &narrow), Err(Error::Usage(_))));
        let network = NarrowArgs { network: Some("lab".into()), ..NarrowArgs::default() };
        assert!(check(Table::Ports, &network).is_ok());
        assert!(matches!(check(Table::Stats, &network), Err(Error::Usage(_))));
    }
}
