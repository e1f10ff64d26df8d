//! Where packets are written: one file, a ring of them, or a pipe.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tapswitch_link::capture::pcapng::{self, CaptureId, Direction, Packet, Pcapng};

use super::record::Record;
use crate::error::Error;

/// A capture's file, or files.
pub(super) struct Output {
    /// None is stdout.
    path: Option<PathBuf>,
    /// Bytes of a file.
    limit: u64,
    /// Files of the ring, if there is one.
    files: Option<u16>,
    snaplen: Option<u32>,
    /// Files that were ended.
    ended: u64,
    current: Section,
}

impl Output {
    /// Creates the file, or empties the one that is there. Without a path this is stdout.
    pub(super) fn create(
        path: Option<&Path>,
        limit: Option<u64>,
        files: Option<u16>,
        snaplen: Option<u32>,
    ) -> Result<Output, Error> {
        let current = match path {
            Some(path) => begin(path)?,
            None => {
                let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
                stdout.and_then(Section::begin).map_err(|error| cannot("stdout", &error, "check where it leads"))?
            }
        };
        let limit = limit.unwrap_or(u64::MAX);
        Ok(Output { path: path.map(Path::to_owned), limit, files, snaplen, ended: 0, current })
    }

    /// Writes a packet, all the way. Says no if there is no room for it, or nobody reads any more.
    pub(super) fn put(&mut self, record: &Record) -> Result<bool, Error> {
        let mut block = self.current.encode(record, self.snaplen).map_err(|error| self.failed(&error))?;
        if self.current.packets > 0 && self.current.length + block.len() as u64 > self.limit {
            let (Some(path), Some(_)) = (&self.path, self.files) else { return Ok(false) };
            let next = begin(&self.name(path, self.ended + 1))?;
            self.ended += 1;
            self.current = next;
            block = self.current.encode(record, self.snaplen).map_err(|error| self.failed(&error))?;
        }
        match self.current.append(&block) {
            Ok(()) => Ok(true),
            Err(error) if self.path.is_none() && error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What is written to now, for people.
    pub(super) fn place(&self) -> String {
        match &self.path {
            Some(path) => self.name(path, self.ended).display().to_string(),
            None => "stdout".into(),
        }
    }

    /// What was written and is still there, oldest first.
    pub(super) fn files(&self) -> Vec<String> {
        let Some(path) = &self.path else { return vec!["stdout".into()] };
        let first = (self.ended + 1).saturating_sub(self.files.unwrap_or(1).into());
        (first..=self.ended).map(|number| self.name(path, number).display().to_string()).collect()
    }

    /// The name of a file, of which number 0 is the first.
    fn name(&self, path: &Path, number: u64) -> PathBuf {
        match number % u64::from(self.files.unwrap_or(1)) {
            0 => path.to_owned(),
            number => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{number}"));
                name.into()
            }
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        let hint = match (error.kind(), self.path.is_some()) {
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => {
                "make room there, or bound the capture with --size and --files"
            }
            (_, true) => "choose another file",
            (_, false) => "check where it leads",
        };
        cannot(&self.place(), error, &format!("the packets before it are whole ({}); {hint}", self.current.packets))
    }
}

fn cannot(place: &str, error: &io::Error, hint: &str) -> Error {
    Error::failed(format!("cannot write the capture to {place}: {error}; {hint}"))
}

fn begin(path: &Path) -> Result<Section, Error> {
    pcapng::create(path).and_then(Section::begin).map_err(|error| {
        cannot(&path.display().to_string(), &error, "choose a file in a directory where you may write")
    })
}

/// A file that can be read on its own.
struct Section {
    file: File,
    /// Blocks come into being in memory, and go into the file whole.
    blocks: Pcapng<Vec<u8>>,
    ports: HashMap<String, CaptureId>,
    /// Bytes in the file.
    length: u64,
    packets: u64,
}

impl Section {
    fn begin(file: File) -> io::Result<Section> {
        let mut blocks = Pcapng::new(Vec::new())?;
        let head = std::mem::take(blocks.get_mut());
        let mut section = Section { file, blocks, ports: HashMap::new(), length: 0, packets: 0 };
        section.write(&head)?;
        Ok(section)
    }

    /// A packet's block, with that of its interface before it if it is the first one there.
    fn encode(&mut self, record: &Record, snaplen: Option<u32>) -> io::Result<Vec<u8>> {
        let port = match self.ports.get(&record.port) {
            Some(port) => *port,
            None => {
                let port = self.blocks.interface(&record.port, snaplen.unwrap_or(0))?;
                self.ports.insert(record.port.clone(), port);
                port
            }
        };
        let kept = snaplen.map_or(record.bytes.len(), |most| record.bytes.len().min(most as usize));
        self.blocks.packet(&Packet {
            port,
            direction: Direction::In,
            time: record.time,
            data: &record.bytes[..kept],
            length: record.bytes.len(),
            comment: Some(&record.comment),
        })?;
        Ok(std::mem::take(self.blocks.get_mut()))
    }

    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        self.write(block)?;
        self.packets += 1;
        Ok(())
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(block);
        match written {
            Ok(()) => self.length += block.len() as u64,
            // Half a block would spoil the file; from what is no file nothing can be taken back.
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::super::record::tests::view;
    use super::*;

    /// Block types of a file, in order.
    fn blocks(path: &Path) -> Vec<u32> {
        let bytes = fs::read(path).unwrap();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = word(at + 4) as usize;
            assert_eq!(word(at + length - 4) as usize, length, "a block is whole");
            found.push(word(at));
            at += length;
        }
        found
    }

    const SECTION: u32 = 0x0a0d_0d0a;
    const PORT: u32 = 1;
    const PACKET: u32 = 6;

    fn record(port: &str, length: usize) -> Record {
        Record::of(&view(port, &vec![7; length]), 0).unwrap()
    }

    #[test]
    fn each_port_is_one_interface_named_when_it_is_first_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = Output::create(Some(&path), None, None, Some(64)).unwrap();
        assert_eq!(blocks(&path), [SECTION], "whole from the beginning");
        for port in ["web", "db", "web", "db"] {
            assert!(output.put(&record(port, 1500)).unwrap());
        }
        assert_eq!(blocks(&path), [SECTION, PORT, PACKET, PORT, PACKET, PACKET, PACKET]);
        assert!(fs::metadata(&path).unwrap().len() < 2000, "cut to 64 bytes each");
        assert_eq!(output.files(), [path.display().to_string()]);
    }

    #[test]
    fn a_ring_of_files_has_the_newest_packets_and_each_file_stands_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let name = |number: &str| directory.path().join(format!("a{number}"));
        let mut output = Output::create(Some(&path), Some(2000), Some(3), None).unwrap();
        let mut ended = 0;
        while output.ended < 4 {
            assert!(output.put(&record("web", 500)).unwrap());
            if output.ended > ended {
                ended = output.ended;
                assert_eq!(output.current.packets, 1);
            }
        }
        // Files 0, 1, 2, then 3 in the place of 0, and 4 in that of 1.
        for (number, packets) in [("", 2), (".1", 1), (".2", 2)] {
            let found = blocks(&name(number));
            assert_eq!(found[..2], [SECTION, PORT], "a{number}");
            assert_eq!(found[2..], vec![PACKET; packets], "a{number}");
            assert!(fs::metadata(name(number)).unwrap().len() <= 2000);
        }
        assert!(!name(".3").exists());
        assert_eq!(output.files(), [".2", "", ".1"].map(|number| name(number).display().to_string()));
    }

