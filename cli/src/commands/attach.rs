//! `attach`: gives a container that already runs an interface.

use tapswitch_link::netns::{self, Interface, Target};

use super::connect;
use crate::api::{AttachOffer, AttachRequest, AttachTap, PortView};
use crate::args::{AttachArgs, Global, PortArgs};
use crate::error::Error;
use crate::output;

pub(super) fn execute(global: &Global, args: &AttachArgs) -> Result<(), Error> {
    // The target comes first: nothing shall be reserved for a container that is not there.
    let target: Target = args.target.parse()?;
    let namespaces = target.resolve()?;
    let port = connect(global)?.attach(&request(&args.port), |offer| {
        let queues = netns::open_in(&namespaces, &interface(&args.port, offer))?;
        Ok((AttachTap { interface: args.port.ifname.clone(), target: words(&target) }, queues))
    })?;
    if global.json { output::print_json(&port) } else { output::print(&line(&port)) }
}

/// What the options ask the daemon for.
pub(super) fn request(port: &PortArgs) -> AttachRequest {
    AttachRequest {
        network: port.network.clone(),
        name: port.name.clone(),
        ip: port.ip,
        mac: port.mac,
        dhcp: port.dhcp,
        publish: port.publish.clone(),
    }
}

/// The interface that fits an offer.
pub(super) fn interface(port: &PortArgs, offer: &AttachOffer) -> Interface {
    Interface {
        name: port.ifname.clone(),
        mac: offer.mac,
        mtu: offer.mtu,
        address: offer.ip.map(|ip| (ip, offer.subnet.prefix_len())),
        gateway: offer.ip.and(offer.gateway),
        offload: !port.no_offload,
        queues: offer.queues,
    }
}

fn words(target: &Target) -> String {
    match target {
        Target::Pid(pid) => format!("pid {pid}"),
        Target::Name(name) => format!("netns {name}"),
        Target::Path(path) => path.display().to_string(),
    }
}

fn line(port: &PortView) -> String {
    let address = port.ip.map_or_else(|| "address by DHCP".into(), |ip| format!("address {ip}"));
    let attached = format!(
        "{} attached to {}: interface {}, {address}, MAC {}\n",
        port.name, port.network, port.interface, port.mac
    );
    attached + &super::publish::lines(&port.name, &port.published)
}
