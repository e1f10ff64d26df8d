//! From words to questions.
//!
//! The grammar is tcpdump's: an operand is a primitive, a parenthesis, or a bare value that takes the qualifiers of the
//! primitive before it. Only a parenthesis makes the parser call itself, and how deep those go is bounded.

use tapswitch_wire::{ethertype, protocol};

use crate::ast::{Dir, Family, Layer, Op, Primitive, SCTP};
use crate::error::{FilterError, nearest};
use crate::token::{Kind, Token, tokens};
use crate::value::{Head, meant_by, read_number};
use crate::{MAX_NESTING, MAX_TESTS};

/// What a primitive begins with, or what qualifies it: for suggestions, and to tell a keyword from a value.
pub(crate) const KEYWORDS: &[&str] = &[
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "ether",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "proto",
    "broadcast",
    "multicast",
    "vlan",
    "less",
    "greater",
    "container",
    "drop",
    "reason",
    "flow",
];

/// What is expected where an operand should begin.
const OPERAND: &[&str] =
    &["a primitive such as 'host', 'net', 'port', 'tcp', 'arp', 'container' or 'drop'", "'not'", "'('"];

/// Parses an expression into postfix order. An empty one is an empty list.
pub(crate) fn parse(text: &str) -> Result<Vec<Op>, FilterError> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, ops: Vec::new(), tests: 0, depth: 0 };
    if parser.peek().kind == Kind::End {
        return Ok(Vec::new());
    }
    parser.expression(None, false)?;
    match parser.peek().kind {
        Kind::End => Ok(parser.ops),
        _ => Err(parser.not_joined("the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    ops: Vec<Op>,
    tests: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.peek_behind(0)
    }

    fn peek_behind(&self, tokens: usize) -> Token<'a> {
        let end = Token { kind: Kind::End, at: self.text.len(), len: 0 };
        self.tokens.get(self.next + tokens).copied().unwrap_or(end)
    }

    /// Takes the next token if it is this word.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().kind == Kind::Word(word);
        self.next += usize::from(found);
        found
    }

    /// Says that the next token is none of what is expected.
    fn unexpected(&self, expected: &[&str]) -> FilterError {
        let Token { at, len, .. } = self.peek();
        FilterError::at(self.text, at, len, expected)
    }

    /// Says that the next token neither joins the expression nor ends it.
    fn not_joined(&self, end: &str) -> FilterError {
        let error = self.unexpected(&["'and'", "'or'", end]);
        match self.peek().kind {
            Kind::Word(word) if KEYWORDS.contains(&word) => error.meant(Some(format!("and {word}"))),
            Kind::Word(word) => error.meant(nearest(word, ["and", "or"]).map(str::to_owned)),
            Kind::Not => error.meant(Some("and not".to_owned())),
            _ => error,
        }
    }

    /// Operands joined by `and` and `or`, which bind alike and from the left. With `values_only` they are values of
    /// `head`; otherwise primitives may begin, and `head` is what a bare value takes its qualifiers from.
    fn expression(&mut self, head: Option<Head>, values_only: bool) -> Result<(), FilterError> {
        let mut head = self.operand(head, values_only)?;
        loop {
            let op = match self.peek().kind {
                Kind::And => Op::And,
                Kind::Or => Op::Or,
                _ => return Ok(()),
            };
            self.next += 1;
            head = self.operand(head, values_only)?;
            self.ops.push(op);
        }
    }

    /// One operand. Returns what a bare value behind it takes its qualifiers from.
    fn operand(&mut self, head: Option<Head>, values_only: bool) -> Result<Option<Head>, FilterError> {
        let mut negated = false;
        while self.peek().kind == Kind::Not {
            self.next += 1;
            negated = !negated;
        }
        let next = match (self.peek().kind, head) {
            (Kind::Open, _) => {
                self.parenthesis(head, values_only)?;
                head
            }
            (Kind::Word(word), _) if !values_only && KEYWORDS.contains(&word) => self.primitive(word)?,
            (Kind::Word(word) | Kind::Escaped(word), Some(of)) => {
                // What may be meant by a value that this one is not: another primitive, unless none may begin here.
                self.value(of, word, !values_only)?;
                head
            }
            (Kind::Word(word), None) => return Err(self.unexpected(OPERAND).meant(meant_by(word))),
            (_, Some(of)) if values_only => return Err(self.unexpected(of.expected())),
            _ => return Err(self.unexpected(OPERAND)),
        };
        if negated {
            // What was negated within its parentheses already is meant as it stood there.
            match self.ops.last() {
                Some(Op::Not) => drop(self.ops.pop()),
                _ => self.ops.push(Op::Not),
            }
        }
        Ok(next)
    }

    fn parenthesis(&mut self, head: Option<Head>, values_only: bool) -> Result<(), FilterError> {
        if self.depth == MAX_NESTING {
            let most = format!("at most {MAX_NESTING} of them within one another");
            return Err(self.unexpected(&[&most]).found("one parenthesis too many".to_owned()));
        }
        self.depth += 1;
        self.next += 1;
        self.expression(head, values_only)?;
        if self.peek().kind != Kind::Close {
            return Err(self.not_joined("')'"));
        }
        self.next += 1;
        self.depth -= 1;
        Ok(())
    }

    fn ask(&mut self, primitive: Primitive) -> Result<(), FilterError> {
        if self.tests == MAX_TESTS {
            let Token { at, .. } = self.tokens[self.next.saturating_sub(1)];
            let error = FilterError::at(self.text, at, 1, &[&format!("at most {MAX_TESTS}")]);
            return Err(error.found("one primitive too many".to_owned()));
        }
        self.tests += 1;
        self.ops.push(Op::Ask(primitive));
        Ok(())
    }

    /// The next token as a value of `head`.
    fn value(&mut self, head: Head, word: &str, may_be_other: bool) -> Result<(), FilterError> {
        match head.value(word) {
            Ok(primitive) => {
                self.next += 1;
                self.ask(primitive)
            }
            Err(wrong) => {
                let other = || if may_be_other { nearest(word, KEYWORDS.iter().copied()) } else { None };
                let meant = wrong.meant.or_else(|| other().map(str::to_owned));
                Err(self.unexpected(wrong.expected).meant(meant))
            }
        }
    }

    /// A primitive that begins with a keyword, which is the next token.
    fn primitive(&mut self, word: &str) -> Result<Option<Head>, FilterError> {
        let head = match word {
            "ether" => self.ether()?,
            "ip" => self.network(Layer::Ip)?,
            "ip6" => self.network(Layer::Ip6)?,
            "arp" => self.network(Layer::Arp)?,
            "tcp" => self.transport(protocol::TCP)?,
            "udp" => self.transport(protocol::UDP)?,
            "sctp" => self.transport(SCTP)?,
            "src" | "dst" | "host" | "net" | "port" | "portrange" | "proto" | "container" | "reason" | "flow" => {
                Some(self.unqualified()?)
            }
            _ => {
                self.next += 1;
                let primitive = match word {
                    "icmp" => Primitive::Protocol { family: Some(Family::V4), number: protocol::ICMP },
                    "icmp6" => Primitive::Protocol { family: Some(Family::V6), number: protocol::ICMPV6 },
                    "broadcast" => Primitive::EtherBroadcast,
                    "multicast" => Primitive::EtherMulticast,
                    "vlan" => Primitive::Vlan(self.vlan()?),
                    "less" => Primitive::Less(self.bytes()?),
                    "greater" => Primitive::Greater(self.bytes()?),
                    "drop" => Primitive::Drop,
                    _ => {
                        self.next -= 1;
                        return Err(self.unexpected(OPERAND));
                    }
                };
                self.ask(primitive)?;
                None
            }
        };
        if head.is_some() {
            // One value, or several in parentheses.
            self.operand(head, true)?;
        }
        Ok(head)
    }

    /// `src`, `dst`, and both joined.
    fn dir(&mut self) -> Option<Dir> {
        let (dir, other) = match self.peek().kind {
            Kind::Word("src") => (Dir::Src, "dst"),
            Kind::Word("dst") => (Dir::Dst, "src"),
            _ => return None,
        };
        self.next += 1;
        let joined = match (self.peek().kind, self.peek_behind(1).kind) {
            (Kind::Or, Kind::Word(word)) if word == other => Dir::Either,
            (Kind::And, Kind::Word(word)) if word == other => Dir::Both,
            _ => return Some(dir),
        };
        self.next += 2;
        Some(joined)
    }

    fn ether(&mut self) -> Result<Option<Head>, FilterError> {
        self.next += 1;
        if let Some(dir) = self.dir() {
            self.take("host");
            return Ok(Some(Head::Mac(dir)));
        }
        if self.take("host") {
            return Ok(Some(Head::Mac(Dir::Either)));
        }
        if self.take("proto") {
            return Ok(Some(Head::EtherType));
        }
        let primitive = match () {
            () if self.take("broadcast") => Primitive::EtherBroadcast,
            () if self.take("multicast") => Primitive::EtherMulticast,
            () => {
                let error = self.unexpected(&["'src'", "'dst'", "'host'", "'proto'", "'broadcast'", "'multicast'"]);
                return Err(error);
            }
        };
        self.ask(primitive).map(|()| None)
    }

    fn network(&mut self, layer: Layer) -> Result<Option<Head>, FilterError> {
        self.next += 1;
        if let Some(dir) = self.dir() {
            let net = self.take("net");
            if !net {
                self.take("host");
            }
            return Ok(Some(Head::Address { dir, layer: Some(layer), net }));
        }
        for (word, net) in [("host", false), ("net", true)] {
            if self.take(word) {
                return Ok(Some(Head::Address { dir: Dir::Either, layer: Some(layer), net }));
            }
        }
        let family = match layer {
            Layer::Ip => Some((Family::V4, ethertype::IPV4)),
            Layer::Ip6 => Some((Family::V6, ethertype::IPV6)),
            Layer::Arp => None,
        };
        let primitive = match family {
            Some((family, _)) if self.take("proto") => return Ok(Some(Head::Protocol { family: Some(family) })),
            Some((Family::V4, _)) if self.take("broadcast") => Primitive::IpBroadcast,
            Some((family, _)) if self.take("multicast") => Primitive::IpMulticast(family),
            Some((_, number)) => Primitive::EtherType(number),
            None => Primitive::EtherType(ethertype::ARP),
        };
        self.ask(primitive).map(|()| None)
    }

    fn transport(&mut self, number: u8) -> Result<Option<Head>, FilterError> {
        self.next += 1;
        let dir = self.dir();
        for (word, range) in [("port", false), ("portrange", true)] {
            if self.take(word) {
                let dir = dir.unwrap_or_default();
                return Ok(Some(Head::Port { dir, protocol: Some(number), range }));
            }
        }
        match dir {
            Some(_) => Err(self.unexpected(&["'port'", "'portrange'"])),
            None => self.ask(Primitive::Protocol { family: None, number }).map(|()| None),
        }
    }

    /// Qualifiers without a protocol in front.
    fn unqualified(&mut self) -> Result<Head, FilterError> {
        let dir = self.dir();
        let (Kind::Word(word), some_dir) = (self.peek().kind, dir.unwrap_or_default()) else {
            // Only a direction: the value of a host follows, in parentheses perhaps.
            return Ok(Head::Address { dir: dir.unwrap_or_default(), layer: None, net: false });
        };
        let head = match word {
            "host" => Head::Address { dir: some_dir, layer: None, net: false },
            "net" => Head::Address { dir: some_dir, layer: None, net: true },
            "port" => Head::Port { dir: some_dir, protocol: None, range: false },
            "portrange" => Head::Port { dir: some_dir, protocol: None, range: true },
            "container" => Head::Container(some_dir),
            "proto" if dir.is_none() => Head::Protocol { family: None },
            "reason" if dir.is_none() => Head::Reason,
            "flow" if dir.is_none() => Head::Flow,
            _ => return Ok(Head::Address { dir: some_dir, layer: None, net: false }),
        };
        self.next += 1;
        Ok(head)
    }

    /// The VLAN identifier behind `vlan`, if there is one.
    fn vlan(&mut self) -> Result<Option<u16>, FilterError> {
        let Kind::Word(word) = self.peek().kind else { return Ok(None) };
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        match read_number(word).and_then(|number| u16::try_from(number).ok()).filter(|vid| *vid <= 4095) {
            Some(vid) => {
                self.next += 1;
                Ok(Some(vid))
            }
            None => Err(self.unexpected(&["a VLAN identifier from 0 to 4095"])),
        }
    }

    /// The length behind `less` and `greater`.
    fn bytes(&mut self) -> Result<u32, FilterError> {
        let number = match self.peek().kind {
            Kind::Word(word) => read_number(word).and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        self.next += usize::from(number.is_some());
        number.ok_or_else(|| self.unexpected(&["a number of bytes"]))
    }
}
