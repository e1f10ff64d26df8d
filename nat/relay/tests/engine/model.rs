//! Two ends and a bad cable: a small model of a TCP peer in the container, random reads and writes on the host's side, and
//! whatever loss, repetition, reordering, half-closes and aborts chance brings.
//!
//! What must hold, at every moment: each side has a prefix of what the other sent; an end is seen only behind the last
//! byte; a reset is never taken for an end; what the engine holds is bounded. And it always comes to its end.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_relay::Readiness;

use crate::published::{client, publish};
use crate::world::{ACK, FIN, HOLD, RST, SYN, Seg, World, tcp};

/// What one run is made of.
#[derive(Clone, Debug)]
struct Plan {
    /// Whether the connection begins outside, at a published port.
    published: bool,
    up: usize,
    down: usize,
    up_ends: bool,
    down_ends: bool,
    /// The round in which the container, or the outside, aborts.
    container_aborts: Option<u32>,
    outside_aborts: Option<u32>,
    /// In percent, in the first [`ROUGH`] rounds.
    loss: u32,
    duplicate: u32,
    reorder: u32,
    window: u16,
    options: Vec<u8>,
    isn: u32,
    seed: u64,
}

/// After so many rounds the cable is good, so that everything can come to its end.
const ROUGH: u32 = 60;
const ROUNDS: u32 = 3_000;
/// Aborts come up to this round.
const ABORTS: u32 = 80;

/// SplitMix64: the choices of one run, all from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % u64::from(sides.max(1))) as u32
    }
}

/// The container's end: enough of TCP to send and receive one stream each way.
#[derive(Default)]
struct Peer {
    /// First number that the engine has not acknowledged, and the right edge of its window.
    una: u32,
    edge: u32,
    /// Next number wanted of the engine.
    want: u32,
    received: Vec<u8>,
    /// Whether the engine's SYN has come: at once, unless the connection begins outside.
    synced: bool,
    saw_end: bool,
    saw_reset: bool,
    aborted: bool,
    owes_ack: bool,
}

/// A segment of the peer, not yet handed over.
#[derive(Clone, Debug)]
struct Out {
    flags: u8,
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
}

impl Peer {
    /// Takes a segment of the engine.
    fn take(&mut self, seg: &Seg, scale: u32, down: &[u8], answers: &mut Vec<Out>) {
        if seg.flags == SYN {
            if self.aborted {
                answers.push(Out { flags: RST | ACK, seq: 0, ack: 1, payload: Vec::new() });
            } else if !self.synced {
                self.synced = true;
                self.want = 1;
            }
            if !self.aborted && self.una == 0 {
                answers.push(Out { flags: SYN | ACK, seq: 0, ack: 1, payload: Vec::new() });
            }
            return;
        }
        if !self.synced {
            return;
        }
        if seg.flags & RST != 0 {
            // As RFC 5961: only an exact one counts, another in the window is asked about.
            if seg.seq == self.want {
                self.saw_reset = true;
            } else {
                self.owes_ack = true;
            }
            return;
        }
        if self.aborted {
            answers.push(Out { flags: RST, seq: seg.ack, ack: 0, payload: Vec::new() });
            return;
        }
        if seg.flags & SYN != 0 {
            self.owes_ack = true;
            return;
        }
        if seg.ack >= self.una {
            self.una = seg.ack;
            self.edge = self.edge.max(seg.ack + u32::from(seg.window) * scale);
        }
        let len = seg.payload.len() as u32;
        if len > 0 || seg.flags & FIN != 0 || seg.seq < self.want {
            self.owes_ack = true;
        }
        if seg.seq > self.want || seg.seq + len < self.want {
            return;
        }
        let new = &seg.payload[(self.want - seg.seq) as usize..];
        let at = self.received.len();
        assert_eq!(new, &down[at..at + new.len()], "the container gets what the outside sent, in order");
        self.received.extend_from_slice(new);
        self.want += new.len() as u32;
        if seg.flags & FIN != 0 && !self.saw_end {
            self.saw_end = true;
            self.want += 1;
        }
    }

    /// A random segment of what may be sent: new data, old data, or both.
    fn send(&mut self, up: &[u8], ends: bool, dice: &mut Dice) -> Option<Out> {
        let end = 1 + up.len() as u32;
        let last = self.edge.min(end);
        if self.una > end || self.una == 0 {
            return None;
        }
        // Beginning at what was not acknowledged, sometimes before or behind it.
        let from = match dice.roll(4) {
            0 => self.una.saturating_sub(dice.roll(500)).max(1),
            1 => self.una + dice.roll(3_000),
            _ => self.una,
        };
        if from > last || (from == last && from < end) {
            return None;
        }
        let most = if dice.roll(8) == 0 { 20_000 } else { 1_400 };
        let len = (1 + dice.roll(most)).min(last - from);
        let fin = ends && from + len == end;
        if len == 0 && !fin {
            return None;
        }
        let payload = up[from as usize - 1..(from + len) as usize - 1].to_vec();
        Some(Out { flags: if fin { ACK | FIN } else { ACK }, seq: from, ack: self.want, payload })
    }
}

