//! tapswitch as the router, with each of its uplinks.
//!
//! * `nat`: it has the address outside, on the uplink itself; the gateway's kernel has none and forwards nothing.
//! * `tun`: it routes to a TAP device that was made for it; the gateway's kernel forwards and masquerades.
//! * `user`: it relays by sockets of the gateway's kernel.

use std::path::Path;

use crate::options::{PeerKind, Variant};

use super::tapswitch::{self, Host, Up};
use super::{CONTAINER, OUTSIDE, Purpose, Room, SERVER, Site, UPLINK, kernel};

/// The device of `tun`, the kernel's address on it, and ours.
const DEVICE: &str = "ts0";
const DEVICE_KERNEL: &str = "10.254.0.1";
const DEVICE_OURS: &str = "10.254.0.2";

/// What the container is called.
pub(super) const NAME: &str = "c";

/// Sessions for which there is room where many are opened: more than [`crate::measure::Test::sessions`].
const SESSIONS: u32 = 1_100_000;

pub(super) fn start(
    site: &Site,
    kind: PeerKind,
    variant: &Variant,
    default: &Path,
    purpose: Purpose,
) -> Result<Up, String> {
    let subnet = format!("{}/24", site.addr(0));
    let mut network: Vec<String> = Vec::new();
    match kind {
        PeerKind::Nat if purpose == Purpose::Once(Room::Sessions) => {
            let path = site.dir.join("network.toml");
            std::fs::write(&path, description(&subnet))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            network.push(path.to_string_lossy().into_owned());
        }
        PeerKind::Nat => {
            let uplink = format!("--uplink nat:{UPLINK} --uplink-ip {OUTSIDE}/24 --uplink-gateway {SERVER}");
            network.extend(words(&format!("--subnet {subnet} {uplink}")));
        }
        PeerKind::Tun => {
            device(site, &subnet)?;
            let uplink = format!("tun:{DEVICE} --uplink-ip {DEVICE_OURS}/24 --uplink-gateway {DEVICE_KERNEL}");
            network.extend(words(&format!("--subnet {subnet} --uplink {uplink} --no-nat")));
        }
        PeerKind::User => {
            site.kernel_outside()?;
            network.extend(words(&format!("--subnet {subnet}")));
        }
        _ => return Err(format!("{} is no uplink of tapswitch", kind.name())),
    }
    let host = Host { netns: &site.gateway, of_user: site.holder.is_some() };
    let up = tapswitch::start(host, &site.dir, variant, default, &network)?;
    let container = match &site.holder {
        Some(holder) => holder.id().to_string(),
        None => site.container.name().to_owned(),
    };
    up.control.attach(&container, NAME, site.addr(CONTAINER), site.offload)?;
    Ok(Up { what: format!("{}, uplink {}", up.what, uplink_name(kind)), ..up })
}

fn uplink_name(kind: PeerKind) -> String {
    match kind {
        PeerKind::Nat => format!("nat:{UPLINK}"),
        PeerKind::Tun => format!("tun:{DEVICE} without NAT, masquerade by nft"),
        _ => kind.name().into(),
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

/// As a file, because limits stand only there.
fn description(subnet: &str) -> String {
    format!(
        "[[network]]\nsubnet = \"{subnet}\"\nuplink = \"nat:{UPLINK}\"\nuplink_ip = \"{OUTSIDE}/24\"\n\
         uplink_gateway = \"{SERVER}\"\n\n[network.nat]\nmax_sessions = {SESSIONS}\ncontainer_sessions = {SESSIONS}\n\
         container_rate = 1000000\n"
    )
}

/// The device, and the kernel behind it.
fn device(site: &Site, subnet: &str) -> Result<(), String> {
    let gateway = &site.gateway;
    gateway.ip(&format!("tuntap add dev {DEVICE} mode tap"))?;
    gateway.ip(&format!("addr add {DEVICE_KERNEL}/24 dev {DEVICE}"))?;
    gateway.ip(&format!("link set {DEVICE} mtu 1500 up"))?;
    gateway.ip(&format!("route add {subnet} via {DEVICE_OURS} dev {DEVICE}"))?;
    site.kernel_outside()?;
    kernel::masquerade(gateway)
}
