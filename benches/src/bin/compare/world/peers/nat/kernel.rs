//! The kernel as the router: a bridge to the container, forwarding, and masquerade by nft with conntrack as it is by
//! default.

use super::{CONTAINER, GATEWAY, INTERFACE, Netns, Site, UPLINK};
use crate::process::output;

/// Sessions that the kernel tracks in the gateway's namespace.
pub(super) const COUNT: &str = "net.netfilter.nf_conntrack_count";

/// How many it tracks at most: one limit for the machine and all of its namespaces.
pub(super) const MAX: &str = "net.netfilter.nf_conntrack_max";

/// Seconds for which it keeps a UDP session without an answer.
const UDP_TIMEOUT: &str = "net.netfilter.nf_conntrack_udp_timeout";

pub(super) fn build(site: &Site) -> Result<(), String> {
    let Site { container, gateway, offload, .. } = site;
    site.kernel_outside()?;
    gateway.ip("link add br0 type bridge")?;
    gateway.ip(&format!("addr add {}/24 dev br0", site.addr(GATEWAY)))?;
    gateway.ip("link set br0 up")?;
    gateway.ip(&format!("link add v1 type veth peer name {INTERFACE} netns {}", container.name()))?;
    if !offload {
        gateway.no_offload("v1")?;
        container.no_offload(INTERFACE)?;
    }
    gateway.ip("link set v1 master br0 up")?;
    container.ip(&format!("addr add {}/24 dev {INTERFACE}", site.addr(CONTAINER)))?;
    container.ip(&format!("link set {INTERFACE} mtu 1500 up"))?;
    container.ip(&format!("route add default via {}", site.addr(GATEWAY)))?;
    masquerade(gateway)
}

/// Lets the gateway's kernel forward, and masquerade what leaves by the uplink.
pub(super) fn masquerade(gateway: &Netns) -> Result<(), String> {
    gateway.sysctl("net.ipv4.ip_forward", 1)?;
    let rules = format!(
        "add table ip nat; add chain ip nat postrouting {{ type nat hook postrouting priority srcnat; }}; \
         add rule ip nat postrouting oifname {UPLINK} masquerade"
    );
    output("nft", gateway.command("nft").arg(rules))?;
    // As tapswitch does by default (RFC 4787 REQ-5); 30 s would be over before a million sessions are open. Nothing but
    // the tests of memory lasts long enough to notice.
    gateway.sysctl(UDP_TIMEOUT, 300)
}

/// What `key` is in `netns`.
pub(super) fn read(netns: &Netns, key: &str) -> Result<u64, String> {
    let text = output("sysctl", netns.command("sysctl").args(["-n", key]))?;
    text.trim().parse().map_err(|_| format!("{key} is {}, not a number", text.trim()))
}
