//! Uplinks that are a device: how they are taken into use, and what is known of them.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use ipnet::Ipv4Net;
use tapswitch_conntrack as conntrack;
use tapswitch_link::tap::Kind;
use tapswitch_link::uplink::{self, About, TUN_PEER};
use tapswitch_nat::Peer;
use tapswitch_network::{Addressing, PacketState, PacketUplink, UplinkNews};
use tapswitch_relay::Policy;
use tapswitch_wire::{Instant, PortId};

use super::Worker;
use super::lan::Lan;
use super::reader::Place;
use crate::api::{NatView, NetworkView, UplinkDevice, UplinkOffer, UplinkState, UplinkView};
use crate::config::{NetworkPlan, Side, UplinkAddress, UplinkPlan};
use crate::daemon::command::Refusal;

/// The device of an uplink, in use.
pub(super) struct UplinkPort {
    /// Where it is read.
    pub(super) place: Place,
    about: About,
}

impl Worker {
    /// The device that a network waits for.
    pub(super) fn wanted_uplink(&self, network: &str) -> Result<UplinkOffer, Refusal> {
        let lan = &self.networks[self.network(Some(network))?];
        if let Some(uplink) = &lan.uplink {
            return Err(Refusal::Conflict(format!(
                "network {network} has its uplink {} already, and it works; nothing needs to be handed over",
                uplink.about.name
            )));
        }
        UplinkOffer::of(network, &lan.plan.uplink).ok_or_else(|| {
            Refusal::Invalid(format!(
                "network {network} has uplink {}, which is no device; nothing needs to be handed over",
                lan.plan.uplink
            ))
        })
    }

    /// Gives a network its device.
    pub(super) fn take_uplink(
        &mut self,
        network: &str,
        about: UplinkDevice,
        fd: OwnedFd,
        now: Instant,
    ) -> Result<NetworkView, Refusal> {
        let index = self.network(Some(network))?;
        self.wanted_uplink(network)?;
        let failed = |why: &dyn std::fmt::Display| {
            Refusal::Invalid(format!("cannot use the uplink of network {network}: {why}"))
        };
        let tap = uplink::from_fd(fd, &about).map_err(|error| failed(&error))?;
        let lan = &mut self.networks[index];
        let is_lan = matches!(lan.plan.uplink, UplinkPlan::Lan { .. });
        if is_lan && about.kind == Kind::Tun {
            return Err(failed(&"a TUN device carries no Ethernet frames, so no LAN can be joined by it"));
        }
        if let Some(packet) = lan.plan.uplink.packet()
            && packet.mac_given
            && packet.mac != about.mac
        {
            return Err(failed(&format!(
                "its MAC address is {}, and {} was asked for; give the device that one, or leave uplink_mac out",
                about.mac, packet.mac
            )));
        }
        self.serial += 1;
        let port = if is_lan { lan.taps.free_port() } else { PortId::UPLINK };
        let place = Place { network: index, port, serial: self.serial };
        self.reader.add(place, tap.share()).map_err(|error| failed(&error))?;
        self.loads[0] += 1;
        let name = if is_lan { format!("lan:{}", about.name) } else { "uplink".into() };
        let captured = lan.taps.captured(&name);
        for lane in &self.lanes {
            let part = &mut lane.state().parts[index];
            if is_lan {
                part.forwarder.join_lan(port);
                part.taps.insert(port, tap.share(), captured);
            } else {
                part.taps.set_uplink(Some((tap.share(), captured)));
                part.forwarder.set_uplink(Some(about.mac));
            }
        }
        if is_lan {
            lan.network.join_lan(port);
            lan.taps.insert(port, tap, captured);
            lan.name_port(port, Some(name));
        } else {
            let peer = (about.kind == Kind::Tun).then_some(TUN_PEER);
            lan.taps.set_uplink(Some((tap, captured)));
            lan.network.uplink_up(about.mac, peer, about.mtu, now);
        }
        if about.kind == Kind::Tap && lan.plan.uplink.packet().is_some_and(|packet| packet.gateway.is_none()) {
            tracing::warn!(
                "network {network}: no router is known behind {}, so only what is on its link is reached; name one with \
                 --uplink-gateway",
                describe(&about)
            );
        }
        lan.uplink = Some(UplinkPort { place, about });
        Ok(super::views::network(&self.networks[index], now))
    }

    /// The device of an uplink has gone.
    pub(super) fn lose_uplink(&mut self, index: usize, now: Instant) {
        let lan = &mut self.networks[index];
        let Some(UplinkPort { place, about }) = lan.uplink.take() else { return };
        tracing::warn!(
            "network {} lost its uplink {}; hand it over again once it is back: tapswitch network uplink {}",
            lan.plan.name,
            describe(&about),
            lan.plan.name
        );
        self.reader.remove(place);
        self.loads[0] -= 1;
        for lane in &self.lanes {
            let part = &mut lane.state().parts[index];
            part.taps.set_uplink(None);
            part.forwarder.set_uplink(None);
            part.taps.remove(place.port);
            part.forwarder.remove_port(place.port);
        }
        if place.port == PortId::UPLINK {
            lan.taps.set_uplink(None);
            lan.network.uplink_down(now);
        } else {
            lan.name_port(place.port, None);
            lan.taps.remove(place.port);
            lan.network.leave_lan(place.port);
        }
    }
}

