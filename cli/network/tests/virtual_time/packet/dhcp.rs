//! An uplink that asks for its address.

use tapswitch_dhcp as dhcp;
use tapswitch_network::PacketState;
use tapswitch_wire::{DropReason, Emit, Frame};

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

/// The address service of the uplink's LAN, which is also its router.
struct Landlord {
    server: dhcp::Server,
    router: Ipv4Addr,
    /// Kinds of the messages that came: DISCOVER 1, REQUEST 3, DECLINE 4, RELEASE 7.
    heard: Vec<u8>,
}

#[derive(Default)]
struct Answers(Vec<Sent>);

impl Emit for Answers {
    fn emit(&mut self, meta: &Meta, frame: &[u8]) {
        self.0.push((*meta, frame.to_vec()));
    }
}

impl Landlord {
    fn new(subnet: &str, router: Ipv4Addr, lease: Duration, now: Instant) -> Landlord {
        let subnet = subnet.parse().expect("a subnet");
        let config =
            dhcp::Config { lease_time: lease, max_lease_time: lease, ..dhcp::Config::new(subnet, router, mac(router)) };
        Landlord { server: dhcp::Server::new(config, now, 1_700_000_000), router, heard: Vec::new() }
    }

    /// Takes what came out by the uplink, and answers DHCP and ARP. Says whether there was anything.
    fn serve(&mut self, house: &mut House) -> bool {
        let frames = std::mem::take(&mut house.wires.outside);
        let mut served = false;
        for (meta, frame) in &frames {
            let mut bytes = frame.clone();
            let parsed = Frame::parse(*meta, &mut bytes[..]).expect("a frame");
            // All but packets, which are the test's.
            served |= parsed.dst_port() == 67 || frame[12..14] == [8, 6];
            if parsed.dst_port() == 67 {
                self.heard.push(kind(frame));
                let mut answers = Answers::default();
                // A DECLINE is not answered.
                let _ = self.server.handle(PORT_A, &parsed, house.now, &mut Unheard, &mut |_| {}, &mut answers);
                for (meta, frame) in answers.0 {
                    house.arrive_meta(meta, &frame);
                }
            } else if frame[12..14] == [8, 6] && frame[38..42] == self.router.octets() {
                let mut answer = is_at(self.router, OURS);
                answer[38..42].copy_from_slice(&frame[28..32]);
                house.arrive(&answer);
            } else if frame[12..14] == [8, 0] {
                house.wires.outside.push((*meta, frame.clone()));
            }
        }
        served
    }

    /// Lets time pass in which it serves.
    fn reign(&mut self, house: &mut House, time: Duration) {
        let end = house.now + time;
        while house.now < end {
            let next = house.network.deadline().unwrap_or(end).max(house.now);
            house.pass(next.min(end) - house.now);
            while self.serve(house) {}
        }
    }
}

/// Kind of a DHCP message: its option 53, which comes first.
fn kind(frame: &[u8]) -> u8 {
    let options = &frame[42 + 240..];
    assert_eq!(options[..2], [53, 1]);
    options[2]
}

fn house() -> House {
    House::new(|told| told.packet.addressing = Addressing::Dhcp)
}

fn state(house: &House) -> (PacketState, Option<String>) {
    let view = house.network.packet().expect("a packet uplink");
    (view.state, view.address.map(|address| address.to_string()))
}

/// Sends a question; the source address that it left with.
fn asks(house: &mut House, landlord: &mut Landlord) -> Ipv4Addr {
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    while landlord.serve(house) {}
    let frame = house.one_outside();
    Ipv4Addr::new(frame[26], frame[27], frame[28], frame[29])
}

#[test]
fn the_address_is_asked_for_bound_announced_and_used() {
    let mut house = house();
    assert_eq!(state(&house), (PacketState::Asking, None));
    assert_eq!(house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"too early")), drop(DropReason::UplinkDown));
    let mut landlord = Landlord::new("192.0.2.0/24", ROUTER, seconds(3600), house.now);
    landlord.reign(&mut house, seconds(70));
    let (bound, address) = state(&house);
    assert_eq!(bound, PacketState::Up);
    assert_eq!(landlord.heard, [1, 3]);
    assert_eq!(house.network.packet().and_then(|view| view.router), Some(ROUTER));
    let used = asks(&mut house, &mut landlord);
    assert_eq!(address, Some(format!("{used}/24")));
    // It is kept for as long as the landlord is there.
    landlord.reign(&mut house, seconds(100_000));
    assert_eq!(state(&house), (PacketState::Up, address));
}

