//! What to make of each reason: the usual causes, and what to do.
//!
//! The match below has no arm for "all others", so a new reason does not compile before somebody has said what users
//! should make of it.

use super::DropReason;

/// What users are told about a reason beside [`DropReason::text`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Help {
    /// Why it usually happens.
    pub causes: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

impl DropReason {
    /// The usual causes of drops with this reason, and what to do about them.
    pub const fn help(self) -> Help {
        let (causes, remedy) = match self {
            // Link
            Self::FrameTooShort => (
                "A program writes raw frames of less than 14 bytes to the interface, or a fuzzer is at work.",
                "Look for raw sockets in the container: `ss -0 -p` there. No ordinary stack sends such frames.",
            ),
            Self::FrameTooLong => (
                "A super-frame above 64 KiB came from an interface that announces larger ones than it may.",
                "Set `ip link set eth0 gso_max_size 65536` in the container.",
            ),
            Self::BadVnetHeader => (
                "A program writes to the TAP itself, or a raw socket with PACKET_VNET_HDR sends a header of its own that \
                 does not fit the frame.",
                "Look for raw sockets in the container: `ss -0 -p` there. If there is none, please report it with a \
                 capture.",
            ),
            Self::AboveMtu => (
                "The sender's MTU is larger than the receiver's, or a packet with DF set does not fit the way out. If it \
                 went through the gateway, its sender was told by ICMP and will send smaller ones.",
                "Give all interfaces of the network the same MTU (`mtu` in its description, `ip link` in the containers). \
                 If TCP hangs beyond the gateway, see whether something in the container drops ICMP.",
            ),
            Self::CannotSegment => (
                "The receiver's interface takes no super-frames, and the sender sent one of a kind that cannot be cut, \
                 such as UDP without a partial checksum.",
                "Turn the offload off at the sender: `ethtool -K eth0 tx-udp-segmentation off tso off` in the container.",
            ),
            Self::TxFailed => (
                "The container's interface is going away or its kernel refuses the frame.",
                "See whether the container is still alive (`tapswitch ls`). One or two at its end are nothing to mend.",
            ),
            Self::TxFull => (
                "The receiver does not take frames as fast as they come, usually for lack of CPU time.",
                "Give the machine more CPUs, or the senders less to send; TCP slows down by itself.",
            ),
            Self::GatewayBusy => (
                "With several poll threads, those without the gateway read faster than the one with it can answer.",
                "Run with fewer poll threads (`--workers`), or spread the load over several networks.",
            ),
            Self::PortDown => (
                "The container's interface is down: it was set down, or its namespace is ending.",
                "Set it up in the container: `ip link set eth0 up`.",
            ),
            Self::FaultInjected => {
                ("A test lost the frame on purpose.", "Nothing: this happens only where somebody asked for it.")
            }
            // Switch
            Self::ReservedMulticast => (
                "Something in a container speaks a protocol of the link itself: STP, LLDP, LACP or PAUSE.",
                "Nothing: bridges keep these to themselves (IEEE 802.1D 7.12.6). Do not run a bridge with STP across the \
                 containers of one network.",
            ),
            Self::SourceNotStation => (
                "A program sends raw frames with a group address, or zeros, as their source.",
                "Give the interface a unicast MAC address: `ip link set eth0 address 02:...`.",
            ),
            Self::SourceIsOurs => (
                "A container uses the gateway's MAC address, by mistake or to catch the traffic of others; or a cable loops \
                 the gateway's own frames back.",
                "Compare `tapswitch show fdb` with `ip link` in the container, and give its interface another address.",
            ),
            Self::SameSegment => (
                "Behind this port stands a bridge with several stations, and two of them talk to each other.",
                "Nothing: the frame has reached its destination already.",
            ),
            Self::Isolated => (
                "The network was made with `isolate`, which lets containers reach the gateway and nobody else.",
                "Describe the network without `isolate` if its containers are to talk to each other.",
            ),
            Self::NoOtherPort => (
                "The container asks for somebody while it is the only one on the network.",
                "Attach the other container, or look why it is gone: `tapswitch ls`.",
            ),
            Self::UnknownPort => (
                "The container was detached while the frame was on its way.",
                "Nothing, unless the numbers grow: then see whether a container is started and ended again and again.",
            ),
            Self::ReservedVlan => {
                ("A VLAN interface with number 4095 sends, which no standard allows.", "Use a number from 1 to 4094.")
            }
            // Gateway: ARP
            Self::ArpMalformed => (
                "A program makes its own ARP packets, wrongly.",
                "Look for raw sockets in the container: `ss -0 -p` there.",
            ),
            Self::ArpNotForUs => (
                "A station asks for an address that it believes to be on its network. The answer, if there is any, comes \
                 from the one that has it.",
                "Nothing, as a rule. If the address lies elsewhere, the container has a wrong prefix length: `ip address` \
                 there, against `tapswitch network ls`.",
            ),
            Self::ArpConflict => (
                "A container was given the gateway's address by hand.",
                "Give it another: `tapswitch network ls` shows the gateway's.",
            ),
            Self::NeighbourUnresolved => (
                "Nobody on the network has the address, the container that had it is gone, or its interface is down.",
                "See who is there: `tapswitch show arp`, `tapswitch ls`. Check the address that was asked for.",
            ),
            Self::NeighbourQueueFull => (
                "Much is sent at once to somebody who has not answered ARP yet.",
                "Nothing if it answers soon; see `neighbour-unresolved` if it does not.",
            ),
            Self::NeighbourTableFull => (
                "Somebody scans the subnet, or containers use very many addresses.",
                "See `tapswitch show arp`. Use smaller subnets, or end the scan.",
            ),
            // Gateway: IP
            Self::NotForUs => (
                "The switch flooded a frame whose destination it did not know, and the gateway got a copy.",
                "Nothing: everybody else on a network drops such a copy too.",
            ),
            Self::UnknownEthertype => (
                "Something in a container speaks a protocol that is neither ARP nor IP to the gateway, or to everybody.",
                "Nothing: stations that speak it too have got the frame.",
            ),
            Self::Ipv4Malformed => (
                "A program makes its own IP packets, wrongly.",
                "Look for raw sockets in the container: `ss -w -p` and `ss -0 -p` there.",
            ),
            Self::Ipv4BadChecksum => (
                "The packet was damaged on its way, or a program makes its own packets, wrongly.",
                "Look for raw sockets in the container; on a link with impairment `corrupt`, this is what it does.",
            ),
            Self::Ipv4SourceRoute => (
                "A program asks routers to send its packets by a way of its choice, as attacks did.",
                "Send without source routing. Nearly every router refuses it (RFC 7126 4.3).",
            ),
            Self::Ipv4BadOption => (
                "A program makes its own IP options, wrongly.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
            Self::Ipv6Malformed => (
                "A program makes its own IPv6 packets, wrongly.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
            Self::Ipv6NotRouted => (
                "The container tries IPv6 first, as programs do, and looks for a router.",
                "Nothing: between containers IPv6 works, to the outside IPv4 is used. If a program waits long before it \
                 tries IPv4, turn IPv6 off in the container: `sysctl net.ipv6.conf.all.disable_ipv6=1`.",
            ),
            Self::BadSourceAddress => (
                "A packet has 0.0.0.0, a loopback, multicast or broadcast address as its source: the interface has no \
                 address yet, or a route in the container is wrong.",
                "See `ip address` and `ip route` in the container.",
            ),
            Self::BadDestinationAddress => (
                "A packet for 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 or a reserved address was sent to the gateway, as a \
                 rule by a wrong route.",
                "See `ip route` in the container. Services on the host are reached under the gateway's address, if allowed.",
            ),
            Self::SpoofedSource => (
                "The container sends from an address that is not of its network: it was set by hand, it is a leftover of \
                 another network, or the container routes for others.",
                "Let the container have the address that it was given (`tapswitch ls`), by DHCP or by `--ip`.",
            ),
            Self::LinkBroadcast => (
                "A program sends an IP packet for one host to everybody, or the container has a wrong broadcast address.",
                "See `ip address` in the container: prefix length and broadcast address must be the network's.",
            ),
            Self::MulticastNotRouted => (
                "Discovery protocols (mDNS, SSDP) and broadcasts ask everybody. On the network itself they work.",
                "Nothing, as a rule. To have containers on the LAN itself, use an uplink `lan:IFACE`.",
            ),
            Self::TtlExceeded => (
                "A traceroute, or a loop: two routers each believe that the other one knows the way.",
                "Nothing if it is traceroute. Otherwise compare the static routes of the networks that are connected.",
            ),
            Self::NoRoute => (
                "The network is internal (uplink `none`), or it is not connected to the network of the destination.",
                "Describe the network with an uplink, or `connect` the two networks.",
            ),
            Self::FragmentNotSupported => (
                "A packet for the gateway itself was too large for the MTU and came in pieces.",
                "Ask the gateway in packets that fit: `ping -s 1400`.",
            ),
            Self::FragmentMalformed => (
                "A program makes its own fragments, wrongly, or attacks: no stack sends such.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
            Self::FragmentTooShort => (
                "An attack that hides ports from filters (RFC 1858, RFC 3128); no stack sends such fragments.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
            Self::FragmentDuplicate => (
                "A link doubled the packet, or one with impairment `duplicate` did.",
                "Nothing: the first copy is used.",
            ),
            Self::FragmentOverlap => (
                "An attack on reassembly, or a sender that uses one identification for two packets.",
                "Send datagrams that fit the MTU, or look for raw sockets in the container.",
            ),
            Self::FragmentLimit => (
                "Many large datagrams lose some of their fragments, or somebody floods with lone ones.",
                "Send datagrams that fit the MTU: below 1472 bytes at an MTU of 1500.",
            ),
            Self::FragmentExpired => (
                "A fragment of the packet was lost, here or on the way.",
                "Send datagrams that fit the MTU: then each loss costs one packet only.",
            ),
            // Gateway: transport
            Self::TransportMalformed => (
                "A program makes its own packets, wrongly, or a scanner is at work.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
            Self::TransportBadChecksum => (
                "The packet was damaged on its way, a link with impairment `corrupt` did it, or a program makes its own \
                 packets, wrongly.",
                "Capture at the sender's port (`tapswitch capture`) and look whether it left so.",
            ),
            Self::UnknownProtocol => (
                "The container sends something that is neither TCP, UDP nor ICMP, such as SCTP, GRE or ESP, to the gateway \
                 or through an uplink that cannot carry it.",
                "Use an uplink `nat:IFACE`, `tun:NAME` or `lan:IFACE` where the protocol allows, or carry it over UDP.",
            ),
            Self::NoSuchService => (
                "A program in the container asks the gateway's address on a port where nothing listens, expecting the host \
                 there.",
                "Open that port of the host for the network: `--allow 127.0.0.1:PORT`.",
            ),
            Self::IcmpIgnored => (
                "An ICMP message that no container may send to the gateway or the outside, such as a redirect, or an error \
                 about a packet that nobody remembers.",
                "Nothing.",
            ),
            Self::IcmpRateLimited => (
                "The container sends much that cannot be delivered, such as a scan of ports or of the subnet.",
                "Nothing if it is a scan; it runs slower. Otherwise see which other reason grows with this one.",
            ),
            // DHCP
            Self::DhcpMalformed => (
                "A DHCP client sends what the standard does not allow, or a fuzzer is at work.",
                "Capture one exchange (`tapswitch capture`) and look at it in Wireshark.",
            ),
            Self::DhcpIgnored => (
                "A client answers an offer of another server, or sends a message for which there is no answer.",
                "Nothing, unless a container gets no address: then capture the exchange.",
            ),
            Self::DhcpPoolExhausted => (
                "More containers than addresses.",
                "See `tapswitch show leases`; describe the network with a larger subnet.",
            ),
            Self::DhcpLimit => (
                "One container asks for addresses under many hardware addresses, as a hypervisor or an attack does.",
                "See `tapswitch show leases`; end the clients that are not needed.",
            ),
            Self::DhcpSpoofed => (
                "A client asks in the name of another hardware address than its own.",
                "See which program does it; a bridge inside the container must pass frames on with their own source.",
            ),
            Self::DhcpFromClient => (
                "A DHCP server runs in a container.",
                "End it: addresses come from the gateway. Or use a network of its own with uplink `lan:IFACE`.",
            ),
            // Uplink
            Self::PolicyDenied => (
                "The container wants to reach the host itself, another network of this daemon, or an address where clouds \
                 keep their metadata.",
                "Allow just what is needed: `--allow 127.0.0.1:8080` for a port of the host (reached under the gateway's \
                 address), `--allow 192.0.2.0/24` for a network.",
            ),
            Self::UplinkDown => (
                "The uplink's interface is down or gone, or no DHCP server has given it an address yet.",
                "See `tapswitch network ls`, and `ip link` on the host.",
            ),
            Self::InsideFromOutside => (
                "Somebody on the uplink's LAN forges addresses of the containers, or uses the same subnet.",
                "Give the network a subnet that is used nowhere else.",
            ),
            Self::Filtered => (
                "A stranger sends to a port that a container uses for somebody else, a late answer comes after its session \
                 has ended, or somebody scans.",
                "Nothing, as a rule. To let anybody in, publish the port: `tapswitch publish NAME PORT`.",
            ),
            Self::NoSuchSession => ("A late ICMP error about a session that has ended, or a forged one.", "Nothing."),
            Self::IcmpForged => (
                "Somebody forges ICMP errors to slow connections down or to break them.",
                "Nothing: they are not believed.",
            ),
            Self::SessionLimit => (
                "A program in the container opens very many connections or scans.",
                "See `tapswitch show flows --container NAME`; raise the limit in the network's description if they are \
                 meant.",
            ),
            Self::SessionRate => (
                "A program in the container opens connections very fast, or scans.",
                "See `tapswitch show flows --container NAME`; reuse connections, or raise the limit.",
            ),
            Self::SessionTableFull => (
                "All containers together have more sessions than the table takes.",
                "Raise the limit in the network's description, or see who has them: `tapswitch show flows`.",
            ),
            Self::PortLimit => (
                "A program in the container talks from very many ports at once.",
                "See `tapswitch show flows --container NAME`; reuse connections, or raise the limit.",
            ),
            Self::PortsExhausted => (
                "More endpoints talk to the outside than one address has ports.",
                "See who has them: `tapswitch show flows`. Let idle sessions end, or use a second network.",
            ),
            Self::FlowLimit => (
                "A program in the container has very many connections or sockets, or scans; or the daemon may open few \
                 files.",
                "See `tapswitch show flows --container NAME`. Start the daemon with a higher limit of open files \
                 (`ulimit -n`).",
            ),
            Self::HostNoPing => (
                "The host lets no ordinary user send pings.",
                "As root on the host: `sysctl net.ipv4.ping_group_range='0 2147483647'`.",
            ),
            Self::HostSocketFailed => (
                "The host has no route, a firewall of its own forbids it, or it is out of files, ports or memory.",
                "Try the same from the host as the daemon's user; see `ulimit -n` and `ss -s` there.",
            ),
            Self::HostSendFailed => (
                "The host refused a datagram: no route, its firewall, or too large for the way.",
                "Try the same from the host as the daemon's user.",
            ),
            Self::HostBufferFull => (
                "The container sends faster than the host's socket sends on.",
                "Nothing for TCP. For UDP let the program send slower; the host's limit is `sysctl net.core.wmem_default`.",
            ),
            Self::NoSuchFlow => (
                "The connection ended here already, because the daemon was restarted, the flow was flushed, or it was idle \
                 for hours.",
                "Nothing: the container is answered with a reset and can connect again.",
            ),
            Self::TcpOutOfWindow => (
                "A late duplicate, a keepalive, or a forged segment.",
                "Nothing, unless a connection stands still: then capture it.",
            ),
            Self::TcpOutOfOrder => (
                "A segment before this one was lost, on a link with impairment or in a full queue.",
                "Nothing: the sender repeats what was lost.",
            ),
            Self::TcpBadOption => (
                "A program makes its own TCP segments, wrongly, or a scanner is at work.",
                "Look for raw sockets in the container: `ss -w -p` there.",
            ),
        };
        Help { causes, remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_why_it_happens_and_what_to_do() {
        for reason in DropReason::ALL {
            let Help { causes, remedy } = reason.help();
            for text in [causes, remedy] {
                assert!(text.ends_with('.') && text.len() >= 8 && !text.contains("  "), "{reason}: {text}");
                assert!(text.starts_with(char::is_uppercase), "{reason}: {text}");
            }
        }
    }
}
