//! One packet of a pcap or pcapng file, read by the crate pcap-file.

use std::fmt::Display;
use std::io::Read;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

/// How a pcapng file begins.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The bytes of the packet with this number, the first being 1.
///
/// # Errors
/// What is wrong with the file, in words that say what to do.
pub(super) fn packet(mut file: impl Read, number: u64) -> Result<Vec<u8>, String> {
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(|_| "the file is empty; name a pcap or pcapng file")?;
    let file = magic.as_slice().chain(file);
    if magic == PCAPNG { of_pcapng(file, number) } else { of_pcap(file, number) }
}

fn of_pcap(file: impl Read, number: u64) -> Result<Vec<u8>, String> {
    let wrong = |error| format!("it is neither pcap nor pcapng ({error}); is it compressed?");
    let mut reader = PcapReader::new(file).map_err(wrong)?;
    let link = reader.header().datalink;
    let mut seen = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(damaged)?;
        seen += 1;
        if seen == number {
            return whole(link, &packet.data, packet.orig_len);
        }
    }
    Err(too_few(seen))
}

fn of_pcapng(file: impl Read, number: u64) -> Result<Vec<u8>, String> {
    let mut reader = PcapNgReader::new(file).map_err(damaged)?;
    let mut seen = 0;
    while let Some(block) = reader.next_block() {
        let (interface, data, len) = match block.map_err(damaged)? {
            Block::EnhancedPacket(packet) => (packet.interface_id, packet.data, packet.original_len),
            Block::Packet(packet) => (packet.interface_id.into(), packet.data, packet.original_len),
            Block::SimplePacket(packet) => (0, packet.data, packet.original_len),
            _ => continue,
        };
        seen += 1;
        if seen == number {
            let data = data.into_owned();
            let interface = reader.interfaces().get(interface as usize);
            return whole(interface.ok_or_else(|| damaged("no such interface"))?.linktype, &data, len);
        }
    }
    Err(too_few(seen))
}

fn whole(link: DataLink, data: &[u8], len: u32) -> Result<Vec<u8>, String> {
    if link != DataLink::ETHERNET {
        return Err(format!("it is no Ethernet frame (link type {link:?}); capture at the container's interface"));
    }
    if data.len() < len as usize {
        return Err(format!("only {} of its {len} bytes were captured; capture without a snap length", data.len()));
    }
    Ok(data.to_vec())
}

fn damaged(error: impl Display) -> String {
    format!("the file is cut off or damaged ({error}); open it with Wireshark to see how much of it is sound")
}

fn too_few(packets: u64) -> String {
    format!("there are {packets} packets in it; name one of them with --packet")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: u32 = 0x0a0d_0d0a;
    const INTERFACE: u32 = 1;
    const ENHANCED: u32 = 6;

    #[derive(Clone, Copy)]
    enum Order {
        Little,
        Big,
    }

    fn long(order: Order, value: u32) -> [u8; 4] {
        match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }

    fn pcap_of(order: Order, packets: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(long(order, word));
        }
        for packet in packets {
            for word in [1, 2, packet.len() as u32, packet.len() as u32] {
                file.extend(long(order, word));
            }
            file.extend_from_slice(packet);
        }
        file
    }

    fn block(order: Order, file: &mut Vec<u8>, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let len = long(order, padded as u32 + 12);
        file.extend(long(order, kind));
        file.extend(len);
        file.extend_from_slice(body);
        file.resize(file.len() + padded - body.len(), 0);
        file.extend(len);
    }

    fn pcapng_of(order: Order, packets: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut section = long(order, 0x1a2b_3c4d).to_vec();
        section.extend([0; 12]);
        block(order, &mut file, SECTION, &section);
        let link: [u8; 2] = match order {
            Order::Little => [1, 0],
            Order::Big => [0, 1],
        };
        block(order, &mut file, INTERFACE, &[&link[..], &[0; 6]].concat());
        block(order, &mut file, 5, &[0; 12]);
        for packet in packets {
            let len = long(order, packet.len() as u32);
            let head = [long(order, 0), [0; 4], [0; 4], len, len].concat();
            block(order, &mut file, ENHANCED, &[&head[..], packet].concat());
        }
        file
    }

    #[test]
    fn each_packet_is_found_in_either_format_and_order() {
        let packets: [&[u8]; 3] = [b"the first frame", b"2nd", b"the third"];
        for order in [Order::Little, Order::Big] {
            for file in [pcap_of(order, &packets), pcapng_of(order, &packets)] {
                for (number, expected) in (1..).zip(packets) {
                    assert_eq!(packet(&file[..], number).unwrap(), expected);
                }
                let error = packet(&file[..], 4).unwrap_err();
                assert!(error.contains("there are 3 packets"), "{error}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_nothing_worse() {
        for file in [pcap_of(Order::Little, &[b"a frame"]), pcapng_of(Order::Big, &[b"a frame"])] {
            for len in 0..file.len() {
                let _ = packet(&file[..len], 1);
                for value in [0, 0xff, 0x80] {
                    let mut damaged = file.clone();
                    damaged[len] = value;
                    let _ = packet(&damaged[..], 2);
                }
            }
        }
        assert!(packet(&b"PK\x03\x04 a zip"[..], 1).is_err());
    }
}
