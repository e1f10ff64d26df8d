//! One measurement: a load generator in each container, and the CPU time around them.

mod bulk;
mod flood;
mod flows;
mod rr;
mod sessions;
mod startup;
mod test;

use std::cell::Cell;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cpu;
use crate::load::READY;
use crate::options::Options;
use crate::process::Process;
use crate::results::Figures;
use crate::world::{Netns, Peer, Room, World};

pub(crate) use test::Test;

/// How much longer than it should a load generator may take.
const GRACE: Duration = Duration::from_secs(10);

/// How long a load generator may take to start.
const START: Duration = Duration::from_secs(5);

/// This program, for its load generators: what runs as the first process in here, even if its file was replaced since.
const PROGRAM: &str = "/proc/1/exe";

/// What all measurements of a run have in common.
pub(crate) struct Measure<'a> {
    options: &'a Options,
    cpus: usize,
    /// TCP connections that the tests of idle ones hold.
    flows: Cell<u32>,
}

/// CPU time at one moment.
struct Meter {
    machine: f64,
    switch: Duration,
}

impl<'a> Measure<'a> {
    pub(crate) fn new(options: &'a Options, cpus: usize) -> Self {
        Self { options, cpus, flows: Cell::new(options.flows.unwrap_or(flows::MOST)) }
    }

    /// Measures `test` once on `peer`, or on one built like it, which is let run for that long.
    pub(crate) fn once(&self, test: Test, peer: &Peer) -> Result<Figures, String> {
        if test == Test::Startup {
            return startup::measure(self, peer);
        }
        if !test.needs_own_world() {
            return self.on(test, peer);
        }
        let room = if test.sessions().is_some() { Room::Sessions } else { Room::Default };
        let own = peer.own_world(self.options, room)?;
        self.on(test, &own).map_err(|reason| own.obituary().unwrap_or(reason))
    }

    fn on(&self, test: Test, peer: &Peer) -> Result<Figures, String> {
        let _awake = peer.awake();
        let _busy = if test.under_load() { self.busy(peer)? } else { Vec::new() };
        let figures = match test {
            Test::Tcp1 | Test::Tcp1Load => bulk::measure(self, peer, 1, false),
            Test::Tcp1Reverse => bulk::measure(self, peer, 1, true),
            Test::Tcp4 => bulk::measure(self, peer, 4, false),
            Test::Tcp4Reverse => bulk::measure(self, peer, 4, true),
            Test::PublishIn => bulk::published(self, peer, false),
            Test::PublishOut => bulk::published(self, peer, true),
            Test::TcpRr | Test::TcpRrLoad => rr::measure(self, peer, "tcp"),
            Test::UdpRr | Test::UdpRrLoad => rr::measure(self, peer, "udp"),
            Test::UdpSmall => flood::measure(self, peer, flood::Kind::Small),
            Test::UdpGso => flood::measure(self, peer, flood::Kind::Gso),
            Test::UdpDown => flood::down(self, peer, flood::Kind::Small),
            Test::Idle => self.idle(peer),
            Test::FlowMemory => flows::memory(self, peer),
            Test::FlowIdle => flows::idle(self, peer),
            Test::Startup => startup::measure(self, peer),
            Test::Connect => rr::connect(self, peer),
            Test::Sessions100k => sessions::measure(self, peer, 100_000),
            Test::Sessions1m => sessions::measure(self, peer, 1_000_000),
        }?;
        // All CPUs are busy then, whatever the switch does.
        let cpu_seconds = figures.cpu_seconds.filter(|_| !test.under_load());
        Ok(Figures { cpu_seconds, ..figures })
    }

    /// What the switch uses while nobody needs it.
    fn idle(&self, peer: &Peer) -> Result<Figures, String> {
        // What was left over from before has to be done first.
        std::thread::sleep(Duration::from_millis(500));
        let (before, begin) = (peer.switch_cpu()?, Instant::now());
        std::thread::sleep(self.quiet());
        let seconds = begin.elapsed().as_secs_f64();
        let used = peer.switch_cpu()?.saturating_sub(before).as_secs_f64();
        let value = 100.0 * used / seconds;
        Ok(Figures { value, seconds, work: seconds, switch_cpu_seconds: Some(used), ..Figures::default() })
    }

    /// One process in each container for each CPU, that wants all of it.
    fn busy(&self, peer: &Peer) -> Result<Vec<Process>, String> {
        let containers = [&peer.a, &peer.b].into_iter();
        let mut all: Vec<Process> = containers
            .flat_map(|container| {
                (0..self.cpus).map(|_| Process::start("load spin", &mut self.load(container, &["spin"])))
            })
            .collect::<Result<_, _>>()?;
        all.iter_mut().try_for_each(|process| process.expect(READY, START).map(drop))?;
        Ok(all)
    }

    fn seconds(&self) -> u64 {
        self.options.seconds().into()
    }

    /// How long the idle tests look: what others do in many seconds only has to be seen, too.
    fn quiet(&self) -> Duration {
        const ENOUGH: u64 = 10;
        let least = if self.options.world() == World::Rootless { ENOUGH } else { 0 };
        Duration::from_secs(self.seconds().max(least))
    }

    /// How long a load generator may take at most.
    fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds()) + GRACE
    }

    /// A load generator of our own, to be run in `container`.
    fn load(&self, container: &Netns, args: &[&str]) -> Command {
        let mut command = container.command(PROGRAM);
        command.arg("load").args(args);
        command
    }

    /// One that others connect to: started, and ready.
    fn server(&self, container: &Netns, args: &[&str]) -> Result<Process, String> {
        let mut process = Process::start(format!("load {}", args.join(" ")), &mut self.load(container, args))?;
        process.expect(READY, START)?;
        Ok(process)
    }

    /// Runs `client` to its end, and tells what it said and the CPU time that the machine and the switch used meanwhile.
    fn metered(&self, peer: &Peer, what: &str, client: &mut Command) -> Result<(String, Figures), String> {
        self.metered_within(self.limit(), peer, what, client)
    }

    fn metered_within(
        &self,
        limit: Duration,
        peer: &Peer,
        what: &str,
        client: &mut Command,
    ) -> Result<(String, Figures), String> {
        let before = Meter::read(peer)?;
        let said = Process::start(what, client)?.finish(limit)?;
        let after = Meter::read(peer)?;
        let switch = after.switch.saturating_sub(before.switch).as_secs_f64();
        let figures = Figures {
            cpu_seconds: Some(after.machine - before.machine),
            switch_cpu_seconds: peer.in_user_space().then_some(switch),
            ..Figures::default()
        };
        Ok((said, figures))
    }
}

impl Meter {
    fn read(peer: &Peer) -> Result<Self, String> {
        Ok(Self { machine: cpu::machine()?, switch: peer.switch_cpu()? })
    }
}
