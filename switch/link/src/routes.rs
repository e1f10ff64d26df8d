//! Which addresses are this machine's own: the routing table knows, and only it.
//!
//! Interfaces do not tell it all. An address on the loopback interface makes its whole subnet local, and a `local` route
//! makes any range so. So the kernel is asked what it would do with a packet.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::RouteType;

use crate::rtnetlink::Rtnetlink;

/// A way to ask about the routes of the network namespace in which it was opened.
pub struct Routes(Rtnetlink);

impl Routes {
    /// Opens the way.
    ///
    /// # Errors
    /// When no descriptor can be had.
    pub fn open() -> io::Result<Routes> {
        Rtnetlink::open().map(Routes)
    }

    /// Whether a packet to this address would stay on this machine, or go to everybody on one of its networks.
    ///
    /// # Errors
    /// What the kernel says, if that is not that there is no route: such an address is nobody's own.
    pub fn is_own(&mut self, ip: IpAddr) -> io::Result<bool> {
        match self.0.route_kind(ip) {
            Ok(kind) => {
                Ok(matches!(kind, RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast))
            }
            Err(error) if is_no_route(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `unreachable`, `prohibit` and `blackhole` routes answer with an error, as no route at all does.
fn is_no_route(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, InvalidInput, NetworkUnreachable, PermissionDenied};
    matches!(error.kind(), NetworkUnreachable | HostUnreachable | PermissionDenied | InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_loopback_range_is_own_and_an_address_of_nobody_is_not() {
        let mut routes = Routes::open().unwrap();
        for own in ["127.0.0.1", "127.8.9.10", "::1"] {
            assert!(routes.is_own(own.parse().unwrap()).unwrap(), "{own}");
        }
        // Reserved for documentation (RFC 5737): routed away, or not routed at all.
        assert!(!routes.is_own("203.0.113.77".parse().unwrap()).unwrap());
    }
}
