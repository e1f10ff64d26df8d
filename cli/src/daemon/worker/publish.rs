//! Published ports of containers: what is open, and what is remembered.
//!
//! # Whose they are, and how long they last
//!
//! What a container is attached with (`-p`) belongs to that attachment: whoever attaches it again asks again. What the
//! network's description or the command `publish` names is *kept* under the container's name, until `unpublish` or the
//! daemon's end. While the container is away, its ports are closed and free for anybody. When a container of that name
//! comes again, it gets the very same ports, those that were picked, too; or it is refused, and hears who has them.
//!
//! A port that was picked for `-p` is only preferred: asked for again under that name, it is the same one if it is free.
//! What is picked is never what is kept for somebody else.
//!
//! # All or nothing
//!
//! Several specifications of one request, and all ports of a range, are opened together or not at all. What is in the way is
//! named: a container of this daemon, else a process, as far as the system tells ([`super::holders`]). That takes a look at
//! every process, so the answer is left to a thread of its own.

use std::collections::VecDeque;

use tapswitch_wire::Instant;

use super::book::{Kept, Open, settle, shared};
use super::doors::{self, Guest, Trouble};
use super::lan::Lan;
use super::refused::{Refused, refused};
use super::{Worker, commands};
use crate::api::{Published, Spec};
use crate::daemon::command::Refusal;
use crate::publish::Ports;

/// Ranges that are tried until one is free.
const PICKS: usize = 64;

/// A specification, and which ports it gets.
struct Want {
    spec: Spec,
    /// These and no others; free ones if absent.
    ports: Option<Ports>,
    /// Free ones are these, if they still are.
    rather: Option<Ports>,
    /// Whether it was published before, or was planned.
    is_kept: bool,
}

impl Want {
    fn new(spec: Spec) -> Want {
        Want { spec, ports: spec.host_ports, rather: None, is_kept: false }
    }
}

impl Worker {
    /// Whether a container that is about to be attached can have these published.
    pub(super) fn may_publish(&self, network: usize, name: &str, specs: &[Spec]) -> Result<(), Refusal> {
        specs.iter().try_for_each(|spec| check(&self.networks[network], name, spec))
    }

    /// Publishes ports of a container that was attached this moment: what it asked for, and what is kept under its name.
    /// All of it, or none.
    pub(super) fn publish_at_attach(&mut self, index: usize, name: &str, now: Instant) -> Result<(), Refused> {
        let lan = &self.networks[index];
        let kept = lan.book.kept_for(name).map(|kept| Want {
            ports: kept.settled().map(|published| published.host_ports),
            is_kept: true,
            ..Want::new(kept.spec)
        });
        let mut wants: Vec<Want> = kept.collect();
        let number_kept = wants.len();
        let asked = lan.members.get(name).map(|member| member.publish.clone()).unwrap_or_default();
        // Who asks for what is kept already means that.
        let is_kept = |spec: &Spec| lan.book.kept_for(name).any(|kept| kept.spec == *spec);
        let asked: Vec<Spec> = asked.into_iter().filter(|spec| !is_kept(spec)).collect();
        wants.extend(asked.iter().map(|spec| Want { rather: lan.book.picked(name, spec), ..Want::new(*spec) }));
        let opened = open_all(&mut self.networks, index, name, &wants, now)?;
        let book = &mut self.networks[index].book;
        let mut opened = opened.into_iter();
        for (kept, published) in
            book.kept.iter_mut().filter(|kept| kept.name == name).zip(opened.by_ref().take(number_kept))
        {
            kept.published = Some(published);
        }
        for (spec, published) in asked.into_iter().zip(opened).filter(|(spec, _)| spec.host_ports.is_none()) {
            book.pick(name, spec, published.host_ports);
        }
        Ok(())
    }

    /// Publishes ports of a container, all of them or none, and keeps them under its name.
    pub(super) fn publish(&mut self, name: &str, specs: &[Spec], now: Instant) -> Result<Vec<Published>, Refused> {
        let index = self.place_of(name).ok_or_else(|| commands::unknown_container(name))?;
        let wants: Vec<Want> = specs.iter().copied().map(Want::new).collect();
        let opened = open_all(&mut self.networks, index, name, &wants, now)?;
        let Lan { book, members, .. } = &mut self.networks[index];
        for (spec, published) in specs.iter().zip(&opened) {
            book.keep(name, *spec, *published, |name| members.contains_key(name));
        }
        Ok(opened)
    }

    /// Ends what of a container is published, or kept while it is away, and named by one of `specs`; nothing, if one of
    /// them names nothing.
    pub(super) fn unpublish(&mut self, name: &str, specs: &[Spec], now: Instant) -> Result<Vec<Published>, Refusal> {
        let keeps = || self.networks.iter().position(|lan| lan.book.kept_for(name).next().is_some());
        let index = self.place_of(name).or_else(keeps).ok_or_else(|| commands::unknown_container(name))?;
        let lan = &mut self.networks[index];
        let owner = lan.members.get(name).and_then(|member| member.attached.as_ref()).map(|attached| attached.port);
        let mut ended = Vec::new();
        for spec in specs {
            let open = owner.into_iter().flat_map(|owner| lan.book.open_to(owner)).filter(|open| spec.names(open));
            let before = ended.len();
            ended.extend(open);
            let is_kept = owner.is_none() && lan.book.kept_for(name).any(|kept| kept.is_named_by(spec));
            if ended.len() == before && !is_kept {
                return Err(Refusal::NotFound(format!(
                    "container {name} does not publish {spec}; write the port of the container, alone or behind that of the \
                     host (8080:80), as `tapswitch ls` shows them"
                )));
            }
        }
        let is_named = |kept: &Kept| match owner {
            Some(_) => kept.published.is_some_and(|published| ended.contains(&published)),
            None => specs.iter().any(|spec| kept.is_named_by(spec)),
        };
        let (given_up, kept) = std::mem::take(&mut lan.book.kept)
            .into_iter()
            .partition::<VecDeque<_>, _>(|kept| kept.name == name && is_named(kept));
        lan.book.kept = kept;
        ended.extend(given_up.iter().filter_map(Kept::settled));
        ended.sort_unstable();
        ended.dedup();
        if let Some(owner) = owner {
            for published in &ended {
                doors::close(lan, owner, published, now);
                lan.book.closed(owner, published);
            }
        }
        Ok(ended)
    }