fn stream(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8).wrapping_mul(31) ^ salt) as u8).collect()
}

/// Lets each of the segments through, or not.
fn cable<T: Clone>(lane: &mut VecDeque<T>, item: T, plan: &Plan, rough: bool, dice: &mut Dice) {
    if !rough {
        return lane.push_back(item);
    }
    if dice.roll(100) < plan.loss {
        return;
    }
    if dice.roll(100) < plan.duplicate {
        lane.push_back(item.clone());
    }
    let place = if dice.roll(100) < plan.reorder { dice.roll(lane.len() as u32 + 1) as usize } else { lane.len() };
    lane.insert(place, item);
}

fn run(plan: &Plan) {
    let mut dice = Dice(plan.seed);
    let (up, down) = (stream(plan.up, 0), stream(plan.down, 0x55));
    let mut world = World::new();
    world.isn = plan.isn;
    world.window = plan.window;
    let mut peer = Peer { una: 1, edge: 1 + 0xffff, want: 1, synced: true, ..Peer::default() };
    let (mut to_engine, mut to_peer) = (VecDeque::<Out>::new(), VecDeque::<Seg>::new());
    if plan.published {
        publish(&mut world);
        to_peer.extend(client(&mut world, "203.0.113.9:50000"));
        peer = Peer { una: 0, want: 0, synced: false, ..peer };
    } else {
        world.open(&plan.options);
    }
    let scale = if plan.options.contains(&3) { 32 } else { 1 };
    let mut sent_down = 0;
    let mut outside_aborted = false;
    for round in 0..ROUNDS {
        let rough = round < ROUGH;
        let mut from_engine = Vec::new();
        world.window = if rough && dice.roll(10) == 0 { 0 } else { plan.window };
        // The outside: sends a piece, ends, or aborts; takes what it likes.
        let alive = world.host().closed.is_none();
        if alive {
            // What the socket says of its room may be right, or too little, or too much.
            world.host().claims = [None, Some(dice.roll(300_000) as usize), Some(0)][dice.roll(3) as usize];
        }
        if alive && plan.outside_aborts == Some(round) {
            outside_aborted = true;
            world.host().broken = true;
            from_engine.extend(world.event(Readiness { readable: true, error: true, ..Readiness::default() }));
        } else if alive && !outside_aborted {
            let piece = (1 + dice.roll(9_000) as usize).min(down.len() - sent_down);
            if piece > 0 && dice.roll(3) > 0 {
                from_engine.extend(world.incoming(&down[sent_down..sent_down + piece]));
                sent_down += piece;
            } else if sent_down == down.len() && plan.down_ends && !world.host().ended {
                from_engine.extend(world.end());
            }
            if rough {
                let gulps: Vec<_> = (0..4).map(|_| dice.roll(4_000) as usize).collect();
                world.host().gulps.extend(gulps);
            } else {
                world.host().gulps.clear();
            }
            if dice.roll(2) == 0 || !rough {
                from_engine.extend(world.room(usize::MAX));
            }
        }
        // The container: sends something, acknowledges, or aborts.
        if plan.container_aborts == Some(round) {
            peer.aborted = true;
            cable(
                &mut to_engine,
                Out { flags: RST, seq: peer.una, ack: 0, payload: Vec::new() },
                plan,
                rough,
                &mut dice,
            );
        }
        if !peer.aborted && !peer.saw_reset {
            for _ in 0..dice.roll(4) {
                if let Some(out) = peer.send(&up, plan.up_ends, &mut dice) {
                    peer.owes_ack = false;
                    cable(&mut to_engine, out, plan, rough, &mut dice);
                }
            }
            if peer.synced && peer.una == 0 && dice.roll(4) == 0 {
                // It does not know whether its answer arrived.
                let out = Out { flags: SYN | ACK, seq: 0, ack: 1, payload: Vec::new() };
                cable(&mut to_engine, out, plan, rough, &mut dice);
            }
            if peer.owes_ack && peer.una > 0 {
                peer.owes_ack = false;
                let seq = peer.una.max(1);
                cable(
                    &mut to_engine,
                    Out { flags: ACK, seq, ack: peer.want, payload: Vec::new() },
                    plan,
                    rough,
                    &mut dice,
                );
            }
        } else if peer.aborted && dice.roll(4) == 0 {
            // Its reset may be lost. Whatever still comes is answered with another, and a keepalive makes something come.
            let seq = peer.una.wrapping_sub(1);
            cable(&mut to_engine, Out { flags: ACK, seq, ack: peer.want, payload: Vec::new() }, plan, rough, &mut dice);
        }
        // Some of what is under way arrives.
        let some = if rough { dice.roll(6) as usize } else { usize::MAX };
        for _ in 0..some.min(to_engine.len()) {
            let Some(out) = to_engine.pop_front() else { break };
            let options: &[u8] = if out.flags & SYN != 0 { &plan.options } else { &[] };
            from_engine.extend(world.rx_with(out.flags, out.seq, out.ack, &out.payload, options));
        }
        for seg in tcp(from_engine) {
            cable(&mut to_peer, seg, plan, rough, &mut dice);
        }
        let mut answers = Vec::new();
        for _ in 0..some.min(to_peer.len()) {
            let Some(seg) = to_peer.pop_front() else { break };
            peer.take(&seg, scale, &down, &mut answers);
        }
        for out in answers {
            cable(&mut to_engine, out, plan, rough, &mut dice);
        }
        // Time passes; when nothing moves, up to the engine's next deadline.
        let idle = to_engine.is_empty() && to_peer.is_empty() && !peer.owes_ack;
        let next = world.relay.deadline().map_or(Duration::ZERO, |at| at - world.now);
        let time = if idle && !rough { next.min(Duration::from_secs(30)) } else { Duration::ZERO };
        for seg in world.pass(time + Duration::from_millis(u64::from(dice.roll(60)))) {
            cable(&mut to_peer, seg, plan, rough, &mut dice);
        }
        check(&mut world, &peer, plan, &up, outside_aborted);
        let aborted = outside_aborted || peer.aborted;
        if idle && round > ABORTS && (world.relay.is_empty() || !aborted && waits(&mut world, &peer, plan)) {
            break;
        }
    }
    finish(&mut world, &peer, plan, &up, &down, outside_aborted);
}

