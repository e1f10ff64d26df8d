//! Echo requests (RFC 792) from inside a demo container, whose user may open a raw ICMP socket in its own namespace.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tapswitch_wire::checksum::checksum;

use super::clock::Stopwatch;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const PAYLOAD: &[u8] = b"tapswitch demo: may this frame find its way there and back";

/// The first echo waits for ARP, so each gets a generous second.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a series of echo requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pings {
    /// Requests sent.
    pub sent: u16,
    /// Round-trip times of those that were answered, in microseconds.
    pub rtt_us: Vec<u64>,
}

/// Sends `count` echo requests one after the other and waits for each reply.
pub(super) fn ping(to: Ipv4Addr, id: u16, count: u16) -> Result<Pings, String> {
    series(to, id, count).map_err(|error| format!("cannot ping {to}: {error}"))
}

fn series(to: Ipv4Addr, id: u16, count: u16) -> io::Result<Pings> {
    // std has no raw sockets, but sends and receives on one as on a UDP socket.
    let socket: UdpSocket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?.into();
    socket.connect(SocketAddrV4::new(to, 0))?;
    let mut pings = Pings::default();
    let mut buffer = [0; 2048];
    for sequence in 1..=count {
        let sent = Stopwatch::start();
        socket.send(&request(id, sequence))?;
        pings.sent += 1;
        while let Some(left) = sent.left_of(PATIENCE) {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(len) if is_reply(buffer.get(..len).unwrap_or_default(), id, sequence) => {
                    pings.rtt_us.push(sent.micros());
                    break;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(pings)
}

fn request(id: u16, sequence: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend_from_slice(&id.to_be_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(PAYLOAD);
    let [high, low] = checksum(0, &message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&[high, low]);
    }
    message
}

/// Whether `packet`, which a raw socket hands over with its IPv4 header, is the reply to our request.
fn is_reply(packet: &[u8], id: u16, sequence: u16) -> bool {
    let Some(first) = packet.first() else { return false };
    let header = usize::from(first & 0x0f) * 4;
    let Some([kind, code, _, _, i0, i1, s0, s1, payload @ ..]) = packet.get(header..) else { return false };
    (*kind, *code) == (ECHO_REPLY, 0)
        && u16::from_be_bytes([*i0, *i1]) == id
        && u16::from_be_bytes([*s0, *s1]) == sequence
        && payload == PAYLOAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind_ip_header(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45];
        packet.resize(20, 0);
        packet.extend_from_slice(message);
        packet
    }

    #[test]
    fn request_has_a_right_checksum_and_its_echo_is_recognised() {
        let request = request(0x1234, 7);
        assert_eq!(checksum(0, &request), 0, "the sum over a right message is zero");

        let mut reply = request.clone();
        reply[0] = ECHO_REPLY;
        assert!(is_reply(&behind_ip_header(&reply), 0x1234, 7));
        assert!(!is_reply(&behind_ip_header(&reply), 0x1234, 8), "another sequence");
        assert!(!is_reply(&behind_ip_header(&reply), 0x1235, 7), "another id");
        assert!(!is_reply(&behind_ip_header(&request), 0x1234, 7), "a request is no reply");
        for len in 0..behind_ip_header(&reply).len() {
            assert!(!is_reply(&behind_ip_header(&reply)[..len], 0x1234, 7), "cut to {len} bytes");
        }
    }
}
