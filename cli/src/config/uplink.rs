//! The way out of a network: sockets of the host, packets of our own, a LAN that it is joined to, or none.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tapswitch_wire::Mac;

use super::nat::{NatConfig, NatPlan};
use super::place::{Place, Set, within, wrong};
use super::routes::{RoutePlan, Side};
use super::{Host, MTU_RANGE, NetworkConfig, NetworkPlan};
use crate::error::Error;

/// The longest name of an interface (IFNAMSIZ without its end).
const MAX_IFACE: usize = 15;

/// The way out of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UplinkPlan {
    /// None.
    None,
    /// Each flow becomes a socket of the daemon on the host.
    #[default]
    User,
    /// Our router has an address and a MAC of its own on the LAN of this interface.
    Nat(PacketPlan),
    /// The switch is joined to the LAN of this interface.
    Lan {
        /// The interface.
        iface: String,
    },
    /// Packets leave through a TUN or TAP device into the host's stack.
    Tun(PacketPlan),
}

/// An uplink of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketPlan {
    /// The interface that a device is made on (`nat:`), or the device itself (`tun:`).
    pub device: String,
    /// Which address our router has there.
    pub address: UplinkAddress,
    /// The router of that LAN; none if DHCP names it, if the device needs none, or if only `routes` lead on.
    pub gateway: Option<Ipv4Addr>,
    /// Our router's MAC address there, unless the device has its own. If none is given it is derived from a static address,
    /// which is unique on its LAN, or for DHCP made from the names of host, user and network, so that the same network asks
    /// for the same lease, and a network of the same name on another host does not.
    pub mac: Mac,
    /// Whether it was given, so that a device with another one will not do.
    pub mac_given: bool,
    /// MTU; none: the device's.
    pub mtu: Option<u16>,
    /// Whether packets get the uplink's address. If not, they are routed as they are.
    pub translate: bool,
    /// How packets are translated and sessions tracked.
    pub nat: NatPlan,
}

/// Where the address of an uplink comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkAddress {
    /// It is asked for by DHCP.
    Dhcp,
    /// It is this one, on a LAN with this prefix.
    Static(Ipv4Net),
}

impl UplinkPlan {
    /// Whether each flow becomes a socket of the host.
    pub fn is_user(&self) -> bool {
        matches!(self, UplinkPlan::User)
    }

    /// Whether there is no way out.
    pub fn is_none(&self) -> bool {
        matches!(self, UplinkPlan::None)
    }

    /// The uplink of packets, if it is one.
    pub fn packet(&self) -> Option<&PacketPlan> {
        match self {
            UplinkPlan::Nat(packet) | UplinkPlan::Tun(packet) => Some(packet),
            UplinkPlan::None | UplinkPlan::User | UplinkPlan::Lan { .. } => None,
        }
    }

    /// The interface or device that somebody must open for it; none if it needs none.
    pub fn device(&self) -> Option<&str> {
        match self {
            UplinkPlan::Nat(packet) | UplinkPlan::Tun(packet) => Some(&packet.device),
            UplinkPlan::Lan { iface } => Some(iface),
            UplinkPlan::None | UplinkPlan::User => None,
        }
    }
}

impl fmt::Display for UplinkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UplinkPlan::None => f.write_str("none"),
            UplinkPlan::User => f.write_str("user"),
            UplinkPlan::Nat(packet) => write!(f, "nat:{}", packet.device),
            UplinkPlan::Lan { iface } => write!(f, "lan:{iface}"),
            UplinkPlan::Tun(packet) => write!(f, "tun:{}", packet.device),
        }
    }
}

impl PacketPlan {
    /// The LAN of the uplink, if its address is static.
    pub fn lan(&self) -> Option<Ipv4Net> {
        self.static_address().map(|address| address.trunc())
    }

    /// The address and its prefix, if it is static.
    pub fn static_address(&self) -> Option<Ipv4Net> {
        match self.address {
            UplinkAddress::Static(address) => Some(address),
            UplinkAddress::Dhcp => None,
        }
    }
}

