//! What a network's containers publish, and what is remembered for those that are away; see [`super::publish`].

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use tapswitch_wire::PortId;

use crate::config::PublishPlan;
use crate::publish::{Ports, Published, Spec};

/// What is kept for containers that are away; beyond, the oldest is forgotten.
const MAX_KEPT: usize = 4_096;
/// Picked ports that are remembered for `-p`; beyond, the oldest is forgotten.
const MAX_PICKS: usize = 1_024;
/// What a network's containers publish, and will publish.
#[derive(Default)]
pub(super) struct Book {
    /// In the order in which it was opened.
    pub(super) open: Vec<Open>,
    /// Oldest first.
    pub(super) kept: VecDeque<Kept>,
    picks: VecDeque<Pick>,
}

pub(super) struct Open {
    pub(super) owner: PortId,
    pub(super) published: Published,
}

/// What is published whenever a container of this name is attached.
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) spec: Spec,
    /// As it was opened; none before the first time.
    pub(super) published: Option<Published>,
}

/// What was picked for a container that was attached with this specification.
struct Pick {
    name: String,
    spec: Spec,
    ports: Ports,
}

impl Book {
    /// A book in which the network's description stands.
    pub(super) fn new(plans: &[PublishPlan]) -> Book {
        let kept = |plan: &PublishPlan| Kept { name: plan.name.clone(), spec: plan.spec, published: None };
        Book { kept: plans.iter().map(kept).collect(), ..Book::default() }
    }

    /// What the container at this port publishes.
    pub(super) fn open_to(&self, owner: PortId) -> impl Iterator<Item = Published> {
        self.open.iter().filter(move |open| open.owner == owner).map(|open| open.published)
    }

    /// A port is gone, and what it published is closed.
    pub(super) fn gone(&mut self, owner: PortId) {
        self.open.retain(|open| open.owner != owner);
    }

    pub(super) fn closed(&mut self, owner: PortId, published: &Published) {
        self.open.retain(|open| open.owner != owner || open.published != *published);
    }

    pub(super) fn kept_for(&self, name: &str) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| kept.name == name)
    }

    /// Remembers what is published of a container. `is_there` tells whose entries are in use.
    pub(super) fn keep(&mut self, name: &str, spec: Spec, published: Published, is_there: impl Fn(&str) -> bool) {
        if self.kept.len() >= MAX_KEPT
            && let Some(oldest) = self.kept.iter().position(|kept| !is_there(&kept.name))
            && let Some(Kept { name, spec, .. }) = self.kept.remove(oldest)
        {
            tracing::warn!(
                "{spec} of {name} will not be published again, because {MAX_KEPT} newer ones are remembered"
            );
        }
        self.kept.push_back(Kept { name: name.to_owned(), spec, published: Some(published) });
    }

    pub(super) fn picked(&self, name: &str, spec: &Spec) -> Option<Ports> {
        self.picks.iter().find(|pick| pick.name == name && pick.spec == *spec).map(|pick| pick.ports)
    }

    pub(super) fn pick(&mut self, name: &str, spec: Spec, ports: Ports) {
        self.picks.retain(|pick| pick.name != name || pick.spec != spec);
        if self.picks.len() >= MAX_PICKS {
            self.picks.pop_front();
        }
        self.picks.push_back(Pick { name: name.to_owned(), spec, ports });
    }
}

impl Kept {
    /// Whether this is what `spec` names to be ended, published or not.
    pub(super) fn is_named_by(&self, spec: &Spec) -> bool {
        let Some(published) = &self.published else {
            return self.spec.proto == spec.proto
                && self.spec.ports == spec.ports
                && (spec.host_ports.is_none() || spec.host_ports == self.spec.host_ports)
                && (spec.host.is_none() || spec.host == self.spec.host);
        };
        spec.names(published)
    }

    /// As it is published, or will be; none if that is still to be picked.
    pub(super) fn settled(&self) -> Option<Published> {
        self.published.or_else(|| Some(settle(&self.spec, self.spec.host_ports?)))
    }
}

/// A specification with the ports of the host that it gets.
pub(super) fn settle(spec: &Spec, host_ports: Ports) -> Published {
    let Spec { host, ports, proto, .. } = *spec;
    Published { host: host.unwrap_or(Ipv4Addr::UNSPECIFIED), host_ports, ports, proto }
}

/// The first port that both would have.
pub(super) fn shared(a: &Published, b: &Published) -> Option<u16> {
    let apart = !a.host.is_unspecified() && !b.host.is_unspecified() && a.host != b.host;
    let first = a.host_ports.first().max(b.host_ports.first());
    (a.proto == b.proto && !apart && a.host_ports.overlaps(b.host_ports)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Spec {
        text.parse().unwrap()
    }

    fn opened(text: &str) -> Published {
        let spec = spec(text);
        settle(&spec, spec.host_ports.unwrap())
    }

    #[test]
    fn what_two_ranges_share_is_told_by_its_first_port() {
        for (a, b, port) in [
            ("8080:80", "8080:90", Some(8080)),
            ("8080-8089:80-89", "8085-8095:80-90", Some(8085)),
            ("127.0.0.1:8080:80", "8080:80", Some(8080)),
            ("127.0.0.1:8080:80", "127.0.0.2:8080:80", None),
            ("8080:80", "8080:80/udp", None),
            ("8080:80", "8081:80", None),
        ] {
            assert_eq!(shared(&opened(a), &opened(b)), port, "{a} {b}");
            assert_eq!(shared(&opened(b), &opened(a)), port, "{b} {a}");
        }
    }

    #[test]
    fn what_is_kept_is_named_as_what_is_published_even_before_it_was() {
        let kept = |published: Option<&str>| {
            let name = "web".to_owned();
            Kept { name, spec: spec("80"), published: published.map(opened) }
        };
        assert!(kept(None).is_named_by(&spec("80")) && kept(None).settled().is_none());
        assert!(!kept(None).is_named_by(&spec("8080:80")) && !kept(None).is_named_by(&spec("80/udp")));
        let kept = kept(Some("8080:80"));
        assert!(kept.is_named_by(&spec("80")) && kept.is_named_by(&spec("8080:80")));
        assert!(!kept.is_named_by(&spec("8081:80")));
        assert_eq!(kept.settled(), Some(opened("8080:80")));
    }

    #[test]
    fn the_book_is_full_of_what_is_needed_and_forgets_the_oldest_of_the_rest() {
        let mut book = Book::default();
        let is_there = |name: &str| name == "first";
        for at in 0..MAX_KEPT + 2 {
            let name = if at == 0 { "first".to_owned() } else { format!("c{at}") };
            book.keep(&name, spec("8080:80"), opened("8080:80"), is_there);
        }
        assert_eq!(book.kept.len(), MAX_KEPT);
        let has = |name| book.kept_for(name).next().is_some();
        assert!(has("first") && !has("c1") && !has("c2") && has("c3"));
        for at in 0..=MAX_PICKS {
            book.pick(&format!("c{at}"), spec("80"), Ports::one(50_000).unwrap());
        }
        book.pick("c9", spec("80"), Ports::one(50_001).unwrap());
        assert_eq!(book.picks.len(), MAX_PICKS);
        assert_eq!(book.picked("c0", &spec("80")), None);
        assert_eq!(book.picked("c9", &spec("80")), Ports::one(50_001));
        assert_eq!(book.picked("c9", &spec("81")), None);
    }
}
