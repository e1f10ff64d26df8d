//! A veth pair and nothing else: what the two stacks can do with no switch at all.

use super::{INTERFACE, Peer, Site};

pub(super) fn build(site: Site) -> Result<Peer, String> {
    site.a.ip(&format!("link add {INTERFACE} type veth peer name {INTERFACE} netns {}", site.b.name()))?;
    site.configure()?;
    Ok(site.peer("a veth pair, no switch: the limit", Vec::new()))
}
