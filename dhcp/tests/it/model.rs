//! Many clients, random messages, time steps, crashes; what each client believes is checked against all others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_dhcp::State;
use tapswitch_wire::{DropReason, Instant};

use crate::world::*;

const LIMIT: usize = 4;
const PORTS: u32 = 4;
const OFFER_SECS: u64 = 20;

#[derive(Clone, Debug)]
enum Step {
    Discover(u32),
    /// Takes the last offer it saw, however old.
    Select(u32),
    /// As the client believes, or a stranger's wish for host `.1`.
    Reboot(u32, Option<u8>),
    Renew(u32, Option<u8>),
    Release(u32),
    Decline(u32),
    Inform(u32),
    ChooseAnother(u32),
    Wait(u64),
    Reserve(u8),
    Unreserve(u8),
    PortGone(u32),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0u32..20;
    let host = prop::option::weighted(0.3, 0u8..18);
    prop_oneof![
        6 => client.clone().prop_map(Step::Discover),
        6 => client.clone().prop_map(Step::Select),
        2 => (client.clone(), host.clone()).prop_map(|(c, h)| Step::Reboot(c, h)),
        4 => (client.clone(), host).prop_map(|(c, h)| Step::Renew(c, h)),
        2 => client.clone().prop_map(Step::Release),
        1 => client.clone().prop_map(Step::Decline),
        1 => client.clone().prop_map(Step::Inform),
        1 => client.clone().prop_map(Step::ChooseAnother),
        2 => (0u64..10).prop_map(Step::Wait),
        1 => (0u64..150).prop_map(Step::Wait),
        1 => (0u8..4).prop_map(Step::Reserve),
        1 => (0u8..4).prop_map(Step::Unreserve),
        2 => (0..PORTS).prop_map(Step::PortGone),
        1 => Just(Step::Crash),
    ]
}

/// What the clients know: a vector's worth of state and linear scans.
struct Model {
    world: World,
    offers: BTreeMap<u32, Ipv4Addr>,
    /// Address and end of what each client was acknowledged.
    leases: BTreeMap<u32, (Ipv4Addr, Instant)>,
    /// Clients whose port went and who were not acknowledged since: they lost their interface, so they use nothing.
    abandoned: BTreeSet<u32>,
    quarantined: Vec<(Ipv4Addr, Instant)>,
    reserved: BTreeMap<u8, Ipv4Addr>,
    /// Ports whose count a detach or a crash reset.
    uncounted: bool,
}

impl Model {
    fn new() -> Model {
        let mut config = config("10.0.0.0/28");
        config.max_leases_per_port = LIMIT;
        config.offer_time = Duration::from_secs(OFFER_SECS);
        config.quarantine = Duration::from_secs(200);
        config.lease_time = Duration::from_secs(120);
        Model {
            world: World::with(config),
            offers: BTreeMap::new(),
            leases: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            quarantined: Vec::new(),
            reserved: BTreeMap::new(),
            uncounted: false,
        }
    }

    fn port(client: u32) -> u32 {
        client % PORTS
    }

    fn send(&mut self, client: u32, msg: &Msg) -> Option<Answer> {
        let held = self.world.server.leases(self.world.now).len();
        match self.world.send_at(Model::port(client), msg) {
            Ok(answer) => answer,
            Err(DropReason::DhcpIgnored | DropReason::DhcpLimit) => None,
            Err(DropReason::DhcpPoolExhausted) => {
                // The row of every address is there: 13 hosts without the gateway.
                assert_eq!(held, 13, "exhausted, yet:\n{}", self.world.leases());
                let lost = self
                    .leases
                    .iter()
                    .find(|(client, (_, until))| self.abandoned.contains(client) && *until > self.world.now);
                assert_eq!(lost, None, "exhausted, yet it was abandoned:\n{}", self.world.leases());
                None
            }
            Err(other) => panic!("{other} to {msg:?}"),
        }
    }

    fn acked(&mut self, client: u32, answer: Option<Answer>) {
        let Some(answer) = answer else { return };
        let now = self.world.now;
        if answer.kind == NAK {
            // It stops using any address at once.
            self.leases.remove(&client);
            return;
        }
        assert_eq!((answer.kind, answer.secs(51)), (ACK, 120));
        let ip = answer.yiaddr;
        for (other, (theirs, until)) in &self.leases {
            let theirs = *theirs == ip && *until > now && !self.abandoned.contains(other);
            assert!(*other == client || !theirs, "{ip} is {other}'s, and went to {client}");
        }
        self.abandoned.remove(&client);
        assert!(self.quarantined.iter().all(|(bad, until)| *bad != ip || *until <= now), "{ip} is in quarantine");
        assert!(self.reserved.values().all(|taken| *taken != ip), "{ip} is reserved");
        assert!((2..=14).contains(&ip.octets()[3]), "{ip} is no host of the pool");
        self.leases.insert(client, (ip, now + Duration::from_secs(120)));
    }

