//! `tapswitch demo`: the whole of it in a few seconds, explained as it goes.
//!
//! Two containers in namespaces of their own, each the same program with an [`agent`] in it, on a switch in this
//! process. They get addresses by DHCP, ping each other, and fetch a page from a server that the demo starts on the
//! host's loopback; then the journeys of two of those frames are told. Nothing but loopback is ever reached, and
//! nothing is left behind: containers die with this process, however it ends, and all else is in its memory.

pub(crate) mod agent;
mod clock;
mod dhcp;
mod http;
mod member;
mod ping;
mod report;
mod story;

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::unistd::geteuid;

use crate::api::{FlowFilter, JourneyView, NetworkView};
use crate::args::Global;
use crate::client::Client;
use crate::config::{Config, Host};
use crate::daemon::{Daemon, Options};
use crate::error::Error;
use crate::output::{bytes, print_json};
use clock::Stopwatch;
use member::Member;
use report::{Counters, Http, Joined, Ping, Report};
use story::Story;

/// The two containers.
const RED: &str = "red";
const BLUE: &str = "blue";
const PINGS: u16 = 3;
/// How long ports may outlive their containers: the kernel takes its time to end a namespace.
const PARTING: Duration = Duration::from_secs(3);

/// Runs the demo.
pub(super) fn execute(global: &Global) -> Result<u8, Error> {
    let mut story = Story::new(global.json);
    let report = play(&mut story).map_err(|error| story.blame(&error))?;
    if global.json {
        print_json(&report)?;
    }
    Ok(0)
}

/// All steps in order. What fails ends it, and everything made so far is undone on the way out.
fn play(story: &mut Story) -> Result<Report, Error> {
    let watch = Stopwatch::start();
    let (scene, network) = Scene::set(story)?;
    let (mut red, mut blue) = scene.members(story)?;
    let (red_joined, blue_joined) = addresses(story, &mut red, &mut blue)?;
    let (ping, echo_journey) = scene.ping(story, &mut red, blue_joined.ip)?;
    let (http, syn_journey) = scene.fetch(story, &mut blue, &network)?;
    let journeys = tell_journeys(story, [echo_journey, syn_journey])?;
    let counters = scene.counters()?;
    scene.strike(story, [red, blue])?;
    let report = Report {
        uid: geteuid().as_raw(),
        elapsed_ms: watch.millis(),
        network,
        containers: vec![red_joined, blue_joined],
        ping,
        http,
        journeys,
        counters,
    };
    summary(story, &report)?;
    Ok(report)
}

/// What the containers act on: the switch, and a web server on the host.
struct Scene {
    switch: Daemon,
    web_port: u16,
}

impl Scene {
    fn set(story: &mut Story) -> Result<(Scene, NetworkView), Error> {
        story.step(
            "A switch of our own",
            "The switch is this very process. It reads each frame that a container sends, decides where it goes, and \
             writes it there. The host's bridges, firewall, routes and addresses take no part and stay as they are.",
        )?;
        let web_port = http::serve()
            .map_err(|error| Error::failed(format!("cannot start a web server on 127.0.0.1: {error}; free a port")))?;
        let allowed = format!("{}:{web_port}", Ipv4Addr::LOCALHOST);
        let plans = Config::own(&[allowed]).plan(&Host::read(), None)?;
        let switch = Daemon::start(plans, Options::default())?;
        let scene = Scene { switch, web_port };
        let network =
            scene.client()?.networks()?.into_iter().next().ok_or_else(|| Error::failed("there is no network"))?;
        let who = match geteuid() {
            root if root.is_root() => "root (an ordinary user would do)".into(),
            user => format!("the ordinary user {user}, without any privilege"),
        };
        story.fact(&format!("it runs as {who}"))?;
        story.fact(&format!(
            "network {} with the addresses {}, which the host does not use; the gateway is {} ({})",
            network.name, network.subnet, network.gateway, network.gateway_mac
        ))?;
        Ok((scene, network))
    }

