//! What would become of a frame, without anything happening.
//!
//! # Theory of operation
//!
//! There is no second set of rules that could say something else than the first one does. [`Network::explain`] makes a copy
//! of what the frame can meet and lets it pass through the very same stages: switch, gateway, address service, uplink.
//! Where frames leave to containers, a recorder of the caller stands; where the host's sockets would be, [`Imagined`] is.
//! The copy is thrown away afterwards.
//!
//! What is copied is bounded, since it is copied between two turns of frames: the FDB, the gateway's neighbours, and of the
//! uplink's sessions only those that this frame can have to do with. Leases are copied for what is addressed to the address
//! service alone. What must not be guessed, as outside ports, is drawn from copies of the same generators, so that the frame
//! would get what is named here, if it came next.
//!
//! What only the outside knows (whether somebody listens, whether a frame is lost) no copy can tell: [`Explained::asked`]
//! names what the host would be asked to do.

use tapswitch_relay::{Host, Relay};
use tapswitch_wire::{FrameRef, Instant, L4, Meta, PortId, Recorded, Step, Verdict};

use crate::imagined::{Asked, Imagined};
use crate::lan::{Lan, Ports};
use crate::network::Network;
use crate::uplink::Crossing;

/// UDP port of DHCP servers.
const DHCP_SERVER: u16 = 67;

/// What would become of a frame.
#[derive(Clone, Debug)]
pub struct Explained {
    /// How it would end.
    pub verdict: Verdict,
    /// What the stages say, in order.
    pub steps: Vec<Step>,
    /// What the host would be asked to do, in order.
    pub asked: Vec<Asked>,
    /// What would be passed to other networks.
    pub crossing: Vec<Crossing>,
}

impl<H: Host> Network<H> {
    /// What would become of a frame of a container that came now. `ports` gets what would be sent, and must not send it;
    /// whether a port could take a frame is for it to say.
    ///
    /// `bytes` are changed as the frame would be. Of the network nothing changes; the host is asked whether an address is
    /// its own, and for nothing else.
    pub fn explain(
        &mut self,
        port: PortId,
        meta: Meta,
        bytes: &mut [u8],
        now: Instant,
        ports: &mut impl Ports,
    ) -> Explained {
        let mut copy = self.copy_for(port, meta, bytes, now);
        let mut journey = Recorded::default();
        let verdict = copy.rx(port, meta, bytes, now, &mut journey, ports, &mut |_| {});
        let mut asked = Vec::new();
        if let Some(relay) = &mut copy.relay {
            // Datagrams go out at the end of a turn.
            let (switch, targets) = (&mut copy.forwarder.switch, &mut copy.lan_targets);
            relay.poll(now, &mut Lan { switch, ports, targets, now });
            asked = relay.host().take_asked();
        }
        Explained { verdict, steps: journey.steps, asked, crossing: copy.take_crossing() }
    }

    /// A network of its own that treats this frame as this one would.
    fn copy_for(&mut self, port: PortId, meta: Meta, bytes: &[u8], now: Instant) -> Network<Imagined> {
        let frame = FrameRef::parse(meta, bytes).ok();
        let is_dhcp = frame.as_ref().is_some_and(|it| it.parsed().l4 == L4::Udp && it.dst_port() == DHCP_SERVER);
        let packet = match (&self.packet, &frame) {
            (Some(packet), Some(frame)) => Some(Box::new(packet.copy_for(port, frame, now))),
            // What is no frame gets no further than the switch.
            _ => None,
        };
        Network {
            config: self.config.clone(),
            forwarder: self.forwarder.copy(packet.as_deref().map(|packet| packet.conntrack())),
            gateway: self.gateway.clone(),
            dhcp: if is_dhcp { self.dhcp.clone() } else { self.dhcp.without_leases() },
            relay: frame.as_ref().and_then(|frame| self.relay_for(port, frame, now)),
            packet,
            crossing: Vec::new(),
            lan_targets: Vec::new(),
        }
    }

    /// The relay, on a host that does nothing.
    fn relay_for(&mut self, port: PortId, frame: &FrameRef<'_>, now: Instant) -> Option<Relay<Imagined>> {
        let relay = self.relay.as_mut()?;
        let own = frame.dst_ip().filter(|ip| relay.host().is_own(*ip));
        Some(relay.copy_for(port, frame, now, Imagined::new(own)))
    }
}
