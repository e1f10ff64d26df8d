//! The gateway's own names: one module of examples, one of laws. Queries are built, and answers read, by another DNS
//! library than the one that the crate uses.

mod examples;
mod laws;

use std::fmt::Display;
use std::str::FromStr;

use domain::base::iana::{Class, Rtype};
use domain::base::message::RecordSection;
use domain::base::{Header, Message, MessageBuilder, Name};
use domain::dep::octseq::OctetsBuilder;
use domain::rdata::AllRecordData;
use tapswitch_names::{Answer, Names, answer};

const GATEWAY: &str = "10.88.0.1";
const HOST: &str = "host.tapswitch.internal.";

/// The names of a network; `host` tells whether a port of the host is open.
fn names(gateway: &str, host: bool) -> Names {
    Names::new(gateway.parse().expect("an address"), host, true)
}

/// A message with one question.
#[derive(Clone, Debug)]
struct Query {
    name: String,
    kind: Rtype,
    class: Class,
    header: Header,
    opt: Option<Opt>,
}

/// An OPT record.
#[derive(Clone, Debug)]
struct Opt {
    size: u16,
    version: u8,
    dnssec_ok: bool,
    options: Vec<(u16, Vec<u8>)>,
}

impl Query {
    /// A query as a stub resolver sends it.
    fn new(name: &str, kind: Rtype) -> Query {
        let mut header = Header::new();
        header.set_id(0x1234);
        header.set_rd(true);
        Query { name: name.into(), kind, class: Class::IN, header, opt: None }
    }

    /// The message, with this question as often as said.
    fn times(&self, questions: usize) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        *builder.header_mut() = self.header;
        let name = Name::<Vec<u8>>::from_str(&self.name).expect("a name");
        let mut builder = builder.question();
        for _ in 0..questions {
            builder.push((&name, self.kind, self.class)).expect("room");
        }
        let mut builder = builder.additional();
        if let Some(opt) = &self.opt {
            let write = builder.opt(|record| {
                record.set_udp_payload_size(opt.size);
                record.set_version(opt.version);
                record.set_dnssec_ok(opt.dnssec_ok);
                for (code, data) in &opt.options {
                    let len = u16::try_from(data.len()).expect("a short option");
                    record.push_raw_option((*code).into(), len, |target| target.append_slice(data))?;
                }
                Ok(())
            });
            write.expect("room");
        }
        builder.finish()
    }

    fn bytes(&self) -> Vec<u8> {
        self.times(1)
    }
}

/// The answer, if there is one.
fn ask(names: &Names, query: &[u8]) -> Option<Vec<u8>> {
    // What was in there before does not matter.
    let mut out = vec![0xee; 3];
    match answer(query, names, &mut out) {
        Answer::Answered => Some(out),
        Answer::NotOurs => {
            assert!(out.is_empty(), "no answer, but {} bytes of one", out.len());
            None
        }
    }
}

/// An answer as people write it: the code, and a line for each record.
#[derive(PartialEq, Eq, Debug)]
struct Reply {
    code: String,
    answers: Vec<String>,
    authority: Vec<String>,
}

impl Reply {
    /// Reads a whole message; panics if it is not well formed.
    fn read(message: &[u8]) -> Reply {
        let message = Message::from_slice(message).expect("a header");
        message.sole_question().expect("a question");
        let mut additional = message.additional().expect("well-formed sections");
        assert!(additional.all(|record| record.is_ok()), "a broken record");
        assert_eq!(additional.pos(), message.as_slice().len(), "something behind the end");
        Reply {
            code: message.opt_rcode().to_string(),
            answers: lines(message.answer().expect("a section")),
            authority: lines(message.authority().expect("a section")),
        }
    }

    /// What is written when there is nothing, and for how long that holds.
    fn nothing(code: impl Display, zone: &str) -> Reply {
        let names = "gateway.tapswitch.internal. hostmaster.tapswitch.internal.";
        let soa = format!("{zone} 60 IN SOA {names} 1 3600 3600 86400 60");
        Reply { code: code.to_string(), answers: vec![], authority: vec![soa] }
    }

    fn record(record: &str) -> Reply {
        Reply { code: "NOERROR".into(), answers: vec![record.into()], authority: vec![] }
    }
}

fn lines(section: RecordSection<'_, [u8]>) -> Vec<String> {
    let records = section.limit_to::<AllRecordData<_, _>>().map(|record| record.expect("a record"));
    let line = |record: String| record.split_whitespace().collect::<Vec<_>>().join(" ");
    records.map(|record| line(record.to_string())).collect()
}
