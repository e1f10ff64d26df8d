//! Many idle TCP connections: what they weigh, and what it costs to have them.

use std::time::{Duration, Instant};

use crate::load::{HOLDING, Holding};
use crate::process::Process;
use crate::results::{Figures, Memory};
use crate::world::{self, Peer, Room};

use super::sessions::settled;
use super::{Measure, START, Test};

/// As many as are held where every peer holds them.
pub(super) const MOST: u32 = 10_000;

/// Left for what a peer opens besides, and for what one attempt reaches and the next one does not.
const MARGIN: u32 = 20;
const ROUND: u32 = 100;

/// What was begun in a hurry is over by then: timers of the handshake, buffers that shrink again, resets.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Connections that are held for as long as this lives.
struct Held {
    holding: Holding,
    client: Option<Process>,
    _server: Process,
}

impl Drop for Held {
    /// The client's end resets them all. The others get to hear of it, or sockets would wait for answers long after the
    /// world is gone, and weigh on later measurements.
    fn drop(&mut self) {
        self.client = None;
        std::thread::sleep(AFTERWARDS);
    }
}

/// Opens `flows` of them, or as many as there can be.
fn open(measure: &Measure<'_>, peer: &Peer, flows: u32) -> Result<Held, String> {
    let server = measure.server(&peer.b, &["keep"])?;
    let args = ["hold", &flows.to_string()];
    let mut client = Process::start("load hold", &mut measure.load(&peer.a, &args))?;
    let said = client.expect("opened", HOLDING + START)?;
    let holding = serde_json::from_str(&said).map_err(|error| format!("cannot read what is held: {error}"))?;
    Ok(Held { holding, client: Some(client), _server: server })
}

fn open_all(measure: &Measure<'_>, peer: &Peer) -> Result<Held, String> {
    let flows = measure.flows.get();
    let held = open(measure, peer, flows)?;
    match &held.holding {
        Holding { reason: None, .. } => {
            std::thread::sleep(AFTERWARDS);
            Ok(held)
        }
        Holding { opened, reason: Some(reason), .. } => Err(format!("holds {opened} of {flows}, then: {reason}")),
    }
}

/// What is held once that does not change much any more in the kernel, either, which ends what an earlier world held in its
/// own time.
fn at_rest(peer: &Peer) -> Result<world::Held, String> {
    const MUCH: u64 = 64 << 10;
    const LOOK: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(10);
    let mut last = settled(peer)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        std::thread::sleep(LOOK);
        let now = peer.held()?;
        let changed = last.connections.zip(now.connections).map_or(0, |(before, now)| before.abs_diff(now));
        if changed < MUCH || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

pub(super) fn memory(measure: &Measure<'_>, peer: &Peer) -> Result<Figures, String> {
    let before = at_rest(peer)?;
    let held = open_all(measure, peer)?;
    let after = at_rest(peer)?;
    let opened = f64::from(held.holding.opened);
    let memory = Memory {
        sessions: held.holding.opened.into(),
        before: before.bytes,
        after: after.bytes,
        slabs_before: None,
        slabs_after: None,
        connections_before: before.connections,
        connections_after: after.connections,
    };
    let value = after.bytes.saturating_sub(before.bytes) as f64 / opened;
    Ok(Figures {
        value,
        seconds: held.holding.seconds,
        work: opened / 1e6,
        memory: Some(Box::new(memory)),
        ..Figures::default()
    })
}

pub(super) fn idle(measure: &Measure<'_>, peer: &Peer) -> Result<Figures, String> {
    let _held = open_all(measure, peer)?;
    measure.idle(peer)
}

impl Measure<'_> {
    /// Finds out how many connections every one of `peers` can hold, if nobody said how many it shall be.
    pub(crate) fn find_flows<'p>(&self, peers: impl Iterator<Item = &'p Peer>) -> Result<u32, String> {
        if let Some(flows) = self.options.flows {
            return Ok(flows);
        }
        let mut least = MOST;
        for peer in peers.filter(|peer| peer.can(Test::FlowMemory)) {
            match self.reached(peer, least) {
                Ok(Holding { opened, reason, .. }) => {
                    let why = reason.map(|reason| format!(", then: {reason}")).unwrap_or_default();
                    eprintln!("{} holds {opened} of {least} idle connections{why}", peer.name());
                    if opened < least {
                        least = opened.saturating_sub(MARGIN) / ROUND * ROUND;
                    }
                }
                // Its measurements will tell.
                Err(reason) => eprintln!("{} holds no idle connections: {reason}", peer.name()),
            }
        }
        if least == 0 {
            return Err("a peer holds hardly any idle connection; leave it out with --peers".into());
        }
        self.flows.set(least);
        Ok(least)
    }

    fn reached(&self, peer: &Peer, flows: u32) -> Result<Holding, String> {
        let own = peer.own_world(self.options, Room::Default)?;
        let _awake = own.awake();
        let held = open(self, &own, flows)?;
        Ok(held.holding.clone())
    }
}
