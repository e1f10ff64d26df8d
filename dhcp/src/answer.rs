//! What the server does with each kind of message (RFC 2131 4.3).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dhcproto::v4::{MessageType, SERVER_PORT};
use tapswitch_wire::{DropReason, Emit, Frame, Instant, Journey, Meta, PortId, Stage, Step, build};

use crate::config::INFINITE;
use crate::lease::{Lease, State};
use crate::message::Request;
use crate::reply::Reply;
use crate::server::Server;

/// Time to live of replies.
const TTL: u8 = 64;

/// Where a message came in, and when.
#[derive(Clone, Copy)]
struct Arrival {
    port: PortId,
    now: Instant,
}

impl Server {
    /// Answers one frame that the gateway found to be UDP to port 67 with right checksums.
    ///
    /// What must outlive a crash is handed to `record` before the reply is handed to `out`: whole lines for the
    /// journal, to be appended and synced. The reply is a whole, untagged Ethernet frame. `Ok` without a reply means
    /// that the message was taken in (RELEASE, DECLINE).
    ///
    /// # Errors
    /// * [`DropReason::DhcpMalformed`], [`DropReason::DhcpFromClient`]: not a well-formed message of a client.
    /// * [`DropReason::DhcpSpoofed`]: the hardware address in it is not the frame's source (unless a relay passed it
    ///   on), or the client identifier belongs to a station behind another port.
    /// * [`DropReason::DhcpIgnored`]: for another server or network, or about a lease that there is not.
    /// * [`DropReason::DhcpLimit`], [`DropReason::DhcpPoolExhausted`]: no address for this port, or for anybody.
    pub fn handle(
        &mut self,
        port: PortId,
        frame: &Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        record: &mut impl FnMut(&[u8]),
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        self.poll(now, record);
        let request = Request::parse(frame.payload())?;
        if request.is_relayed() {
            if !self.config.subnet.contains(&request.header.giaddr()) {
                return Err(DropReason::DhcpIgnored);
            }
        } else if request.mac != frame.src_mac() {
            return Err(DropReason::DhcpSpoofed);
        }
        let arrival = Arrival { port, now };
        let reply = match request.kind {
            MessageType::Discover => self.discover(&request, arrival, journey)?,
            MessageType::Request => self.request(&request, frame.dst_ip(), arrival, journey, record)?,
            MessageType::Inform => self.inform(&request, journey)?,
            MessageType::Decline => return self.decline(&request, arrival, journey, record),
            MessageType::Release => return self.give_back(&request, port, journey, record),
            _ => return Err(DropReason::DhcpIgnored),
        };
        self.send(&request, &reply, frame, out)
    }

    fn send(
        &mut self,
        request: &Request,
        reply: &Reply,
        frame: &Frame<'_>,
        out: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let payload = reply.encode(&self.config, request)?;
        let (mac, ip, port) = reply.destination(request, frame.src_mac());
        let link = build::Link { src: self.config.server_mac, dst: mac };
        let header = build::Ip { src: self.config.server_ip.into(), dst: ip.into(), ttl: TTL, tos: 0, id: 0 };
        build::udp(&mut self.frame, link, header, SERVER_PORT, port, &payload);
        out.emit(&Meta::PLAIN, &self.frame);
        Ok(())
    }

    /// The address that this client has or had.
    ///
    /// A reservation goes by hardware address, which only a frame's source proves. A lease goes by client identifier,
    /// which proves nothing: while the port of its holder is attached, it is honoured behind another port only for the
    /// same, proven hardware address (a station that moved). So no container takes over or ends another's lease.
    fn standing(&self, request: &Request, port: PortId) -> Result<Option<(Ipv4Addr, &Lease)>, DropReason> {
        if !request.is_relayed()
            && let Some(reserved) = self.table.of_station(request.mac)
        {
            return Ok(Some(reserved));
        }
        let Some((ip, lease)) = self.table.of_client(&request.client) else { return Ok(None) };
        let moved = !request.is_relayed() && lease.mac == request.mac;
        match lease.port {
            Some(holder) if holder != port && !moved => Err(DropReason::DhcpSpoofed),
            _ => Ok(Some((ip, lease))),
        }
    }

    /// Whether the port may hold one address more.
    fn check_limit(&self, port: PortId) -> Result<(), DropReason> {
        if self.table.count(port) < self.config.max_leases_per_port { Ok(()) } else { Err(DropReason::DhcpLimit) }
    }