#[test]
fn nu_4_a_lease_that_is_lost_ends_what_used_it_and_another_one_is_used_from_then_on() {
    let mut house = house();
    let mut landlord = Landlord::new("192.0.2.0/24", ROUTER, seconds(600), house.now);
    landlord.reign(&mut house, seconds(70));
    let first = asks(&mut house, &mut landlord);
    assert_eq!(house.sessions(), 1);
    // Nobody answers any more. The datagrams go on, so that the session is no older than the lease.
    for _ in 0..60 {
        house.pass(seconds(5));
        house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"still here"));
    }
    assert_eq!((state(&house).0, house.sessions()), (PacketState::Up, 1));
    for _ in 0..80 {
        house.pass(seconds(5));
        house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"still here"));
    }
    assert_eq!((state(&house), house.sessions()), ((PacketState::Asking, None), 0));
    assert_eq!(house.arrive(&coming(FAR, first).udp(BACK, b"late")), drop(DropReason::UplinkDown));
    house.wires.outside.clear();
    // Another landlord.
    let router = Ipv4Addr::new(203, 0, 113, 1);
    let mut landlord = Landlord::new("203.0.113.0/24", router, seconds(600), house.now);
    landlord.reign(&mut house, seconds(70));
    let second = asks(&mut house, &mut landlord);
    assert_eq!(state(&house), (PacketState::Up, Some(format!("{second}/24"))));
    assert_ne!(first, second);
    assert_eq!(house.sessions(), 1);
}

#[test]
fn nu_4_a_lease_whose_subnet_is_inside_too_is_declined_and_the_state_says_why() {
    for subnet in ["10.0.0.0/8", "10.0.0.0/25", "10.0.0.0/24"] {
        let mut house = house();
        let mut landlord = Landlord::new(subnet, Ipv4Addr::new(10, 0, 0, 100), seconds(3600), house.now);
        landlord.reign(&mut house, seconds(70));
        assert_eq!(state(&house), (PacketState::Overlapping, None), "{subnet}");
        assert!(landlord.heard.contains(&4), "{:?}", landlord.heard);
        assert!(landlord.heard.len() < 30, "no storm of declines: {:?}", landlord.heard);
        assert_eq!(house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question")), drop(DropReason::UplinkDown));
        // Once the LAN has another subnet, all is well.
        let mut landlord = Landlord::new("192.0.2.0/24", ROUTER, seconds(3600), house.now);
        house.wires.outside.clear();
        landlord.reign(&mut house, seconds(140));
        assert_eq!(state(&house).0, PacketState::Up);
    }
}

#[test]
fn nu_4_an_address_by_hand_that_is_inside_too_is_not_used() {
    let house = House::new(|told| {
        let address = "10.0.0.200/25".parse().expect("an address");
        told.packet.addressing = Addressing::Static { address, router: None };
    });
    assert_eq!(state(&house), (PacketState::Overlapping, None));
}

#[test]
fn the_lease_is_given_back_at_the_end() {
    let mut house = house();
    let mut landlord = Landlord::new("192.0.2.0/24", ROUTER, seconds(3600), house.now);
    landlord.reign(&mut house, seconds(70));
    landlord.heard.clear();
    house.network.release(&mut house.wires);
    while landlord.serve(&mut house) {}
    assert_eq!(landlord.heard, [7]);
}

#[test]
fn a_device_that_goes_takes_the_sessions_along_and_one_that_comes_asks_anew() {
    let mut house = house();
    let mut landlord = Landlord::new("192.0.2.0/24", ROUTER, seconds(3600), house.now);
    landlord.reign(&mut house, seconds(70));
    asks(&mut house, &mut landlord);
    house.network.uplink_down(house.now);
    assert_eq!((state(&house), house.sessions()), ((PacketState::Waiting, None), 0));
    house.network.uplink_up(UPLINK_MAC, None, 1500, house.now);
    assert_eq!(state(&house), (PacketState::Asking, None));
    landlord.reign(&mut house, seconds(10));
    assert_eq!(state(&house).0, PacketState::Up);
}
