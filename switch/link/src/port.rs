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
    /// [`DropReason::AboveMtu`] if it checks that, [`DropReason::UnknownEthertype`] if it carries IP packets only,
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
pub struct Buffer {
    bytes: Box<[u8]>,
    /// Where the frame begins: behind the virtio-net header, or a tag's length before that.
    start: usize,
}

impl Buffer {
    /// One byte more than a frame may have, so that a longer one is noticed instead of cut: the kernel truncates a read
    /// into a short buffer silently.
    const LEN: usize = VNET_HEADER_LEN + MAX_FRAME_LEN + 1;

    /// An empty buffer.
    pub fn new() -> Buffer {
        Buffer { bytes: vec![0; Self::LEN].into_boxed_slice(), start: VNET_HEADER_LEN }
    }

    /// The frame of `len` bytes that [`Rx::Frame`] told of.
    ///
    /// # Panics
    /// If `len` is not one that this buffer's last [`Rx::Frame`] gave and is above [`MAX_FRAME_LEN`].
    pub fn frame(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len]
    }

    /// Puts a frame into the buffer, for ports that have their frames in memory.
    pub fn put(&mut self, meta: Meta, frame: &[u8]) -> Rx {
        if frame.len() > MAX_FRAME_LEN {
            return Rx::Bad(DropReason::FrameTooLong);
        }
        self.start = VNET_HEADER_LEN;
        self.frame(frame.len()).copy_from_slice(frame);
        Rx::Frame(meta, frame.len())
    }

    /// Header and frame as one piece, for the kernel to fill.
    pub(crate) fn whole(&mut self) -> &mut [u8] {
        self.start = VNET_HEADER_LEN;
        &mut self.bytes
    }

    /// Where the frame goes, for a device without a virtio-net header.
    pub(crate) fn behind_header(&mut self) -> &mut [u8] {
        self.start = VNET_HEADER_LEN;
        &mut self.bytes[VNET_HEADER_LEN..]
    }

    /// The virtio-net header in front of the frame.
    pub(crate) fn header(&self) -> [u8; VNET_HEADER_LEN] {
        let mut header = [0; VNET_HEADER_LEN];
        header.copy_from_slice(&self.bytes[..VNET_HEADER_LEN]);
        header
    }

    /// Puts a VLAN tag behind the MAC addresses of the frame that was just read. They move, over the virtio-net header,
    /// and the rest of the frame stays, which may be long.
    pub(crate) fn insert_tag(&mut self, tag: [u8; 4]) {
        const MACS: usize = 12;
        let start = VNET_HEADER_LEN - tag.len();
        self.bytes.copy_within(VNET_HEADER_LEN..VNET_HEADER_LEN + MACS, start);
        self.bytes[start + MACS..][..tag.len()].copy_from_slice(&tag);
        self.start = start;
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("start", &self.start).finish_non_exhaustive()
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

    #[test]
    fn br_13_tag_goes_behind_the_mac_addresses_and_the_next_frame_is_where_it_belongs() {
        let mut buffer = Buffer::new();
        let frame: Vec<u8> = (0..60).collect();
        buffer.put(Meta::PLAIN, &frame);
        buffer.insert_tag([0x81, 0, 0, 7]);
        assert_eq!(buffer.frame(64), [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat());
        buffer.put(Meta::PLAIN, &frame);
        assert_eq!(buffer.frame(60), frame);
    }
}
