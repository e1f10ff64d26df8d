//! Several poll threads, and what a packet of an established session costs.

use tapswitch_network::{Forwarder, Hop, Share};
use tapswitch_wire::DropReason;

use super::frames::*;
use super::*;

const OUT: (u16, u16) = (4000, 53);
const BACK: (u16, u16) = (53, 4000);

/// Another thread's part.
struct Lane {
    forwarder: Forwarder,
    wires: Wires,
}

impl Lane {
    fn of(house: &House) -> Lane {
        let wires = Wires { inside_mtu: 1500, outside_mtu: 1500, ..Wires::default() };
        Lane { forwarder: house.network.forwarder(), wires }
    }

    fn send(&mut self, port: PortId, meta: Meta, frame: &[u8], now: Instant) -> Result<Hop, DropReason> {
        self.forwarder.rx(port, meta, &mut frame.to_vec(), now, &mut Unheard, &mut self.wires)
    }

    fn arrive(&mut self, meta: Meta, frame: &[u8], now: Instant) -> Option<Result<Verdict, DropReason>> {
        let mut bytes = frame.to_vec();
        let taken = self.forwarder.from_uplink(meta, &mut bytes, now, &mut Unheard, &mut self.wires);
        assert!(taken.is_some() || bytes == frame, "what it leaves to the owner is as it came");
        taken
    }
}

#[test]
fn threads_share_the_sessions_and_leave_what_is_new_to_the_owner() {
    let mut house = House::met(|_| {});
    let (mut one, mut other) = (Lane::of(&house), Lane::of(&house));
    let question = leaving(A, FAR).udp(OUT, b"question");
    let hop = one.send(PORT_A, Meta::PLAIN, &question, house.now);
    assert_eq!(hop, Ok(Hop::Gateway(Share::Alone)), "it is new");
    let (now, mut bytes) = (house.now, question.clone());
    let House { network, wires, .. } = &mut house;
    let verdict = network.handed(PORT_A, Meta::PLAIN, &mut bytes, Share::Alone, now, &mut Unheard, wires, &mut |_| {});
    assert_eq!(verdict, Verdict::Relay);
    house.one_outside();
    // Now any thread does it.
    assert_eq!(one.send(PORT_A, Meta::PLAIN, &question, now), Ok(Hop::Ended(Verdict::Relay)));
    assert_eq!(one.wires.outside, [(Meta::PLAIN, left(OURS, FAR).udp(OUT, b"question"))]);
    let answer = coming(FAR, OURS).udp(BACK, b"answer");
    assert_eq!(other.arrive(Meta::PLAIN, &answer, now), None, "the first one asks where A is");
    assert_eq!(house.arrive(&answer), Verdict::Reply);
    house.one_inside();
    assert_eq!(other.arrive(Meta::PLAIN, &answer, now), Some(Ok(Verdict::Forward(PORT_A))));
    assert_eq!(other.wires.inside, [(PORT_A, Meta::PLAIN, come(FAR, A).udp(BACK, b"answer"))]);
    let sessions = house.network.conntrack().expect("a packet uplink").sessions(now);
    assert_eq!((sessions.len(), sessions[0].packets), (1, [2, 2]), "all are counted in one place");
    // What needs more than a rewrite is the owner's.
    for frame in [
        coming(FAR, OURS).ttl(1).udp(BACK, b"answer"),
        coming(FAR, OURS).udp((53, 4001), b"answer"),
        coming(FAR, OURS).id(7).udp_fragments(BACK, &[0; 2000], 1000).remove(0),
        coming(FAR, OURS).error((3, 3), 0, &left(OURS, FAR).udp(OUT, b"question"), 8),
        who_has(OURS, ROUTER),
    ] {
        assert_eq!(other.arrive(Meta::PLAIN, &frame, now), None);
    }
    // So is a frame for somebody else.
    let mut stray = answer.clone();
    stray[5] ^= 1;
    assert_eq!(other.arrive(Meta::PLAIN, &stray, now), None);
    // The container left: no thread passes anything of it any more.
    house.network.remove_port(PORT_A, Some(A), now, &mut |_| {});
    one.forwarder.remove_port(PORT_A);
    other.forwarder.remove_port(PORT_A);
    assert_eq!(other.arrive(Meta::PLAIN, &answer, now), None);
}