    fn client(&self) -> Result<Client, Error> {
        Client::over(self.switch.connect()?)
    }

    fn members(&self, story: &mut Story) -> Result<(Member, Member), Error> {
        story.step(
            "Two containers",
            "A container is a process in namespaces of its own: of the network it sees one interface, eth0, and \
             nothing of the host's. The other end of eth0 is a file descriptor, which it hands to the switch: that is a \
             port.",
        )?;
        let join = |name: &str| -> Result<Member, Error> {
            let member = Member::join(self.client()?, name)?;
            let offload = if member.port.offload { "64 KiB super-frames pass whole" } else { "plain frames only" };
            story.fact(&format!("{name} is on port {} with {} ({offload})", member.port.port, member.mac()))?;
            Ok(member)
        };
        Ok((join(RED)?, join(BLUE)?))
    }

    fn ping(&self, story: &mut Story, red: &mut Member, to: Ipv4Addr) -> Result<(Ping, JourneyView), Error> {
        story.step(
            "Ping from red to blue",
            "Both are on one LAN, so no router is involved. red asks all by ARP who has blue's address, and blue \
             answers. By then the switch has seen both as senders and learned behind which port each stands.",
        )?;
        let listening = self.client()?.journey(&red.port.name, Some("icmp"))?;
        let pings = red.ping(to, random() as u16, PINGS)?;
        let answered = pings.rtt_us.len();
        if answered < usize::from(pings.sent) {
            return Err(Error::failed(format!("only {answered} of {} echo requests were answered", pings.sent)));
        }
        let times: Vec<String> = pings.rtt_us.iter().map(|rtt| millis(*rtt)).collect();
        story.fact(&format!("{answered} of {} answered by {to}, after {}", pings.sent, times.join(", ")))?;
        let mut fdb = self.client()?.fdb(None)?;
        fdb.sort_by_key(|entry| entry.port);
        for entry in &fdb {
            let how = if entry.age_s.is_some() { "learned" } else { "known from the start" };
            story.fact(&format!("{how}: {} stands behind port {} ({})", entry.mac, entry.port, entry.name))?;
        }
        Ok((Ping { from: red.port.name.clone(), to, pings, fdb }, listening.wait()?))
    }

    fn fetch(&self, story: &mut Story, blue: &mut Member, network: &NetworkView) -> Result<(Http, JourneyView), Error> {
        story.step(
            "HTTP from blue through the NAT",
            "Outside, nobody knows blue's address. Without privilege the switch cannot send packets of its own either, \
             so it makes each flow an ordinary socket of this process. The server is the demo's own, on the host's \
             loopback; containers cannot reach that unless allowed, and here this one port is, by way of the gateway's \
             address.",
        )?;
        let from = SocketAddrV4::new(network.gateway, self.web_port);
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.web_port).to_string();
        let listening = self.client()?.journey(&blue.port.name, Some("tcp"))?;
        let fetched = blue.get(from)?;
        if (fetched.status, fetched.body.as_str()) != (200, http::PAGE) {
            let got = format!("status {} and {} bytes", fetched.status, fetched.body.len());
            return Err(Error::failed(format!("http://{from}/ gave something else than the page: {got}")));
        }
        let url = format!("http://{from}/");
        story.fact(&format!(
            "GET {url} -> {} with {}, after {} (connected after {})",
            fetched.status,
            bytes(fetched.body.len() as u64),
            millis(fetched.total_us),
            millis(fetched.connect_us)
        ))?;
        let flows = self.client()?.flows(&FlowFilter::default())?;
        for flow in flows.iter().filter(|flow| flow.proto == "tcp") {
            let via = flow.via.as_deref().unwrap_or(&server);
            let (src, dst) = (&flow.original.src, &flow.original.dst);
            story.fact(&format!("the flow {src} > {dst} was a socket of this process to {via}"))?;
        }
        Ok((Http { from: blue.port.name.clone(), url, server, fetched, flows }, listening.wait()?))
    }

    fn counters(&self) -> Result<Counters, Error> {
        let mut client = self.client()?;
        Ok(Counters { ports: client.ports(None)?, drops: client.drops(None)?, stats: client.stats()? })
    }

    /// Ends the containers and sees that their ports go with them.
    fn strike(self, story: &mut Story, members: [Member; 2]) -> Result<(), Error> {
        story.step(
            "The end",
            "With the last process of a container its namespaces vanish, eth0 with them, and so the port.",
        )?;
        for member in members {
            member.leave()?;
        }
        let mut client = self.client()?;
        let mut left = client.ports(None)?;
        let watch = Stopwatch::start();
        while !left.is_empty() && watch.left_of(PARTING).is_some() {
            clock::pause();
            left = client.ports(None)?;
        }
        if let Some(port) = left.first() {
            return Err(Error::failed(format!(
                "the port of {} is still there, though its container has ended",
                port.name
            )));
        }
        self.switch.stop();
        story.fact("containers, ports and switch are gone; nothing of the host was changed")
    }
}