/// The way out as it is described: what is `None` takes its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkConfig {
    /// `user`, `none`, `nat:IFACE`, `lan:IFACE` or `tun:NAME`.
    pub uplink: Option<Set<String>>,
    /// `ADDR/LEN` or `dhcp`.
    pub ip: Option<Set<String>>,
    /// An address.
    pub gateway: Option<Set<String>>,
    /// A MAC address.
    pub mac: Option<Set<String>>,
    /// Bytes.
    pub mtu: Option<Set<i64>>,
    /// Whether packets get the uplink's address.
    pub translate: Option<Set<bool>>,
    /// How.
    pub nat: Option<Set<NatConfig>>,
}

impl UplinkConfig {
    /// Settles every value. `begin` is where the network's description begins, `network` its name.
    pub(super) fn plan(&self, begin: &Place, network: &str, host: &Host) -> Result<UplinkPlan, Error> {
        let Some(uplink) = &self.uplink else { return self.without_packets(UplinkPlan::User) };
        let (kind, device) = uplink.value.split_once(':').unwrap_or((&uplink.value, ""));
        match (kind, device) {
            ("user", "") => self.without_packets(UplinkPlan::User),
            ("none", "") => self.without_packets(UplinkPlan::None),
            ("nat", iface) => {
                check_iface(iface).map_err(|why| uplink.wrong(why))?;
                Ok(UplinkPlan::Nat(self.packets(iface, false, begin, network, host)?))
            }
            ("tun", name) => {
                check_iface(name).map_err(|why| uplink.wrong(why))?;
                Ok(UplinkPlan::Tun(self.packets(name, true, begin, network, host)?))
            }
            ("lan", iface) => {
                check_iface(iface).map_err(|why| uplink.wrong(why))?;
                self.without_packets(UplinkPlan::Lan { iface: iface.to_owned() })
            }
            _ => Err(uplink.wrong(format!(
                "uplink '{}' is unknown; write \"user\", \"none\", \"nat:IFACE\", \"lan:IFACE\" or \"tun:NAME\"",
                uplink.value
            ))),
        }
    }

    /// What concerns packets is refused where there are none.
    fn without_packets(&self, plan: UplinkPlan) -> Result<UplinkPlan, Error> {
        let texts = [&self.ip, &self.gateway, &self.mac].into_iter().flatten().map(|set| &set.place);
        let mut needless = texts
            .chain(self.mtu.iter().map(|set| &set.place))
            .chain(self.translate.iter().map(|set| &set.place))
            .chain(self.nat.iter().map(|set| &set.place));
        match needless.next() {
            None => Ok(plan),
            Some(place) => {
                let text = format!(
                    "this is for the uplinks nat:IFACE and tun:NAME and would do nothing for {plan}; remove it"
                );
                Err(wrong(place, text))
            }
        }
    }

    /// An uplink with a static address on a LAN needs to know who leads on from there.
    pub(super) fn judge_way_on(&self, uplink: &UplinkPlan, routes: &[RoutePlan]) -> Result<(), Error> {
        let (UplinkPlan::Nat(packet), Some(ip)) = (uplink, &self.ip) else { return Ok(()) };
        let leads_on = packet.gateway.is_some() || routes.iter().any(|route| route.side == Side::Uplink);
        if leads_on || packet.address == UplinkAddress::Dhcp {
            return Ok(());
        }
        Err(ip.wrong(format!(
            "with the static address {} nobody says which router leads on; name it with uplink_gateway, or name routes \
             by way of it",
            ip.value
        )))
    }