fn describe(about: &About) -> String {
    match about.kind {
        Kind::Tap | Kind::Tun => format!("{} {}", about.kind, about.name),
        Kind::Macvtap | Kind::Packet => format!("{} on {}", about.kind, about.name),
    }
}

/// Says what happened to the uplink of a network.
pub(super) fn log(plan: &NetworkPlan, news: UplinkNews) {
    let NetworkPlan { name, uplink, subnet, .. } = plan;
    match news {
        UplinkNews::Bound(address, Some(router)) => {
            tracing::info!("network {name}: uplink {uplink} has address {address}, router {router}");
        }
        UplinkNews::Bound(address, None) => tracing::info!("network {name}: uplink {uplink} has address {address}"),
        UplinkNews::NoAnswer => tracing::warn!(
            "network {name}: no DHCP server answers on uplink {uplink}, so its containers do not get out yet; it goes on \
             asking; without such a server give it an address with --uplink-ip and --uplink-gateway"
        ),
        UplinkNews::Overlap(address) => tracing::warn!(
            "network {name}: address {address} of uplink {uplink} overlaps with subnet {subnet}, or with a subnet it is \
             routed to, so it is not used; give the network another subnet"
        ),
        UplinkNews::Lost => tracing::warn!(
            "network {name}: the lease of uplink {uplink} is over, and its flows end with it; it asks for a new one"
        ),
    }
}

/// More of an uplink that is a device.
pub(super) fn view(lan: &Lan) -> Option<UplinkView> {
    let plan = &lan.plan.uplink;
    plan.device()?;
    let packet = plan.packet();
    let known = lan.network.packet();
    let state = match (&lan.uplink, known.as_ref().map(|known| known.state)) {
        (None, _) | (_, Some(PacketState::Waiting)) => UplinkState::WaitingForDevice,
        (Some(_), Some(PacketState::Asking)) => UplinkState::AskingDhcp,
        (Some(_), Some(PacketState::Overlapping)) => UplinkState::Overlapping,
        (Some(_), Some(PacketState::Up) | None) => UplinkState::Up,
    };
    Some(UplinkView {
        state,
        device: lan.uplink.as_ref().map(|uplink| describe(&uplink.about)),
        ip: known.as_ref().and_then(|known| known.address).or(packet.and_then(|packet| packet.static_address())),
        gateway: known.as_ref().and_then(|known| known.router).or(packet.and_then(|packet| packet.gateway)),
        mac: known.as_ref().and_then(|known| known.mac).or(packet.map(|packet| packet.mac)),
        mtu: match (&lan.uplink, &known) {
            (Some(_), Some(known)) => Some(known.mtu),
            (Some(uplink), None) => Some(uplink.about.mtu),
            (None, _) => packet.and_then(|packet| packet.mtu),
        },
        translate: packet.is_some_and(|packet| packet.translate),
        nat: packet.map(|packet| NatView::from(&packet.nat)),
    })
}

/// What the pipeline is told of an uplink of packets.
pub(super) fn packet(plan: &NetworkPlan, policy: Policy) -> Option<PacketUplink> {
    let told = plan.uplink.packet()?;
    let addressing = match told.address {
        UplinkAddress::Dhcp => Addressing::Dhcp,
        UplinkAddress::Static(address) => Addressing::Static { address, router: told.gateway },
    };
    let nat = &told.nat;
    let nat = conntrack::Config {
        translate: told.translate,
        mapping: nat.mapping,
        filtering: nat.filtering,
        ports: nat.ports,
        port_range: nat.port_range.clone(),
        hairpin: nat.hairpin,
        untranslated: nat.no_translate.clone(),
        timers: conntrack::Timers {
            udp: nat.udp_timeout,
            tcp_established: nat.tcp_established_timeout,
            tcp_transitory: nat.tcp_transitory_timeout,
            icmp: nat.icmp_timeout,
        },
        limits: conntrack::Limits {
            sessions: nat.max_sessions,
            owner_sessions: nat.container_sessions,
            owner_rate: nat.container_rate,
            owner_ports: nat.container_ports,
        },
        ..conntrack::Config::new(plan.subnet)
    };
    Some(PacketUplink { addressing, mtu: told.mtu, routes: routes(plan, Side::Uplink), policy, nat })
}

/// The static routes of one side.
pub(super) fn routes(plan: &NetworkPlan, side: Side) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let routes = plan.routes.iter().filter(|route| route.side == side);
    routes.map(|route| (route.destination, route.via)).collect()
}

/// The networks that one is connected with.
pub(super) fn peers(plan: &NetworkPlan, all: &[NetworkPlan]) -> Vec<Peer> {
    let connected = all.iter().enumerate().filter(|(_, other)| plan.connect.contains(&other.name));
    connected.map(|(network, other)| Peer { subnet: other.subnet, network, mtu: other.mtu }).collect()
}
