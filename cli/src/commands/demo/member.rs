//! A container of the demo, with the agent inside it, seen from outside.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tapswitch_wire::Mac;

use super::agent::{self, Ask, Told, line_of};
use super::dhcp::Exchange;
use super::http::Fetched;
use super::ping::Pings;
use crate::api::{AttachRequest, AttachTap, PortView};
use crate::client::Client;
use crate::container::{Container, Group, InterfacePlan, Plan};
use crate::error::Error;

/// The one interface that each container has.
pub(super) const INTERFACE: &str = "eth0";

/// Longer than all tries and waits of any one task together.
const PATIENCE: Duration = Duration::from_secs(20);

/// A container, attached and running its agent.
#[derive(Debug)]
pub(super) struct Member {
    /// Its port on the switch.
    pub port: PortView,
    container: Container,
    talk: BufReader<UnixStream>,
}

impl Member {
    /// Makes the container and attaches it; it has no address yet.
    pub(super) fn join(client: Client, name: &str) -> Result<Member, Error> {
        let failed = |error: io::Error| Error::failed(format!("cannot talk to the container {name}: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let wanted = AttachRequest { name: Some(name.to_owned()), dhcp: true, ..AttachRequest::default() };
        let mut made = None;
        let port = client.attach(&wanted, |offer| {
            let plan = Plan {
                hostname: offer.name.clone(),
                resolv_conf: None,
                interface: InterfacePlan::new(offer, INTERFACE, true),
                argv: vec!["/proc/self/exe".into(), agent::VERB.into()],
            };
            let (container, tap) = Container::make(plan, theirs.as_fd(), Group::Own)?;
            made = Some(container);
            Ok((AttachTap { interface: INTERFACE.into(), target: "demo".into() }, tap))
        })?;
        let mut container = made.ok_or_else(|| Error::failed("the switch took a container that was never made"))?;
        container.go()?;
        Ok(Member { port, container, talk: BufReader::new(ours) })
    }

    pub(super) fn mac(&self) -> Mac {
        self.port.mac
    }

    /// Has it get an address.
    pub(super) fn dhcp(&mut self, xid: u32) -> Result<Exchange, Error> {
        let (mac, hostname) = (self.port.mac, self.port.name.clone());
        match self.ask(&Ask::Dhcp { interface: INTERFACE.into(), mac, xid, hostname })? {
            Told::Leased(exchange) => Ok(exchange),
            other => Err(self.confused(&other)),
        }
    }

    /// Has it send echo requests.
    pub(super) fn ping(&mut self, to: Ipv4Addr, id: u16, count: u16) -> Result<Pings, Error> {
        match self.ask(&Ask::Ping { to, id, count })? {
            Told::Pinged(pings) => Ok(pings),
            other => Err(self.confused(&other)),
        }
    }

    /// Has it fetch a page.
    pub(super) fn get(&mut self, from: SocketAddrV4) -> Result<Fetched, Error> {
        match self.ask(&Ask::Get { from })? {
            Told::Fetched(fetched) => Ok(fetched),
            other => Err(self.confused(&other)),
        }
    }

    /// Ends it and waits until it has ended.
    pub(super) fn leave(self) -> Result<(), Error> {
        // The agent ends when the other end of its socket does.
        drop(self.talk);
        match self.container.wait()? {
            0 => Ok(()),
            status => Err(Error::failed(format!("the container {} ended with status {status}", self.port.name))),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Told, Error> {
        let told = self
            .exchange(ask)
            .map_err(|error| Error::failed(format!("the container {} gives no answer: {error}", self.port.name)))?;
        match told {
            Told::Failed(why) => Err(Error::failed(format!("in the container {}: {why}", self.port.name))),
            told => Ok(told),
        }
    }

    fn exchange(&mut self, ask: &Ask) -> io::Result<Told> {
        self.talk.get_mut().write_all(&line_of(ask)?)?;
        let mut line = String::new();
        if self.talk.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it has ended"));
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn confused(&self, told: &Told) -> Error {
        Error::failed(format!("the container {} answered something else: {told:?}", self.port.name))
    }
}
