//! Frames written to a pcapng file, as a wire would have carried them.
//!
//! A reader of the file should find packets that could have been on a wire: a super-frame is written as its segments,
//! and a partial checksum is completed, both on a copy. Each port is an interface of the file, named as the port; times
//! are in nanoseconds and given by the caller; the direction is in the flags of each packet.
//!
//! A capture must never disturb what it watches. An error of the disk stops the capture, not the traffic, and is kept to
//! be asked for ([`CaptureFile::error`]); so does reaching the size limit. What was not written is counted.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tapswitch_wire::{DropReason, Instant, Meta};

use crate::port::tx_plain;
use crate::{Buffer, LinkError, Port, Rx};

pub mod pcapng;

pub use pcapng::{CaptureId, Direction};
use pcapng::{Packet, Pcapng};

/// A pcapng file that is being written.
pub struct CaptureFile<W: Write = BufWriter<File>> {
    writer: Pcapng<W>,
    /// Time since 1970 at [`Instant::ZERO`].
    epoch: Duration,
    limit: u64,
    skipped: u64,
    error: Option<io::Error>,
    scratch: Vec<u8>,
}

impl CaptureFile {
    /// Creates a file, or empties the one that is there. `epoch` is the time since 1970 at [`Instant::ZERO`].
    /// Only its owner may read it, also if everybody might read the one that was there.
    ///
    /// # Errors
    /// [`LinkError::System`] if the file cannot be made or written.
    pub fn create(path: &Path, epoch: Duration) -> Result<CaptureFile, LinkError> {
        let explain = |e: io::Error| {
            LinkError::system(
                format!("write the capture {}", path.display()),
                e,
                "choose a file in a directory where you may write",
            )
        };
        let file = pcapng::create(path).map_err(explain)?;
        CaptureFile::new(BufWriter::new(file), epoch).map_err(explain)
    }
}

impl<W: Write> CaptureFile<W> {
    /// Begins a capture on a writer.
    ///
    /// # Errors
    /// What the writer says.
    pub fn new(writer: W, epoch: Duration) -> io::Result<CaptureFile<W>> {
        let writer = Pcapng::new(writer)?;
        Ok(CaptureFile { writer, epoch, limit: u64::MAX, skipped: 0, error: None, scratch: Vec::new() })
    }

    /// Stops writing packets before the file exceeds about so many bytes. Without it only the disk limits the file.
    pub fn with_limit(mut self, bytes: u64) -> CaptureFile<W> {
        self.limit = bytes;
        self
    }

    /// Adds a port under this name.
    pub fn interface(&mut self, name: &str) -> CaptureId {
        let id = self.writer.interface(name, 0);
        self.note(id).unwrap_or(CaptureId::NONE)
    }

    /// Writes one frame, cut and completed. A frame that cannot be cut is written as it is.
    pub fn record(&mut self, port: CaptureId, direction: Direction, now: Instant, meta: &Meta, frame: &[u8]) {
        if self.error.is_some() || self.writer.written() >= self.limit {
            self.skipped += 1;
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let cut = tx_plain(meta, frame, &mut scratch, |segment| {
            self.write(port, direction, now, segment);
            Ok(())
        });
        self.scratch = scratch;
        if cut.is_err() {
            self.write(port, direction, now, frame);
        }
    }

    fn write(&mut self, port: CaptureId, direction: Direction, now: Instant, frame: &[u8]) {
        let time = self.epoch + Duration::from_nanos(now.as_nanos());
        let packet = Packet { port, direction, time, data: frame, length: frame.len(), comment: None };
        let written = self.writer.packet(&packet);
        self.note(written);
    }

    fn note<T>(&mut self, written: io::Result<T>) -> Option<T> {
        match written {
            Ok(done) => return Some(done),
            Err(e) if self.error.is_none() => self.error = Some(e),
            Err(_) => {}
        }
        None
    }

    /// Why the capture stopped, if it did.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// How many frames came after it stopped.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Writes out what is buffered, so that a reader finds whole packets.
    ///
    /// # Errors
    /// What the writer says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// The error that stopped it, or what the writer says to the last bytes.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.writer.get_mut().flush()?;
        Ok(self.writer.into_inner())
    }
}