    /// The network that a container is attached to.
    fn place_of(&self, name: &str) -> Option<usize> {
        let has = |lan: &Lan| lan.members.get(name).is_some_and(|member| member.attached.is_some());
        self.networks.iter().position(has)
    }
}

/// Published ports of a container.
pub(super) fn published(lan: &Lan, name: &str) -> Vec<Published> {
    let attached = lan.members.get(name).and_then(|member| member.attached.as_ref());
    attached.map(|attached| lan.book.open_to(attached.port).collect()).unwrap_or_default()
}

fn check(lan: &Lan, name: &str, spec: &Spec) -> Result<(), Refusal> {
    crate::config::check_publish(spec, &lan.plan.uplink)
        .map_err(|why| Refusal::Invalid(format!("cannot publish {spec} of {name}: {why}")))
}

/// An attached container, if its address is known.
fn guest(lan: &Lan, name: &str, now: Instant) -> Result<Guest, Refusal> {
    let member = lan.members.get(name);
    let port = member.and_then(|member| member.attached.as_ref()).map(|attached| attached.port);
    let (Some(member), Some(port)) = (member, port) else { return Err(commands::unknown_container(name)) };
    let leased = || lan.network.leases(now).into_iter().find(|lease| lease.mac == member.mac).map(|lease| lease.ip);
    let ip = member.ip.or_else(leased).ok_or_else(|| {
        Refusal::Invalid(format!(
            "container {name} has no address yet, because its DHCP client has not asked for one; publish its ports once \
             it has: tapswitch publish {name} ..."
        ))
    })?;
    Ok(Guest { port, mac: member.mac, ip })
}

fn open_all(
    networks: &mut [Lan],
    index: usize,
    name: &str,
    wants: &[Want],
    now: Instant,
) -> Result<Vec<Published>, Refused> {
    if wants.is_empty() {
        return Ok(Vec::new());
    }
    for want in wants {
        check(&networks[index], name, &want.spec)?;
    }
    let guest = guest(&networks[index], name, now)?;
    let mut opened = Vec::new();
    for want in wants {
        match open_one(networks, index, name, &guest, want, now) {
            Ok(published) => {
                networks[index].book.open.push(Open { owner: guest.port, published });
                opened.push(published);
            }
            Err(trouble) => {
                let lan = &mut networks[index];
                for published in &opened {
                    doors::close(lan, guest.port, published, now);
                    lan.book.closed(guest.port, published);
                }
                return Err(refused(lan, name, &want.spec, want.is_kept, trouble));
            }
        }
    }
    Ok(opened)
}

fn open_one(
    networks: &mut [Lan],
    index: usize,
    name: &str,
    guest: &Guest,
    want: &Want,
    now: Instant,
) -> Result<Published, Trouble> {
    let mut try_these = |ports| {
        let published = settle(&want.spec, ports);
        if let Some((port, holder)) = publisher(networks, index, &published) {
            return Err(Trouble::Published(port, holder));
        }
        doors::open(&mut networks[index], guest, &published, now).map(|()| published)
    };
    if let Some(ports) = want.ports {
        return try_these(ports);
    }
    if let Some(opened) = want.rather.and_then(|ports| try_these(ports).ok()) {
        return Ok(opened);
    }
    for _ in 0..PICKS {
        let is_kept = |ports| {
            let published = settle(&want.spec, ports);
            let others = sharing(networks, index).flat_map(|lan| &lan.book.kept).filter(|kept| kept.name != name);
            others.filter_map(Kept::settled).any(|kept| shared(&kept, &published).is_some())
        };
        let ports = doors::free(&networks[index], want.spec.proto, want.spec.ports.count(), is_kept, now);
        let published = settle(&want.spec, ports.ok_or(Trouble::NoneFree)?);
        if publisher(networks, index, &published).is_some() {
            continue;
        }
        match doors::open(&mut networks[index], guest, &published, now) {
            Ok(()) => return Ok(published),
            Err(trouble) if trouble.is_taken() => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Err(Trouble::NoneFree)
}

/// The networks that have the same outer ports as this one, and itself: the sockets of the host are everybody's.
fn sharing(networks: &[Lan], index: usize) -> impl Iterator<Item = &Lan> {
    let is_user = networks[index].plan.uplink.is_user();
    networks.iter().filter(move |lan| lan.index == index || (is_user && lan.plan.uplink.is_user()))
}

/// The container that publishes one of these ports already, and the port.
fn publisher(networks: &[Lan], index: usize, published: &Published) -> Option<(u16, String)> {
    sharing(networks, index).find_map(|lan| {
        let other = |open: &Open| Some((shared(&open.published, published)?, lan.name_of(open.owner)));
        lan.book.open.iter().find_map(other)
    })
}
