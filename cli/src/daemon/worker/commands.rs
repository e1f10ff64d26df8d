//! What the control thread asks for, carried out between two turns of frames.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tapswitch_link::Port;
use tapswitch_link::intake::Backend;
use tapswitch_link::tap::Tap;
use tapswitch_switch::MAX_PORTS;
use tapswitch_wire::{Instant, Mac};

use super::lan::{Attached, Lan, Member};
use super::lane::Order;
use super::reader::Place;
use super::refused::{self, Refused};
use super::shares::Shares;
use super::views::Totals;
use super::{Journeyed, Listener, MAX_LISTENERS, Wanted, Watch, Worker, views};
use crate::api::{AttachOffer, AttachRequest, AttachTap, EventKind, PortView, ThreadView};
use crate::config::UplinkPlan;
use crate::daemon::command::{Command, Refusal, Reply};

/// A name is used in file names, output and one day in DNS.
const MAX_NAME: usize = 63;

impl Worker {
    /// Carries out one command. An answer that nobody waits for any more is dropped.
    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Reserve(request, reply) => {
                let offer = self.reserve(request, now);
                let made = offer.as_ref().ok().map(|offer| (offer.network.clone(), offer.name.clone()));
                if let (Err(_), Some((network, name))) = (reply.send(offer), made) {
                    self.cancel(&network, &name, now);
                }
            }
            Command::Attach { network, name, tap, queues, reply } => {
                // A refusal leaves the reservation to the `Cancel` that follows it.
                let attached = self.attach(&network, &name, tap, queues, now);
                attached.iter().for_each(|port| self.tell_attached(port, now));
                refused::answer(reply, attached);
            }
            Command::Cancel { network, name } => self.cancel(&network, &name, now),
            Command::Detach(name, reply) => {
                if let Err((reply, refused)) = self.detach(&name, reply, now) {
                    let _ = reply.send(Err(refused));
                }
            }
            Command::Networks(reply) => {
                let _ = reply.send(self.networks.iter().map(|lan| views::network(lan, now)).collect());
            }
            Command::Ports(network, reply) => {
                let _ = reply.send(self.listing(network, |lan| views::ports(lan, &Totals::of(lan, &self.lanes), now)));
            }
            Command::Fdb(network, reply) => {
                let _ = reply.send(self.listing(network, |lan| views::fdb(lan, now)));
            }
            Command::Arp(network, reply) => {
                let _ = reply.send(self.listing(network, |lan| views::arp(lan, now)));
            }
            Command::Leases(network, reply) => {
                let _ = reply.send(self.listing(network, |lan| views::leases(lan, now)));
            }
            Command::Flows(filter, reply) => self.flows(filter, reply, now),
            Command::Flush(filter, reply) => {
                let _ = reply.send(self.flush(&filter, now));
            }
            Command::Publish { name, specs, reply } => {
                let published = self.publish(&name, &specs, now);
                published.iter().for_each(|ports| self.tell_published(EventKind::Publish, &name, ports, now));
                refused::answer(reply, published);
            }
            Command::Unpublish { name, specs, reply } => {
                let ended = self.unpublish(&name, &specs, now);
                ended.iter().for_each(|ports| self.tell_published(EventKind::Unpublish, &name, ports, now));
                let _ = reply.send(ended);
            }
            Command::WantedUplink(network, reply) => {
                let _ = reply.send(self.wanted_uplink(&network));
            }
            Command::Uplink { network, about, fd, reply } => {
                let _ = reply.send(self.take_uplink(&network, about, fd, now));
            }
            Command::Drops(network, reply) => {
                let _ = reply.send(self.listing(network, |lan| views::drops(lan, &self.lanes, &self.rates, now)));
            }
            Command::Metrics(reply) => {
                let _ = reply.send(self.figures(now));
            }
            Command::Events(network, reply) => {
                let _ = reply.send(self.listen_to_events(network.as_deref()));
            }
            Command::Stats(reply) => {
                let _ = reply.send(views::stats(&self.networks, &self.lanes, self.threads(), now));
            }
            Command::Journey { name, proto, reply } => {
                if let Err((reply, refused)) = self.listen(&name, proto, reply) {
                    let _ = reply.send(Err(refused));
                }
            }
            Command::Explain(request, reply) => {
                let _ = reply.send(self.explain(&request, now));
            }
            Command::Trace(wanted, reply) => {
                let _ = reply.send(self.trace(wanted, now));
            }
            // The loop ends before it comes here.
            Command::Stop => {}
        }
    }

    /// Lets somebody watch.
    fn trace(&self, wanted: Wanted, now: Instant) -> Result<Watch, Refusal> {
        self.network(wanted.network.as_deref())?;
        self.tracing.watch(wanted, now).ok_or_else(|| {
            Refusal::Full("as many watch this switch as may; end another `tapswitch trace` first".into())
        })
    }

    pub(super) fn listing<T>(
        &self,
        network: Option<String>,
        view: impl Fn(&super::Lan) -> Vec<T>,
    ) -> Result<Vec<T>, Refusal> {
        match network {
            None => Ok(self.networks.iter().flat_map(view).collect()),
            Some(name) => Ok(view(&self.networks[self.network(Some(&name))?])),
        }
    }

    /// The place of a network; the first if none is named.
    pub(super) fn network(&self, name: Option<&str>) -> Result<usize, Refusal> {
        let Some(name) = name else { return Ok(0) };
        self.networks.iter().position(|lan| lan.plan.name == name).ok_or_else(|| {
            let names: Vec<_> = self.networks.iter().map(|lan| lan.plan.name.as_str()).collect();
            Refusal::NotFound(format!("there is no network '{name}'; there is: {}", names.join(", ")))
        })
    }

    /// The attached container of this name, and the threads that read it.
    fn find(&self, name: &str) -> Option<(Place, &[usize])> {
        self.networks.iter().enumerate().find_map(|(network, lan)| {
            let attached = lan.members.get(name)?.attached.as_ref()?;
            let place = Place { network, port: attached.port, serial: attached.serial };
            Some((place, &attached.threads[..]))
        })
    }

    /// Lets somebody wait for a journey, at the threads that read the port.
    fn listen(
        &mut self,
        name: &str,
        proto: Option<String>,
        reply: Reply<Journeyed>,
    ) -> Result<(), (Reply<Journeyed>, Refusal)> {
        // Those who do not wait any more make room. Who waits at several threads is counted once.
        let mut waiting = Vec::new();
        let mut count = |listeners: &mut Vec<Listener>| {
            listeners.retain(Listener::waits);
            waiting.extend(listeners.iter().map(|listener| Arc::as_ptr(&listener.reply)));
        };
        count(&mut self.listeners);
        self.lanes.iter().for_each(|lane| count(&mut lane.state().listeners));
        waiting.sort_unstable();
        waiting.dedup();
        let waiting = waiting.len();
        let Some((place, threads)) = self.find(name) else { return Err((reply, unknown_container(name))) };
        if waiting >= MAX_LISTENERS {
            let text = format!("{MAX_LISTENERS} journeys are waited for already; end some of those who wait");
            return Err((reply, Refusal::Full(text)));
        }
        let threads = threads.to_vec();
        let listener = Listener::new(place, proto, reply);
        for thread in threads {
            match thread.checked_sub(1) {
                None => self.listeners.push(listener.clone()),
                Some(lane) => self.lanes[lane].state().listeners.push(listener.clone()),
            }
        }
        Ok(())
    }

    /// The poll threads, the owner first.
    fn threads(&self) -> Vec<ThreadView> {
        let view = |thread: usize, io: Backend, turns, sleeps| ThreadView {
            thread,
            cpu: self.options.cpus.get(thread).copied(),
            io: io.to_string(),
            poll: self.options.poll.name().into(),
            spin_us: self.pace.spin().map(|spin| u64::try_from(spin.as_micros()).unwrap_or(u64::MAX)),
            ports: self.loads[thread],
            turns,
            sleeps,
        };
        let others = self.lanes.iter().zip(1..).map(|(lane, thread)| {
            let state = lane.state();
            view(thread, lane.backend, state.turns, state.sleeps)
        });
        std::iter::once(view(0, self.reader.backend(), self.turn_count, self.sleeps)).chain(others).collect()
    }

    fn reserve(&mut self, request: AttachRequest, now: Instant) -> Result<AttachOffer, Refusal> {
        let index = self.network(request.network.as_deref())?;
        let name = match request.name {
            Some(name) => self.check_name(name)?,
            None => self.free_name(),
        };
        if self.networks.iter().map(|lan| lan.members.len()).sum::<usize>() >= MAX_PORTS - 1 {
            return Err(Refusal::Full(format!(
                "cannot attach '{name}': {} containers are attached, which is the most; detach one",
                MAX_PORTS - 1
            )));
        }
        if let Some(mac) = request.mac {
            self.check_mac(index, &name, mac)?;
        }
        self.may_publish(index, &name, &request.publish)?;
        let lan = &mut self.networks[index];
        if matches!(lan.plan.uplink, UplinkPlan::Lan { .. }) && !request.dhcp && request.ip.is_none() {
            return Err(Refusal::Invalid(format!(
                "network {} is part of the LAN of {}, whose own address service gives addresses: attach with --dhcp, or \
                 with an --ip that is free there",
                lan.plan.name, lan.plan.uplink
            )));
        }
        let (mac, ip) = if request.dhcp {
            (request.mac.unwrap_or_else(|| dhcp_mac(lan, &name)), None)
        } else {
            let reserved = lan.reserve(&name, request.mac, request.ip, now);
            let reservation = reserved.map_err(|error| views::reserve_refusal(&name, &lan.plan.name, error))?;
            (reservation.mac, Some(reservation.ip))
        };
        lan.members.insert(name.clone(), Member { mac, ip, publish: request.publish, attached: None });
        let plan = &lan.plan;
        Ok(AttachOffer {
            network: plan.name.clone(),
            name,
            mac,
            ip,
            subnet: plan.subnet,
            gateway: plan.leads_on().then_some(plan.gateway),
            dns: plan.dns(),
            search: plan.search.clone(),
            mtu: plan.mtu,
            queues: self.options.queues.max(1),
        })
    }

    fn check_name(&self, name: String) -> Result<String, Refusal> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || name.len() > MAX_NAME || !name.bytes().all(valid) || name == "gateway" {
            return Err(Refusal::Invalid(format!(
                "'{name}' cannot be a container's name: use at most {MAX_NAME} letters, digits, '.', '_' and '-', \
                 beginning with a letter or digit; 'gateway' is taken"
            )));
        }
        match self.networks.iter().find(|lan| lan.members.contains_key(&name)) {
            Some(lan) => Err(Refusal::Conflict(format!(
                "the name '{name}' is taken by a container on network {}; choose another with --name, or detach that \
                 one: tapswitch detach {name}",
                lan.plan.name
            ))),
            None => Ok(name),
        }
    }

    /// Two stations with one address would take each other's frames.
    fn check_mac(&self, index: usize, name: &str, mac: Mac) -> Result<(), Refusal> {
        let lan = &self.networks[index];
        if !mac.is_station() {
            return Err(Refusal::Invalid(format!(
                "cannot give '{name}' the MAC address {mac}: it is a group address or zero; choose one whose first byte \
                 is even, as 02:00:00:00:00:01"
            )));
        }
        let holder = lan.members.iter().find(|(_, member)| member.mac == mac).map(|(holder, _)| holder.as_str());
        let gateway = (lan.network.config().gateway_mac() == mac).then_some("gateway");
        match holder.or(gateway) {
            Some(holder) => Err(Refusal::Conflict(format!(
                "cannot give '{name}' the MAC address {mac}: '{holder}' has it; choose another with --mac"
            ))),
            None => Ok(()),
        }
    }

    /// The first of c1, c2, ... that nobody has.
    fn free_name(&self) -> String {
        let taken = |name: &String| self.networks.iter().any(|lan| lan.members.contains_key(name));
        (1..).map(|n| format!("c{n}")).find(|name| !taken(name)).unwrap_or_default()
    }

    fn attach(
        &mut self,
        network: &str,
        name: &str,
        tap: AttachTap,
        queues: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<PortView, Refused> {
        let index = self.network(Some(network))?;
        let failed = |why: &dyn std::fmt::Display| {
            Refused::from(Refusal::Invalid(format!("cannot attach '{name}' to network {network}: {why}")))
        };
        let queues =
            queues.into_iter().map(Tap::from_fd).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
        let first = queues.first().ok_or_else(|| failed(&"no TAP came with it"))?;
        let lan = &mut self.networks[index];
        let port = lan.taps.free_port();
        let Some(member) = lan.members.get_mut(name).filter(|member| member.attached.is_none()) else {
            return Err(failed(&"the offer is not valid any more; try again"));
        };
        self.serial += 1;
        let place = Place { network: index, port, serial: self.serial };
        let shares = Shares::new(&self.loads, queues.len());
        let (offload, captured) = (first.offload(), lan.taps.captured(name));
        for queue in shares.read_by(0) {
            if let Err(error) = self.reader.add(place, queues[queue].share()) {
                self.reader.remove(place);
                return Err(failed(&error));
            }
        }
        let threads: Vec<_> = (0..queues.len()).map(|queue| shares.reader(queue)).collect();
        threads.iter().for_each(|thread| self.loads[*thread] += 1);
        let holds = queues.iter().map(Tap::share).collect();
        member.attached =
            Some(Attached { port, tap, offload, since: now, serial: place.serial, threads, queues: holds });
        // All can send to it before anybody but this thread reads it.
        for (lane, thread) in self.lanes.iter().zip(1..) {
            let part = &mut lane.state().parts[index];
            part.forwarder.add_port(port);
            part.taps.insert(port, queues[shares.written_by(thread)].share(), captured);
        }
        for (lane, thread) in self.lanes.iter().zip(1..) {
            for queue in shares.read_by(thread) {
                lane.order(Order::Read(place, queues[queue].share()));
            }
        }
        lan.add_port(port, name, queues[shares.written_by(0)].share(), captured, now);
        if let Err(refused) = self.publish_at_attach(index, name, now) {
            self.remove_port(place, None, now);
            return Err(refused);
        }
        let lan = &self.networks[index];
        views::new_port(lan, name, now).ok_or_else(|| failed(&"the container went away at once"))
    }

    /// Gives back a reservation that was not used. An attached container stays.
    fn cancel(&mut self, network: &str, name: &str, now: Instant) {
        if let Ok(index) = self.network(Some(network)) {
            let lan = &mut self.networks[index];
            if lan.members.get(name).is_some_and(|member| member.attached.is_none()) {
                lan.forget(name, now);
            }
        }
    }

    /// The answer comes when the interface is gone.
    fn detach(
        &mut self,
        name: &str,
        reply: Reply<Result<(), Refusal>>,
        now: Instant,
    ) -> Result<(), (Reply<Result<(), Refusal>>, Refusal)> {
        let Some((place, _)) = self.find(name) else { return Err((reply, unknown_container(name))) };
        self.remove_port(place, Some(reply), now);
        Ok(())
    }
}