#[test]
fn a_lane_whose_uplink_is_gone_takes_nothing_from_it() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
    let mut lane = Lane::of(&house);
    lane.forwarder.set_uplink(None);
    assert_eq!(lane.arrive(Meta::PLAIN, &coming(FAR, OURS).udp(BACK, b"answer"), house.now), None);
    let sent = lane.send(PORT_A, Meta::PLAIN, &leaving(A, FAR).udp(OUT, b"question"), house.now);
    assert_eq!(sent, Err(DropReason::UplinkDown));
    assert_eq!(lane.forwarder.counters(PORT_A).map(|counters| counters.drops.get(DropReason::UplinkDown)), Some(1));
}

/// Takes everything and remembers nothing.
struct Taking(u64);

impl Ports for Taking {
    fn tx(&mut self, _: PortId, _: &Meta, _: &[u8]) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }

    fn tx_uplink(&mut self, _: &Meta, _: &[u8]) -> Result<(), DropReason> {
        self.0 += 1;
        Ok(())
    }
}

#[test]
fn a_packet_of_an_established_session_allocates_nothing() {
    let mut house = House::met(|_| {});
    house.send(PORT_A, &leaving(A, FAR).tcp((4001, 80), SYN, &[], b""));
    house.arrive(&coming(FAR, OURS).tcp((80, 4001), SYN | ACK, &[], b""));
    house.send(PORT_A, &leaving(A, FAR).udp(OUT, b"question"));
    house.arrive(&coming(FAR, OURS).udp(BACK, b"answer"));
    let outbound = [
        leaving(A, FAR).tcp_super((4001, 80), 1460, &[7; 60_000]),
        leaving(A, FAR).tcp_partial((4001, 80), ACK, &[], b""),
        (Meta::PLAIN, leaving(A, FAR).udp(OUT, b"question")),
        // One that takes the slow way.
        (Meta::PLAIN, leaving(A, FAR).id(7).udp(OUT, b"question")),
    ];
    let inbound = [
        coming(FAR, OURS).tcp_super((80, 4001), 1460, &[7; 60_000]),
        coming(FAR, OURS).tcp_partial((80, 4001), ACK, &[], b""),
        (Meta::PLAIN, coming(FAR, OURS).udp(BACK, b"answer")),
    ];
    let (now, network, mut ports) = (house.now, &mut house.network, Taking(0));
    // Each frame is rewritten in place, so it begins anew each time.
    let mut buffers = [outbound.clone().to_vec(), inbound.clone().to_vec()];
    let mut round = || {
        for (buffer, frame) in buffers[0].iter_mut().zip(&outbound) {
            buffer.1.copy_from_slice(&frame.1);
            let verdict = network.rx(PORT_A, frame.0, &mut buffer.1, now, &mut Unheard, &mut ports, &mut |_| {});
            assert_eq!(verdict, Verdict::Relay);
        }
        for (buffer, frame) in buffers[1].iter_mut().zip(&inbound) {
            buffer.1.copy_from_slice(&frame.1);
            let verdict = network.uplink_rx(frame.0, &mut buffer.1, now, &mut Unheard, &mut ports);
            assert_eq!(verdict, Verdict::Forward(PORT_A));
        }
    };
    round();
    let counted = allocation_counter::measure(|| (0..100).for_each(|_| round()));
    assert_eq!(counted.count_total, 0);
    assert_eq!(ports.0, 101 * 7);
    // Something can be counted: a copy waits for a neighbour that is not known.
    let unknown = leaving(A, Ipv4Addr::new(192, 0, 2, 77)).udp(OUT, b"question");
    let counted = allocation_counter::measure(|| {
        house.send(PORT_A, &unknown);
    });
    assert!(counted.count_total > 0);
}