    fn run(&mut self, step: Step) {
        let now = self.world.now;
        let believed = |model: &Model, client: u32| {
            model.leases.get(&client).filter(|(_, until)| *until > model.world.now).map(|(ip, _)| *ip)
        };
        match step {
            Step::Discover(client) => {
                if let Some(offer) = self.send(client, &Msg::discover(client)) {
                    assert_eq!(offer.kind, OFFER);
                    if let Some(own) = believed(self, client).filter(|_| !self.abandoned.contains(&client)) {
                        assert_eq!(offer.yiaddr, own, "a client is offered what it has");
                    }
                    self.offers.insert(client, offer.yiaddr);
                }
            }
            Step::Select(client) => {
                if let Some(ip) = self.offers.remove(&client) {
                    let answer = self.send(client, &Msg::select(client, ip));
                    self.acked(client, answer);
                }
            }
            Step::Reboot(client, wish) => {
                if let Some(ip) = wish.map(ip).or(believed(self, client)) {
                    let answer = self.send(client, &Msg::reboot(client, ip));
                    self.acked(client, answer);
                }
            }
            Step::Renew(client, wish) => {
                let own = believed(self, client);
                if let Some(ip) = wish.map(ip).or(own) {
                    let answer = self.send(client, &Msg::renew(client, ip));
                    if own == Some(ip) && !self.abandoned.contains(&client) {
                        assert_eq!(answer.as_ref().map(|a| a.kind), Some(ACK), "a live lease is always extended");
                    }
                    self.acked(client, answer);
                }
            }
            Step::Release(client) => {
                if let Some((ip, _)) = self.leases.remove(&client) {
                    self.send(client, &Msg::release(client, ip));
                }
            }
            Step::Decline(client) => {
                if let Some(own) = believed(self, client) {
                    self.leases.remove(&client);
                    self.send(client, &Msg::decline(client, own));
                    self.quarantined.push((own, now + Duration::from_secs(200)));
                }
            }
            Step::Inform(client) => {
                let ack = self.send(client, &Msg::inform(client, ip(9))).expect("parameters");
                assert_eq!((ack.kind, ack.yiaddr, ack.find(51)), (ACK, ANY, None));
            }
            Step::ChooseAnother(client) => {
                let msg = Msg::new(REQUEST, mac(client)).ip_option(54, ip(77)).ip_option(50, ip(2));
                assert_eq!(self.send(client, &msg), None);
                self.offers.remove(&client);
            }
            Step::Wait(secs) => self.world.wait(secs),
            Step::Reserve(name) => {
                if let Ok(given) = self.world.reserve(&format!("c{name}"), None, None) {
                    for (client, (ip, until)) in &self.leases {
                        let theirs = *ip == given.ip && *until > now && !self.abandoned.contains(client);
                        assert!(!theirs, "{ip} was reserved over a lease");
                    }
                    self.reserved.insert(name, given.ip);
                }
            }
            Step::Unreserve(name) => {
                self.world.release_name(&format!("c{name}"));
                self.reserved.remove(&name);
            }
            Step::PortGone(port) => {
                self.world.port_gone(port);
                self.abandoned.extend(self.leases.keys().filter(|client| Model::port(**client) == port));
                self.uncounted = true;
            }
            Step::Crash => {
                // All journal is on disk; clients, reservations and time go on.
                let (mut later, restored) = self.world.restarted(&self.world.journal.clone(), 0);
                assert_eq!(restored.warnings, Vec::<String>::new());
                later.journal = later.server.snapshot();
                later.now = self.world.now;
                let wall = WALL + (self.world.now - Instant::from_secs(1000)).as_secs();
                later.server = tapswitch_dhcp::Server::new(later.config.clone(), later.now, wall);
                later.server.restore(&later.journal);
                self.world = later;
                self.abandoned.extend(self.leases.keys());
                self.uncounted = true;
            }
        }
        self.check();
    }

    fn check(&mut self) {
        self.world.poll();
        let now = self.world.now;
        let rows = self.world.server.leases(now);
        assert!(rows.len() <= 13, "more rows than hosts");
        // What was abandoned goes to somebody else only when nothing is free.
        let full = rows.len() == 13 && rows.iter().all(|row| row.state != State::Released);
        let kept = |client: &u32, ip: &Ipv4Addr| {
            rows.iter().any(|row| (row.ip, row.state, row.mac) == (*ip, State::Bound, mac(*client)))
        };
        let abandoned = &self.abandoned;
        self.leases.retain(|client, (ip, until)| {
            let taken = abandoned.contains(client) && *until > now && !kept(client, ip);
            assert!(!taken || full, "{ip} was taken from {client}, yet something is free");
            !taken
        });
        for (client, (ip, until)) in &self.leases {
            if *until > now {
                let row = rows.iter().find(|row| row.ip == *ip).expect("an acknowledged lease is in the table");
                assert_eq!((row.state, row.mac), (State::Bound, mac(*client)), "{ip}");
            }
        }
        for ip in self.reserved.values() {
            assert_eq!(self.world.state(*ip), Some(State::Reserved));
        }
        let offered = rows.iter().filter(|row| row.state == State::Offered);
        assert!(offered.clone().all(|row| row.expires_in <= Some(OFFER_SECS)), "offers expire");
        if !self.uncounted {
            for port in 0..PORTS {
                let mine = |state, mac: tapswitch_wire::Mac| {
                    matches!(state, State::Offered | State::Bound | State::Declined)
                        && u32::from(mac.0[5]) % PORTS == port
                };
                let count = rows.iter().filter(|row| mine(row.state, row.mac)).count();
                assert!(count <= LIMIT, "port {port} holds {count}:\n{}", self.world.leases());
            }
        }
        let due = rows.iter().filter_map(|row| row.expires_in).min();
        assert_eq!(self.world.server.deadline().is_some(), due.is_some());
        assert!(self.world.server.deadline().is_none_or(|at| at > now), "the deadline lies ahead after a poll");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_double_lease_offers_expire_and_limits_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
        }
    }
}
