//! Connections, and port forwards.

use tapswitch_conntrack::tcp::State;
use tapswitch_conntrack::{Forward, ForwardError, Realm, Reason, Refusal, Tuple};
use tapswitch_wire::DropReason;

use crate::world::{
    ACK, FIN, Inside, OURS, Outside, Packet, RST, SYN, Segment, TCP, UDP, World, config, container, end, forward,
    hairpin, inbound, outbound,
};

/// A connection as both ends know it.
struct Connection {
    /// As it comes in from inside, and from outside.
    there: Tuple,
    back: Tuple,
    seq: [u32; 2],
}

const SILENT: Result<Tuple, Refusal> = Err(Refusal::Silent(DropReason::NoSuchSession));

impl Connection {
    /// A container connects.
    fn open(world: &World, there: Tuple) -> Connection {
        let back = world.out(there).unwrap().reversed();
        let mut connection = Connection { there, back, seq: [1001, 9000] };
        connection.send(world, Outside, SYN | ACK, 0).unwrap();
        connection.send(world, Inside, ACK, 0).unwrap();
        assert_eq!(connection.state(world), Some(State::Established));
        connection
    }

    fn at(&self, realm: Realm, flags: u8, off: u32, len: usize) -> Packet {
        let (tuple, [seq, ack]) = match realm {
            Inside => (self.there, self.seq),
            Outside => (self.back, [self.seq[1], self.seq[0]]),
        };
        Packet::tcp(tuple, Segment { flags, seq: seq.wrapping_add(off), ack, len })
    }

    fn send(&mut self, world: &World, realm: Realm, flags: u8, len: usize) -> Result<Tuple, Refusal> {
        let sent = world.through(realm, &self.at(realm, flags, 0, len))?;
        self.seq[(realm == Outside) as usize] += len as u32 + u32::from(flags & (SYN | FIN) != 0);
        Ok(sent.tuple)
    }

    fn state(&self, world: &World) -> Option<State> {
        world.session(self.there)?.tcp
    }
}

#[test]
fn nt_3_an_unsolicited_syn_is_not_answered_and_a_simultaneous_open_connects() {
    let mut world = World::new(config());
    // Some other connection makes the mapping, so that the port is a container's.
    let port = Connection::open(&world, outbound(TCP, (2, 4000), (1, 80))).back.dst.port;
    let syn = inbound(TCP, (2, 80), port);
    for _ in 0..3 {
        assert_eq!(world.incoming(syn), Err(Refusal::Silent(DropReason::Filtered)), "nothing is answered");
        world.wait(1.0);
    }
    // Within six seconds the container opens too: the next SYN from outside meets it.
    let there = outbound(TCP, (2, 4000), (2, 80));
    assert_eq!(world.mapped(there), end(OURS, port));
    assert_eq!(world.incoming(syn), Ok(there.reversed()));
    let mut connection = Connection { there, back: syn, seq: [1001, 1001] };
    // Both repeat their SYNs with an ACK, or only acknowledge.
    connection.send(&world, Inside, ACK, 0).unwrap();
    connection.send(&world, Outside, ACK, 0).unwrap();
    assert_eq!(connection.state(&world), Some(State::Established));
    assert!(connection.send(&world, Outside, ACK, 100).is_ok());
}

#[test]
fn nt_4_an_open_connection_lasts_two_hours_and_four_minutes_and_any_other_four_minutes() {
    let mut world = World::new(config());
    let mut connection = Connection::open(&world, outbound(TCP, (2, 4000), (1, 80)));
    world.wait(7439.0);
    assert_eq!(connection.state(&world), Some(State::Established));
    connection.send(&world, Outside, ACK, 10).unwrap();
    world.wait(7439.0);
    assert_eq!(connection.state(&world), Some(State::Established));
    world.wait(2.0);
    assert!(world.is_blank());

    world.mapped(outbound(TCP, (2, 4000), (1, 80)));
    world.wait(239.0);
    assert_eq!(world.sessions().len(), 1, "half open");
    world.wait(2.0);
    assert!(world.is_blank());

    let mut connection = Connection::open(&world, outbound(TCP, (2, 4001), (1, 80)));
    connection.send(&world, Inside, FIN | ACK, 0).unwrap();
    world.wait(7439.0);
    assert_eq!(connection.send(&world, Outside, ACK, 5), Ok(connection.there.reversed()), "closed one way only");
    connection.send(&world, Outside, FIN | ACK, 0).unwrap();
    connection.send(&world, Inside, ACK, 0).unwrap();
    assert_eq!(connection.state(&world), Some(State::TimeWait));
    world.wait(239.0);
    assert_eq!(connection.state(&world), Some(State::TimeWait));
    world.wait(2.0);
    assert!(world.is_blank());
}

