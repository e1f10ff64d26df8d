//! One packet of a pcap or pcapng file.
//!
//! Both formats have either byte order. Blocks of pcapng that hold no packet are skipped. A file is somebody else's, so
//! every length in it is checked before it is believed, and no more than one record is in memory at a time.

use std::io::{self, Read};

/// The longest record or block that is read.
const MAX_RECORD: u32 = 16 << 20;
/// The link type of Ethernet.
const ETHERNET: u16 = 1;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// The bytes of the packet with this number, the first being 1.
///
/// # Errors
/// What is wrong with the file, in words that say what to do.
pub(super) fn packet(mut file: impl Read, number: u64) -> Result<Vec<u8>, String> {
    let magic: [u8; 4] = array(&mut file)?.ok_or("the file is empty; name a pcap or pcapng file")?;
    match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => pcap(file, Order::Little, number),
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => pcap(file, Order::Big, number),
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(file, number),
        _ => Err("it is neither pcap nor pcapng; is it compressed?".into()),
    }
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn long(self, bytes: [u8; 4]) -> u32 {
        match self {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        }
    }

    fn long_at(self, bytes: &[u8], at: usize) -> Result<u32, String> {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
        Ok(self.long(*bytes))
    }

    fn short_at(self, bytes: &[u8], at: usize) -> Result<u16, String> {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
        Ok(match self {
            Order::Little => u16::from_le_bytes(*bytes),
            Order::Big => u16::from_be_bytes(*bytes),
        })
    }
}

fn cut() -> String {
    "the file is cut off or damaged; open it with Wireshark to see how much of it is sound".into()
}

fn too_few(packets: u64) -> String {
    format!("there are {packets} packets in it; name one of them with --packet")
}

/// The next bytes; `None` at the file's end.
fn array<const N: usize>(file: &mut impl Read) -> Result<Option<[u8; N]>, String> {
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn take(file: &mut impl Read, len: u32) -> Result<Vec<u8>, String> {
    if len > MAX_RECORD {
        return Err(cut());
    }
    let mut bytes = Vec::new();
    file.take(len.into()).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() == len as usize { Ok(bytes) } else { Err(cut()) }
}

fn of_ethernet(link: u16, bytes: Vec<u8>, whole: u32) -> Result<Vec<u8>, String> {
    if link != ETHERNET {
        return Err(format!("it is no Ethernet frame (link type {link}); capture at the container's interface"));
    }
    if bytes.len() < whole as usize {
        return Err(format!("only {} of its {whole} bytes were captured; capture without a snap length", bytes.len()));
    }
    Ok(bytes)
}

fn pcap(mut file: impl Read, order: Order, number: u64) -> Result<Vec<u8>, String> {
    let header: [u8; 20] = array(&mut file)?.ok_or_else(cut)?;
    let link = order.long_at(&header, 16)? as u16;
    let mut seen = 0;
    while let Some(record) = array::<16>(&mut file)? {
        let bytes = take(&mut file, order.long_at(&record, 8)?)?;
        seen += 1;
        if seen == number {
            return of_ethernet(link, bytes, order.long_at(&record, 12)?);
        }
    }
    Err(too_few(seen))
}

fn pcapng(mut file: impl Read, number: u64) -> Result<Vec<u8>, String> {
    let mut order = Order::Little;
    let mut kind = [0x0a, 0x0d, 0x0d, 0x0a];
    let mut links: Vec<u16> = Vec::new();
    let mut seen = 0;
    loop {
        let len: [u8; 4] = array(&mut file)?.ok_or_else(cut)?;
        let mut read = 8;
        if order.long(kind) == SECTION {
            // The same in either order; the next word tells which one the section has.
            order = match array(&mut file)?.ok_or_else(cut)? {
                [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
                [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
                _ => return Err(cut()),
            };
            links.clear();
            read = 12;
        }
        let body = take(&mut file, order.long(len).checked_sub(read).ok_or_else(cut)?)?;
        let (interface, captured, whole, start) = match order.long(kind) {
            INTERFACE => {
                links.push(order.short_at(&body, 0)?);
                (0, 0, 0, 0)
            }
            ENHANCED => (order.long_at(&body, 0)?, order.long_at(&body, 12)?, order.long_at(&body, 16)?, 20),
            OLD_PACKET => (order.short_at(&body, 0)?.into(), order.long_at(&body, 12)?, order.long_at(&body, 16)?, 20),
            SIMPLE => {
                let whole = order.long_at(&body, 0)?;
                (0, whole.min((body.len() as u32).saturating_sub(8)), whole, 4)
            }
            _ => (0, 0, 0, 0),
        };
        if start > 0 {
            seen += 1;
            if seen == number {
                let bytes = body.get(start..).and_then(|rest| rest.get(..captured as usize)).ok_or_else(cut)?;
                let link = links.get(interface as usize).copied().ok_or_else(cut)?;
                return of_ethernet(link, bytes.to_vec(), whole);
            }
        }
        match array(&mut file)? {
            Some(next) => kind = next,
            None => return Err(too_few(seen)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
