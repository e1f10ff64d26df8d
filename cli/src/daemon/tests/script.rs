//! A poll thread that follows a script, and what it answers with.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use tapswitch_wire::{Mac, Stage, Step};

use super::super::*;
use super::DEADLINE;
use crate::api::*;
use crate::client::Client;

/// A daemon whose poll thread follows a script, and what that thread was asked.
pub(super) struct Scripted {
    pub(super) daemon: Daemon,
    pub(super) events: std_mpsc::Receiver<String>,
}

impl Scripted {
    pub(super) fn raw(&self) -> UnixStream {
        let stream = self.daemon.connect().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub(super) fn client(&self) -> Client {
        Client::over(self.daemon.connect().unwrap()).unwrap()
    }

    pub(super) fn next(&self) -> String {
        self.events.recv_timeout(DEADLINE).expect("the poll thread was asked nothing more")
    }

    /// Nothing else was asked, now that a whole request has gone round.
    pub(super) fn nothing_more(&self) {
        self.client().stats().unwrap();
        assert_eq!(self.events.try_iter().collect::<Vec<_>>(), [""; 0]);
    }
}

pub(super) fn scripted() -> Scripted {
    scripted_on(None)
}

pub(super) fn scripted_on(socket: Option<ControlSocket>) -> Scripted {
    // The smallest channel, so that the way of a full one is used too.
    let (tx, rx) = crossbeam_channel::bounded(1);
    let (said, events) = std_mpsc::channel();
    let worker = std::thread::spawn(move || follow_script(&rx, &said));
    let control = Control::new(tx, Arc::new(|| {}));
    Scripted { daemon: Daemon::with_worker(control, worker, socket).unwrap(), events }
}

pub(super) fn follow_script(commands: &crossbeam_channel::Receiver<Command>, said: &std_mpsc::Sender<String>) {
    fn listing<T>(rows: Vec<T>, network: Option<String>) -> Result<Vec<T>, Refusal> {
        match network {
            Some(name) if name != "default" => Err(Refusal::NotFound(format!("there is no network '{name}'"))),
            _ => Ok(rows),
        }
    }
    let mut waiting: Option<(String, Reply<Result<JourneyView, Refusal>>)> = None;
    for command in commands {
        let say = |text: String| drop(said.send(text));
        // Nobody may be waiting for the answer any more.
        match command {
            Command::Reserve(request, reply) => {
                let name = request.name.unwrap_or_else(|| "c1".into());
                say(format!("reserve {name}"));
                let answer = match name.as_str() {
                    "taken" => Err(Refusal::Conflict("the name 'taken' is taken".into())),
                    name => Ok(offer(name)),
                };
                if reply.send(answer).is_err() {
                    say(format!("cancel default/{name}"));
                }
            }
            Command::Attach { network, name, tap, mut queues, reply } => {
                say(format!("attach {network}/{name} {} {}", tap.interface, tap.target));
                let answer = match name.as_str() {
                    "bad-tap" => Err(Refusal::Invalid("that is no TAP".into())),
                    _ => File::from(queues.remove(0))
                        .write_all(b"from the poll thread")
                        .map(|()| port())
                        .map_err(|e| Refusal::Invalid(e.to_string())),
                };
                drop(reply.send(answer));
            }
            Command::Cancel { network, name } => say(format!("cancel {network}/{name}")),
            Command::Detach(name, reply) => {
                let answer = match name.as_str() {
                    "web" => Ok(()),
                    _ => Err(Refusal::NotFound(format!("there is no container '{name}'"))),
                };
                drop(reply.send(answer));
            }
            Command::Networks(reply) => {
                // In this script, the frame that was listened for passes now.
                if let Some((name, listener)) = waiting.take() {
                    drop(listener.send(Ok(journey(&name))));
                }
                drop(reply.send(vec![network()]));
            }
            Command::Ports(network, reply) => drop(reply.send(listing(vec![port()], network))),
            Command::Fdb(network, reply) => drop(reply.send(listing(vec![], network))),
            Command::Arp(network, reply) => drop(reply.send(listing(vec![], network))),
            Command::Leases(network, reply) => drop(reply.send(listing(vec![], network))),
            Command::Flows(filter, reply) => {
                let text = format!("flows {filter:?}");
                if !filter.is_empty() {
                    say(text);
                }
                drop(reply.send(listing(vec![], filter.network)));
            }
            Command::Flush(filter, reply) => {
                say(format!("flush {filter:?}"));
                drop(reply.send(listing(vec![], filter.network).map(|_: Vec<()>| 3)));
            }
            Command::Publish { name, specs, reply } => {
                let answer = match name.as_str() {
                    "web" => Ok(specs.iter().map(|spec| published(&spec.to_string())).collect()),
                    _ => Err(Refusal::NotFound(format!("there is no container '{name}'"))),
                };
                drop(reply.send(answer));
            }
            Command::Unpublish { specs, reply, .. } => {
                say(format!("unpublish {}", specs.len()));
                drop(reply.send(Ok(vec![])));
            }
            Command::WantedUplink(network, reply) => {
                say(format!("wanted {network}"));
                let answer = match network.as_str() {
                    "default" => Ok(wanted()),
                    _ => Err(Refusal::NotFound(format!("there is no network '{network}'"))),
                };
                drop(reply.send(answer));
            }
            Command::Uplink { network: name, about, fd, reply } => {
                say(format!("uplink {name} {}", about.name));
                let answer = match about.mtu >= 576 {
                    true => File::from(fd)
                        .write_all(b"from the poll thread")
                        .map(|()| network())
                        .map_err(|e| Refusal::Invalid(e.to_string())),
                    false => Err(Refusal::Conflict("it has one already".into())),
                };
                drop(reply.send(answer));
            }
            Command::Drops(network, reply) => drop(reply.send(listing(vec![], network))),
            Command::Metrics(reply) => drop(reply.send(worker::Figures::default())),
            Command::Events(network, reply) => {
                let (tell, events) = tokio::sync::broadcast::channel(2);
                ["one", "two", "three"].iter().for_each(|name| drop(tell.send(Arc::new(event(name)))));
                drop(reply.send(listing(vec![()], network).map(|_| events)));
            }
            Command::Journey { name, proto, reply } if proto.as_deref() == Some("tcp") => {
                waiting = Some((name, reply));
            }
            Command::Trace(_, reply) => drop(reply.send(Err(Refusal::Full("nobody watches here".into())))),
            Command::Journey { reply, .. } => drop(reply.send(Err(Refusal::Invalid("only tcp is heard here".into())))),
            Command::Explain(_, reply) => drop(reply.send(Err(Refusal::Invalid("nothing is explained here".into())))),
            Command::Stats(reply) => drop(reply.send(stats())),
            Command::Stop => return,
        }
    }
}

pub(super) fn some_fd() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

pub(super) fn tap() -> AttachTap {
    AttachTap { interface: "eth0".into(), target: "pid 4711".into() }
}

pub(super) fn wanted() -> UplinkOffer {
    UplinkOffer {
        network: "default".into(),
        kind: UplinkKind::Nat,
        device: "eth0".into(),
        mac: Some(Mac::from_ipv4(Ipv4Addr::new(192, 0, 2, 2))),
        mtu: None,
    }
}

pub(super) fn device(mtu: u16) -> UplinkDevice {
    let mac = Mac::from_ipv4(Ipv4Addr::new(192, 0, 2, 2));
    UplinkDevice { kind: tapswitch_link::uplink::Kind::Macvtap, mac, mtu, name: "eth0".into() }
}

/// A specification, with free ports picked as in this script.
pub(super) fn published(spec: &str) -> Published {
    let Spec { host, host_ports, ports, proto } = spec.parse().unwrap();
    let host_ports = host_ports.unwrap_or(Ports::one(40_000).unwrap());
    Published { host: host.unwrap_or(Ipv4Addr::UNSPECIFIED), host_ports, ports, proto }
}

pub(super) fn offer(name: &str) -> AttachOffer {
    AttachOffer {
        network: "default".into(),
        name: name.into(),
        mac: Mac::from_ipv4(Ipv4Addr::new(10, 0, 0, 2)),
        ip: Some(Ipv4Addr::new(10, 0, 0, 2)),
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        dns: vec![Ipv4Addr::new(10, 0, 0, 1)],
        search: vec![],
        mtu: 1500,
        queues: 1,
    }
}

pub(super) fn journey(name: &str) -> JourneyView {
    let step = StepView::from(Step::looked_up(Stage::Parse, "a TCP segment"));
    JourneyView { frame: "tcp".into(), port: name.into(), steps: vec![step], verdict: "relayed".into() }
}

pub(super) fn event(name: &str) -> EventView {
    EventView {
        time_ns: 7,
        kind: EventKind::Publish,
        network: "default".into(),
        name: Some(name.into()),
        ip: None,
        mac: None,
        state: None,
        expires: None,
        published: vec![published("8080:80")],
        reason: None,
        text: None,
    }
}

pub(super) fn network() -> NetworkView {
    NetworkView {
        name: "default".into(),
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        gateway_mac: Mac::from_ipv4(Ipv4Addr::new(10, 0, 0, 1)),
        mtu: 1500,
        uplink: "user".into(),
        uplink_device: None,
        isolate: false,
        dns: vec![],
        resolver: None,
        allow: vec![],
        publish: vec![],
        routes: vec![],
        connect: vec![],
        ports: 1,
        leases: 0,
        flows: 0,
    }
}

pub(super) fn port() -> PortView {
    PortView {
        name: "web".into(),
        network: "default".into(),
        port: 1,
        interface: "eth0".into(),
        target: "pid 4711".into(),
        mac: Mac::from_ipv4(Ipv4Addr::new(10, 0, 0, 2)),
        ip: Some(Ipv4Addr::new(10, 0, 0, 2)),
        mtu: 1500,
        offload: true,
        age_s: 7,
        published: vec![published("8080:80")],
        counters: CountersView { drops: [("too-short".to_owned(), 3)].into(), ..CountersView::default() },
    }
}

pub(super) fn stats() -> StatsView {
    StatsView {
        version: "0.1.0".into(),
        pid: 1,
        uptime_s: 2,
        networks: 1,
        ports: 1,
        flows: 0,
        turns: 3,
        sleeps: 4,
        rx_frames: 5,
        tx_frames: 6,
        drops: 7,
        threads: Vec::new(),
    }
}
