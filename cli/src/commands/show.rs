//! `show`: what the daemon knows, one table at a time.

use serde::Serialize;

use super::connect;
use crate::api::{ArpView, DropView, FdbView, FlowView, LeaseView, PortView, StatsView};
use crate::args::{Global, Table};
use crate::error::Error;
use crate::output::{bytes, facts, or_dash, print, print_json, seconds, table};

pub(super) fn execute(global: &Global, what: Table, network: Option<&str>) -> Result<(), Error> {
    let mut client = connect(global)?;
    match what {
        Table::Ports => answer(global, &client.ports(network)?, |rows| ports(rows)),
        Table::Fdb => answer(global, &client.fdb(network)?, |rows| fdb(rows)),
        Table::Arp => answer(global, &client.arp(network)?, |rows| arp(rows)),
        Table::Leases => answer(global, &client.leases(network)?, |rows| leases(rows)),
        Table::Flows => answer(global, &client.flows(network)?, |rows| flows(rows)),
        Table::Drops => answer(global, &client.drops(network)?, |rows| drops(rows)),
        Table::Stats if network.is_some() => Err(Error::Usage(
            "show stats takes no --network: its figures are the daemon's; see `tapswitch network inspect NAME`".into(),
        )),
        Table::Stats => answer(global, &client.stats()?, stats),
    }
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

fn flows(rows: &[FlowView]) -> String {
    let header = ["NETWORK", "NAME", "PROTO", "FROM", "TO", "VIA", "STATE", "UP", "DOWN", "IDLE", "EXPIRES"];
    let rows = rows.iter().map(|flow| {
        [
            flow.network.clone(),
            flow.name.clone(),
            flow.proto.clone(),
            flow.src.clone(),
            flow.dst.clone(),
            or_dash(flow.via.as_ref()),
            flow.state.clone(),
            bytes(flow.up_bytes),
            bytes(flow.down_bytes),
            seconds(flow.idle_s),
            flow.expires_s.map_or_else(|| "never".into(), seconds),
        ]
    });
    table(header, rows, "no flow passes through an uplink")
}

fn drops(rows: &[DropView]) -> String {
    let rows = rows.iter().map(|drop| {
        [drop.network.clone(), drop.name.clone(), drop.reason.clone(), drop.count.to_string(), drop.text.clone()]
    });
    table(["NETWORK", "NAME", "REASON", "FRAMES", "MEANING"], rows, "no frame was dropped")
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
