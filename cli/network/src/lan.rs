//! Where frames leave to containers.

use tapswitch_switch::Switch;
use tapswitch_wire::{DropReason, Emit, FrameRef, Instant, Meta, PortId, Unheard};

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

impl<P: Ports> Emit for Lan<'_, P> {
    fn emit(&mut self, meta: &Meta, frame: &[u8]) {
        let parsed = match FrameRef::parse(*meta, frame) {
            Ok(parsed) => parsed,
            Err(reason) => return self.switch.dropped(PortId::GATEWAY, reason),
        };
        if self.switch.decide(PortId::GATEWAY, &parsed, self.now, &mut Unheard, self.targets).is_err() {
            // Counted by the switch.
            return;
        }
        for to in self.targets.drain(..) {
            // Counted at the port; nobody is left to be told.
            let _ = deliver(self.switch, self.ports, to, meta, frame);
        }
    }
}