    /// Chooses an address in the order of RFC 2131 4.3.1 and offers it.
    fn discover(
        &mut self,
        request: &Request,
        Arrival { port, now }: Arrival,
        journey: &mut impl Journey,
    ) -> Result<Reply, DropReason> {
        journey.note(|| Step::looked_up(Stage::Dhcp, format!("DISCOVER from {} asks for an address", request.mac)));
        let standing = self.standing(request, port)?.map(|(ip, lease)| (ip, lease.state));
        let held = matches!(standing, Some((_, State::Offered | State::Bound | State::Reserved)));
        if !held {
            self.check_limit(port)?;
        }
        let wish = request.requested.filter(|ip| self.table.is_free(*ip));
        let unheld = || {
            let abandoned = self.table.abandoned().next().map(|(ip, _)| (ip, "taken back from a port that is gone"));
            self.table.free().next().map(|ip| (ip, "the next free one")).or(abandoned)
        };
        let (ip, why) = match (standing, wish) {
            (Some((ip, State::Reserved)), _) => (ip, "reserved for it"),
            (Some((ip, State::Released)), _) => (ip, "its address last time"),
            (Some((ip, _)), _) => (ip, "its address already"),
            (None, Some(ip)) => (ip, "the one it asked for"),
            (None, None) => unheld().ok_or(DropReason::DhcpPoolExhausted)?,
        };
        if matches!(standing, None | Some((_, State::Offered | State::Released))) {
            let before = self.table.get(ip).filter(|_| standing.is_some());
            let lease = Lease {
                state: State::Offered,
                expires: Some(now + self.config.offer_time),
                remembered: before.is_some_and(|lease| lease.state == State::Released || lease.remembered),
                name: before.and_then(|lease| lease.name.clone()),
                ..self.lease(request, port)
            };
            self.table.put(ip, lease);
        }
        journey.note(|| Step::decided(Stage::Dhcp, format!("offers {ip}: {why}")));
        Ok(self.grant(MessageType::Offer, ip, request))
    }