#[test]
fn nt_6_at_11_only_the_exact_reset_shortens_a_connection_and_all_are_passed_on() {
    for realm in [Inside, Outside] {
        let mut world = World::new(config());
        let connection = Connection::open(&world, outbound(TCP, (2, 4000), (1, 80)));
        let expires = |world: &World| world.session(connection.there).unwrap().expires;
        world.wait(100.0);
        for guess in 0..2_000u32 {
            // In the window and out of it, before and behind.
            let off = (1 + guess * 31).wrapping_mul(if guess % 2 == 0 { 1 } else { u32::MAX });
            assert!(world.through(realm, &connection.at(realm, RST, off, 0)).is_ok(), "it is the end's to judge");
        }
        assert_eq!(connection.state(&world), Some(State::Established));
        assert_eq!(expires(&world), 7340, "nor was it prolonged");
        assert!(world.through(realm, &connection.at(realm, RST, 0, 0)).is_ok());
        assert_eq!(connection.state(&world), Some(State::Reset));
        assert_eq!(expires(&world), 240);
        world.wait(239.0);
        assert_eq!(world.sessions().len(), 1);
        world.wait(2.0);
        assert!(world.is_blank());
    }
}

#[test]
fn nt_6_a_syn_into_an_open_connection_changes_nothing() {
    let world = World::new(config());
    let connection = Connection::open(&world, outbound(TCP, (2, 4000), (1, 80)));
    let before = world.session(connection.there).unwrap();
    for off in [0, 1, 500, 1 << 20, 1 << 31] {
        assert!(world.through(Outside, &connection.at(Outside, SYN, off, 0)).is_ok());
        let after = world.session(connection.there).unwrap();
        assert_eq!((after.id, after.tcp, after.expires), (before.id, before.tcp, before.expires));
    }
}

#[test]
fn nt_2_a_closed_connection_is_opened_anew_by_the_same_ends() {
    let world = World::new(config());
    let mut connection = Connection::open(&world, outbound(TCP, (2, 4000), (1, 80)));
    let mapped = connection.back.dst;
    connection.send(&world, Inside, FIN | ACK, 0).unwrap();
    connection.send(&world, Outside, FIN | ACK, 0).unwrap();
    connection.send(&world, Inside, ACK, 0).unwrap();
    connection.seq = [5_000_000, 6_000_000];
    connection.send(&world, Inside, SYN, 0).unwrap();
    assert_eq!(connection.state(&world), Some(State::SynSent));
    connection.send(&world, Outside, SYN | ACK, 0).unwrap();
    connection.send(&world, Inside, ACK, 0).unwrap();
    assert_eq!(connection.state(&world), Some(State::Established));
    assert_eq!(world.mapped(outbound(TCP, (2, 4000), (2, 80))), mapped);
}

#[test]
fn nt_8_a_connection_is_picked_up_in_its_middle_from_inside_and_not_from_outside() {
    let world = World::new(config());
    let there = outbound(TCP, (2, 4000), (1, 80));
    let middle = |tuple, flags| Packet::tcp(tuple, Segment { flags, seq: 50, ack: 60, len: 3 });
    for flags in [RST, RST | ACK, FIN, SYN | ACK, SYN | FIN, 0] {
        assert_eq!(world.through(Inside, &middle(there, flags)).map(|sent| sent.tuple), SILENT, "flags {flags:#x}");
    }
    let back = world.through(Inside, &middle(there, ACK)).unwrap().tuple.reversed();
    assert!(world.through(Outside, &middle(back, ACK)).is_ok());
    for flags in [ACK, RST, FIN | ACK, SYN | ACK, SYN | RST] {
        let stranger = middle(inbound(TCP, (1, 81), back.dst.port), flags);
        assert_eq!(world.through(Outside, &stranger).map(|sent| sent.tuple), SILENT, "flags {flags:#x}");
    }
}

