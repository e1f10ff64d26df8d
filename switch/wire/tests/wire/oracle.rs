//! What etherparse says about checksums.

use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use tapswitch_wire::{Meta, Parsed, checksum};

/// Whether every checksum in a frame is the one that etherparse computes anew. A fragment's transport is not looked at.
pub fn checksums(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| format!("etherparse refuses it: {error}"))?;
    let same = |what: &str, is: u16, right: u16| match is == right {
        true => Ok(()),
        false => Err(format!("{what} checksum is {is:#06x}, must be {right:#06x}")),
    };
    if let Some(NetSlice::Ipv4(ip)) = &packet.net {
        // Over the bytes, for etherparse's owned header has no room for the reserved flag.
        let (header, rest) = ip.header().slice().split_at(10);
        let right = Sum16BitWords::new().add_slice(header).add_slice(&rest[2..]).ones_complement().to_be();
        same("IPv4", ip.header().header_checksum(), right)?;
    }
    let (Some(net), Some(transport)) = (&packet.net, &packet.transport) else { return Ok(()) };
    match transport {
        TransportSlice::Tcp(tcp) => {
            let right = match net {
                NetSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
                NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
                NetSlice::Arp(_) => return Err("TCP in ARP".into()),
            };
            same("TCP", tcp.checksum(), right.map_err(|error| error.to_string())?)
        }
        TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let right = match net {
                NetSlice::Ipv4(_) if udp.checksum() == 0 => return Ok(()),
                NetSlice::Ipv4(ip) => {
                    header.calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), payload)
                }
                NetSlice::Ipv6(ip) => {
                    header.calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), payload)
                }
                NetSlice::Arp(_) => return Err("UDP in ARP".into()),
            };
            same("UDP", udp.checksum(), right.map_err(|error| error.to_string())?)
        }
        TransportSlice::Icmpv4(icmp) => same("ICMP", icmp.checksum(), message(icmp.slice(), Sum16BitWords::new())),
        TransportSlice::Icmpv6(icmp) => {
            let NetSlice::Ipv6(ip) = net else { return Ok(()) };
            let len = icmp.slice().len() as u32;
            let pseudo = pseudo6(ip.header().source(), ip.header().destination(), 58, len);
            same("ICMPv6", icmp.checksum(), message(icmp.slice(), pseudo))
        }
        TransportSlice::Igmp(_) => Ok(()),
    }
}

/// As [`checksums`], once a partial checksum is completed as a port without offload would.
pub fn checksums_when_complete(meta: &Meta, frame: &[u8]) -> Result<(), String> {
    let (mut meta, mut frame) = (*meta, frame.to_vec());
    let parsed = Parsed::parse(&frame).map_err(|reason| reason.to_string())?;
    checksum::complete(&mut meta, &mut frame, parsed.end as usize).map_err(|reason| reason.to_string())?;
    checksums(&frame)
}

/// The checksum of an ICMP message of either family.
fn message(message: &[u8], pseudo: Sum16BitWords) -> u16 {
    pseudo.add_slice(&message[..2]).add_slice(&message[4..]).ones_complement().to_be()
}

/// The pseudo header of IPv4.
pub fn pseudo4(src: [u8; 4], dst: [u8; 4], protocol: u8, len: u16) -> Sum16BitWords {
    let [high, low] = len.to_be_bytes();
    Sum16BitWords::new().add_slice(&src).add_slice(&dst).add_slice(&[0, protocol, high, low])
}

/// The pseudo header of IPv6.
pub fn pseudo6(src: [u8; 16], dst: [u8; 16], protocol: u8, len: u32) -> Sum16BitWords {
    let sum = Sum16BitWords::new().add_slice(&src).add_slice(&dst);
    sum.add_slice(&len.to_be_bytes()).add_slice(&[0, 0, 0, protocol])
}
