//! A query, as far as we answer it. Read piece by piece, so that what is not ours is left early, and nothing is logged.

use hickory_proto::op::{Header, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// One question, and what of its message matters for the answer.
pub(crate) struct Asked {
    pub id: u16,
    pub recursion_desired: bool,
    pub checking_disabled: bool,
    pub question: Query,
    /// Where in the message the question ends.
    pub end: usize,
    pub opt: Option<Opt>,
}

/// What an OPT record asks for (RFC 6891 section 6.1).
pub(crate) struct Opt {
    pub version: u8,
    pub dnssec_ok: bool,
}

impl Asked {
    /// Reads a standard query with one question and at most an OPT record; nothing for any other message.
    pub fn parse(message: &[u8]) -> Option<Asked> {
        let mut decoder = BinDecoder::new(message);
        let Header { metadata, counts } = Header::read(&mut decoder).ok()?;
        let query = metadata.message_type == MessageType::Query && metadata.op_code == OpCode::Query;
        let plain = query && !metadata.truncation;
        if !plain || (counts.queries, counts.answers, counts.authorities) != (1, 0, 0) || counts.additionals > 1 {
            return None;
        }
        let question = Query::read(&mut decoder).ok()?;
        if !matches!(question.query_class, DNSClass::IN | DNSClass::ANY) {
            return None;
        }
        let end = decoder.index();
        let opt = match counts.additionals {
            0 => None,
            _ => Some(Opt::read(&mut decoder)?),
        };
        decoder.is_empty().then_some(Asked {
            id: metadata.id,
            recursion_desired: metadata.recursion_desired,
            checking_disabled: metadata.checking_disabled,
            question,
            end,
            opt,
        })
    }
}

impl Opt {
    /// Reads the record. Options are passed over, but have to be whole: we know none, and answer none.
    fn read(decoder: &mut BinDecoder<'_>) -> Option<Opt> {
        let owner = Name::read(decoder).ok()?;
        if !owner.is_root() || RecordType::read(decoder).ok()? != RecordType::OPT {
            return None;
        }
        // The size of datagrams that the client takes is at least 512, which is enough for any answer of ours.
        let _payload = decoder.read_u16().ok()?;
        let ttl = decoder.read_u32().ok()?.unverified();
        let mut options = BinDecoder::new(take(decoder)?);
        while !options.is_empty() {
            let _code = options.read_u16().ok()?;
            take(&mut options)?;
        }
        let [_extended_code, version, flags, _] = ttl.to_be_bytes();
        Some(Opt { version, dnssec_ok: flags & 0x80 != 0 })
    }
}

/// Bytes that stand behind their number.
fn take<'m>(decoder: &mut BinDecoder<'m>) -> Option<&'m [u8]> {
    let len = decoder.read_u16().ok()?.unverified();
    Some(decoder.read_slice(usize::from(len)).ok()?.unverified())
}
