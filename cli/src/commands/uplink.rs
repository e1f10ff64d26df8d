//! The device of an uplink: opened with the rights and in the network namespace of this process, and handed to the daemon.

use std::os::fd::OwnedFd;

use tapswitch_link::uplink::{Kind, Opened, open};

use crate::api::{NetworkView, UplinkDevice, UplinkOffer};
use crate::client::Client;
use crate::config::NetworkPlan;
use crate::error::Error;

/// Opens the device that a network waits for, and hands it over. Returns the network as it is then.
pub(super) fn hand_over(client: Client, network: &str, macvtap: bool) -> Result<NetworkView, Error> {
    client.uplink(network, |offer| open_uplink(offer, macvtap))
}

/// A device that was opened before there was a daemon to take it.
pub(super) type Opening = Result<(UplinkDevice, OwnedFd), Error>;

/// Opens the device of a network that is only planned; none if its uplink is no device.
pub(super) fn open_early(plan: &NetworkPlan) -> Option<Opening> {
    let offer = UplinkOffer::of(&plan.name, &plan.uplink)?;
    Some(open_uplink(&offer, false))
}

/// Hands over a device that was opened early.
pub(super) fn give(client: Client, network: &str, opening: Opening) -> Result<NetworkView, Error> {
    client.uplink(network, |_| opening)
}

fn open_uplink(offer: &UplinkOffer, macvtap: bool) -> Result<(UplinkDevice, OwnedFd), Error> {
    let prefer = macvtap.then_some(Kind::Macvtap);
    let try_with = |mac| open(&offer.device, mac, offer.kind, prefer);
    // A device with an address of its own takes no other; whether that will do is for the daemon to say. Any other trouble
    // comes back, and then the first error is the better one.
    let opened = try_with(offer.mac).or_else(|first| match offer.mac {
        Some(_) => try_with(None).map_err(|_| first),
        None => Err(first),
    });
    let Opened { fd, about } = opened?;
    Ok((about, fd))
}