pub(super) fn unknown_container(name: &str) -> Refusal {
    Refusal::NotFound(format!("no container '{name}' is attached; see them with: tapswitch ls"))
}

/// The MAC address of a container whose IP address is not known yet: of its names, so that a container which is started
/// again is the same DHCP client and gets its former lease; and nobody else's.
fn dhcp_mac(lan: &Lan, name: &str) -> Mac {
    let gateway = lan.network.config().gateway_mac();
    let taken = |mac: Mac| mac == gateway || lan.members.values().any(|member| member.mac == mac);
    // There are fewer members than attempts, and each attempt is another address.
    (0..).map(|attempt| named_mac(&lan.plan.name, name, attempt)).find(|mac| !taken(*mac)).unwrap_or(Mac::ZERO)
}

/// A locally administered unicast address from a stable hash (FNV-1a, 64 bits). It is not of the form that
/// [`Mac::from_ipv4`] makes, in which it could be that of a container which is given an IP address later.
fn named_mac(network: &str, name: &str, attempt: u32) -> Mac {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    // Names hold no zero, so it separates them.
    let bytes = network.bytes().chain([0]).chain(name.bytes()).chain([0]).chain(attempt.to_be_bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    let of_an_address = Mac::from_ipv4(Ipv4Addr::UNSPECIFIED).0[1];
    Mac([0x02, if a == of_an_address { !a } else { a }, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_of_a_dhcp_container_is_of_its_names_only() {
        let first = named_mac("default", "web", 0);
        // A lease outlives the program that gave it, so the next version must come to the same address.
        assert_eq!(first, "02:af:78:0b:c4:f8".parse().unwrap());
        for (network, name, attempt) in [("default", "web2", 0), ("defaul", "tweb", 0), ("default", "web", 1)] {
            assert_ne!(named_mac(network, name, attempt), first, "{network} {name} {attempt}");
        }
    }

    #[test]
    fn mac_of_a_dhcp_container_is_a_stations_and_no_ip_addresses() {
        for attempt in 0..10_000 {
            let mac = named_mac("default", "web", attempt);
            assert!(mac.is_station() && mac.0[0] == 0x02 && mac.0[1] != 0x42, "{mac}");
        }
    }
}
