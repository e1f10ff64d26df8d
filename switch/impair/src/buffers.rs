//! Buffers for frames: four sizes, used again, never more than so much in all.

use tapswitch_wire::MAX_FRAME_LEN;

/// Bytes of all buffers of one link together. A frame takes the smallest that holds it: 256, 2048, 10 240 or 65 553.
///
/// That is 16 thousand full-sized frames: 2 Gbit/s times 100 ms.
pub const MEMORY: usize = 32 * 1024 * 1024;

const SIZES: [usize; 4] = [256, 2048, 10_240, MAX_FRAME_LEN];

#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: [Vec<Vec<u8>>; SIZES.len()],
    /// Bytes of the spare buffers, and of those lent out.
    spare_bytes: usize,
    lent_bytes: usize,
}

/// Which size holds a frame of this length. None is longer than the longest: [`Buffers::copy`] sees to it.
fn class(len: usize) -> Option<usize> {
    SIZES.iter().position(|size| len <= *size)
}

impl Buffers {
    /// A copy of `frame`; `None` if that would be too much. Spare buffers never stand in the way of one in use.
    pub fn copy(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let class = class(frame.len())?;
        let size = SIZES[class];
        if self.lent_bytes + size > MEMORY {
            return None;
        }
        let mut buffer = match self.spare[class].pop() {
            Some(buffer) => {
                self.spare_bytes -= size;
                buffer
            }
            None => {
                self.make_room(size);
                Vec::with_capacity(size)
            }
        };
        self.lent_bytes += size;
        buffer.clear();
        buffer.extend_from_slice(frame);
        Some(buffer)
    }

    /// Takes back what [`Buffers::copy`] gave, at its length.
    pub fn put(&mut self, buffer: Vec<u8>) {
        let Some(class) = class(buffer.len()) else { return };
        self.lent_bytes -= SIZES[class];
        self.spare_bytes += SIZES[class];
        self.spare[class].push(buffer);
    }

    /// Lets go of spare buffers until another of `size` bytes fits.
    fn make_room(&mut self, size: usize) {
        for (class, spare) in self.spare.iter_mut().enumerate() {
            while self.lent_bytes + self.spare_bytes + size > MEMORY && spare.pop().is_some() {
                self.spare_bytes -= SIZES[class];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_one_size_make_room_for_another_and_never_exceed_the_bound() {
        let mut buffers = Buffers::default();
        for len in [60, 65_000, 1514, 9000, 60] {
            let lent: Vec<_> = std::iter::from_fn(|| buffers.copy(&vec![7; len])).collect();
            let size = SIZES.into_iter().find(|size| *size >= len).unwrap();
            assert_eq!(lent.len(), MEMORY / size, "as many of {size} bytes as fit");
            assert!(lent.iter().all(|buffer| buffer.len() == len && buffer.capacity() < size + 64));
            lent.into_iter().for_each(|buffer| buffers.put(buffer));
            assert_eq!(buffers.lent_bytes, 0);
            assert_eq!(buffers.spare.iter().flatten().map(|b| b.capacity()).sum::<usize>(), buffers.spare_bytes);
            assert!(buffers.spare_bytes <= MEMORY);
        }
    }

    #[test]
    fn a_frame_longer_than_any_can_be_gets_no_buffer() {
        assert!(Buffers::default().copy(&vec![0; MAX_FRAME_LEN + 1]).is_none());
    }
}
