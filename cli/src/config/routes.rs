//! Static routes of a network, and which networks of the daemon are routed between.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::place::Set;
use super::{NetworkConfig, NetworkPlan, UplinkPlan, overlap};
use crate::error::Error;

/// A static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// What it leads to.
    pub destination: Ipv4Net,
    /// The next hop.
    pub via: Ipv4Addr,
    /// Where the next hop stands.
    pub side: Side,
}

/// Where a next hop stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the network's subnet: it is a container.
    Lan,
    /// On the uplink's LAN.
    Uplink,
}

impl fmt::Display for RoutePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.via)
    }
}

/// Reads the routes of one network, and judges them by themselves.
pub(super) fn routes(
    texts: &[Set<String>],
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    uplink: &UplinkPlan,
) -> Result<Vec<RoutePlan>, Error> {
    let mut routes: Vec<RoutePlan> = Vec::with_capacity(texts.len());
    for text in texts {
        let route = route(text, subnet, gateway, uplink)?;
        if let Some(other) = routes.iter().find(|other| other.destination == route.destination) {
            return Err(text.wrong(format!("route {route} has the same destination as {other}; keep one")));
        }
        routes.push(route);
    }
    Ok(routes)
}

fn route(text: &Set<String>, subnet: Ipv4Net, gateway: Ipv4Addr, uplink: &UplinkPlan) -> Result<RoutePlan, Error> {
    let mut words = text.value.split_whitespace();
    let (destination, via) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(destination), Some("via"), Some(via), None) => (destination, via),
        _ => {
            return Err(text
                .wrong(format!("'{}' is not a route; write CIDR via ADDR, as 10.9.0.0/16 via {gateway}", text.value)));
        }
    };
    let destination = Set { value: destination.to_owned(), place: text.place.clone() };
    let destination = super::network_of(&destination, "a route's destination")?;
    let via: Ipv4Addr =
        via.parse().map_err(|_| text.wrong(format!("next hop '{via}' is not an IPv4 address; write one")))?;
    if subnet.contains(&destination) {
        return Err(text
            .wrong(format!("{destination} is part of subnet {subnet}, which is reached directly; remove the route")));
    }
    let side = if subnet.contains(&via) { Side::Lan } else { Side::Uplink };
    let lan = match (side, uplink) {
        (Side::Lan, _) => Some((subnet, gateway)),
        (Side::Uplink, UplinkPlan::Nat(packet) | UplinkPlan::Tun(packet)) => {
            if packet.gateway.is_some() && destination.prefix_len() == 0 {
                return Err(text.wrong("uplink_gateway is the default route already; keep one of them"));
            }
            // What DHCP will say is not known yet.
            packet.static_address().map(|own| (own.trunc(), own.addr()))
        }
        (Side::Uplink, UplinkPlan::None | UplinkPlan::User | UplinkPlan::Lan { .. }) => {
            return Err(text.wrong(format!(
                "next hop {via} is outside of subnet {subnet}, and uplink {uplink} knows no next hops; write one inside"
            )));
        }
    };
    let Some((lan, own)) = lan else {
        return match super::is_reserved(via) {
            true => Err(text.wrong(format!("next hop {via} is reserved; write the address of a router"))),
            false => Ok(RoutePlan { destination, via, side }),
        };
    };
    if !lan.contains(&via) {
        return Err(text.wrong(format!(
            "next hop {via} is neither in subnet {subnet} nor on the uplink's LAN {lan}; write one that is"
        )));
    }
    if via == own {
        return Err(text.wrong(format!("next hop {via} is tapswitch's own address; write that of the next router")));
    }
    if lan.prefix_len() < 31 && (via == lan.network() || via == lan.broadcast()) {
        return Err(text.wrong(format!("next hop {via} is the first or last address of {lan}, which no host may have")));
    }
    Ok(RoutePlan { destination, via, side })
}

