//! The kernel's bridge, in a namespace of its own: a firewall of the machine (`bridge-nf-call-iptables`) cannot see it.

use super::{INTERFACE, Peer, Site};

pub(super) fn build(site: Site) -> Result<Peer, String> {
    let middle = site.middle()?;
    middle.ip("link add br0 type bridge")?;
    middle.ip("link set br0 up")?;
    for (port, (end, _)) in ["v1", "v2"].into_iter().zip(site.ends()) {
        middle.ip(&format!("link add {port} type veth peer name {INTERFACE} netns {}", end.name()))?;
        if !site.offload {
            middle.no_offload(port)?;
        }
        middle.ip(&format!("link set {port} master br0 up"))?;
    }
    site.configure()?;
    Ok(site.peer("the kernel's bridge, a veth pair to each container", Vec::new()))
}
