//! Addresses of containers that the switch configures itself.
//!
//! DH-10 asks that an address be probed before it is offered unless it is provably free. Here it is: whoever attaches a
//! container gets its address from this table, port security lets no other address through a port, and a client that
//! nevertheless finds its address in use declines it. So nothing is probed.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;
use tapswitch_wire::{Instant, Mac};
use thiserror::Error;

use crate::lease::{ClientId, Lease, State};
use crate::server::Server;

/// An address that belongs to a container until it is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Reservation {
    /// The address.
    pub ip: Ipv4Addr,
    /// The hardware address that goes with it.
    pub mac: Mac,
}

/// Why no address could be reserved.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReserveError {
    /// Somebody holds the address.
    #[error("cannot give {ip} to '{name}': {by} has it; choose another address, or release that one first")]
    AddressTaken {
        /// The address that was asked for.
        ip: Ipv4Addr,
        /// For whom.
        name: String,
        /// Who has it.
        by: String,
    },
    /// The address is of another network.
    #[error("cannot give {ip} to '{name}': it is not in the subnet {subnet}; choose an address in it")]
    NotInSubnet {
        /// The address that was asked for.
        ip: Ipv4Addr,
        /// For whom.
        name: String,
        /// The network's subnet.
        subnet: Ipv4Net,
    },
    /// The address is the gateway's.
    #[error("cannot give {ip} to '{name}': it is the gateway's own address; choose another one in {subnet}")]
    IsGateway {
        /// The address that was asked for.
        ip: Ipv4Addr,
        /// For whom.
        name: String,
        /// The network's subnet.
        subnet: Ipv4Net,
    },
    /// The address is none of a host.
    #[error("cannot give {ip} to '{name}': it is the network or broadcast address of {subnet}; choose one in between")]
    IsNetworkOrBroadcast {
        /// The address that was asked for.
        ip: Ipv4Addr,
        /// For whom.
        name: String,
        /// The network's subnet.
        subnet: Ipv4Net,
    },
    /// Somebody has the hardware address.
    #[error("cannot use the MAC address {mac} for '{name}': {by} has it; choose another one, or leave it out")]
    MacTaken {
        /// The hardware address that was asked for, or derived from the address.
        mac: Mac,
        /// For whom.
        name: String,
        /// Who has it.
        by: String,
    },
    /// The hardware address is none of a station.
    #[error("cannot use the MAC address {mac} for '{name}': it is zero or a group address; choose a unicast one")]
    MacNotStation {
        /// The hardware address that was asked for.
        mac: Mac,
        /// For whom.
        name: String,
    },
    /// No address is left.
    #[error("cannot find an address for '{name}': all of {subnet} are taken; detach something or use a larger subnet")]
    SubnetFull {
        /// For whom.
        name: String,
        /// The network's subnet.
        subnet: Ipv4Net,
    },
}

impl Server {
    /// An address for a container that is configured without DHCP, bound to `name` until [`Server::release`]. A client
    /// with the same hardware address that asks by DHCP gets the same address.
    ///
    /// Without `ip` the container gets what it had under this name, else what a client with its hardware address has,
    /// else the next free address, else that of the DHCP client whose port has been gone longest. Without `port_mac` the hardware address is derived from the address
    /// ([`Mac::from_ipv4`]). A name that is reserved already keeps its address, or moves if it asks for another one.
    ///
    /// # Errors
    /// As [`ReserveError`] says; nothing has changed then.
    pub fn reserve(
        &mut self,
        name: &str,
        port_mac: Option<Mac>,
        ip: Option<Ipv4Addr>,
        now: Instant,
        record: &mut impl FnMut(&[u8]),
    ) -> Result<Reservation, ReserveError> {
        self.poll(now, record);
        if let Some(mac) = port_mac {
            self.check_mac(name, mac)?;
        }
        let present = self.table.of_name(name).map(|(at, lease)| (at, lease.state, lease.mac));
        if let Some((at, State::Reserved, mac)) = present
            && ip.is_none_or(|ip| ip == at)
            && port_mac.is_none_or(|asked| asked == mac)
        {
            return Ok(Reservation { ip: at, mac });
        }
        let ip = match ip {
            Some(ip) => self.check_ip(name, port_mac, ip).map(|()| ip)?,
            None => self.choose(name, port_mac)?,
        };
        let mac = port_mac.unwrap_or(Mac::from_ipv4(ip));
        self.check_mac(name, mac)?;
        if let Some((at, State::Reserved, _)) = present
            && at != ip
        {
            self.free(at, record);
        }
        let lease = Lease {
            state: State::Reserved,
            client: None,
            mac,
            port: None,
            hostname: None,
            name: Some(name.into()),
            expires: None,
            secs: 0,
            remembered: false,
        };
        self.update(ip, lease, record);
        Ok(Reservation { ip, mac })
    }

