//! `ls`: the attached containers.

use super::connect;
use crate::api::{PortView, Published};
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
            published(&port.published),
        ]
    });
    let header = ["NAME", "NETWORK", "ADDRESS", "MAC", "INTERFACE", "TARGET", "RX", "TX", "PUBLISHED"];
    let table = output::table(header, rows, "no container is attached; attach one with `tapswitch attach TARGET`");
    output::print(&(table + note(&ports)))
}

fn published(published: &[Published]) -> String {
    let words: Vec<String> = published.iter().map(ToString::to_string).collect();
    if words.is_empty() { "-".into() } else { words.join(" ") }
}

/// Who opened a port to everybody should know it.
fn note(ports: &[PortView]) -> &'static str {
    let everywhere = ports.iter().flat_map(|port| &port.published).any(|published| published.host.is_unspecified());
    if everywhere {
        "0.0.0.0 is every address of the uplink. Of uplink user that is every address of this host: whoever reaches one of \
         them reaches the port.\n"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Ports, Proto};

    #[test]
    fn published_ports_are_told_with_the_address_that_leads_there() {
        let port = |port| Ports::one(port).unwrap();
        let web = Published { host: [0, 0, 0, 0].into(), host_ports: port(8080), ports: port(80), proto: Proto::Tcp };
        let dns = Published { host: [127, 0, 0, 1].into(), proto: Proto::Udp, ..web };
        assert_eq!(published(&[web, dns]), "0.0.0.0:8080->80/tcp 127.0.0.1:8080->80/udp");
        assert_eq!(published(&[]), "-");
    }
}