fn addresses(story: &mut Story, red: &mut Member, blue: &mut Member) -> Result<(Joined, Joined), Error> {
    story.step(
        "Addresses by DHCP",
        "eth0 has no address yet, so nobody can be asked directly: the client broadcasts DISCOVER, the gateway OFFERs \
         an address, the client REQUESTs it, and the gateway ACKnowledges.",
    )?;
    Ok((addressed(story, red)?, addressed(story, blue)?))
}

fn addressed(story: &Story, member: &mut Member) -> Result<Joined, Error> {
    let exchange = member.dhcp(random() as u32)?;
    let (name, lease) = (member.port.name.clone(), &exchange.lease);
    let gateway = lease.gateway.map(|gateway| format!(", default route via {gateway}")).unwrap_or_default();
    story.fact(&format!(
        "{name}: DISCOVER -> OFFER {}, REQUEST -> ACK {}: {}/{} for {} s{gateway}",
        millis(exchange.offer_us),
        millis(exchange.ack_us),
        lease.ip,
        lease.prefix,
        lease.seconds
    ))?;
    Ok(Joined { name, ip: lease.ip, dhcp: exchange })
}

fn tell_journeys(story: &mut Story, journeys: [JourneyView; 2]) -> Result<Vec<JourneyView>, Error> {
    story.step(
        "The journeys of two packets",
        "Every stage can say what it looked up, decided and changed. First red's echo request, which stays on the LAN; \
         then blue's first TCP segment, which leaves it.",
    )?;
    for journey in &journeys {
        story.journey(journey)?;
    }
    Ok(journeys.into())
}

fn summary(story: &Story, report: &Report) -> Result<(), Error> {
    let Counters { drops, stats, .. } = &report.counters;
    story.remark("")?;
    story.remark(&format!(
        "Shown in {:.1} s: a LAN of two containers, DHCP, ARP, ping, HTTP through the NAT. The switch took {} frames \
         from the containers, gave them {}, and dropped {}.",
        report.elapsed_ms as f64 / 1000.0,
        stats.rx_frames,
        stats.tx_frames,
        stats.drops
    ))?;
    if !drops.is_empty() {
        story.remark("No drop is without a name:")?;
    }
    for drop in drops {
        story.fact(&format!("{} x {} ({}): {}", drop.count, drop.reason, drop.name, drop.text))?;
    }
    story.remark("Next: tapswitch run -- sh (a shell with a network of its own), tapswitch up (a switch for many).")
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

/// A number that differs from run to run; nothing depends on it being hard to guess.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_milliseconds() {
        assert_eq!(millis(0), "0.00 ms");
        assert_eq!(millis(1234), "1.23 ms");
    }
}
