//! Long byte streams that can be compared without keeping them.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

const BLOCK: usize = 64 << 10;

/// Length and SHA-256 of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    /// Bytes of the stream.
    pub len: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// Writes `len` bytes that never repeat and differ for each `seed`. Does not end the stream.
pub fn send(to: &mut impl Write, seed: u64, len: u64) -> io::Result<Digest> {
    let mut block = noise(seed);
    let mut hash = Sha256::new();
    let mut left = len;
    while left > 0 {
        block[..8].copy_from_slice(&left.to_le_bytes());
        let part = &block[..left.min(BLOCK as u64) as usize];
        to.write_all(part)?;
        hash.update(part);
        left -= part.len() as u64;
    }
    Ok(Digest { len, sha256: hash.finalize().into() })
}

/// Reads until the stream ends.
pub fn receive(from: &mut impl Read) -> io::Result<Digest> {
    let mut block = vec![0; BLOCK];
    let mut hash = Sha256::new();
    let mut len = 0;
    loop {
        match from.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => return Ok(Digest { len, sha256: hash.finalize().into() }),
            Ok(n) => {
                hash.update(&block[..n]);
                len += n as u64;
            }
        }
    }
}

/// A block of bytes without a pattern (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(BLOCK / 8).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_is_what_was_sent() {
        let mut wire = Vec::new();
        let sent = send(&mut wire, 1, 200_001).expect("a vector takes everything");
        assert_eq!(receive(&mut wire.as_slice()).expect("a slice reads to its end"), sent);
        wire[150_000] ^= 1;
        assert_ne!(receive(&mut wire.as_slice()).expect("a slice reads to its end"), sent);
    }
}
