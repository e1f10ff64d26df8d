//! A filter as it runs: one loop over a short list of instructions.
//!
//! The instructions are the expression in postfix order, with a jump before each right operand that is not needed when
//! the left one has settled the matter. An answer is two bits, *surely yes* and *surely no*; neither means that it is
//! not known yet. The stack of answers is therefore two numbers, each with one bit for every pending answer, and the
//! three-valued logic is a handful of bit operations. Only a right operand in parentheses makes the stack grow, so its
//! height is bounded by [`MAX_NESTING`].

use std::net::IpAddr;
use std::ops::Deref;

use tapswitch_wire::{DropReason, FrameOf, L3, L4, Mac, PortId, Verdict, ethertype};

use crate::ast::{Dir, Family, Layer, Op, Primitive, SCTP};
use crate::value::{mask4, mask6};
use crate::{MAX_NESTING, Outcome, Seen, Tri};

// One left operand may wait for each parenthesis, one outside of all, and the last one is being judged.
const _: () = assert!(MAX_NESTING + 2 <= u128::BITS as usize);

/// A primitive, ready to be compared with a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    Ipv4 { dir: Dir, ip: bool, arp: bool, net: u32, mask: u32 },
    Ipv6 { dir: Dir, net: u128, mask: u128 },
    Port { dir: Dir, protocol: Option<u8>, first: u16, last: u16 },
    Mac { dir: Dir, mac: Mac },
    EtherType(u16),
    Protocol { family: Option<Family>, number: u8 },
    EtherBroadcast,
    EtherMulticast,
    IpBroadcast,
    IpMulticast(Family),
    Vlan(Option<u16>),
    Less(u32),
    Greater(u32),
    Container { dir: Dir, ports: Box<[PortId]> },
    Drop,
    Reason(DropReason),
    Flow(u64),
}

/// One instruction. Jumps go forward only.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Code {
    Ask(Test),
    Not,
    And,
    Or,
    /// If the last answer is surely no, on with the instruction of this index.
    IfNo(usize),
    /// If the last answer is surely yes, on with the instruction of this index.
    IfYes(usize),
}

/// The instructions of a filter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Program {
    code: Box<[Code]>,
}

/// Answers that still wait for an operator; the lowest bit is the last one's.
#[derive(Default)]
struct Answers {
    yes: u128,
    no: u128,
}

impl Answers {
    fn push(&mut self, answer: Tri) {
        self.yes = self.yes << 1 | u128::from(answer == Tri::Yes);
        self.no = self.no << 1 | u128::from(answer == Tri::No);
    }

    fn pop(&mut self) -> (u128, u128) {
        let last = (self.yes & 1, self.no & 1);
        self.yes >>= 1;
        self.no >>= 1;
        last
    }

    fn not(&mut self) {
        let (yes, no) = self.pop();
        self.yes = self.yes << 1 | no;
        self.no = self.no << 1 | yes;
    }

    fn and(&mut self) {
        let (yes, no) = self.pop();
        self.yes &= !1 | yes;
        self.no |= no;
    }

    fn or(&mut self) {
        let (yes, no) = self.pop();
        self.yes |= yes;
        self.no &= !1 | no;
    }

    fn last(&self) -> Tri {
        match (self.yes & 1, self.no & 1) {
            (0, 0) => Tri::Later,
            (0, _) => Tri::No,
            _ => Tri::Yes,
        }
    }
}

