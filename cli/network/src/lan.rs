//! Where frames leave to containers.

use std::ops::Deref;

use tapswitch_switch::Switch;
use tapswitch_wire::{DropReason, Emit, FrameOf, FrameRef, Instant, Journey, Meta, PortId, Unheard, Verdict};

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
        self.switch.decide(PortId::GATEWAY, frame, self.now, journey, self.targets)?;
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
            // What went wrong is counted, and nobody is left to be told.
            Ok(frame) => drop(self.enter(&frame, &mut Unheard)),
            Err(reason) => self.switch.dropped(PortId::GATEWAY, reason),
        }
    }
}