    fn packets(&self, device: &str, tun: bool, begin: &Place, network: &str, host: &Host) -> Result<PacketPlan, Error> {
        let address = match &self.ip {
            None if tun => {
                let place = self.uplink.as_ref().map_or(begin, |uplink| &uplink.place);
                let text = "nobody answers DHCP on a TUN device, so the address that packets leave with must be given: \
                            set uplink_ip, as 192.0.2.2/24";
                return Err(wrong(place, text));
            }
            Some(ip) if tun && ip.value == "dhcp" => {
                return Err(ip.wrong("nobody answers DHCP on a TUN device; write an address, as 192.0.2.2/24"));
            }
            None => UplinkAddress::Dhcp,
            Some(ip) if ip.value == "dhcp" => UplinkAddress::Dhcp,
            Some(ip) => {
                let address = address(ip)?;
                if host.addresses.contains(&address.addr()) {
                    return Err(ip.wrong(format!(
                        "uplink_ip {} is this host's own address, which would be cut off; write one that is free",
                        address.addr()
                    )));
                }
                UplinkAddress::Static(address)
            }
        };
        let gateway = self.gateway.as_ref().map(|text| gateway(text, address)).transpose()?;
        let mac = match (&self.mac, address) {
            (Some(text), _) => mac(text)?,
            (None, UplinkAddress::Static(address)) => Mac::from_ipv4(address.addr()),
            (None, UplinkAddress::Dhcp) => stable_mac(&[&host.identity, network, device]),
        };
        let mtu = match &self.mtu {
            None => None,
            set => u16::try_from(within(set.as_ref(), MTU_RANGE, 0, "uplink_mtu", "bytes")?).ok(),
        };
        let translate = self.translate.as_ref().is_none_or(|set| set.value);
        let nat = match &self.nat {
            Some(nat) => nat.value.plan(translate)?,
            None => NatPlan::default(),
        };
        let mac_given = self.mac.is_some();
        Ok(PacketPlan { device: device.to_owned(), address, gateway, mac, mac_given, mtu, translate, nat })
    }
}