impl Program {
    /// Compiles an expression. `ports` gives the ports of a container.
    ///
    /// # Errors
    /// What `ports` says.
    pub fn compile<E>(ops: &[Op], ports: &mut impl FnMut(&str) -> Result<Vec<PortId>, E>) -> Result<Self, E> {
        // Where the right operand of each operator begins; no two begin at the same place.
        let mut right_of = vec![None; ops.len()];
        let mut begins = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            match op {
                Op::Ask(_) => begins.push(at),
                Op::Not => {}
                Op::And | Op::Or => {
                    if let Some(begin) = begins.pop() {
                        right_of[begin] = Some(at);
                    }
                }
            }
        }
        let mut code = Vec::with_capacity(2 * ops.len());
        let mut jump_of = vec![None; ops.len()];
        for (at, op) in ops.iter().enumerate() {
            if let Some(operator) = right_of[at] {
                jump_of[operator] = Some(code.len());
                code.push(if ops[operator] == Op::And { Code::IfNo(0) } else { Code::IfYes(0) });
            }
            code.push(match op {
                Op::Ask(primitive) => Code::Ask(Test::compile(primitive, ports)?),
                Op::Not => Code::Not,
                Op::And => Code::And,
                Op::Or => Code::Or,
            });
            if let Some(jump) = jump_of[at] {
                let behind = code.len();
                match &mut code[jump] {
                    Code::IfNo(target) | Code::IfYes(target) => *target = behind,
                    _ => {}
                }
            }
        }
        // A jump that meets another of its kind goes where that one goes. From the end, so that each is final.
        for at in (0..code.len()).rev() {
            let next = |target: usize| code.get(target).cloned();
            code[at] = match code[at].clone() {
                Code::IfNo(target) => match next(target) {
                    Some(Code::IfNo(further)) => Code::IfNo(further),
                    _ => Code::IfNo(target),
                },
                Code::IfYes(target) => match next(target) {
                    Some(Code::IfYes(further)) => Code::IfYes(further),
                    _ => Code::IfYes(target),
                },
                other => other,
            };
        }
        Ok(Program { code: code.into() })
    }

    /// Whether anything is asked that only the outcome tells.
    pub fn needs_outcome(&self) -> bool {
        self.code.iter().any(|code| match code {
            Code::Ask(Test::Container { dir, .. }) => *dir != Dir::Src,
            Code::Ask(Test::Drop | Test::Reason(_) | Test::Flow(_)) => true,
            _ => false,
        })
    }

    /// Asks for a frame. Without an outcome, what only that tells is [`Tri::Later`].
    pub fn run<B>(&self, frame: &FrameOf<B>, seen: &Seen, outcome: Option<&Outcome<'_>>) -> Tri
    where
        B: Deref<Target = [u8]>,
    {
        let mut answers = Answers::default();
        // An empty filter takes everything.
        if self.code.is_empty() {
            return Tri::Yes;
        }
        let mut at = 0;
        while let Some(code) = self.code.get(at) {
            at += 1;
            match code {
                Code::Ask(test) => answers.push(test.ask(frame, seen, outcome)),
                Code::Not => answers.not(),
                Code::And => answers.and(),
                Code::Or => answers.or(),
                Code::IfNo(target) if answers.last() == Tri::No => at = *target,
                Code::IfYes(target) if answers.last() == Tri::Yes => at = *target,
                Code::IfNo(_) | Code::IfYes(_) => {}
            }
        }
        answers.last()
    }
}

impl Test {
    fn compile<E>(primitive: &Primitive, ports: &mut impl FnMut(&str) -> Result<Vec<PortId>, E>) -> Result<Self, E> {
        Ok(match *primitive {
            Primitive::Address { dir, layer, net: IpAddr::V4(net), len } => Test::Ipv4 {
                dir,
                ip: layer != Some(Layer::Arp),
                arp: layer != Some(Layer::Ip),
                net: net.to_bits(),
                mask: mask4(len),
            },
            Primitive::Address { dir, net: IpAddr::V6(net), len, .. } => {
                Test::Ipv6 { dir, net: net.to_bits(), mask: mask6(len) }
            }
            Primitive::Port { dir, protocol, first, last } => Test::Port { dir, protocol, first, last },
            Primitive::Mac { dir, mac } => Test::Mac { dir, mac },
            Primitive::EtherType(number) => Test::EtherType(number),
            Primitive::Protocol { family, number } => Test::Protocol { family, number },
            Primitive::EtherBroadcast => Test::EtherBroadcast,
            Primitive::EtherMulticast => Test::EtherMulticast,
            Primitive::IpBroadcast => Test::IpBroadcast,
            Primitive::IpMulticast(family) => Test::IpMulticast(family),
            Primitive::Vlan(vid) => Test::Vlan(vid),
            Primitive::Less(len) => Test::Less(len),
            Primitive::Greater(len) => Test::Greater(len),
            Primitive::Container { dir, ref name } => Test::Container { dir, ports: ports(name)?.into() },
            Primitive::Drop => Test::Drop,
            Primitive::Reason(reason) => Test::Reason(reason),
            Primitive::Flow(id) => Test::Flow(id),
        })
    }