impl<W: Write> fmt::Debug for CaptureFile<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFile")
            .field("writer", &self.writer)
            .field("skipped", &self.skipped)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// A capture file that several ports share.
pub type Shared<W> = Arc<Mutex<CaptureFile<W>>>;

/// A port all of whose frames are recorded: those read, and those that the port took.
#[derive(Debug)]
pub struct Capture<P, W: Write = BufWriter<File>> {
    port: P,
    file: Shared<W>,
    id: CaptureId,
    now: Instant,
}

impl<P: Port, W: Write> Capture<P, W> {
    /// Wraps a port that the file is to call `name`.
    pub fn new(port: P, file: &Shared<W>, name: &str) -> Capture<P, W> {
        let id = lock(file).interface(name);
        Capture { port, file: Arc::clone(file), id, now: Instant::ZERO }
    }

    /// The time of the frames that come next.
    pub fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    /// The port inside.
    pub fn inner(&self) -> &P {
        &self.port
    }
}

/// The file counts and writes whole blocks, so one whose user panicked can still be written to.
fn lock<W: Write>(file: &Mutex<CaptureFile<W>>) -> MutexGuard<'_, CaptureFile<W>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Port, W: Write> Port for Capture<P, W> {
    fn rx(&mut self, buffer: &mut Buffer) -> Rx {
        let outcome = self.port.rx(buffer);
        if let Rx::Frame(meta, len) = outcome {
            lock(&self.file).record(self.id, Direction::In, self.now, &meta, buffer.frame(len));
        }
        outcome
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        self.port.tx(meta, frame)?;
        lock(&self.file).record(self.id, Direction::Out, self.now, meta, frame);
        Ok(())
    }

    fn offload(&self) -> bool {
        self.port.offload()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
    use pcap_file::pcapng::{Block, PcapNgReader};
    use tapswitch_wire::checksum;

    use super::*;
    use crate::cable::cable;
    use crate::testing::{partial_frame, plain_frame, super_frame};

    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn shared() -> Shared<Vec<u8>> {
        Arc::new(Mutex::new(CaptureFile::new(Vec::new(), EPOCH).unwrap()))
    }

    fn finish(file: Shared<Vec<u8>>) -> Vec<Block<'static>> {
        let bytes = Arc::into_inner(file).unwrap().into_inner().unwrap().finish().unwrap();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().into_owned());
        }
        blocks
    }

    fn packets(blocks: &[Block<'static>]) -> Vec<EnhancedPacketBlock<'static>> {
        let packet = |block: &Block<'static>| match block {
            Block::EnhancedPacket(packet) => Some(packet.clone()),
            _ => None,
        };
        blocks.iter().filter_map(packet).collect()
    }

    fn tcp_checksum_is_right(frame: &[u8]) -> bool {
        let address =
            |at: usize| std::net::Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]).into();
        let segment = &frame[34..];
        let pseudo = checksum::pseudo_header(address(26), address(30), 6, segment.len() as u32);
        checksum::add(pseudo, checksum::sum(segment)) == 0xffff
    }

    #[test]
    fn file_is_for_its_owner_only_even_if_an_older_one_was_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (new, old) = (directory.path().join("new.pcapng"), directory.path().join("old.pcapng"));
        File::create(&old).unwrap().set_permissions(Permissions::from_mode(0o644)).unwrap();
        for path in [&new, &old] {
            CaptureFile::create(path, EPOCH).unwrap().finish().unwrap();
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
        let null = Path::new("/dev/null");
        let before = mode(null);
        CaptureFile::create(null, EPOCH).unwrap();
        assert_eq!(mode(null), before);
    }

    #[test]
    fn both_directions_are_recorded_with_name_time_and_direction() {
        let file = shared();
        let (near, mut far) = cable(4, true);
        let mut port = Capture::new(near, &file, "web");
        port.set_time(Instant::from_nanos(1_000_000_001));
        port.tx(&Meta::PLAIN, &plain_frame(1)).unwrap();
        far.tx(&Meta::PLAIN, &plain_frame(2)).unwrap();
        port.set_time(Instant::from_nanos(2_000_000_002));
        let mut buffer = Buffer::new();
        assert!(matches!(port.rx(&mut buffer), Rx::Frame(..)));
        assert_eq!(port.rx(&mut buffer), Rx::WouldBlock);
        drop(port);
        let blocks = finish(file);
        let Block::InterfaceDescription(interface) = &blocks[0] else { panic!("{blocks:?}") };
        assert!(interface.options.contains(&InterfaceDescriptionOption::IfName("web".into())));
        let seen: Vec<_> =
            packets(&blocks).into_iter().map(|p| (p.timestamp, p.options.clone(), p.data.into_owned())).collect();
        assert_eq!(
            seen,
            [
                (EPOCH + Duration::from_nanos(1_000_000_001), vec![EnhancedPacketOption::Flags(2)], plain_frame(1)),
                (EPOCH + Duration::from_nanos(2_000_000_002), vec![EnhancedPacketOption::Flags(1)], plain_frame(2)),
            ]
        );
    }

    #[test]
    fn partial_checksums_are_complete_in_the_file_and_untouched_on_the_way() {
        let file = shared();
        let (near, mut far) = cable(4, true);
        let mut port = Capture::new(near, &file, "web");
        let (meta, frame) = partial_frame(100);
        assert!(!tcp_checksum_is_right(&frame));
        port.tx(&meta, &frame).unwrap();
        let mut buffer = Buffer::new();
        assert_eq!(far.rx(&mut buffer), Rx::Frame(meta, frame.len()));
        assert_eq!(buffer.frame(frame.len()), &frame[..]);
        drop(port);
        let packets = packets(&finish(file));
        assert!(tcp_checksum_is_right(&packets[0].data));
    }

    #[test]
    fn super_frames_are_segments_in_the_file() {
        let file = shared();
        let (near, _far) = cable(4, true);
        let mut port = Capture::new(near, &file, "web");
        let (meta, frame) = super_frame(3500, 1000);
        port.tx(&meta, &frame).unwrap();
        drop(port);
        let packets = packets(&finish(file));
        assert_eq!(packets.iter().map(|p| p.data.len()).collect::<Vec<_>>(), [1054, 1054, 1054, 554]);
        assert!(packets.iter().all(|p| tcp_checksum_is_right(&p.data)));
    }

    #[test]
    fn frame_the_port_refused_is_not_in_the_file() {
        let file = shared();
        let (near, _far) = cable(0, true);
        let mut port = Capture::new(near, &file, "web");
        assert_eq!(port.tx(&Meta::PLAIN, &plain_frame(1)), Err(DropReason::TxFull));
        drop(port);
        assert_eq!(packets(&finish(file)), []);
    }

    #[test]
    fn frame_that_cannot_be_cut_is_recorded_as_it_is() {
        let mut file = CaptureFile::new(Vec::new(), EPOCH).unwrap();
        let id = file.interface("web");
        let (meta, _) = super_frame(3500, 1000);
        file.record(id, Direction::In, Instant::ZERO, &meta, &plain_frame(1));
        file.record(id, Direction::In, Instant::ZERO, &Meta::PLAIN, &[1, 2, 3]);
        let packets = packets(&finish(Arc::new(Mutex::new(file))));
        assert_eq!(packets[0].data, plain_frame(1));
        assert_eq!(packets[1].data, vec![1, 2, 3]);
    }

    #[test]
    fn capture_stops_at_its_limit_and_counts_what_it_skipped() {
        let mut file = CaptureFile::new(Vec::new(), EPOCH).unwrap().with_limit(400);
        let id = file.interface("web");
        for number in 0..100 {
            file.record(id, Direction::In, Instant::ZERO, &Meta::PLAIN, &plain_frame(number));
        }
        assert!(file.skipped() > 90);
        assert!(file.finish().unwrap().len() < 600);
    }

    #[test]
    fn failing_disk_stops_the_capture_and_not_the_traffic() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let file = CaptureFile::new(BufWriter::with_capacity(64, Full), EPOCH).unwrap();
        let file = Arc::new(Mutex::new(file));
        let (near, far) = cable(4, true);
        let mut port = Capture::new(near, &file, "web");
        for number in 0..4 {
            port.tx(&Meta::PLAIN, &plain_frame(number)).unwrap();
        }
        assert_eq!(far.waiting(), 4);
        assert_eq!(lock(&file).error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}