/// Judges what concerns several networks: routes into another one, and who is connected. Connections become symmetric.
pub(super) fn settle(configs: &[NetworkConfig], plans: &mut [NetworkPlan]) -> Result<(), Error> {
    for (config, plan) in configs.iter().zip(&*plans) {
        for (text, route) in config.routes.iter().zip(&plan.routes) {
            let inside = |other: &&NetworkPlan| other.subnet.contains(&route.destination);
            if let Some(other) = plans.iter().find(inside) {
                return Err(text.wrong(format!(
                    "{} is of network {} ({}) of this daemon; remove the route, and write connect = [\"{}\"]",
                    route.destination, other.name, other.subnet, other.name
                )));
            }
        }
    }
    for (at, config) in configs.iter().enumerate() {
        for text in &config.connect {
            let Some(other) = plans.iter().position(|plan| plan.name == text.value) else {
                let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
                return Err(text.wrong(format!(
                    "there is no network '{}' to connect to; there is: {}",
                    text.value,
                    names.join(", ")
                )));
            };
            if other == at {
                return Err(text.wrong(format!("network {} cannot be connected to itself; name another", text.value)));
            }
            connect(text, at, other, plans)?;
            for (from, to) in [(at, other), (other, at)] {
                let name = plans[to].name.clone();
                if !plans[from].connect.contains(&name) {
                    plans[from].connect.push(name);
                }
            }
        }
    }
    Ok(())
}