    /// Acknowledges or refuses an address. Which state the client is in shows in what it sends (RFC 2131 table 4).
    fn request(
        &mut self,
        request: &Request,
        dst: Option<IpAddr>,
        arrival: Arrival,
        journey: &mut impl Journey,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<Reply, DropReason> {
        let ciaddr = Some(request.header.ciaddr()).filter(|ip| !ip.is_unspecified());
        let ip = ciaddr.or(request.requested).ok_or(DropReason::DhcpMalformed)?;
        let selecting = ciaddr.is_none() && request.server.is_some();
        journey.note(|| {
            let what = match (ciaddr, dst) {
                (None, _) if selecting => "takes the offer of",
                (None, _) => "restarted and wants to keep",
                (Some(_), Some(dst)) if dst == IpAddr::V4(self.config.server_ip) => "renews",
                (Some(_), _) => "asks any server to extend",
            };
            Step::looked_up(Stage::Dhcp, format!("REQUEST from {} {what} {ip}", request.mac))
        });
        let standing = self.standing(request, arrival.port)?.map(|(ip, lease)| (ip, lease.state));
        if request.server.is_some_and(|server| server != self.config.server_ip) {
            if let Some((offered, State::Offered)) = standing {
                self.withdraw(offered);
            }
            journey.note(|| Step::decided(Stage::Dhcp, "stays silent: it chose another server"));
            return Err(DropReason::DhcpIgnored);
        }
        let mut nak = |why: String| {
            journey.note(|| Step::decided(Stage::Dhcp, format!("NAK: {why}")));
            Ok(Reply::nak(why))
        };
        if !self.config.subnet.contains(&ip) {
            return nak(format!("{ip} is not on this network"));
        }
        match standing {
            Some((own, _)) if own != ip => return nak(format!("{ip} is not the address of this client")),
            Some((_, State::Reserved)) => {}
            Some((_, state)) => self.bind(ip, state == State::Released, request, arrival, record)?,
            // A client in INIT-REBOOT that we know nothing of may be another server's (RFC 2131 4.3.2).
            None if ciaddr.is_none() && !selecting => {
                journey.note(|| Step::decided(Stage::Dhcp, "stays silent: it knows nothing of this client"));
                return Err(DropReason::DhcpIgnored);
            }
            // An offer that expired, or a lease that a damaged journal lost: as long as nobody has the address, keeping
            // it spares the client its connections.
            None if self.table.is_free(ip) => self.bind(ip, true, request, arrival, record)?,
            None => return nak(format!("{ip} is not free")),
        }
        let reply = self.grant(MessageType::Ack, ip, request);
        journey.note(|| {
            let secs = reply.lease_secs.unwrap_or(0);
            let time = if secs == INFINITE { "for ever".into() } else { format!("for {secs} s") };
            Step::decided(Stage::Dhcp, format!("ACK: {ip} is its address {time}"))
        });
        Ok(reply)
    }

    /// Makes an address the client's. `new` ones must fit the port's limit; one that was acknowledged or offered is
    /// honoured in any case.
    fn bind(
        &mut self,
        ip: Ipv4Addr,
        new: bool,
        request: &Request,
        Arrival { port, now }: Arrival,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        if new {
            self.check_limit(port)?;
        }
        let secs = self.config.lease_secs(request.lease_secs);
        let known = self.table.of_client(&request.client).filter(|(own, _)| *own == ip).map(|(_, lease)| lease);
        let lease = Lease {
            state: State::Bound,
            expires: (secs != INFINITE).then(|| now + Duration::from_secs(secs.into())),
            secs,
            name: known.and_then(|lease| lease.name.clone()),
            ..self.lease(request, port)
        };
        self.update(ip, lease, record);
        Ok(())
    }

    /// What every new row has in common.
    fn lease(&self, request: &Request, port: PortId) -> Lease {
        Lease {
            state: State::Offered,
            client: Some(request.client.clone()),
            mac: request.mac,
            port: Some(port),
            hostname: request.hostname.clone(),
            name: None,
            expires: None,
            secs: 0,
            remembered: false,
        }
    }

    /// The OFFER or ACK of an address: both carry the same options (RFC 2131 4.3.1).
    fn grant(&self, kind: MessageType, ip: Ipv4Addr, request: &Request) -> Reply {
        let name =
            self.table.get(ip).filter(|lease| lease.state == State::Reserved).and_then(|lease| lease.name.clone());
        Reply { kind, yiaddr: ip, lease_secs: Some(self.config.lease_secs(request.lease_secs)), name, message: None }
    }

    /// Parameters for a client that has an address from elsewhere (RFC 2131 4.3.5).
    fn inform(&self, request: &Request, journey: &mut impl Journey) -> Result<Reply, DropReason> {
        let ip = request.header.ciaddr();
        journey
            .note(|| Step::looked_up(Stage::Dhcp, format!("INFORM from {} at {ip} asks for parameters", request.mac)));
        if !self.table.holds(ip) {
            journey.note(|| Step::decided(Stage::Dhcp, format!("stays silent: {ip} is no host of this network")));
            return Err(DropReason::DhcpIgnored);
        }
        let name = self.table.of_station(request.mac).filter(|(own, _)| *own == ip).and_then(|(_, l)| l.name.clone());
        journey.note(|| Step::decided(Stage::Dhcp, "ACK: parameters without a lease"));
        Ok(Reply { kind: MessageType::Ack, yiaddr: Ipv4Addr::UNSPECIFIED, lease_secs: None, name, message: None })
    }

    /// The client found its address in use: nobody gets it for a while. It keeps counting against the port, so that one
    /// container cannot decline the whole pool.
    fn decline(
        &mut self,
        request: &Request,
        Arrival { port, now }: Arrival,
        journey: &mut impl Journey,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        let ip = request.requested.ok_or(DropReason::DhcpMalformed)?;
        journey.note(|| Step::looked_up(Stage::Dhcp, format!("DECLINE from {}: {ip} is in use", request.mac)));
        let lease = self.own(ip, request, port)?;
        if lease.state == State::Reserved {
            journey.note(|| Step::decided(Stage::Dhcp, format!("{ip} stays reserved for it")));
            return Ok(());
        }
        let secs = u32::try_from(self.config.quarantine.as_secs()).unwrap_or(INFINITE);
        let lease = Lease {
            state: State::Declined,
            client: None,
            name: None,
            expires: Some(now + self.config.quarantine),
            secs,
            remembered: false,
            ..lease.clone()
        };
        self.update(ip, lease, record);
        journey.note(|| Step::changed(Stage::Dhcp, format!("{ip} is not offered for {secs} s")));
        Ok(())
    }

    /// The client is done with its address: free, but remembered for it.
    fn give_back(
        &mut self,
        request: &Request,
        port: PortId,
        journey: &mut impl Journey,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        let ip = request.header.ciaddr();
        journey.note(|| Step::looked_up(Stage::Dhcp, format!("RELEASE from {} gives back {ip}", request.mac)));
        let lease = self.own(ip, request, port)?;
        if lease.state == State::Reserved {
            journey.note(|| Step::decided(Stage::Dhcp, format!("{ip} stays reserved for it")));
            return Ok(());
        }
        if lease.state == State::Offered {
            self.withdraw(ip);
        } else {
            let lease = lease.clone().into_released();
            self.update(ip, lease, record);
        }
        journey.note(|| Step::changed(Stage::Dhcp, format!("{ip} is free again")));
        Ok(())
    }

    /// The lease that a client speaks of as its own, to this server.
    fn own(&self, ip: Ipv4Addr, request: &Request, port: PortId) -> Result<&Lease, DropReason> {
        if request.server.is_some_and(|server| server != self.config.server_ip) {
            return Err(DropReason::DhcpIgnored);
        }
        match self.standing(request, port)? {
            Some((own, lease)) if own == ip && lease.state != State::Released => Ok(lease),
            _ => Err(DropReason::DhcpIgnored),
        }
    }
}
