//! The names that the gateway itself answers for: where a container finds the gateway, and the host behind it.
//!
//! # Theory of operation
//!
//! **Goal.** A container reaches ports of the host's loopback under the gateway's address, where rules open them. It
//! should not have to know that address: `host.tapswitch.internal` is it. Containers ask the gateway for names anyway,
//! so the answer is given there, before a question goes on to the host's resolver. [`answer`] takes one message and
//! gives one or none; it has no descriptor, clock or state.
//!
//! **Which questions.** A standard query with one question of class IN (or ANY), nothing else in it but an OPT record,
//! about a name of one of two small zones. Everything else is [`Answer::NotOurs`] and is left as it is: what is
//! malformed, truncated or signed, answers, other classes and operations, and every other name. The resolver has the
//! last word on those, so a mistake here can hide no name but ours.
//!
//! **What is there.** `internal` is set aside for private use, so nobody else can own `tapswitch.internal`.
//!
//! | name | answer |
//! |---|---|
//! | `host.tapswitch.internal` | the gateway's address, if a rule opens a port of the host; NXDOMAIN otherwise |
//! | `gateway.tapswitch.internal` | the gateway's address |
//! | the gateway's address, reversed (`1.0.88.10.in-addr.arpa`) | PTR: `gateway.tapswitch.internal` |
//! | anything else at or below `tapswitch.internal` or that reversed address | NXDOMAIN |
//!
//! A name that exists but has no record of the wanted type (AAAA, HTTPS, MX) is answered without records, so a program
//! that asks for A and AAAA at once waits for neither. Such answers and NXDOMAIN carry the zone's SOA record, which
//! says for how long they hold (RFC 2308 section 3). ANY is answered with what there is.
//!
//! **Header.** ID, opcode, RD, CD and the question, letter for letter, come from the query; AA is set, TC and AD never.
//! RA says what is true of the gateway's address: whether other questions go on to a resolver.
//!
//! **EDNS.** An OPT record is in the answer exactly if one is in the query, with version 0, the DO bit of the query
//! (RFC 3225 section 3) and no option; a version above 0 is answered BADVERS (RFC 6891 section 6.1.3).
//!
//! **Limits.** No answer is larger than 512 bytes, the least that any client takes. All times are [`TTL`]: what rules
//! allow may be different after the next start. Nothing here is signed; a container that validates DNSSEC by itself
//! believes the root's proof that `internal` does not exist, and has to be told of an exception.
//!
//! TCP is not answered here: a question that comes by TCP goes on to the resolver, which knows none of these names.
#![forbid(unsafe_code)]

mod question;
mod zone;

pub use zone::{Names, TTL};

use hickory_proto::op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, EncodedSize};

use question::Asked;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is none of our questions, and goes on as it is.
    NotOurs,
    /// The answer has been written.
    Answered,
}

/// Answers one DNS message (RFC 1035 section 4.1, as it stands in a UDP datagram), if it asks for one of our names.
/// `out` is emptied first, and holds the whole answer exactly if the result is [`Answer::Answered`].
pub fn answer(query: &[u8], names: &Names, out: &mut Vec<u8>) -> Answer {
    out.clear();
    let written = Asked::parse(query).and_then(|asked| {
        let reply = reply(&asked, names)?;
        reply.emit(&mut BinEncoder::new(out)).ok()?;
        // A question that was put together from pointers would come back in other bytes than it was sent in.
        let question = hickory_proto::op::Header::LEN..asked.end;
        (out.get(question.clone()) == query.get(question)).then_some(())
    });
    match written {
        Some(()) => Answer::Answered,
        None => {
            out.clear();
            Answer::NotOurs
        }
    }
}

/// The answer to a question about one of our zones.
fn reply(asked: &Asked, names: &Names) -> Option<Message> {
    let name = &asked.question.name;
    let zone = names.zone_of(name)?;
    let mut reply = Message::new(asked.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = asked.recursion_desired;
    reply.metadata.checking_disabled = asked.checking_disabled;
    reply.metadata.recursion_available = names.recursion();
    reply.metadata.authoritative = true;
    reply.add_query(asked.question.clone());
    if let Some(opt) = &asked.opt {
        let mut edns = Edns::new();
        edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN).set_dnssec_ok(opt.dnssec_ok);
        reply.set_edns(edns);
        if opt.version > 0 {
            reply.metadata.response_code = ResponseCode::BADVERS;
            // It is no statement about the name.
            reply.metadata.authoritative = false;
            return Some(reply);
        }
    }
    match names.look_up(name, asked.question.query_type) {
        Ok(Some(data)) => {
            reply.add_answer(Record::from_rdata(name.clone(), TTL, data));
            return Some(reply);
        }
        Ok(None) => {}
        Err(zone::NoSuchName) => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    reply.add_authority(Record::from_rdata(zone.clone(), TTL, names.soa()));
    Some(reply)
}
