//! The fast way of established sessions, for every poll thread: no gateway, no neighbour table, no owner.

use std::sync::Arc;

use tapswitch_conntrack::{Conntrack, Passed, Realm, Tuple};
use tapswitch_wire::{DropReason, Frame, Instant, Journey, Mac, PortId, Stage, Step, Verdict};

use crate::forwarder::Forwarder;
use crate::lan::{Lan, Ports};

/// What a thread needs of a packet uplink.
#[derive(Clone, Debug)]
pub(crate) struct Fast {
    conntrack: Arc<Conntrack>,
    /// Our MAC address on the LAN.
    inside: Mac,
    /// Our MAC address on the uplink.
    outside: Option<Mac>,
}

impl Fast {
    pub(crate) fn new(conntrack: Arc<Conntrack>, inside: Mac) -> Fast {
        Fast { conntrack, inside, outside: None }
    }

    /// The same, with other sessions.
    pub(crate) fn with(&self, conntrack: Arc<Conntrack>) -> Fast {
        Fast { conntrack, ..self.clone() }
    }

    /// The uplink's device came or went.
    pub(crate) fn set_outside(&mut self, mac: Option<Mac>) {
        self.outside = mac;
    }

    /// Whether a frame is for us at layer 2.
    fn takes(&self, realm: Realm, frame: &Frame<'_>) -> bool {
        let own = match realm {
            Realm::Inside => Some(self.inside),
            Realm::Outside => self.outside,
        };
        Some(frame.dst_mac()) == own && frame.parsed().vlan.is_none()
    }
}

impl Forwarder {
    /// Takes a packet of an established session all the way. `None`: it is as it came, and takes the slow way.
    #[inline]
    pub(crate) fn pass(
        &mut self,
        realm: Realm,
        frame: &mut Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        ports: &mut impl Ports,
    ) -> Option<Result<Verdict, DropReason>> {
        let fast = self.fast.as_ref().filter(|fast| fast.takes(realm, frame))?;
        let (inside, outside) = (fast.inside, fast.outside);
        let Passed { before, egress, mac } = fast.conntrack.pass(realm, frame, fast.conntrack.mtu(), now)?;
        journey.note(|| {
            let after = Tuple::read(frame).map(|tuple| tuple.to_string()).unwrap_or_default();
            Step::changed(Stage::Nat, format!("{before} becomes {after}"))
        });
        frame.set_dst_mac(mac);
        match (egress, outside) {
            (Realm::Inside, _) => frame.set_src_mac(inside),
            (Realm::Outside, Some(outside)) => frame.set_src_mac(outside),
            (Realm::Outside, None) => return Some(Err(DropReason::UplinkDown)),
        }
        if realm == Realm::Inside {
            // Seen from the switch, the gateway got it.
            self.switch.sent(PortId::GATEWAY, frame.bytes().len());
        }
        Some(match egress {
            Realm::Outside => ports.tx_uplink(frame.meta(), frame.bytes()).map(|()| Verdict::Relay),
            Realm::Inside => {
                Lan { switch: &mut self.switch, ports, targets: &mut self.targets, now }.enter(frame, journey)
            }
        })
    }
}
