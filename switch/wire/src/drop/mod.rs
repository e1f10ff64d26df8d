//! Why a frame went no further: the one list for the whole workspace.

mod help;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use help::Help;

macro_rules! reasons {
    ($($variant:ident, $name:literal, $text:literal;)*) => {
        /// Why a frame was dropped. Every drop has one, and every reason has a counter.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// The name that users see, in kebab case. Scripts rely on it.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// What it means, in one sentence.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    // Link
    FrameTooShort, "frame-too-short", "The frame is shorter than an Ethernet header.";
    FrameTooLong, "frame-too-long", "The frame is longer than any frame can be.";
    BadVnetHeader, "bad-vnet-header", "The virtio-net header contradicts the frame.";
    AboveMtu, "above-mtu", "The frame, or a segment of it, is larger than the MTU of the port it should leave by.";
    CannotSegment, "cannot-segment", "The port needs the super-frame cut, and it cannot be cut.";
    TxFailed, "tx-failed", "The kernel refused the frame when it was written to the port.";
    TxFull, "tx-full", "The port's queue was full.";
    GatewayBusy, "gateway-busy", "The poll thread that serves the gateway had too much waiting from the others.";
    PortDown, "port-down", "The container's interface is down.";
    FaultInjected, "fault-injected", "A fault injector lost the frame on purpose.";
    // Switch
    ReservedMulticast, "reserved-multicast", "Addresses 01-80-C2-00-00-00 to -0F are never relayed by a bridge.";
    SourceNotStation, "source-not-station", "The source MAC address is a group address or zero.";
    SourceIsOurs, "source-is-ours", "The frame claims a MAC address as its source that belongs to another port for good, such as the gateway's.";
    SameSegment, "same-segment", "The destination stands behind the port the frame came from.";
    Isolated, "isolated", "Both ports are isolated, so they may not talk to each other.";
    NoOtherPort, "no-other-port", "There is no other port the frame could be flooded to.";
    UnknownPort, "unknown-port", "The frame names a port that is not attached any more.";
    ReservedVlan, "reserved-vlan", "VLAN 4095 is reserved.";
    // Gateway: ARP
    ArpMalformed, "arp-malformed", "The ARP packet is not Ethernet and IPv4, is cut short, or has an unknown operation.";
    ArpNotForUs, "arp-not-for-us", "The ARP packet asks for an address that is not the gateway's.";
    ArpConflict, "arp-conflict", "Another host claims the gateway's address.";
    NeighbourUnresolved, "neighbour-unresolved", "Nobody answered ARP for the next hop in time.";
    NeighbourQueueFull, "neighbour-queue-full", "Too many packets wait for the next hop's address already.";
    NeighbourTableFull, "neighbour-table-full", "The neighbour table is full.";
    // Gateway: IP
    NotForUs, "not-for-us", "The frame reached the gateway, but is not addressed to it at layer 2.";
    UnknownEthertype, "unknown-ethertype", "The gateway speaks only ARP and IP.";
    Ipv4Malformed, "ipv4-malformed", "The IPv4 header has a wrong version, length or size.";
    Ipv4BadChecksum, "ipv4-bad-checksum", "The checksum of the IPv4 header is wrong.";
    Ipv4SourceRoute, "ipv4-source-route", "IPv4 source routing is refused.";
    Ipv4BadOption, "ipv4-bad-option", "An IPv4 option runs past the header.";
    Ipv6Malformed, "ipv6-malformed", "The IPv6 header or one of its extension headers is wrong or cut short.";
    Ipv6NotRouted, "ipv6-not-routed", "This gateway does not route IPv6.";
    BadSourceAddress, "bad-source-address", "The source address cannot be a single host.";
    BadDestinationAddress, "bad-destination-address", "The destination address is never forwarded.";
    SpoofedSource, "spoofed-source", "The source address is not on this network.";
    LinkBroadcast, "link-broadcast", "A unicast IP packet came in a broadcast or multicast frame.";
    MulticastNotRouted, "multicast-not-routed", "Multicast and broadcast do not leave the network.";
    TtlExceeded, "ttl-exceeded", "The time to live ran out.";
    NoRoute, "no-route", "There is no way to the destination: the network has no uplink.";
    FragmentNotSupported, "fragment-not-supported", "The gateway takes no fragments of packets that are for itself.";
    FragmentMalformed, "fragment-malformed", "The fragment's length is no multiple of eight, or it reaches past the largest packet.";
    FragmentTooShort, "fragment-too-short", "The first fragment does not hold the transport header, or a later one overlaps it.";
    FragmentDuplicate, "fragment-duplicate", "This part of the packet has come already.";
    FragmentOverlap, "fragment-overlap", "Fragments of the packet overlap or contradict each other, so none of it is passed on any more.";
    FragmentLimit, "fragment-limit", "Too many fragments are under way, from this sender or in all.";
    FragmentExpired, "fragment-expired", "The other fragments of the packet did not come in time.";
    // Gateway: transport
    TransportMalformed, "transport-malformed", "The TCP, UDP or ICMP header is cut short or its lengths contradict the packet.";
    TransportBadChecksum, "transport-bad-checksum", "The checksum of TCP, UDP or ICMP is wrong.";
    UnknownProtocol, "unknown-protocol", "The gateway or the uplink does not speak this IP protocol.";
    NoSuchService, "no-such-service", "The gateway offers nothing on this port.";
    IcmpIgnored, "icmp-ignored", "The gateway neither answers nor forwards this ICMP message.";
    IcmpRateLimited, "icmp-rate-limited", "An ICMP error was due, but this sender got too many already.";
    // DHCP
    DhcpMalformed, "dhcp-malformed", "The DHCP message is not well formed.";
    DhcpIgnored, "dhcp-ignored", "The DHCP message is none that is answered here, or is for somebody else.";
    DhcpPoolExhausted, "dhcp-pool-exhausted", "No free address is left in the subnet.";
    DhcpLimit, "dhcp-limit", "This port holds as many leases as it may.";
    DhcpSpoofed, "dhcp-spoofed", "The hardware address in the DHCP message is not the sender's.";
    DhcpFromClient, "dhcp-from-client", "Only the gateway may send what a DHCP server sends.";
    // Uplink
    PolicyDenied, "policy-denied", "The destination is out of reach by policy: the host itself, its loopback, or a metadata address.";
    UplinkDown, "uplink-down", "The uplink has no device or no address yet.";
    InsideFromOutside, "inside-from-outside", "A packet from the uplink claims an address of the inside.";
    Filtered, "filtered", "Nobody inside asked for this packet from outside, and no forward takes it.";
    NoSuchSession, "no-such-session", "The ICMP error quotes a packet of no session.";
    IcmpForged, "icmp-forged", "The ICMP error quotes what was never sent, or a path MTU that no path has.";
    SessionLimit, "session-limit", "This container has as many sessions as it may have.";
    SessionRate, "session-rate", "This container begins sessions faster than it may.";
    SessionTableFull, "session-table-full", "The session table is full.";
    PortLimit, "port-limit", "This container uses as many outside ports as it may.";
    PortsExhausted, "ports-exhausted", "No outside port is free.";
    FlowLimit, "flow-limit", "This container, or the network, has as many flows as it may have.";
    HostNoPing, "host-no-ping", "The host lets this user send no pings.";
    HostSocketFailed, "host-socket-failed", "The host could not make a socket for the flow.";
    HostSendFailed, "host-send-failed", "The host refused to send the datagram.";
    HostBufferFull, "host-buffer-full", "The host's socket cannot take more now; the sender will repeat it.";
    NoSuchFlow, "no-such-flow", "The segment belongs to no flow.";
    TcpOutOfWindow, "tcp-out-of-window", "The segment lies outside the receive window.";
    TcpOutOfOrder, "tcp-out-of-order", "The segment is ahead of a lost one; the sender will repeat it.";
    TcpBadOption, "tcp-bad-option", "A TCP option is malformed.";
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<DropReason> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DropReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One counter for each reason. Serializes as a map of the reasons that occurred.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounters([u64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

impl DropCounters {
    /// Counts one drop.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How often this reason occurred.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All drops together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.get(*r))).filter(|(_, n)| *n > 0)
    }

    /// Adds another set of counters to this one.
    pub fn add(&mut self, other: &DropCounters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl Serialize for DropCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, count) in self.iter() {
            map.serialize_entry(reason.name(), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_come_back() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_name(reason.name()), Some(*reason));
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(reason.text().ends_with('.'), "{reason} has no sentence");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }

    #[test]
    fn counters_count_each_reason_apart() {
        let mut counters = DropCounters::default();
        counters.count(DropReason::AboveMtu);
        counters.count(DropReason::AboveMtu);
        counters.count(DropReason::NoRoute);
        assert_eq!(counters.iter().collect::<Vec<_>>(), [(DropReason::AboveMtu, 2), (DropReason::NoRoute, 1)]);
        assert_eq!(counters.total(), 3);
    }
}
