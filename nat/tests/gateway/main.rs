//! The gateway of one network, in virtual time: frames in, frames and outcomes out.

mod arp;
mod icmp;
mod ipv4;
mod local;
mod neighbours;
mod properties;
mod routes;
mod routing;
mod uplink;
mod world;