/// Two networks cannot be one host on a LAN, nor share a TUN device.
pub(super) fn judge_together(configs: &[NetworkConfig], plans: &[NetworkPlan]) -> Result<(), Error> {
    for (at, (config, plan)) in configs.iter().zip(plans).enumerate() {
        let place = config.uplink.uplink.as_ref().map_or(&config.place, |uplink| &uplink.place);
        for other in &plans[..at] {
            match (&plan.uplink, &other.uplink) {
                (UplinkPlan::Tun(here), UplinkPlan::Tun(there)) if here.device == there.device => {
                    let text =
                        format!("network {} has uplink {} already; use another device", other.name, other.uplink);
                    return Err(wrong(place, text));
                }
                (UplinkPlan::Nat(here), UplinkPlan::Nat(there)) if here.device == there.device => {
                    let same = here.static_address().zip(there.static_address()).filter(|(a, b)| a.addr() == b.addr());
                    let what = match same {
                        Some((address, _)) => address.addr().to_string(),
                        None if here.mac == there.mac => here.mac.to_string(),
                        None => continue,
                    };
                    let text = format!("network {} has {what} on {} already; write another", other.name, there.device);
                    return Err(wrong(place, text));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Judges the name of an interface, as the kernel does.
fn check_iface(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    if !name.is_empty() && name.len() <= MAX_IFACE && name.bytes().all(fits) && !matches!(name, "." | "..") {
        return Ok(());
    }
    Err(format!(
        "'{name}' is no interface's name; write nat:IFACE, lan:IFACE or tun:NAME with a name of up to {MAX_IFACE} \
         characters, as nat:eth0"
    ))
}

fn address(text: &Set<String>) -> Result<Ipv4Net, Error> {
    let net: Ipv4Net = text.value.parse().map_err(|_| {
        text.wrong(format!(
            "uplink_ip '{}' is not an address with its prefix; write ADDR/LEN, as 192.0.2.2/24, or dhcp",
            text.value
        ))
    })?;
    let short = net.prefix_len() < 31;
    if net.prefix_len() == 0 || (short && (net.addr() == net.network() || net.addr() == net.broadcast())) {
        return Err(text.wrong(format!(
            "uplink_ip {net} is the first or last address of {}, which no host may have; write another",
            net.trunc()
        )));
    }
    if super::is_reserved(net.addr()) {
        return Err(text.wrong(format!("uplink_ip {net} is reserved; write an address of the uplink's LAN")));
    }
    Ok(net)
}

fn gateway(text: &Set<String>, address: UplinkAddress) -> Result<Ipv4Addr, Error> {
    let gateway: Ipv4Addr = text.value.parse().map_err(|_| {
        text.wrong(format!("uplink_gateway '{}' is not an IPv4 address; write that of the LAN's router", text.value))
    })?;
    if super::is_reserved(gateway) {
        return Err(text.wrong(format!("uplink_gateway {gateway} is reserved; write the address of the LAN's router")));
    }
    let UplinkAddress::Static(own) = address else { return Ok(gateway) };
    if !own.contains(&gateway) {
        return Err(text.wrong(format!(
            "uplink_gateway {gateway} is outside of {}, the uplink's LAN; write the address of its router",
            own.trunc()
        )));
    }
    if gateway == own.addr() {
        return Err(text.wrong(format!("uplink_gateway {gateway} is the uplink's own address; write the LAN's router")));
    }
    if own.prefix_len() < 31 && (gateway == own.network() || gateway == own.broadcast()) {
        return Err(text.wrong(format!(
            "uplink_gateway {gateway} is the first or last address of {}, which no host may have",
            own.trunc()
        )));
    }
    Ok(gateway)
}

fn mac(text: &Set<String>) -> Result<Mac, Error> {
    match text.value.parse::<Mac>() {
        Ok(mac) if mac.is_station() => Ok(mac),
        Ok(mac) => Err(text.wrong(format!(
            "uplink_mac {mac} is a group's or nobody's; choose one whose first byte is even, as 02:00:00:00:00:01"
        ))),
        Err(_) => {
            Err(text
                .wrong(format!("uplink_mac '{}' is not a MAC address; write one, as 02:00:00:00:00:01", text.value)))
        }
    }
}

/// A locally administered unicast address from a stable hash (FNV-1a, 64 bits), not of the form that
/// [`Mac::from_ipv4`] makes.
fn stable_mac(parts: &[&str]) -> Mac {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    let of_an_address = Mac::from_ipv4(Ipv4Addr::UNSPECIFIED).0[1];
    Mac([0x02, if a == of_an_address { !a } else { a }, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, NetworkPlan};
    use super::*;

    fn host() -> Host {
        Host { resolver: Some("127.0.0.53:53".parse().unwrap()), identity: "here".into(), ..Host::default() }
    }

    fn plan(keys: &str) -> Result<NetworkPlan, Error> {
        let text = format!("[[network]]\n{keys}\n");
        Ok(Config::parse(&text, Path::new("lan.toml"))?.plan(&host(), None)?.remove(0))
    }

    #[test]
    fn every_uplink_is_shown_as_it_was_written() {
        for (keys, shown, device) in [
            ("", "user", None),
            ("uplink = 'user'", "user", None),
            ("uplink = 'none'", "none", None),
            ("uplink = 'nat:eth0'", "nat:eth0", Some("eth0")),
            ("uplink = 'lan:enp3s0.12'", "lan:enp3s0.12", Some("enp3s0.12")),
            ("uplink = 'tun:ts0'\nuplink_ip = '192.0.2.2/32'", "tun:ts0", Some("ts0")),
        ] {
            let uplink = plan(keys).unwrap().uplink;
            assert_eq!((uplink.to_string().as_str(), uplink.device()), (shown, device), "{keys}");
            assert_eq!(uplink.is_user(), shown == "user");
            assert_eq!(uplink.is_none(), shown == "none");
            assert_eq!(uplink.packet().is_some(), shown.starts_with("nat") || shown.starts_with("tun"));
        }
    }

    #[test]
    fn nat_asks_dhcp_unless_told_otherwise() {
        let uplink = plan("uplink = 'nat:eth0'").unwrap().uplink;
        let packet = uplink.packet().unwrap();
        assert_eq!((packet.address, packet.gateway, packet.mtu), (UplinkAddress::Dhcp, None, None));
        assert!(packet.translate && packet.mac.is_station() && packet.lan().is_none());
        let same = plan("uplink = 'nat:eth0'\nuplink_ip = 'dhcp'").unwrap().uplink;
        assert_eq!(same, uplink);

        let keys = "uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.2.1'\nuplink_mtu = 1400\n\
                    translate = false";
        let uplink = plan(keys).unwrap().uplink;
        let packet = uplink.packet().unwrap();
        assert_eq!(packet.address, UplinkAddress::Static("192.0.2.2/24".parse().unwrap()));
        assert_eq!(packet.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(
            (packet.mac.to_string().as_str(), packet.mtu, packet.translate),
            ("02:42:c0:00:02:02", Some(1400), false)
        );
        let uplink = plan("uplink = 'nat:eth0'\nuplink_mac = '02:00:00:00:00:09'").unwrap().uplink;
        let packet = uplink.packet().unwrap();
        assert_eq!((packet.mac.to_string().as_str(), packet.mac_given), ("02:00:00:00:00:09", true));
    }

    #[test]
    fn mac_of_a_dhcp_uplink_is_the_same_tomorrow_and_another_elsewhere() {
        // A lease outlives the program that asked for it, so the next version must come to the same address.
        assert_eq!(stable_mac(&["here", "default", "eth0"]), stable_mac(&["here", "default", "eth0"]));
        let first = stable_mac(&["here", "default", "eth0"]);
        for parts in [
            ["there", "default", "eth0"],
            ["here", "lab", "eth0"],
            ["here", "default", "eth1"],
            ["hered", "efault", "eth0"],
        ] {
            let other = stable_mac(&parts);
            assert!(other != first && other.is_station() && other.0[1] != 0x42, "{parts:?}");
        }
    }

    #[test]
    fn mistakes_name_their_line_and_the_way_out() {
        for (keys, line, expected) in [
            ("uplink = 'wifi'", 2, "\"nat:IFACE\""),
            ("uplink = 'user:eth0'", 2, "unknown"),
            ("uplink = 'nat'", 2, "as nat:eth0"),
            ("uplink = 'nat:'", 2, "as nat:eth0"),
            ("uplink = 'lan:a/b'", 2, "no interface's name"),
            ("uplink = 'tun:..'", 2, "no interface's name"),
            ("uplink = 'nat:sixteencharacter'", 2, "up to 15 characters"),
            ("uplink = 'tun:ts0'", 2, "set uplink_ip"),
            ("uplink = 'tun:ts0'\nuplink_ip = 'dhcp'", 3, "nobody answers DHCP"),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2'", 3, "ADDR/LEN"),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.0/24'", 3, "first or last"),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.255/24'", 3, "first or last"),
            ("uplink = 'nat:eth0'\nuplink_ip = '127.0.0.2/8'", 3, "reserved"),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'", 3, "uplink_gateway"),
            (
                "uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.3.1'",
                4,
                "outside of 192.0.2.0/24",
            ),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.2.2'", 4, "own address"),
            ("uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.2.255'", 4, "first or last"),
            ("uplink = 'nat:eth0'\nuplink_gateway = 'router'", 3, "not an IPv4 address"),
            ("uplink = 'nat:eth0'\nuplink_gateway = '224.0.0.1'", 3, "reserved"),
            ("uplink = 'nat:eth0'\nuplink_mac = '01:00:00:00:00:01'", 3, "first byte is even"),
            ("uplink = 'nat:eth0'\nuplink_mac = 'x'", 3, "not a MAC address"),
            ("uplink = 'nat:eth0'\nuplink_mtu = 575", 3, "uplink_mtu 575 is out of range"),
            ("uplink = 'user'\nuplink_ip = 'dhcp'", 3, "would do nothing for user"),
            ("translate = false", 2, "would do nothing for user"),
            ("uplink = 'none'\nuplink_mtu = 1500", 3, "would do nothing for none"),
            ("uplink = 'lan:eth0'\nuplink_mac = '02:00:00:00:00:01'", 3, "would do nothing for lan:eth0"),
            (
                "subnet = '192.0.2.0/25'\nuplink = 'nat:eth0'\nuplink_ip = '192.0.2.200/24'\nuplink_gateway = '192.0.2.254'",
                2,
                "subnet 192.0.2.0/25 overlaps with 192.0.2.0/24, the LAN of its uplink nat:eth0",
            ),
            ("uplink = 'nat:eth0'\ndns = '192.0.2.53:5353'", 3, "port 53"),
            ("uplink = 'nat:eth0'\nallow = ['127.0.0.1:80']", 3, "no sockets of the host"),
            ("uplink = 'lan:eth0'\nallow = ['10.1.0.0/16']", 3, "would do nothing"),
        ] {
            match plan(keys) {
                Ok(plan) => panic!("{keys:?} was taken: {plan:?}"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.starts_with(&format!("lan.toml:{line}: ")), "{keys:?}: {message}");
                    assert!(message.contains(expected), "{keys:?}: {message}");
                }
            }
        }
    }

    #[test]
    fn two_networks_are_not_one_host() {
        let second = |keys: &str, more: &str| {
            let text = format!("[[network]]\nname = 'a'\n{keys}\n[[network]]\nname = 'b'\n{keys}\n{more}\n");
            Config::parse(&text, Path::new("lan.toml")).and_then(|config| config.plan(&host(), None))
        };
        let fixed = "uplink = 'nat:eth0'\nuplink_ip = '192.0.2.2/24'\nuplink_gateway = '192.0.2.1'";
        for (keys, line, expected) in [
            (fixed, 8, "network a has 192.0.2.2 on eth0 already"),
            ("uplink = 'nat:eth0'\nuplink_mac = '02:00:00:00:00:01'", 7, "network a has 02:00:00:00:00:01 on eth0"),
            ("uplink = 'tun:ts0'\nuplink_ip = '192.0.2.2/24'", 7, "network a has uplink tun:ts0 already"),
        ] {
            let error = second(keys, "").unwrap_err().to_string();
            assert!(error.starts_with(&format!("lan.toml:{line}: ")) && error.contains(expected), "{keys}: {error}");
        }
        second("uplink = 'nat:eth0'", "").unwrap();
        second("uplink = 'lan:eth0'", "").unwrap();
    }

    #[test]
    fn nu_4_a_free_subnet_is_not_one_of_an_uplink() {
        let keys = "uplink = 'nat:eth0'\nuplink_ip = '10.210.0.9/16'\nuplink_gateway = '10.210.0.1'";
        let error = plan(keys).unwrap_err().to_string();
        assert!(error.contains("give the network a subnet"), "{error}");
        let keys = "uplink = 'nat:eth0'\nuplink_ip = '10.210.0.9/24'\nuplink_gateway = '10.210.0.1'";
        assert_eq!(plan(keys).unwrap().subnet.to_string(), "10.210.1.0/24");
    }

    #[test]
    fn containers_are_told_resolvers_that_they_can_reach() {
        // The host's is on its loopback, where no packet gets.
        assert_eq!(plan("uplink = 'nat:eth0'").unwrap().dns(), [Ipv4Addr::LOCALHOST; 0]);
        assert_eq!(plan("uplink = 'nat:eth0'\ndns = '192.0.2.53'").unwrap().dns(), [Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(plan("uplink = 'lan:eth0'\ndns = '192.0.2.53:53'").unwrap().dns(), [Ipv4Addr::new(192, 0, 2, 53)]);
        assert_eq!(plan("").unwrap().dns(), [Ipv4Addr::new(10, 210, 0, 1)]);
        assert_eq!(plan("uplink = 'none'").unwrap().dns(), [Ipv4Addr::LOCALHOST; 0]);
    }
}
