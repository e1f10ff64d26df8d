//! A port of the gateway that leads into the container, for what is outside.

use crate::options::PeerKind;
use crate::process::output;

use super::{CONTAINER, Ipv4Addr, Launched, Netns, OUTSIDE, Peer, Plan, Site, UPLINK, ours, rootless};

/// Of the gateway and of the container alike: iperf3's.
pub(super) const PORT: u16 = 5201;

/// Publishes [`PORT`], each peer in its own way.
pub(super) fn publish(site: &Site, plan: &Plan, launched: &Launched) -> Result<(), String> {
    match plan {
        Plan::Tapswitch(..) => {
            let control = launched.control.as_ref().ok_or("there is no daemon to ask")?;
            control.publish(ours::NAME, &format!("{PORT}:{PORT}"))
        }
        Plan::Other(PeerKind::BridgeNft) => {
            let rules = format!(
                "add chain ip nat prerouting {{ type nat hook prerouting priority dstnat; }}; \
                 add rule ip nat prerouting iifname {UPLINK} tcp dport {PORT} dnat to {}",
                site.addr(CONTAINER)
            );
            output("nft", site.gateway.command("nft").arg(rules)).map(drop)
        }
        Plan::Other(PeerKind::Slirp4netns | PeerKind::Slirp4netns1500) => rootless::publish(site),
        // pasta was told when it was started.
        Plan::Other(_) => Ok(()),
    }
}

impl Peer {
    /// Where the container's [`PORT`] can be reached from outside: the container, the outside, and the address.
    pub(crate) fn published(&self) -> Result<(&Netns, &Netns, Ipv4Addr), String> {
        let way_out = self.way_out.as_ref().ok_or("it has no gateway")?;
        way_out.published.as_ref().map_err(|reason| format!("not available: {reason}"))?;
        Ok((&self.a, &self.b, OUTSIDE))
    }
}
