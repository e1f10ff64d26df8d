//! What may happen, and to what kinds of translators.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_conntrack::{Config, Dependence, Forward, Limits, PortChoice, Protocol};

use crate::world::{OURS, TCP, UDP, forward};

/// What a packet of a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Data,
    SynAck,
    Fin,
    ExactReset,
    InexactReset,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A container sends to a host outside, or to an outside endpoint of ours.
    Out {
        from: u8,
        port: u8,
        to: u8,
        at: u8,
        protocol: Protocol,
    },
    /// A host outside sends to an outside endpoint.
    In {
        from: u8,
        port: u8,
        at: u8,
        protocol: Protocol,
    },
    /// A packet of a session goes on.
    Along {
        session: u8,
        reply: bool,
        what: What,
    },
    /// A packet from outside with an inside address, or ours, in a place where none can be.
    Forged {
        src: u8,
        dst: u8,
        at: u8,
    },
    /// An ICMP error about a packet of a session.
    Error {
        session: u8,
        reply: bool,
        quote: u16,
        from: u8,
        forged: u8,
    },
    Wait {
        tenths: u32,
    },
    Publish(u8),
    Unpublish(u8),
    Outside(u8),
    Remove(u8),
    Flush(u8),
}

/// The forwards that come and go. Some contradict each other; one has no owner among the containers that send.
pub fn forwards() -> [Forward; 7] {
    [
        forward(UDP, 2, 8080, 4000),
        forward(UDP, 2, 8081, 4000),
        forward(UDP, 3, 8080, 4001),
        forward(TCP, 2, 8080, 4000),
        Forward { bound: Some(OURS), ..forward(TCP, 3, 443, 4000) },
        // In the middle of a small pool.
        Forward { count: 2, ..forward(UDP, 4, 40_003, 4001) },
        Forward { count: 0, ..forward(UDP, 4, 1, 1) },
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Udp), 3 => Just(Protocol::Tcp), 1 => Just(Protocol::Icmp)]
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = select(vec![
        What::Data,
        What::Data,
        What::SynAck,
        What::SynAck,
        What::Fin,
        What::ExactReset,
        What::InexactReset,
    ]);
    let tenths = prop_oneof![6 => 0u32..20, 6 => 0u32..1_500, 2 => 2_300u32..3_100, 1 => 70_000u32..75_000];
    let step = prop_oneof![
        24 => (2u8..5, 0u8..3, 0u8..5, any::<u8>(), protocol())
            .prop_map(|(from, port, to, at, protocol)| Step::Out { from, port, to, at, protocol }),
        16 => (0u8..4, 0u8..2, any::<u8>(), protocol()).prop_map(|(from, port, at, protocol)| Step::In { from, port, at, protocol }),
        24 => (any::<u8>(), any::<bool>(), what).prop_map(|(session, reply, what)| Step::Along { session, reply, what }),
        3 => (2u8..5, 0u8..2, any::<u8>()).prop_map(|(src, dst, at)| Step::Forged { src, dst, at }),
        8 => (any::<u8>(), any::<bool>(), select(vec![0u16, 12, 600]), 0u8..4, select(vec![0u8, 0, 1, 2]))
            .prop_map(|(session, reply, quote, from, forged)| Step::Error { session, reply, quote, from, forged }),
        6 => tenths.prop_map(|tenths| Step::Wait { tenths }),
        3 => (0u8..7).prop_map(Step::Publish),
        2 => (0u8..7).prop_map(Step::Unpublish),
        1 => (0u8..3).prop_map(Step::Outside),
        1 => (2u8..5).prop_map(Step::Remove),
        1 => (2u8..5).prop_map(Step::Flush),
    ];
    vec(step, 1..120)
}

pub fn config() -> impl Strategy<Value = Config> {
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let class = || select(vec![EndpointIndependent, AddressDependent, AddressAndPortDependent]);
    let limits = prop_oneof![
        2 => Just(Limits::default()),
        1 => (1u32..12, 1u32..6, select(vec![2u32, 5, 1000]), 1u32..4).prop_map(
            |(sessions, owner_sessions, owner_rate, owner_ports)| Limits { sessions, owner_sessions, owner_rate, owner_ports }
        ),
    ];
    let range = prop_oneof![2 => Just(1024..=65_535), 2 => Just(40_000..=40_006), 1 => Just(32_764..=32_772), 1 => Just(3_998..=4_003)];
    let ports = select(vec![PortChoice::Random, PortChoice::Preserve]);
    let mode = (prop::bool::weighted(0.9), prop::bool::weighted(0.8), prop::bool::weighted(0.2));
    (class(), class(), ports, range, limits, mode).prop_map(|(mapping, filtering, ports, port_range, limits, mode)| {
        let (translate, hairpin, with_untranslated) = mode;
        // The last of the hosts that are sent to.
        let untranslated = if with_untranslated { vec!["198.51.0.2/32".parse().unwrap()] } else { Vec::new() };
        Config {
            mapping,
            filtering,
            ports,
            port_range,
            limits,
            translate,
            hairpin,
            untranslated,
            ..crate::world::config()
        }
    })
}
