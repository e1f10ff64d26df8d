//! Addresses, routes and link state of an interface in the present network namespace.

use std::io;
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::Interface;
use crate::LinkError;
use crate::rtnetlink::{Rtnetlink, index_of};

/// Address, links up, route: in this order, since each needs the one before.
pub(super) fn configure(interface: &Interface) -> Result<(), LinkError> {
    let name = &interface.name;
    // The index may have changed on the way from the scratch namespace.
    let index = require_index(name)?;
    let mut netlink = netlink()?;
    if let Some(address) = interface.address {
        add_address(&mut netlink, name, index, address)?;
    }
    let doing = |what: String| move |e: io::Error| LinkError::system(what, e, "please report this");
    if let Some(lo) = index_of("lo").map_err(doing("look up 'lo'".into()))? {
        netlink.set_up(lo).map_err(doing("set 'lo' up".into()))?;
    }
    netlink.set_up(index).map_err(doing(format!("set '{name}' up")))?;
    match interface.gateway {
        Some(gateway) => add_default_route(&mut netlink, name, index, interface.address, gateway),
        None => Ok(()),
    }
}

/// Gives an interface of the present network namespace, which is up, an address and a default route: what a DHCP client
/// does with its lease. A default route that the namespace has already stays as it is.
///
/// # Errors
/// [`LinkError::System`] if there is no such interface, or it has the address already.
pub fn set_address(name: &str, address: (Ipv4Addr, u8), gateway: Option<Ipv4Addr>) -> Result<(), LinkError> {
    let index = require_index(name)?;
    let mut netlink = netlink()?;
    add_address(&mut netlink, name, index, address)?;
    match gateway {
        Some(gateway) => add_default_route(&mut netlink, name, index, Some(address), gateway),
        None => Ok(()),
    }
}

fn add_address(
    netlink: &mut Rtnetlink,
    name: &str,
    index: u32,
    (address, prefix): (Ipv4Addr, u8),
) -> Result<(), LinkError> {
    netlink.add_address(index, address, prefix).map_err(|e| {
        let tried = format!("give '{name}' the address {address}/{prefix}");
        LinkError::system(tried, e, "choose an address of one host, not set yet, and a prefix length up to 32")
    })
}

fn add_default_route(
    netlink: &mut Rtnetlink,
    name: &str,
    index: u32,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Ipv4Addr,
) -> Result<(), LinkError> {
    let onlink = address.is_none_or(|(address, prefix)| !same_subnet(address, gateway, prefix));
    match netlink.add_default_route(index, gateway, onlink) {
        // A container that joins a further network keeps the way out that it has.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|e| {
            let tried = format!("set the default route via {gateway} over '{name}'");
            LinkError::system(tried, e, "see `ip route` in the container")
        }),
    }
}

fn same_subnet(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    u32::from(a) | host_bits == u32::from(b) | host_bits
}

pub(super) fn require_index(name: &str) -> Result<u32, LinkError> {
    let missing = || Err(io::Error::from(Errno::ENODEV));
    index_of(name)
        .and_then(|index| index.map_or_else(missing, Ok))
        .map_err(|e| LinkError::system(format!("find the interface '{name}'"), e, "see that nobody removed it"))
}

pub(super) fn netlink() -> Result<Rtnetlink, LinkError> {
    Rtnetlink::open().map_err(|e| LinkError::system("open a netlink socket", e, "see that no filter forbids it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_of_any_prefix_length() {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        assert!(same_subnet(address(2), address(1), 24));
        assert!(!same_subnet(address(2), address(1), 32));
        assert!(same_subnet(address(2), Ipv4Addr::new(192, 0, 2, 1), 0));
    }
}