#[test]
fn ip_12_the_mss_of_a_syn_is_clamped_on_either_way() {
    let world = World::new(tapswitch_conntrack::Config { mtu: 1400, ..config() });
    let mss = |packet: &Packet| u16::from_be_bytes([packet.bytes[56], packet.bytes[57]]);
    let there = outbound(TCP, (2, 4000), (1, 80));
    for _ in 0..2 {
        let sent = world.through(Inside, &Packet::first(there)).unwrap();
        assert_eq!(mss(&sent.packet), 1360);
        let segment = Segment { flags: SYN | ACK, seq: 9000, ack: 1001, len: 0 };
        let answer = world.through(Outside, &Packet::tcp(sent.tuple.reversed(), segment)).unwrap();
        assert_eq!(mss(&answer.packet), 1360);
    }
}

#[test]
fn nt_10_a_forward_leads_to_its_container_and_answers_leave_by_it() {
    for protocol in [TCP, UDP] {
        let world = World::new(config());
        let range = Forward { count: 3, ..forward(protocol, 2, 8080, 80) };
        world.nat.publish(range, world.now).unwrap();
        for at in 0..3 {
            let arrived = world.incoming(inbound(protocol, (5, 1234), 8080 + at)).unwrap();
            assert_eq!(arrived, outbound(protocol, (2, 80 + at), (5, 1234)).reversed());
            assert_eq!(world.out(arrived.reversed()), Ok(inbound(protocol, (5, 1234), 8080 + at).reversed()));
            // What the service begins itself leaves by its published port too.
            assert_eq!(world.mapped(outbound(protocol, (2, 80 + at), (6, 9))), end(OURS, 8080 + at));
        }
        assert_eq!(world.incoming(inbound(protocol, (5, 1234), 8083)), Err(Refusal::Own));
        // Another container, and the service itself, reach it by the outside endpoint.
        for (container_number, port) in [(3, 999), (2, 999), (2, 80)] {
            let sent =
                world.through(Inside, &Packet::first(hairpin(protocol, (container_number, port), 8081))).unwrap();
            assert_eq!((sent.egress, sent.tuple.dst), (Inside, end(container(2), 81)));
            assert_eq!(sent.tuple.src.ip, OURS);
        }
    }
}

#[test]
fn nt_10_flows_follow_a_forward_that_changes() {
    for protocol in [TCP, UDP] {
        let world = World::new(config());
        let old = forward(protocol, 2, 8080, 80);
        world.nat.publish(old, world.now).unwrap();
        let from = inbound(protocol, (5, 1234), 8080);
        assert_eq!(world.incoming(from).unwrap().dst, end(container(2), 80));
        assert!(world.out(hairpin(protocol, (4, 999), 8080)).is_ok());
        assert!(world.out(hairpin(protocol, (2, 80), 8080)).is_ok());
        assert!(world.nat.unpublish(&old, world.now));
        assert!(!world.nat.unpublish(&old, world.now), "there is none any more");
        assert!(world.nat.is_empty(), "{:?}", world.sessions());
        world.nat.publish(forward(protocol, 3, 8080, 8), world.now).unwrap();
        let arrived = world.incoming(from);
        assert_eq!(arrived.map(|tuple| tuple.dst), Ok(end(container(3), 8)));
    }
}

#[test]
fn nt_10_what_left_a_port_by_a_mapping_leaves_it_by_the_forward_from_now_on() {
    let world = World::new(config());
    let (there, other) = (outbound(UDP, (2, 80), (1, 53)), outbound(UDP, (2, 81), (1, 53)));
    let (mapped, kept) = (world.mapped(there), world.mapped(other));
    // By a hairpin, at either end, too.
    world.out(hairpin(UDP, (3, 7), mapped.port)).unwrap();
    world.out(hairpin(UDP, (2, 80), kept.port)).unwrap();
    world.nat.publish(forward(UDP, 2, 8080, 80), world.now).unwrap();
    assert_eq!(world.sessions().iter().map(|view| view.original).collect::<Vec<_>>(), [other]);
    assert_eq!(world.mapped(there), end(OURS, 8080));
    assert_eq!(world.incoming(inbound(UDP, (1, 53), mapped.port)), Err(Refusal::Own));
    // And by a mapping again when it is published no more, wherever it goes.
    assert_eq!(world.out(hairpin(UDP, (2, 80), kept.port)).unwrap().src, end(OURS, 8080));
    assert!(world.nat.unpublish(&forward(UDP, 2, 8080, 80), world.now));
    let later = world.mapped(there);
    assert_ne!(later, end(OURS, 8080));
    assert_eq!(world.out(hairpin(UDP, (2, 80), kept.port)).unwrap().src, later);
}

