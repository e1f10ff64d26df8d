//! Control messages, as they lie in memory (cmsg(3)): a length, a level, a type, and data, padded to whole words.

use nix::libc;

const WORD: usize = size_of::<usize>();
const HEADER: usize = (WORD + 8).next_multiple_of(WORD);

/// Control messages of one message to be sent, on the stack.
pub(super) struct Controls {
    bytes: [u8; Controls::ROOM],
    len: usize,
}

impl Controls {
    /// Enough for five numbers and a `in6_pktinfo`.
    pub(super) const ROOM: usize = 192;
    pub(super) const EMPTY: Controls = Controls { bytes: [0; Controls::ROOM], len: 0 };

    /// Adds one. What does not fit is left out.
    pub(super) fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let end = self.len + (HEADER + data.len()).next_multiple_of(WORD);
        let Some(place) = self.bytes.get_mut(self.len..end) else { return };
        place[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        place[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        place[WORD + 4..WORD + 8].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.len = end;
    }

    /// Adds a number.
    pub(super) fn number(&mut self, level: libc::c_int, kind: libc::c_int, number: libc::c_int) {
        self.push(level, kind, &number.to_ne_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One control message that was received.
#[derive(Clone, Copy)]
pub(super) struct Control<'a> {
    pub level: libc::c_int,
    pub kind: libc::c_int,
    pub data: &'a [u8],
}

impl Control<'_> {
    /// The number that it is: of the kernel's one or four bytes.
    pub(super) fn number(&self) -> Option<libc::c_int> {
        match *self.data {
            [byte] => Some(byte.into()),
            [a, b, c, d, ..] => Some(libc::c_int::from_ne_bytes([a, b, c, d])),
            _ => None,
        }
    }
}

/// The control messages of a message that was received.
pub(super) fn controls(mut bytes: &[u8]) -> impl Iterator<Item = Control<'_>> {
    let number = |bytes: &[u8]| libc::c_int::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(*bytes.first_chunk::<WORD>()?);
        let data = bytes.get(HEADER..len)?;
        let control = Control { level: number(&bytes[WORD..]), kind: number(&bytes[WORD + 4..]), data };
        bytes = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some(control)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut written = Controls::EMPTY;
        written.number(libc::IPPROTO_IP, libc::IP_TTL, 63);
        written.push(libc::SOL_UDP, libc::UDP_SEGMENT, &1472u16.to_ne_bytes());
        written.push(7, 8, &[9]);
        let read: Vec<_> = controls(written.bytes()).map(|it| (it.level, it.kind, it.data.to_vec())).collect();
        let segment = 1472u16.to_ne_bytes().to_vec();
        let ttl = 63i32.to_ne_bytes().to_vec();
        let expected =
            [(libc::IPPROTO_IP, libc::IP_TTL, ttl), (libc::SOL_UDP, libc::UDP_SEGMENT, segment), (7, 8, vec![9])];
        assert_eq!(read, expected);
        assert_eq!(controls(written.bytes()).filter_map(|it| it.number()).collect::<Vec<_>>(), [63, 9]);
    }

    #[test]
    fn garbage_ends_the_list() {
        for len in [0usize, 1, HEADER - 1, 64, usize::MAX] {
            let mut bytes = [0; 40];
            bytes[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(controls(&bytes).count(), 0, "{len}");
        }
        assert_eq!(controls(&[1, 2, 3]).count(), 0);
    }
}
