//! `network ls`, `network inspect` and `network uplink`.

use super::{connect, uplink};
use crate::api::{NetworkView, UplinkState, UplinkView};
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
        NetworkVerb::Uplink { network, macvtap } => {
            let network = uplink::hand_over(client, network, *macvtap)?;
            if global.json { output::print_json(&network) } else { output::print(&uplink_line(&network)) }
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
            state(network),
            network.mtu.to_string(),
            network.ports.to_string(),
            network.leases.to_string(),
            network.flows.to_string(),
        ]
    });
    let header = ["NAME", "SUBNET", "GATEWAY", "UPLINK", "STATE", "MTU", "CONTAINERS", "LEASES", "FLOWS"];
    output::table(header, rows, "no networks")
}

fn describe(network: &NetworkView) -> String {
    let mut facts = vec![
        ("name", network.name.clone()),
        ("subnet", network.subnet.to_string()),
        ("gateway", format!("{} ({})", network.gateway, network.gateway_mac)),
        ("mtu", network.mtu.to_string()),
        ("uplink", network.uplink.clone()),
    ];
    facts.extend(network.uplink_device.iter().flat_map(device));
    facts.extend([
        ("isolate", if network.isolate { "yes" } else { "no" }.into()),
        ("dns", words(&network.dns)),
        ("resolver", output::or_dash(network.resolver.as_ref())),
        ("allow", words(&network.allow)),
        ("publish", words(&network.publish)),
        ("routes", words(&network.routes)),
        ("connected to", words(&network.connect)),
        ("containers", network.ports.to_string()),
        ("leases", network.leases.to_string()),
        ("flows", network.flows.to_string()),
    ]);
    output::facts(&facts)
}

/// `up 192.0.2.2/24`, `asking DHCP`.
fn state(network: &NetworkView) -> String {
    match &network.uplink_device {
        None => "-".into(),
        Some(UplinkView { state: UplinkState::Up, ip: Some(ip), .. }) => format!("{} {ip}", UplinkState::Up),
        Some(UplinkView { state, .. }) => state.to_string(),
    }
}

fn uplink_line(network: &NetworkView) -> String {
    let device = network.uplink_device.as_ref().and_then(|uplink| uplink.device.as_deref()).unwrap_or("its device");
    format!("network {} has its uplink {}: {device}, {}\n", network.name, network.uplink, state(network))
}

/// Of an uplink that is a device.
fn device(uplink: &UplinkView) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("  state", uplink.state.to_string()),
        ("  device", output::or_dash(uplink.device.as_ref())),
        ("  mtu", uplink.mtu.map_or_else(|| "the device's".into(), |mtu| mtu.to_string())),
    ];
    let Some(nat) = &uplink.nat else { return facts };
    facts.extend([
        ("  address", output::or_dash(uplink.ip)),
        ("  gateway", output::or_dash(uplink.gateway)),
        ("  mac", output::or_dash(uplink.mac)),
    ]);
    if uplink.translate {
        facts.extend([
            ("  nat", format!("{} mapping, {} filtering", nat.mapping, nat.filtering)),
            ("  ports", format!("{} of {}", nat.ports.name(), nat.port_range)),
            ("  hairpin", if nat.hairpin { "yes" } else { "no" }.into()),
            ("  not translated", words(&nat.no_translate)),
        ]);
    } else {
        facts.push(("  nat", "none, packets keep their addresses".into()));
    }
    facts.extend([
        (
            "  idle times",
            format!(
                "udp {}, tcp {} ({} while it opens or closes), icmp {}",
                output::seconds(nat.udp_timeout),
                output::seconds(nat.tcp_established_timeout),
                output::seconds(nat.tcp_transitory_timeout),
                output::seconds(nat.icmp_timeout)
            ),
        ),
        (
            "  sessions",
            format!(
                "at most {}; of one container {}, {} new in a second, {} ports of a protocol",
                nat.max_sessions, nat.container_sessions, nat.container_rate, nat.container_ports
            ),
        ),
    ]);
    facts
}

fn words(values: &[impl ToString]) -> String {
    let words: Vec<String> = values.iter().map(ToString::to_string).collect();
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NatView;
    use crate::config::NatPlan;
    use tapswitch_wire::Mac;

    fn network() -> NetworkView {
        NetworkView {
            name: "lab".into(),
            subnet: "10.9.0.0/24".parse().unwrap(),
            gateway: [10, 9, 0, 1].into(),
            gateway_mac: Mac::from_ipv4([10, 9, 0, 1].into()),
            mtu: 1500,
            uplink: "nat:eth0".into(),
            uplink_device: Some(UplinkView {
                state: UplinkState::Up,
                device: Some("macvtap on eth0".into()),
                ip: Some("192.0.2.2/24".parse().unwrap()),
                gateway: Some([192, 0, 2, 1].into()),
                mac: Some(Mac::from_ipv4([192, 0, 2, 2].into())),
                mtu: Some(1500),
                translate: true,
                nat: Some(NatView::from(&NatPlan::default())),
            }),
            isolate: false,
            dns: vec![],
            resolver: None,
            allow: vec![],
            publish: vec!["web=8080:80/tcp".into()],
            routes: vec!["10.8.0.0/16 via 10.9.0.5".into()],
            connect: vec![],
            ports: 0,
            leases: 0,
            flows: 0,
        }
    }

    #[test]
    fn an_uplink_tells_its_state_its_address_and_how_it_translates() {
        let text = describe(&network());
        for fact in [
            "uplink            nat:eth0\n",
            "  state           up\n",
            "  device          macvtap on eth0\n",
            "  address         192.0.2.2/24\n",
            "  gateway         192.0.2.1\n",
            "  nat             endpoint-independent mapping, address-dependent filtering\n",
            "  ports           random of 1024-65535\n",
            "  idle times      udp 5m00s, tcp 2h04m (4m00s while it opens or closes), icmp 1m00s\n",
            "publish           web=8080:80/tcp\n",
            "routes            10.8.0.0/16 via 10.9.0.5\n",
        ] {
            assert!(text.contains(fact), "{fact} is missing from:\n{text}");
        }
        assert!(list(&[network()]).contains("nat:eth0  up 192.0.2.2/24  1500"), "{}", list(&[network()]));
        assert_eq!(uplink_line(&network()), "network lab has its uplink nat:eth0: macvtap on eth0, up 192.0.2.2/24\n");
    }

    #[test]
    fn a_network_that_waits_for_its_uplink_says_so() {
        let mut network = network();
        let uplink = network.uplink_device.as_mut().unwrap();
        uplink.state = UplinkState::WaitingForDevice;
        (uplink.device, uplink.translate) = (None, false);
        assert!(
            list(&[network.clone()]).contains("nat:eth0  waiting for its device  1500"),
            "its address is not in use"
        );
        let text = describe(&network);
        assert!(text.contains("  state       waiting for its device\n"), "{text}");
        assert!(text.contains("  nat         none, packets keep their addresses\n"), "{text}");
        network.uplink_device = None;
        network.uplink = "user".into();
        assert!(!describe(&network).contains("  state"));
    }
}
