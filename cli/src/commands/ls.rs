//! `ls`: the attached containers.

use super::connect;
use crate::args::Global;
use crate::error::Error;
use crate::output::{self, bytes, or_dash};

/// Number of the port behind which the gateway stands; it is no container.
const GATEWAY: u32 = 0;

pub(super) fn execute(global: &Global) -> Result<(), Error> {
    let mut ports = connect(global)?.ports(None)?;
    ports.retain(|port| port.port != GATEWAY);
    if global.json {
        return output::print_json(&ports);
    }
    let rows = ports.iter().map(|port| {
        [
            port.name.clone(),
            port.network.clone(),
            or_dash(port.ip),
            port.mac.to_string(),
            port.interface.clone(),
            port.target.clone(),
            bytes(port.counters.rx_bytes),
            bytes(port.counters.tx_bytes),
        ]
    });
    let header = ["NAME", "NETWORK", "ADDRESS", "MAC", "INTERFACE", "TARGET", "RX", "TX"];
    output::print(&output::table(header, rows, "no container is attached; attach one with `tapswitch attach TARGET`"))
}
