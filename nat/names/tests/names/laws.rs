//! What holds for every message.

use domain::base::iana::{OptRcode, Rtype};
use domain::base::{Header, Message};
use proptest::prelude::*;

use super::{GATEWAY, Opt, Query, Reply, ask, names};

/// The most that any client takes (RFC 1035 section 4.2.1).
const SMALLEST: usize = 512;

/// Names that are ours, that nearly are, and long ones.
fn any_name() -> impl Strategy<Value = String> {
    let tail = prop::sample::select(vec![
        "tapswitch.internal.",
        "TAPSWITCH.Internal.",
        "host.tapswitch.internal.",
        "hOsT.tapswitch.internal.",
        "gateway.tapswitch.internal.",
        "1.0.88.10.in-addr.arpa.",
        "internal.",
        "example.com.",
    ]);
    let labels = prop_oneof![3 => Just(vec![]), 2 => prop::collection::vec("[a-zA-Z0-9_-]{1,63}", 1..5)];
    (labels, tail).prop_map(|(labels, tail)| {
        let fits = |name: String, label: &String| match name.len() + label.len() < 253 {
            true => format!("{label}.{name}"),
            false => name,
        };
        labels.iter().fold(tail.to_owned(), fits)
    })
}

fn any_type() -> impl Strategy<Value = Rtype> {
    let number = prop_oneof![Just(1), Just(28), Just(12), Just(6), 0..=300_u16, any::<u16>()];
    number.prop_map(Rtype::from_int)
}

prop_compose! {
    fn any_opt()(
        size in any::<u16>(),
        version in prop_oneof![4 => Just(0), 1 => any::<u8>()],
        dnssec_ok in any::<bool>(),
        options in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..3),
    ) -> Opt {
        Opt { size, version, dnssec_ok, options }
    }
}

prop_compose! {
    /// A query that a client might send.
    fn any_query()(
        name in any_name(),
        kind in any_type(),
        id in any::<u16>(),
        opt in prop::option::of(any_opt()),
        (rd, cd, ad) in any::<(bool, bool, bool)>(),
    ) -> Query {
        let mut header = Header::new();
        header.set_id(id);
        header.set_rd(rd);
        header.set_cd(cd);
        header.set_ad(ad);
        Query { header, opt, ..Query::new(&name, kind) }
    }
}

/// What every answer must be, whatever was asked.
fn check(query: &[u8], reply: &[u8]) -> Result<(), TestCaseError> {
    prop_assert!(reply.len() <= SMALLEST, "{} bytes", reply.len());
    let read = Reply::read(reply);
    let (query, reply) = (Message::from_slice(query).unwrap(), Message::from_slice(reply).unwrap());
    let (asked, said) = (query.header(), reply.header());
    prop_assert_eq!(
        (said.id(), said.opcode(), said.rd(), said.cd()),
        (asked.id(), asked.opcode(), asked.rd(), asked.cd())
    );
    prop_assert!(said.qr() && said.ra() && !said.tc() && !said.z() && !said.ad());
    let end = reply.question().answer().unwrap().pos();
    prop_assert_eq!(&reply.as_slice()[12..end], &query.as_slice()[12..end], "the question, byte for byte");
    match (query.opt(), reply.opt()) {
        (None, None) => {}
        (Some(asked), Some(said)) => {
            prop_assert_eq!((said.version(), said.dnssec_ok()), (0, asked.dnssec_ok()));
            prop_assert!(said.opt().is_empty());
            prop_assert_eq!(reply.opt_rcode() == OptRcode::BADVERS, asked.version() > 0);
        }
        _ => prop_assert!(false, "EDNS on one side only"),
    }
    let expected = match reply.opt_rcode() {
        OptRcode::BADVERS => vec![(0, 0, false)],
        OptRcode::NOERROR => vec![(1, 0, true), (0, 1, true)],
        OptRcode::NXDOMAIN => vec![(0, 1, true)],
        other => panic!("{other}"),
    };
    prop_assert!(expected.contains(&(read.answers.len(), read.authority.len(), said.aa())), "{:?}", read);
    Ok(())
}

/// Whether a name is in one of our zones, by its text.
fn is_ours(name: &str) -> bool {
    let name = format!(".{}", name.to_lowercase());
    name.ends_with(".tapswitch.internal.") || name.ends_with(".1.0.88.10.in-addr.arpa.")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_arrives_is_answered_well_or_left_alone(
        message in prop::collection::vec(any::<u8>(), 0..600), host in any::<bool>(),
    ) {
        if let Some(reply) = ask(&names(GATEWAY, host), &message) {
            check(&message, &reply)?;
        }
    }

    #[test]
    fn a_damaged_question_is_answered_well_or_left_alone(
        query in any_query(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut message = query.bytes();
        for (place, byte) in damage {
            let place = place.index(message.len());
            message[place] = byte;
        }
        if let Some(length) = length {
            message.truncate(length.index(message.len() + 1));
        }
        if let Some(reply) = ask(&names(GATEWAY, true), &message) {
            check(&message, &reply)?;
        }
    }

    #[test]
    fn exactly_our_names_are_answered_and_no_answer_is_answered(query in any_query(), host in any::<bool>()) {
        let names = names(GATEWAY, host);
        let message = query.bytes();
        let reply = ask(&names, &message);
        prop_assert_eq!(reply.is_some(), is_ours(&query.name));
        if let Some(reply) = reply {
            check(&message, &reply)?;
            prop_assert_eq!(ask(&names, &reply), None);
        }
    }
}