    #[test]
    fn without_a_ring_a_full_file_is_the_end_and_never_exceeds_its_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut output = Output::create(Some(&path), Some(2000), None, None).unwrap();
        while output.put(&record("web", 500)).unwrap() {}
        assert!(fs::metadata(&path).unwrap().len() <= 2000);
        assert_eq!(blocks(&path), [SECTION, PORT, PACKET, PACKET]);
        let mut small = Output::create(Some(&path), Some(1), None, None).unwrap();
        assert!(small.put(&record("web", 500)).unwrap(), "one packet there is, however small the file");
        assert!(!small.put(&record("web", 500)).unwrap());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
        let missing = Output::create(Some(Path::new("/nonexistent/a.pcapng")), None, None, None).err().unwrap();
        assert!(missing.to_string().contains("/nonexistent/a.pcapng: No such file"), "{missing}");
        let full = Output::create(Some(Path::new("/dev/full")), None, None, None).err().unwrap();
        assert!(full.to_string().contains("/dev/full: No space left"), "{full}");
    }

    #[test]
    fn a_disk_that_fills_leaves_whole_packets_behind() {
        // A file that cannot grow takes a part of the block that does not fit, as a full disk does.
        let fd = memfd_create(c"full", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let file = File::from(fd.try_clone().unwrap());
        file.set_len(4096).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let current = Section::begin(file).unwrap();
        let mut output =
            Output { path: Some(path.clone()), limit: u64::MAX, files: None, snaplen: None, ended: 0, current };
        let error = loop {
            match output.put(&record("web", 600)) {
                Ok(more) => assert!(more),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(blocks(&path)[..], [SECTION, PORT, PACKET, PACKET, PACKET, PACKET, PACKET], "{error}");
        assert!(error.contains("the packets before it are whole (5)"), "{error}");
        let said = output.failed(&ErrorKind::StorageFull.into()).to_string();
        assert!(said.contains("--size and --files"), "{said}");
    }
}
