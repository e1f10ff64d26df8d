//! The translator against a plain model of it, step by step in virtual time; and against itself, once by the fast way
//! and once by the slow one.

mod reference;
mod session;
mod steps;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_conntrack::{Config, Direction, Protocol, Realm, Reason, Refusal, SessionView, Tuple};
use tapswitch_wire::Endpoint;

use crate::world::{Inside, OURS, OURS_LATER, Outside, Packet, Sent, World, container, end, remote};
use reference::{Outcome, Reference};
use steps::{Step, config, forwards, steps};

/// Two translators with one secret, and what must become of them.
struct Run {
    /// Takes the fast way wherever it may.
    fast: World,
    /// Never does.
    slow: World,
    model: Reference,
}

type Verdict = Result<(), TestCaseError>;

impl Run {
    fn new(config: Config) -> Run {
        let (fast, slow) = (World::keyed(config.clone(), 77), World::keyed(config.clone(), 77));
        let model = Reference::new(config, OURS, fast.now);
        Run { fast, slow, model }
    }

    fn step(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Out { from, port, to, at, protocol } => {
                let port = if protocol == Protocol::Icmp { 70 + u16::from(port) } else { 4000 + u16::from(port) };
                let dst = match to {
                    // Echoes go to hosts; of ourselves only what is mapped or published is of interest.
                    3.. => self.outside_end(protocol, at, OURS),
                    host => {
                        end(remote(host.into()), if protocol == Protocol::Icmp { 0 } else { 50 + u16::from(at % 2) })
                    }
                };
                let tuple = Tuple { protocol, src: end(container(from.into()), port), dst };
                self.send(Inside, &Packet::first(tuple))
            }
            Step::In { from, port, at, protocol } => {
                let port = if protocol == Protocol::Icmp { 0 } else { 50 + u16::from(port) };
                let dst = self.outside_end(protocol, at, self.model.outside.unwrap_or(OURS));
                self.send(Outside, &Packet::first(Tuple { protocol, src: end(remote(from.into()), port), dst }))
            }
            Step::Along { session, reply, what } => {
                let Some(session) = self.model.pick(session) else { return Ok(()) };
                let direction = if reply { Direction::Reply } else { Direction::Original };
                let packet = session.packet(direction, what);
                let realm = session.ingress(direction);
                self.send(realm, &packet)
            }
            Step::Forged { src, dst, at } => {
                let ours = self.outside_end(Protocol::Udp, at, self.model.outside.unwrap_or(OURS));
                let inside = end(container(src.into()), 4000);
                let src = [inside, end(ours.ip, 4001), end(remote(2), 50)][usize::from(src % 3)];
                let dst = [ours, end(container(2), 4000)][usize::from(dst % 2)];
                self.send(Outside, &Packet::first(Tuple { protocol: Protocol::Udp, src, dst }))
            }
            Step::Error { session, reply, quote, from, forged } => self.error(session, reply, quote, from, forged),
            Step::Wait { tenths } => {
                let seconds = f64::from(tenths) / 10.0;
                self.fast.wait(seconds);
                self.slow.wait(seconds);
                self.model.wait(Duration::from_secs_f64(seconds));
                Ok(())
            }
            Step::Publish(at) => {
                let forward = forwards()[usize::from(at) % forwards().len()];
                let now = self.fast.now;
                let is = self.fast.nat.publish(forward, now);
                prop_assert_eq!(is, self.slow.nat.publish(forward, now));
                prop_assert_eq!(is, self.model.publish(forward));
                Ok(())
            }
            Step::Unpublish(at) => {
                let forward = forwards()[usize::from(at) % forwards().len()];
                let now = self.fast.now;
                let is = self.fast.nat.unpublish(&forward, now);
                prop_assert_eq!(is, self.slow.nat.unpublish(&forward, now));
                prop_assert_eq!(is, self.model.unpublish(&forward));
                Ok(())
            }
            Step::Outside(at) => {
                let ip = [Some(OURS), Some(OURS_LATER), None][usize::from(at % 3)];
                self.each(|world| world.nat.set_outside(ip, world.now));
                self.model.set_outside(ip);
                Ok(())
            }
            Step::Remove(owner) => {
                self.each(|world| world.nat.remove_owner(owner.into(), world.now));
                self.model.remove_owner(owner.into());
                Ok(())
            }
            Step::Flush(owner) => {
                self.each(|world| _ = world.nat.flush(world.now, |view| view.owner == u32::from(owner)));
                self.model.end_where(|session| session.payer.0 == u32::from(owner));
                Ok(())
            }
        }
    }

    fn each(&self, act: impl Fn(&World)) {
        act(&self.fast);
        act(&self.slow);
    }

    /// An outside endpoint of somebody: mapped, published, or nobody's.
    fn outside_end(&self, protocol: Protocol, at: u8, ip: std::net::Ipv4Addr) -> Endpoint {
        let mut ports: Vec<u16> =
            self.model.mappings.iter().filter(|m| m.protocol == protocol).map(|m| m.port).collect();
        ports.extend(self.model.forwards.iter().filter(|f| f.protocol == protocol).map(|f| f.outside));
        // Now and then nobody's.
        ports.extend((ports.is_empty() || at % 8 == 7).then_some(40_003));
        let port = ports[usize::from(at) % ports.len()];
        end(ip, if protocol == Protocol::Icmp { 0 } else { port })
    }

    /// Sends one packet through both, and compares with what the model expects.
    fn send(&mut self, realm: Realm, packet: &Packet) -> Verdict {
        let owner = crate::world::owner_of(packet.tuple().src.ip);
        let expected = self.model.decide(realm, packet, owner);
        let fast = self.fast.send(realm, owner, packet);
        let slow = self.slow.send_slowly(realm, owner, packet);
        let plain = |sent: &Result<Sent, Refusal>| sent.clone().map(|sent| (sent.egress, sent.packet));
        prop_assert_eq!(plain(&fast), plain(&slow), "the fast way and the slow one");
        let what = format!("{realm:?} {}: expected {expected:?}, was {slow:?}", packet.tuple());
        match (&expected, &slow) {
            (Outcome::Refused(refusal), Err(is)) => prop_assert_eq!(refusal, is, "{}", what),
            (Outcome::Known(at, direction), Ok(sent)) => {
                let session = &self.model.sessions[*at];
                prop_assert_eq!(sent.tuple, session.tuple(direction.other()).reversed(), "{}", what);
                prop_assert_eq!(sent.egress, session.ingress(direction.other()), "{}", what);
                let way = sent.way.unwrap();
                prop_assert_eq!((way.session, way.is_new), (session.id, false), "{}", what);
                prop_assert!(way.direction == *direction || session.is_monologue(), "{}", what);
            }
            (Outcome::New(plan), Ok(sent)) => {
                prop_assert!(sent.way.unwrap().is_new, "{}", what);
                prop_assert_eq!(sent.egress, plan.to, "{}", what);
                prop_assert!(self.model.allows(plan, &sent.tuple), "{}", what);
            }
            _ => prop_assert!(false, "{}", what),
        }
        if let Ok(sent) = &slow {
            prop_assert!(sent.packet.has_right_checksums());
            if sent.egress == Outside && Some(sent.tuple.src.ip) != self.model.outside {
                prop_assert!(self.model.is_untranslated(sent.tuple.dst.ip), "{} leaves in a foreign name", sent.tuple);
            }
            let state = |session: SessionView| session.tcp;
            let view = self.slow.sessions().into_iter().find(|view| view.id == sent.way.unwrap().session).unwrap();
            self.model.note(&expected, sent, packet, state(view));
        }
        Ok(())
    }

    /// An ICMP error about what went this way of a session. It changes nothing.
    fn error(&mut self, session: u8, reply: bool, quote: u16, from: u8, forged: u8) -> Verdict {
        let Some(session) = self.model.pick(session) else { return Ok(()) };
        let direction = if reply { Direction::Reply } else { Direction::Original };
        let answered = session.tuple(direction.other());
        let about = session.quoted(answered.reversed(), direction, forged == 1);
        let from_inside = session.ingress(direction.other()) == Inside;
        let reporter = if from_inside { answered.src.ip } else { remote(from.into()) };
        let mtu = if forged == 2 { 68 } else { 1280 };
        let error = about.error(reporter, 3, 4, mtu, usize::from(20 + 8 + quote));
        let (before, told) = (session.tuple(direction), session.ingress(direction));
        let hidden = before.dst.ip != answered.src.ip;
        // Of a connection that opens or closes, not every number is known.
        let ingress = session.ingress(direction.other());
        let is_forged = forged == 2 || forged == 1 && session.is_numbered();
        let is_sure = is_forged || session.state.is_none() || session.is_numbered();
        let views = self.slow.sessions();
        let results = [self.fast.error(ingress, &error), self.slow.error(ingress, &error)];
        prop_assert_eq!(&results[0], &results[1]);
        prop_assert_eq!(views, self.slow.sessions(), "an error changes nothing");
        let Ok((egress, packet)) = &results[0] else {
            prop_assert!(is_forged || !is_sure, "{:?}", results[0]);
            return Ok(());
        };
        prop_assert!(!is_forged, "a forged error passed");
        prop_assert_eq!(*egress, told);
        prop_assert!(packet.has_right_checksums());
        let quoted = packet.frame(|frame| frame.quoted()).unwrap();
        prop_assert_eq!((quoted.src, quoted.dst), (before.src, before.dst), "what was sent is quoted");
        let src = packet.frame(|frame| frame.src_ip()).unwrap();
        prop_assert_eq!(src, if hidden { before.dst.ip } else { reporter });
        Ok(())
    }

    /// What holds at any time, told from what can be seen.
    fn check(&self) -> Verdict {
        let (views, config) = (self.slow.sessions(), self.slow.nat.config());
        let unnumbered = |views: Vec<SessionView>| {
            views.into_iter().map(|v| (v.original, v.reply, v.expires)).collect::<HashSet<_>>()
        };
        prop_assert_eq!(unnumbered(self.fast.sessions()), unnumbered(views.clone()), "same steps, same sessions");
        // Nothing has ended early or late, or is there for another reason than the model's.
        let seconds = self.slow.now.as_secs();
        let is: HashSet<_> =
            views.iter().map(|v| (v.id, v.owner, v.original, v.reply, v.from, v.reason, v.expires)).collect();
        let right = self
            .model
            .sessions
            .iter()
            .map(|s| (s.id, s.payer.0, s.original, s.reply, s.from, s.reason, (s.expires - seconds) as u32));
        prop_assert_eq!(is, right.collect::<HashSet<_>>(), "at {}", seconds);
        let mut outer: HashMap<(Protocol, Endpoint), Endpoint> = HashMap::new();
        let mut inner: HashMap<(Protocol, Endpoint, Option<Endpoint>), Endpoint> = HashMap::new();
        let mut tuples = HashSet::new();
        for view in &views {
            let to = if view.reason == Reason::Outbound || view.reason == Reason::Routed && view.from == Inside {
                Outside
            } else {
                Inside
            };
            prop_assert!(tuples.insert((view.from, view.original)), "{} is shared", view.original);
            let is_monologue = (view.from, view.original) == (to, view.reply);
            prop_assert!(is_monologue || tuples.insert((to, view.reply)), "{} is shared", view.reply);
            // Whoever is inside, and by what name the other end knows it.
            let mut ends = Vec::new();
            if view.from == Inside && view.reason != Reason::Routed {
                ends.push((view.original.src, view.reply.dst, view.original.dst));
            }
            if to == Inside && view.reason != Reason::Routed {
                ends.push((view.reply.src, view.original.dst, view.reply.dst));
            }
            for (inside, outside, _) in ends {
                let protocol = view.original.protocol;
                let before = outer.insert((protocol, outside), inside);
                prop_assert!(before.is_none_or(|before| before == inside), "{} leads to two endpoints", outside);
                // One that is published twice has two names.
                if config.mapping.name() == "endpoint-independent" && !self.model.is_published(protocol, inside) {
                    let before = inner.insert((protocol, inside, None), outside);
                    prop_assert!(before.is_none_or(|before| before == outside), "{} has two names", inside);
                }
            }
        }
        let limits = config.limits;
        prop_assert!(views.len() <= limits.sessions as usize && views.len() == self.slow.nat.len());
        for owner in 2..5 {
            let usage = self.slow.nat.usage(owner);
            let began = |view: &&SessionView| view.owner == owner && view.from == Inside;
            prop_assert_eq!(
                usage.sessions as usize,
                views.iter().filter(began).count(),
                "the outside's are not counted"
            );
            prop_assert!(usage.sessions <= limits.owner_sessions);
            for protocol in Protocol::ALL {
                let ports = self.model.mappings.iter().filter(|m| m.owner == owner && m.protocol == protocol).count();
                prop_assert_eq!(usage.ports[protocol as usize] as usize, ports);
                prop_assert!(ports <= limits.owner_ports as usize);
            }
            let from_outside = views.iter().filter(|view| view.owner == owner && view.from == Outside).count();
            prop_assert!(from_outside <= limits.owner_sessions as usize);
        }
        prop_assert_eq!(self.slow.nat.mappings(), self.model.mappings.len());
        prop_assert!(self.slow.nat.deadline().is_some() || views.is_empty());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn nu_1_nt_9_lm_2_the_translator_does_what_the_model_does(config in config(), steps in steps()) {
        let mut run = Run::new(config);
        for step in &steps {
            run.step(step)?;
            run.check()?;
        }
        // Whatever happened, nothing is left when all timers have run out.
        for world in [&mut run.fast, &mut run.slow] {
            world.wait(8_000.0);
            prop_assert!(world.is_blank(), "{:?} sessions, {} mappings, {:?}", world.sessions(), world.nat.mappings(), world.nat.helpers());
        }
    }
}