    fn ask<B>(&self, frame: &FrameOf<B>, seen: &Seen, outcome: Option<&Outcome<'_>>) -> Tri
    where
        B: Deref<Target = [u8]>,
    {
        let parsed = frame.parsed();
        let answer = match self {
            Test::Ipv4 { dir, ip, arp, net, mask } => ipv4_addresses(frame, *ip, *arp)
                .is_some_and(|[src, dst]| dir.of(src & mask == *net, dst & mask == *net)),
            Test::Ipv6 { dir, net, mask } => match (frame.src_ip(), frame.dst_ip()) {
                (Some(IpAddr::V6(src)), Some(IpAddr::V6(dst))) => {
                    dir.of(src.to_bits() & mask == *net, dst.to_bits() & mask == *net)
                }
                _ => false,
            },
            Test::Port { dir, protocol, first, last } => match ports(frame) {
                Some((number, [src, dst])) => {
                    let range = *first..=*last;
                    protocol.is_none_or(|protocol| protocol == number)
                        && dir.of(range.contains(&src), range.contains(&dst))
                }
                None => false,
            },
            Test::Mac { dir, mac } => dir.of(frame.src_mac() == *mac, frame.dst_mac() == *mac),
            Test::EtherType(number) => {
                // Behind all tags, and in front of them: the type of a tag is an EtherType too.
                parsed.ethertype == *number || frame.bytes()[12..14] == number.to_be_bytes()
            }
            Test::Protocol { family, number } => match parsed.l3 {
                L3::Ipv4 => *family != Some(Family::V6) && parsed.protocol == *number,
                // Behind all extension headers, or the first of them.
                L3::Ipv6 => *family != Some(Family::V4) && (parsed.protocol == *number || frame.packet()[6] == *number),
                L3::Arp | L3::Other | L3::Malformed(_) => false,
            },
            Test::EtherBroadcast => frame.dst_mac().is_broadcast(),
            Test::EtherMulticast => frame.dst_mac().is_multicast(),
            Test::IpBroadcast => ipv4_addresses(frame, true, false).is_some_and(|[_, dst]| dst == 0 || dst == u32::MAX),
            Test::IpMulticast(Family::V4) => {
                ipv4_addresses(frame, true, false).is_some_and(|[_, dst]| dst >> 24 >= 224)
            }
            Test::IpMulticast(Family::V6) => {
                matches!(frame.dst_ip(), Some(IpAddr::V6(dst)) if dst.is_multicast())
            }
            Test::Vlan(vid) => parsed.vlan.is_some_and(|tag| vid.is_none_or(|vid| vid == tag.vid())),
            Test::Less(len) => frame.bytes().len() <= *len as usize,
            Test::Greater(len) => frame.bytes().len() >= *len as usize,
            Test::Container { dir, ports } => {
                let src = ports.contains(&seen.port);
                let dst = || later(outcome, |outcome| outcome.out.iter().any(|port| ports.contains(port)));
                return match (dir, src) {
                    (Dir::Either, true) => Tri::Yes,
                    (Dir::Both, false) => Tri::No,
                    (Dir::Src, src) => src.into(),
                    (Dir::Either | Dir::Both | Dir::Dst, _) => dst(),
                };
            }
            Test::Drop => return later(outcome, |outcome| matches!(outcome.verdict, Verdict::Drop(_))),
            Test::Reason(reason) => return later(outcome, |outcome| outcome.verdict == Verdict::Drop(*reason)),
            Test::Flow(id) => return later(outcome, |outcome| outcome.flow == Some(*id)),
        };
        answer.into()
    }
}

/// The answer that the outcome gives.
fn later(outcome: Option<&Outcome<'_>>, ask: impl FnOnce(&Outcome<'_>) -> bool) -> Tri {
    outcome.map_or(Tri::Later, |outcome| ask(outcome).into())
}

/// Source and destination of an IPv4 packet, or sender and target of an ARP packet that speaks of IPv4 on Ethernet
/// (RFC 826: protocol 0x0800, addresses of six and four bytes), as far as they are wanted.
fn ipv4_addresses<B: Deref<Target = [u8]>>(frame: &FrameOf<B>, ip: bool, arp: bool) -> Option<[u32; 2]> {
    let packet = frame.packet();
    let [src, dst] = match frame.parsed().l3 {
        L3::Ipv4 if ip => [12, 16],
        L3::Arp if arp => {
            let [[a, b], [hardware, address]] =
                [[*packet.get(2)?, *packet.get(3)?], [*packet.get(4)?, *packet.get(5)?]];
            if u16::from_be_bytes([a, b]) != ethertype::IPV4 || hardware != 6 || address != 4 {
                return None;
            }
            [14, 24]
        }
        _ => return None,
    };
    let word = |at: usize| packet.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    Some([word(src)?, word(dst)?])
}

/// The transport protocol and its ports. There are none in a fragment other than the first, nor in a header that is cut
/// short.
fn ports<B: Deref<Target = [u8]>>(frame: &FrameOf<B>) -> Option<(u8, [u16; 2])> {
    let parsed = frame.parsed();
    let header: [u8; 4] = match parsed.l4 {
        L4::Tcp | L4::Udp => *frame.segment().first_chunk()?,
        L4::Other if parsed.protocol == SCTP => *frame.segment().first_chunk()?,
        _ => return None,
    };
    let [a, b, c, d] = header;
    Some((parsed.protocol, [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]))
}