/// What holds at every moment.
fn check(world: &mut World, peer: &Peer, plan: &Plan, up: &[u8], outside_aborted: bool) {
    let host = world.host();
    assert_eq!(host.written[..], up[..host.written.len()], "the host gets what the container sent, in order");
    if host.finished {
        assert!(plan.up_ends, "the container has not ended");
        assert_eq!(host.written.len(), up.len(), "the end comes behind the last byte");
    }
    if peer.saw_end {
        assert!(plan.down_ends && peer.received.len() == plan.down, "the end comes behind the last byte");
    }
    let held = (peer.una as usize).saturating_sub(1 + host.written.len());
    // What comes behind a reset of the outside is taken, and goes nowhere.
    assert!(outside_aborted || held <= HOLD as usize + 1, "{held} bytes are held");
    if plan.container_aborts.is_none() && !outside_aborted {
        assert!(!peer.saw_reset && host.closed != Some(true), "nobody broke it");
    }
}

/// Everything has arrived, and the connection waits for more.
fn waits(world: &mut World, peer: &Peer, plan: &Plan) -> bool {
    let host = world.host();
    let arrived = host.written.len() == plan.up && peer.received.len() == plan.down;
    let ended = host.finished == plan.up_ends && peer.saw_end == plan.down_ends;
    arrived && ended && !(plan.up_ends && plan.down_ends)
}

/// What holds in the end.
fn finish(world: &mut World, peer: &Peer, plan: &Plan, up: &[u8], down: &[u8], outside_aborted: bool) {
    let aborted = peer.aborted || outside_aborted;
    let half_open = !(plan.up_ends && plan.down_ends);
    if !aborted && half_open {
        // Half open: everything arrived, and it waits.
        assert_eq!(world.relay.len(), 1);
        world.pass(Duration::from_secs(8_100));
    }
    assert!(world.relay.is_empty(), "it comes to its end");
    let closed = world.host().closed;
    if !aborted {
        assert!(world.host().written == up, "{} of {} bytes up", world.host().written.len(), up.len());
        assert!(peer.received == down, "{} of {} bytes down", peer.received.len(), down.len());
        assert_eq!((world.host().finished, peer.saw_end), (plan.up_ends, plan.down_ends));
        assert_eq!(closed, Some(half_open), "an end is an end, and idleness a reset");
    } else if !(world.host().finished && peer.saw_end) {
        assert_eq!(closed, Some(true), "the outside sees a reset, not an end");
    }
    assert_eq!(world.relay.deadline(), None);
}

fn plans() -> impl Strategy<Value = Plan> {
    let options = prop_oneof![
        Just(vec![]),
        Just(vec![2, 4, 5, 180]),
        Just(vec![2, 4, 5, 180, 3, 3, 2]),
        Just(vec![2, 4, 1, 0, 3, 3, 0]),
    ];
    let amounts = (0usize..150_000, 0usize..60_000, any::<bool>(), any::<bool>(), any::<bool>());
    let aborts = (prop::option::weighted(0.3, 0..ABORTS), prop::option::weighted(0.3, 0..ABORTS));
    let cable = (0u32..40, 0u32..20, 0u32..40, prop_oneof![200u16..2_000, 200u16..]);
    let isn = prop_oneof![Just(u32::MAX - 3_000), any::<u32>()];
    (amounts, aborts, cable, options, isn, any::<u64>()).prop_map(
        |(
            (up, down, up_ends, down_ends, published),
            (container_aborts, outside_aborts),
            (loss, duplicate, reorder, window),
            options,
            isn,
            seed,
        )| Plan {
            published,
            up,
            down,
            up_ends,
            down_ends,
            container_aborts,
            outside_aborts,
            loss,
            duplicate,
            reorder,
            window,
            options,
            isn,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn tr_6_tr_3_tr_4_both_streams_arrive_whole_or_break_and_are_never_confused(plan in plans()) {
        run(&plan);
    }
}