#[test]
fn nt_10_a_second_forward_of_the_same_port_disturbs_nobody() {
    let world = World::new(config());
    world.nat.publish(forward(TCP, 2, 8080, 80), world.now).unwrap();
    world.incoming(inbound(TCP, (5, 1234), 8080)).unwrap();
    world.mapped(outbound(TCP, (2, 80), (6, 1)));
    world.nat.publish(forward(TCP, 2, 8081, 80), world.now).unwrap();
    assert_eq!(world.sessions().len(), 2);
    world.incoming(inbound(TCP, (7, 1234), 8081)).unwrap();
    assert!(world.nat.unpublish(&forward(TCP, 2, 8081, 80), world.now));
    assert_eq!(world.sessions().len(), 2);
}

#[test]
fn nt_10_forwards_that_contradict_others_are_refused() {
    let world = World::new(config());
    let publish = |forward| world.nat.publish(forward, world.now);
    let range = Forward { count: 10, ..forward(TCP, 2, 8080, 80) };
    publish(range).unwrap();
    assert_eq!(publish(forward(TCP, 3, 8089, 1)), Err(ForwardError::Taken { port: 8089, owner: 2 }));
    publish(forward(UDP, 3, 8089, 1)).unwrap();
    let elsewhere = |last| Forward { bound: Some([192, 0, 2, last].into()), ..forward(TCP, 3, 443, 1) };
    publish(elsewhere(1)).unwrap();
    publish(elsewhere(2)).unwrap();
    assert_eq!(publish(elsewhere(1)), Err(ForwardError::Taken { port: 443, owner: 3 }));
    assert_eq!(publish(forward(TCP, 4, 443, 1)), Err(ForwardError::Taken { port: 443, owner: 3 }));
    let mapped = world.mapped(outbound(TCP, (2, 4000), (1, 80)));
    assert_eq!(publish(forward(TCP, 4, mapped.port, 1)), Err(ForwardError::InUse { port: mapped.port, owner: 2 }));
    for (outside, inside, count) in [(80, 80, 0), (0, 80, 1), (80, 0, 1), (65_535, 80, 2), (80, 65_535, 2)] {
        let bad = Forward { count, ..forward(TCP, 4, outside, inside) };
        assert_eq!(publish(bad), Err(ForwardError::BadRange), "{bad:?}");
    }
    publish(forward(TCP, 4, 65_535, 65_535)).unwrap();
    // Bound to an address that is not ours at the moment: the port leads nowhere.
    assert_eq!(world.incoming(inbound(TCP, (1, 9), 443)).map(|tuple| tuple.dst), Ok(end(container(3), 1)));
    assert!(world.nat.unpublish(&elsewhere(1), world.now));
    assert_eq!(world.incoming(inbound(TCP, (1, 9), 443)), Err(Refusal::Own));
}

#[test]
fn nt_10_a_container_that_goes_takes_everything_along() {
    let mut world = World::new(config());
    let published = forward(TCP, 2, 8080, 80);
    world.nat.publish(published, world.now).unwrap();
    world.incoming(inbound(TCP, (5, 1234), 8080)).unwrap();
    world.mapped(outbound(UDP, (2, 4000), (1, 53)));
    world.out(hairpin(TCP, (3, 999), 8080)).unwrap();
    let neighbour = outbound(UDP, (3, 4000), (1, 53));
    world.mapped(neighbour);
    world.nat.remove_owner(2, world.now);
    assert!(world.nat.forwards().is_empty());
    let left: Vec<_> = world.sessions().iter().map(|view| (view.original, view.reason)).collect();
    assert_eq!(left, [(neighbour, Reason::Outbound)]);
    // Its ports are free again: at once for a forward, and for mappings after their rest.
    world.nat.publish(forward(TCP, 3, 8080, 80), world.now).unwrap();
    world.nat.remove_owner(3, world.now);
    world.wait(121.0);
    assert_eq!(world.nat.free_ports(TCP, u16::MAX - 1023, world.now), Some(1024), "no port is lost");
    assert!(world.is_blank());
}
