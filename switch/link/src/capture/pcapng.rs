//! The pcapng format, as far as frames of a switch need it (draft-ietf-opsawg-pcapng).
//!
//! One section, an interface block for each port when it is first needed, and an enhanced packet block for each frame,
//! with its direction and, if somebody has something to say about it, a comment. Times are in nanoseconds since 1970.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

/// Packets hold passwords and the like: they are for nobody's eyes but the owner's.
const OWNER_ONLY: u32 = 0o600;
/// if_tsresol: ten to the power of minus nine.
const NANOSECONDS: u8 = 9;
/// Bytes of the longest comment; the rest of a longer one is not written.
pub const MAX_COMMENT: usize = 4096;
/// What stands at the end of a comment that was cut.
const CUT: &str = "...";

/// Which way a frame went, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Read from the port.
    In,
    /// Written to the port.
    Out,
}

/// An interface of a capture file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaptureId(u32);

impl CaptureId {
    /// The interface of a file that takes no more packets.
    pub(super) const NONE: CaptureId = CaptureId(u32::MAX);
}

/// A frame as it is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The port that it passed.
    pub port: CaptureId,
    /// Which way.
    pub direction: Direction,
    /// When, since 1970.
    pub time: Duration,
    /// Its bytes, or the first of them.
    pub data: &'a [u8],
    /// How many bytes it had.
    pub length: usize,
    /// What is said about it: lines of text, of which [`MAX_COMMENT`] bytes are written.
    pub comment: Option<&'a str>,
}

/// A pcapng section that is being written.
pub struct Pcapng<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: u32,
    written: u64,
}

impl<W: Write> Pcapng<W> {
    /// Begins a section.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(writer: W) -> io::Result<Pcapng<W>> {
        let program = concat!("tapswitch ", env!("CARGO_PKG_VERSION"));
        let options = vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))];
        let section = SectionHeaderBlock { endianness: Endianness::native(), options, ..Default::default() };
        let writer = PcapNgWriter::with_section_header(writer, section).map_err(io_error)?;
        Ok(Pcapng { writer, interfaces: 0, written: 0 })
    }

    /// Adds a port under this name. `snaplen` is the number of bytes that packets are cut to, 0 if they are not cut.
    ///
    /// # Errors
    /// What the writer says.
    pub fn interface(&mut self, name: &str, snaplen: u32) -> io::Result<CaptureId> {
        let id = CaptureId(self.interfaces);
        let options = vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        self.block(InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options })?;
        self.interfaces += 1;
        Ok(id)
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// What the writer says.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let flags = match packet.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        let mut options = vec![EnhancedPacketOption::Flags(flags)];
        options.extend(packet.comment.map(|text| EnhancedPacketOption::Comment(shortened(text))));
        self.block(EnhancedPacketBlock {
            interface_id: packet.port.0,
            timestamp: packet.time,
            original_len: u32::try_from(packet.length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(packet.data),
            options,
        })
    }

    fn block<'a>(&mut self, block: impl PcapNgBlock<'a>) -> io::Result<()> {
        self.written += self.writer.write_pcapng_block(block).map_err(io_error)? as u64;
        Ok(())
    }

    /// Bytes of all interfaces and packets.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }

    /// What was written to. Nothing is flushed.
    pub fn into_inner(self) -> W {
        self.writer.into_inner()
    }
}

impl<W: Write> fmt::Debug for Pcapng<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pcapng")
            .field("interfaces", &self.interfaces)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// As much of a comment as is written.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_COMMENT {
        return Cow::Borrowed(text);
    }
    let mut end = MAX_COMMENT - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(text[..end].to_owned() + CUT)
}

/// Creates a file for packets, or empties the one that is there.
/// Only its owner may read it, also if everybody might read the one that was there.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(OWNER_ONLY);
    let file = options.open(path)?;
    // What is no file (a FIFO, /dev/null) keeps its mode, and one of somebody else's too.
    if file.metadata().is_ok_and(|found| found.is_file()) {
        let _ = file.set_permissions(Permissions::from_mode(OWNER_ONLY));
    }
    Ok(file)
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};
    use proptest::prelude::*;

    use super::*;

    fn blocks(bytes: &[u8]) -> Vec<Block<'static>> {
        let mut reader = PcapNgReader::new(bytes).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().into_owned());
        }
        blocks
    }

    #[test]
    fn a_reader_finds_port_direction_time_length_and_comment() {
        let mut file = Pcapng::new(Vec::new()).unwrap();
        let (web, db) = (file.interface("lab/web", 64).unwrap(), file.interface("lab/db", 64).unwrap());
        let time = Duration::new(1_700_000_000, 123_456_789);
        let packet = Packet { port: db, direction: Direction::Out, time, data: &[7; 64], length: 99, comment: None };
        file.packet(&packet).unwrap();
        file.packet(&Packet { port: web, direction: Direction::In, comment: Some("dropped\n\u{e9}"), ..packet })
            .unwrap();
        let bytes = file.into_inner();
        let section = PcapNgReader::new(&bytes[..]).unwrap().section().clone();
        let program = concat!("tapswitch ", env!("CARGO_PKG_VERSION"));
        assert_eq!(section.options, [SectionHeaderOption::UserApplication(program.into())]);
        let blocks = blocks(&bytes);
        let [Block::InterfaceDescription(first), Block::InterfaceDescription(_), packets @ ..] = &blocks[..] else {
            panic!("{blocks:?}")
        };
        assert_eq!(first.snaplen, 64);
        assert!(first.options.contains(&InterfaceDescriptionOption::IfName("lab/web".into())));
        let [Block::EnhancedPacket(one), Block::EnhancedPacket(two)] = packets else { panic!("{packets:?}") };
        assert_eq!((one.interface_id, one.timestamp, one.original_len, one.data.len()), (1, time, 99, 64));
        assert_eq!(one.options, [EnhancedPacketOption::Flags(2)]);
        assert_eq!(two.interface_id, 0);
        let said = EnhancedPacketOption::Comment("dropped\n\u{e9}".into());
        assert_eq!(two.options, [EnhancedPacketOption::Flags(1), said]);
    }

    #[test]
    fn what_is_counted_is_what_is_written() {
        let mut file = Pcapng::new(Vec::new()).unwrap();
        let before = file.writer.get_ref().len() as u64;
        let port = file.interface("odd", 0).unwrap();
        let time = Duration::ZERO;
        for length in 0..9 {
            let data = &[1; 9][..length];
            file.packet(&Packet { port, direction: Direction::In, time, data, length, comment: Some("x") }).unwrap();
        }
        assert_eq!(file.written(), file.writer.get_ref().len() as u64 - before);
    }

    proptest! {
        #[test]
        fn a_comment_of_any_length_is_text_that_fits(text in "(a|\u{e9}|\u{1f600}){4000,4200}|.{0,40}") {
            let short = shortened(&text);
            prop_assert!(short.len() <= MAX_COMMENT);
            prop_assert!(*short == *text || text.starts_with(short.strip_suffix(CUT).unwrap()));
        }
    }
}
