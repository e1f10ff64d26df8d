//! `network ls` and `network inspect`.

use super::connect;
use crate::api::NetworkView;
use crate::args::{Global, NetworkVerb};
use crate::error::Error;
use crate::output;

pub(super) fn execute(global: &Global, verb: &NetworkVerb) -> Result<(), Error> {
    let mut client = connect(global)?;
    match verb {
        NetworkVerb::Ls => {
            let networks = client.networks()?;
            if global.json { output::print_json(&networks) } else { output::print(&list(&networks)) }
        }
        NetworkVerb::Inspect { name } => {
            let network = client.network(name)?;
            if global.json { output::print_json(&network) } else { output::print(&describe(&network)) }
        }
    }
}

fn list(networks: &[NetworkView]) -> String {
    let rows = networks.iter().map(|network| {
        [
            network.name.clone(),
            network.subnet.to_string(),
            network.gateway.to_string(),
            network.uplink.clone(),
            network.mtu.to_string(),
            network.ports.to_string(),
            network.leases.to_string(),
            network.flows.to_string(),
        ]
    });
    let header = ["NAME", "SUBNET", "GATEWAY", "UPLINK", "MTU", "CONTAINERS", "LEASES", "FLOWS"];
    output::table(header, rows, "no networks")
}

fn describe(network: &NetworkView) -> String {
    let facts = [
        ("name", network.name.clone()),
        ("subnet", network.subnet.to_string()),
        ("gateway", format!("{} ({})", network.gateway, network.gateway_mac)),
        ("mtu", network.mtu.to_string()),
        ("uplink", network.uplink.clone()),
        ("isolate", if network.isolate { "yes" } else { "no" }.into()),
        ("dns", words(&network.dns)),
        ("resolver", output::or_dash(network.resolver.as_ref())),
        ("allow", words(&network.allow)),
        ("containers", network.ports.to_string()),
        ("leases", network.leases.to_string()),
        ("flows", network.flows.to_string()),
    ];
    output::facts(&facts)
}

fn words(values: &[impl ToString]) -> String {
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}
