//! What a frame comes from and goes to.

use tapswitch_wire::{DropReason, MAX_FRAME_LEN, Meta, VNET_HEADER_LEN, segment};

/// One end of something that carries Ethernet frames.
///
/// Neither direction ever waits: a port that has no frame says so, and one that can take no frame drops it by name.
pub trait Port {
    /// Reads the next frame into `buffer`.
    fn rx(&mut self, buffer: &mut Buffer) -> Rx;

    /// Sends one whole frame.
    ///
    /// A port without offload cuts a super-frame and completes checksums itself. The MTU is not checked here: the kernel
    /// does not enforce it on a TAP, so whoever decides on forwarding must.
    ///
    /// # Errors
    /// [`DropReason::TxFull`] if its queue is full, [`DropReason::PortDown`] if the interface is down or gone,
    /// [`DropReason::TxFailed`] if it refused the frame, [`DropReason::CannotSegment`] and what
    /// [`segment::segment`] says if the port needs the frame cut and it cannot be. After an error inside a super-frame
    /// its remaining segments are not sent.
    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason>;

    /// Whether super-frames and partial checksums pass through whole.
    fn offload(&self) -> bool;
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn rx(&mut self, buffer: &mut Buffer) -> Rx {
        (**self).rx(buffer)
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        (**self).tx(meta, frame)
    }

    fn offload(&self) -> bool {
        (**self).offload()
    }
}

/// What came of reading a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rx {
    /// A frame of so many bytes is in the buffer: [`Buffer::frame`] lends it.
    Frame(Meta, usize),
    /// Nothing is there; the poller will say when something is.
    WouldBlock,
    /// A frame was read and is dropped for this reason; the next one may be good.
    Bad(DropReason),
    /// The port will never give a frame again: its container, or the other end, is gone.
    Gone,
}

/// Room for the largest super-frame with its virtio-net header, to be used again for each frame.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
}

impl Buffer {
    /// One byte more than a frame may have, so that a longer one is noticed instead of cut: the kernel truncates a read
    /// into a short buffer silently.
    const LEN: usize = VNET_HEADER_LEN + MAX_FRAME_LEN + 1;

    /// An empty buffer.
    pub fn new() -> Buffer {
        Buffer { bytes: vec![0; Self::LEN].into_boxed_slice() }
    }

    /// The frame of `len` bytes that [`Rx::Frame`] told of.
    ///
    /// # Panics
    /// If `len` is not one that this buffer's last [`Rx::Frame`] gave and is above [`MAX_FRAME_LEN`].
    pub fn frame(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[VNET_HEADER_LEN..VNET_HEADER_LEN + len]
    }

    /// Puts a frame into the buffer, for ports that have their frames in memory.
    pub fn put(&mut self, meta: Meta, frame: &[u8]) -> Rx {
        if frame.len() > MAX_FRAME_LEN {
            return Rx::Bad(DropReason::FrameTooLong);
        }
        self.frame(frame.len()).copy_from_slice(frame);
        Rx::Frame(meta, frame.len())
    }

    /// Header and frame as one piece, for the kernel to fill.
    pub(crate) fn whole(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Where the frame goes, for a device without a virtio-net header.
    pub(crate) fn behind_header(&mut self) -> &mut [u8] {
        &mut self.bytes[VNET_HEADER_LEN..]
    }

    /// The virtio-net header in front of the frame.
    pub(crate) fn header(&self) -> [u8; VNET_HEADER_LEN] {
        let mut header = [0; VNET_HEADER_LEN];
        header.copy_from_slice(&self.bytes[..VNET_HEADER_LEN]);
        header
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends a frame through `send`, which takes only what a wire takes: cut, with complete checksums.
pub(crate) fn tx_plain(
    meta: &Meta,
    frame: &[u8],
    scratch: &mut Vec<u8>,
    mut send: impl FnMut(&[u8]) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    let mut sent = Ok(());
    segment::segment(meta, frame, scratch, &mut |_: &Meta, segment: &[u8]| {
        if sent.is_ok() {
            sent = send(segment);
        }
    })?;
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_takes_the_longest_frame_and_refuses_a_longer_one() {
        let mut buffer = Buffer::new();
        let frame = vec![7; MAX_FRAME_LEN];
        assert_eq!(buffer.put(Meta::PLAIN, &frame), Rx::Frame(Meta::PLAIN, MAX_FRAME_LEN));
        assert_eq!(buffer.frame(MAX_FRAME_LEN), &frame[..]);
        assert_eq!(buffer.put(Meta::PLAIN, &vec![7; MAX_FRAME_LEN + 1]), Rx::Bad(DropReason::FrameTooLong));
    }
}
