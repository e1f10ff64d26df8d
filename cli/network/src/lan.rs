//! Where frames leave to containers.

use std::ops::Deref;

use tapswitch_switch::Switch;
use tapswitch_wire::{
    DropReason, Emit, FrameOf, FrameRef, Instant, Journey, Meta, PortId, Recorded, Stage, Step, Unheard, Verdict,
};

use crate::network::concluded;

/// The ports of a network, by number. The gateway's own is not among them.
pub trait Ports {
    /// Sends one frame to one container.
    ///
    /// # Errors
    /// Why it could not be sent. It is not tried again.
    fn tx(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason>;

    /// Sends one frame by the device of a packet uplink.
    ///
    /// # Errors
    /// As [`Ports::tx`]; [`DropReason::UplinkDown`] if there is none.
    fn tx_uplink(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let _ = (meta, frame);
        Err(DropReason::UplinkDown)
    }

    /// This frame was dropped and counted on account of this port, [`PortId::GATEWAY`] for what came from the uplink too.
    /// It may have been rewritten on its way. What is dropped without its frame at hand is only counted.
    fn lost(&mut self, port: PortId, reason: DropReason, meta: &Meta, frame: &[u8]) {
        let _ = (port, reason, meta, frame);
    }

    /// Somebody wants to hear of this frame, which the gateway or the uplink sends into the network.
    fn hears(&mut self, meta: &Meta, frame: &[u8]) -> Option<Recorded> {
        let _ = (meta, frame);
        None
    }

    /// What became of a frame that [`Ports::hears`] wanted to hear of.
    fn told(&mut self, meta: &Meta, frame: &[u8], journey: Recorded, verdict: Verdict) {
        let _ = (meta, frame, journey, verdict);
    }
}

/// Sends a frame by one port and counts it there.
pub(crate) fn deliver(
    switch: &mut Switch,
    ports: &mut impl Ports,
    to: PortId,
    meta: &Meta,
    frame: &[u8],
) -> Result<(), DropReason> {
    match ports.tx(to, meta, frame) {
        Ok(()) => {
            switch.sent(to, frame.len());
            Ok(())
        }
        Err(reason) => {
            switch.dropped(to, reason);
            ports.lost(to, reason, meta, frame);
            Err(reason)
        }
    }
}

/// The LAN as the gateway sees it: what is emitted here enters the switch at the gateway's port.
pub(crate) struct Lan<'a, P> {
    pub(crate) switch: &'a mut Switch,
    pub(crate) ports: &'a mut P,
    /// Scratch space.
    pub(crate) targets: &'a mut Vec<PortId>,
    pub(crate) now: Instant,
}

impl<P: Ports> Lan<'_, P> {
    /// Takes a frame of the gateway into the switch and to whom it is for.
    ///
    /// # Errors
    /// Why it went nowhere, which is counted: by the switch, or at the one port that it was for.
    #[inline]
    pub(crate) fn enter<B: Deref<Target = [u8]>>(
        &mut self,
        frame: &FrameOf<B>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        if let Err(reason) = self.switch.decide(PortId::GATEWAY, frame, self.now, journey, self.targets) {
            self.ports.lost(PortId::GATEWAY, reason, frame.meta(), frame.bytes());
            return Err(reason);
        }
        if let [to] = self.targets[..] {
            return deliver(self.switch, self.ports, to, frame.meta(), frame.bytes()).map(|()| Verdict::Forward(to));
        }
        for to in self.targets.drain(..) {
            // Counted at the port.
            let _ = deliver(self.switch, self.ports, to, frame.meta(), frame.bytes());
        }
        Ok(Verdict::Reply)
    }
}

impl<P: Ports> Emit for Lan<'_, P> {
    fn emit(&mut self, meta: &Meta, frame: &[u8]) {
        match FrameRef::parse(*meta, frame) {
            Ok(frame) => match self.ports.hears(meta, frame.bytes()) {
                // What went wrong is counted, and nobody is left to be told.
                None => drop(self.enter(&frame, &mut Unheard)),
                Some(mut journey) => {
                    journey.note(|| Step::decided(Stage::Gateway, "the gateway sends this into the network"));
                    let verdict = self.enter(&frame, &mut journey).unwrap_or_else(Verdict::Drop);
                    concluded(verdict, &mut journey);
                    self.ports.told(meta, frame.bytes(), journey, verdict);
                }
            },
            Err(reason) => {
                self.switch.dropped(PortId::GATEWAY, reason);
                self.ports.lost(PortId::GATEWAY, reason, meta, frame);
            }
        }
    }
}