/// Two networks that are routed between see each other's uplink LANs (RFC 4787 REQ-7).
fn connect(text: &Set<String>, at: usize, other: usize, plans: &[NetworkPlan]) -> Result<(), Error> {
    for (here, there) in [(at, other), (other, at)] {
        let (inner, outer) = (&plans[here], &plans[there]);
        if let Some(lan) = outer.uplink.packet().and_then(|packet| packet.lan())
            && overlap(lan, inner.subnet)
        {
            return Err(text.wrong(format!(
                "network {} cannot be connected to {}: subnet {} overlaps with {lan}, the LAN of uplink {}; choose \
                 another subnet",
                inner.name, outer.name, inner.subnet, outer.uplink
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Host};
    use super::*;

    fn plan(text: &str) -> Result<Vec<NetworkPlan>, Error> {
        Config::parse(text, Path::new("lan.toml"))?.plan(&Host::default(), None)
    }

    const STATIC: &str = "[[network]]\nuplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nsubnet = '10.5.0.0/24'\n";

    #[test]
    fn routes_lead_to_containers_and_to_routers_of_the_uplink() {
        let text = format!("{STATIC}routes = ['10.9.0.0/16 via 10.5.0.5', '0.0.0.0/0  via  192.0.2.1']\n");
        let plans = plan(&text).unwrap();
        let [inner, outer] = plans[0].routes[..] else { panic!("{plans:?}") };
        assert_eq!((inner.side, inner.to_string().as_str()), (Side::Lan, "10.9.0.0/16 via 10.5.0.5"));
        assert_eq!((outer.side, outer.to_string().as_str()), (Side::Uplink, "0.0.0.0/0 via 192.0.2.1"));

        // What DHCP will say is not known.
        let plans = plan("[[network]]\nuplink = 'nat:eth0'\nroutes = ['10.9.0.0/16 via 192.0.2.7']\n").unwrap();
        assert_eq!(plans[0].routes[0].side, Side::Uplink);
        let plans = plan("[[network]]\nuplink = 'none'\nroutes = ['10.9.0.0/16 via 10.210.0.7']\n").unwrap();
        assert!(plans[0].leads_on(), "a route is reason enough for a default route to the gateway");
        assert!(!plan("[[network]]\nuplink = 'none'\n").unwrap()[0].leads_on());
    }

    #[test]
    fn mistakes_in_routes_name_their_line_and_the_way_out() {
        for (routes, expected) in [
            ("'10.9.0.0/16'", "CIDR via ADDR"),
            ("'10.9.0.0/16 dev eth0'", "CIDR via ADDR"),
            ("'10.9.0.0/16 via 10.5.0.5 metric 3'", "CIDR via ADDR"),
            ("'10.9.0.1/16 via 10.5.0.5'", "write 10.9.0.0/16"),
            ("'10.9.0.0 via 10.5.0.5'", "not an IPv4 network"),
            ("'10.9.0.0/16 via fe80::1'", "not an IPv4 address"),
            ("'10.5.0.128/25 via 10.5.0.5'", "part of subnet 10.5.0.0/24"),
            ("'10.9.0.0/16 via 10.5.0.1'", "own address"),
            ("'10.9.0.0/16 via 192.0.2.2'", "own address"),
            ("'10.9.0.0/16 via 10.5.0.255'", "first or last"),
            ("'10.9.0.0/16 via 192.0.3.1'", "neither in subnet 10.5.0.0/24 nor on the uplink's LAN 192.0.2.0/24"),
            ("'10.9.0.0/16 via 10.5.0.5', '10.9.0.0/16 via 10.5.0.6'", "same destination"),
        ] {
            let text = format!("{STATIC}uplink_gateway = '192.0.2.1'\nroutes = [{routes}]\n");
            let error = plan(&text).unwrap_err().to_string();
            assert!(error.starts_with("lan.toml:6: ") && error.contains(expected), "{routes}: {error}");
        }
        for (text, line, expected) in [
            ("[[network]]\nroutes = ['10.9.0.0/16 via 192.0.2.1']\n".to_owned(), 2, "uplink user knows no next hops"),
            (
                "[[network]]\nuplink = 'nat:eth0'\nroutes = ['10.9.0.0/16 via 127.0.0.1']\n".to_owned(),
                3,
                "next hop 127.0.0.1 is reserved",
            ),
            (
                format!("{STATIC}uplink_gateway = '192.0.2.1'\nroutes = ['0.0.0.0/0 via 192.0.2.9']\n"),
                6,
                "the default route already",
            ),
            // Routes to containers are no way out.
            (format!("{STATIC}routes = ['10.9.0.0/16 via 10.5.0.5']\n"), 3, "uplink_gateway"),
            (
                "[[network]]\nname = 'a'\nroutes = ['10.7.0.0/25 via 10.210.0.5']\n[[network]]\nname = 'b'\n\
                 subnet = '10.7.0.0/24'\n"
                    .to_owned(),
                3,
                "connect = [\"b\"]",
            ),
        ] {
            let error = plan(&text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("lan.toml:{line}: ")) && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn one_side_names_a_connection_and_both_have_it() {
        let plans = plan(
            "[[network]]\nname = 'a'\nconnect = ['b', 'c']\n[[network]]\nname = 'b'\nconnect = ['a']\n\
             [[network]]\nname = 'c'\nuplink = 'none'\n[[network]]\nname = 'd'\nuplink = 'none'\n",
        )
        .unwrap();
        let connected: Vec<&[String]> = plans.iter().map(|plan| &plan.connect[..]).collect();
        assert_eq!(connected, [&["b".to_owned(), "c".into()][..], &["a".into()], &["a".into()], &[]]);
        assert!(plans[2].leads_on() && !plans[3].leads_on());
    }

    #[test]
    fn mistakes_in_connections_name_their_line_and_the_way_out() {
        for (text, line, expected) in [
            ("[[network]]\nname = 'a'\nconnect = ['b']\n", 3, "no network 'b' to connect to; there is: a"),
            ("[[network]]\nname = 'a'\nconnect = ['a']\n", 3, "itself"),
            (
                "[[network]]\nname = 'a'\nuplink = 'nat:eth0'\nuplink_ip = '10.7.0.9/24'\nuplink_gateway = '10.7.0.1'\n\
                 [[network]]\nname = 'b'\nuplink = 'lan:eth0'\nsubnet = '10.7.0.0/24'\nconnect = ['a']\n",
                10,
                "subnet 10.7.0.0/24 overlaps with 10.7.0.0/24, the LAN of uplink nat:eth0",
            ),
        ] {
            let error = plan(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("lan.toml:{line}: ")) && error.contains(expected), "{text}: {error}");
        }
    }
}
