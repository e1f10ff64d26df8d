//! What the bytes of the `pipeline` target mean: a sequence of records of eight bytes each. The first byte says what
//! happens, the others how. Every record means something, so a mutation is another history and never a syntax error; a
//! fixed size lets the fuzzer cut, copy and splice histories.

/// One event. See the fields of each in `pipeline` and `frames`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A TCP segment whose numbers follow on what went before.
    Tcp,
    /// A UDP datagram, or several as one super-frame.
    Udp,
    /// An ICMP message.
    Icmp,
    /// An ARP packet.
    Arp,
    /// A DHCP message.
    Dhcp,
    /// A frame from one container to another, or to a group.
    Lan,
    /// An IPv6 packet.
    Ipv6,
    /// The bytes that follow are a virtio-net header and a frame.
    Raw,
    /// Time passes.
    Time,
    /// Something happens at a socket of the host, or outside of a packet uplink.
    Host,
    /// A container comes, goes, or stops reading.
    Port,
    /// The next frame is damaged.
    Damage,
}

/// All kinds, in the order of their numbers.
const KINDS: [Kind; 12] = [
    Kind::Tcp,
    Kind::Udp,
    Kind::Icmp,
    Kind::Arp,
    Kind::Dhcp,
    Kind::Lan,
    Kind::Ipv6,
    Kind::Raw,
    Kind::Time,
    Kind::Host,
    Kind::Port,
    Kind::Damage,
];

/// Bytes of a record.
pub const LEN: usize = 8;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// What happens.
    pub kind: Kind,
    /// How.
    pub args: [u8; LEN - 1],
}

impl Record {
    /// Reads one record off the front.
    pub fn take(data: &mut &[u8]) -> Option<Record> {
        let (first, rest) = data.split_first_chunk::<LEN>()?;
        *data = rest;
        let [kind, args @ ..] = *first;
        Some(Record { kind: KINDS[usize::from(kind) % KINDS.len()], args })
    }

    /// The bytes that [`Record::take`] reads.
    pub fn bytes(self) -> [u8; LEN] {
        let [a, b, c, d, e, f, g] = self.args;
        [self.kind as u8, a, b, c, d, e, f, g]
    }

    /// Two of its arguments as a number.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.args[at], self.args[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        for kind in KINDS {
            let record = Record { kind, args: [1, 2, 3, 4, 5, 6, 7] };
            assert_eq!(Record::take(&mut &record.bytes()[..]), Some(record));
        }
        assert_eq!(Record::take(&mut &[0; 7][..]), None);
    }
}