    /// Gives back what `name` reserved. The address is remembered: the name, and a client with the hardware address,
    /// get it again as long as nobody else needed it. An unknown name changes nothing.
    pub fn release(&mut self, name: &str, now: Instant, record: &mut impl FnMut(&[u8])) {
        self.poll(now, record);
        if let Some((ip, lease)) = self.table.of_name(name)
            && lease.state == State::Reserved
        {
            self.free(ip, record);
        }
    }

    fn free(&mut self, ip: Ipv4Addr, record: &mut impl FnMut(&[u8])) {
        let Some(lease) = self.table.get(ip) else { return };
        let client = ClientId::hardware(lease.mac);
        // A client that has another address by DHCP keeps that one.
        let client = self.table.of_client(&client).is_none().then_some(client);
        let lease = Lease { client, ..lease.clone().into_released() };
        self.update(ip, lease, record);
    }

    /// The address for a name that asks for none in particular.
    fn choose(&self, name: &str, mac: Option<Mac>) -> Result<Ipv4Addr, ReserveError> {
        let earlier = self.table.of_name(name).map(|(ip, _)| ip);
        let by_dhcp = mac.and_then(|mac| self.table.of_client(&ClientId::hardware(mac))).map(|(ip, _)| ip);
        let mac_fits = |ip: &Ipv4Addr| self.check_mac(name, mac.unwrap_or(Mac::from_ipv4(*ip))).is_ok();
        let fits = |ip: &Ipv4Addr| self.check_ip(name, mac, *ip).is_ok() && mac_fits(ip);
        [earlier, by_dhcp]
            .into_iter()
            .flatten()
            .chain(self.table.free())
            .find(fits)
            .or_else(|| self.table.abandoned().map(|(ip, _)| ip).find(mac_fits))
            .ok_or_else(|| ReserveError::SubnetFull { name: name.into(), subnet: self.config.subnet })
    }

    fn check_mac(&self, name: &str, mac: Mac) -> Result<(), ReserveError> {
        let taken = |by: String| Err(ReserveError::MacTaken { mac, name: name.into(), by });
        if !mac.is_station() {
            return Err(ReserveError::MacNotStation { mac, name: name.into() });
        }
        if mac == self.config.server_mac {
            return taken("the gateway".into());
        }
        match self.table.of_station(mac).and_then(|(_, lease)| lease.name.as_deref()) {
            Some(other) if other != name => taken(format!("'{other}'")),
            _ => Ok(()),
        }
    }

    fn check_ip(&self, name: &str, mac: Option<Mac>, ip: Ipv4Addr) -> Result<(), ReserveError> {
        let subnet = self.config.subnet;
        let taken = |by: String| Err(ReserveError::AddressTaken { ip, name: name.into(), by });
        if !subnet.contains(&ip) {
            return Err(ReserveError::NotInSubnet { ip, name: name.into(), subnet });
        }
        if ip == self.config.server_ip {
            return Err(ReserveError::IsGateway { ip, name: name.into(), subnet });
        }
        if !self.table.holds(ip) {
            return Err(ReserveError::IsNetworkOrBroadcast { ip, name: name.into(), subnet });
        }
        let Some(lease) = self.table.get(ip) else { return Ok(()) };
        match lease.state {
            State::Released => Ok(()),
            State::Reserved => match lease.name.as_deref() {
                Some(other) if other != name => taken(format!("'{other}'")),
                _ => Ok(()),
            },
            State::Offered | State::Bound if mac == Some(lease.mac) => Ok(()),
            State::Offered | State::Bound => taken(match &lease.hostname {
                Some(hostname) => format!("the DHCP client {} ({hostname})", lease.mac),
                None => format!("the DHCP client {}", lease.mac),
            }),
            State::Declined => taken(format!("a host that answered when {} tried it", lease.mac)),
        }
    }
}
