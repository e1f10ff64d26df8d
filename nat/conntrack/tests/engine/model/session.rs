//! A session of the model, and what its ends may send.

use tapswitch_conntrack::tcp::State;
use tapswitch_conntrack::{Direction, Realm, Reason, SessionId, Tuple};

use super::steps::What;
use crate::world::{ACK, FIN, Packet, RST, SYN, Segment, TCP};

pub struct Session {
    pub id: SessionId,
    pub original: Tuple,
    pub reply: Tuple,
    pub from: Realm,
    pub to: Realm,
    /// The owner, and whether the outside began it.
    pub payer: (u32, bool),
    pub reason: Reason,
    /// Outside ports of the mappings it uses.
    pub uses: Vec<u16>,
    /// The last second in which it lives.
    pub expires: u64,
    pub state: Option<State>,
    /// The next sequence number of either side.
    pub next: [u32; 2],
    /// Whether either side has sent a FIN.
    pub closed: [bool; 2],
    /// Who sent the SYN that counts.
    pub opener: Direction,
}

impl Session {
    pub fn tuple(&self, direction: Direction) -> Tuple {
        if direction == Direction::Original { self.original } else { self.reply }
    }

    pub fn ingress(&self, direction: Direction) -> Realm {
        if direction == Direction::Original { self.from } else { self.to }
    }

    /// A packet that goes this way: of a connection, what its end might send next.
    pub fn packet(&self, direction: Direction, what: What) -> Packet {
        let tuple = self.tuple(direction);
        if !is_tcp(&tuple) {
            return Packet::first(tuple);
        }
        let (mut seq, ack) = (self.next[direction as usize], self.next[direction.other() as usize]);
        let is_open = self.is_numbered() && !self.closed[direction as usize];
        let (flags, len) = match (what, self.state) {
            (What::ExactReset, _) => (RST, 0),
            (What::InexactReset, _) => {
                seq = seq.wrapping_add(7);
                (RST, 0)
            }
            (_, Some(State::SynSent)) if direction == self.opener => {
                seq = seq.wrapping_sub(1);
                (SYN, 0)
            }
            (_, Some(State::SynSent)) => (SYN | ACK, 0),
            (What::Fin, _) if is_open => (FIN | ACK, 0),
            (What::Data, _) if is_open => (ACK, 10),
            _ => (ACK, 0),
        };
        Packet::tcp(tuple, Segment { flags, seq, ack, len })
    }

    /// What a router may have seen of a packet that went this way, when it had left.
    pub fn quoted(&self, tuple: Tuple, direction: Direction, forged: bool) -> Packet {
        if !is_tcp(&tuple) {
            return Packet::first(tuple);
        }
        // The next segment may always be in flight.
        let seq = self.next[direction as usize];
        let seq = if forged { seq.wrapping_add(1 << 30) } else { seq };
        Packet::tcp(tuple, Segment { flags: ACK, seq, ack: 0, len: 0 })
    }

    /// Whether an endpoint talks to itself, by its own outside endpoint: then either direction is the other one too.
    pub fn is_monologue(&self) -> bool {
        self.original == self.reply
    }

    /// Whether both sides' sequence numbers are known for sure.
    pub fn is_numbered(&self) -> bool {
        !self.is_monologue() && matches!(self.state, Some(State::Established | State::FinWait(_)))
    }

    /// Notes what a segment that passed did, and to what state the tracker came by it.
    pub fn track(&mut self, packet: &Packet, direction: Direction, state: Option<State>) {
        check_reset(self, packet, direction, state);
        let Segment { flags, seq, len, .. } = segment(packet);
        let (before, side) = (std::mem::replace(&mut self.state, state), direction as usize);
        let begins = state == Some(State::SynSent) && before != state;
        if begins {
            (self.closed, self.opener) = ([false; 2], direction);
        }
        // A SYN in a connection that is open already counts for nothing.
        let counts = flags & SYN == 0 || begins || before == Some(State::SynSent);
        if flags & RST == 0 && counts {
            self.next[side] = seq.wrapping_add(len as u32 + u32::from(flags & (SYN | FIN) != 0));
            self.closed[side] |= flags & FIN != 0;
        }
    }
}

/// An open connection is reset by the exact sequence number, and by no other.
fn check_reset(session: &Session, packet: &Packet, direction: Direction, after: Option<State>) {
    let is_open = session.is_numbered();
    let Segment { flags, seq, .. } = segment(packet);
    if flags & RST != 0 && is_open {
        let is_exact = seq == session.next[direction as usize];
        assert_eq!(
            after == Some(State::Reset),
            is_exact,
            "{:?}, next {:?}, RST {seq} {direction:?}",
            session.state,
            session.next
        );
        assert!(is_exact || after == session.state, "an inexact reset changes nothing");
    }
}

pub fn flags(packet: &Packet) -> u8 {
    packet.frame(|frame| frame.segment()[13])
}

fn segment(packet: &Packet) -> Segment {
    packet.frame(|frame| {
        let bytes = frame.segment();
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Segment { flags: bytes[13], seq: word(4), ack: word(8), len: frame.payload().len() }
    })
}

/// Whether this is a connection's.
pub fn is_tcp(tuple: &Tuple) -> bool {
    tuple.protocol == TCP
}
