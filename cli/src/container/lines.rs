//! Lines of JSON between a parent and its child, some with a descriptor beside them.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tapswitch_link::pass;

/// More than the kernel allows for a command's arguments (6 MiB, written as numbers).
const MAX_LINE: usize = 32 << 20;

/// One end. Both take turns, so a line never brings the beginning of the next one with it.
#[derive(Debug)]
pub(super) struct Lines(UnixStream);

/// No descriptors.
pub(super) const NONE: &[OwnedFd] = &[];

impl Lines {
    pub(super) fn new(stream: UnixStream) -> Lines {
        Lines(stream)
    }

    /// Sends a line, and descriptors with its first bytes.
    pub(super) fn send(&mut self, line: &impl Serialize, fds: &[impl AsFd]) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let sent = if fds.is_empty() { 0 } else { pass::send_fds(self.0.as_fd(), &text, fds)? };
        self.0.write_all(text.get(sent..).unwrap_or_default())
    }

    /// The next line with its descriptors; nothing at the end.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut line = Vec::new();
        let mut brought = Vec::new();
        let mut chunk = [0; 4096];
        while line.last() != Some(&b'\n') {
            let (len, mut fds) = pass::recv_fds(self.0.as_fd(), &mut chunk)?;
            if len == 0 {
                return if line.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            if line.len() > MAX_LINE {
                return Err(io::Error::new(ErrorKind::InvalidData, "the line is too long"));
            }
            line.extend(chunk.iter().take(len));
            brought.append(&mut fds);
        }
        Ok(Some((serde_json::from_slice(&line)?, brought)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_arrives_whole_with_its_descriptor_and_the_end_is_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let text = "x".repeat(1 << 20);
        let sender = std::thread::spawn({
            let text = text.clone();
            move || {
                let null = std::fs::File::open("/dev/null").unwrap();
                let mut lines = Lines::new(theirs);
                lines.send(&text, &[null]).unwrap();
            }
        });
        let mut lines = Lines::new(ours);
        let (received, fds) = lines.receive::<String>().unwrap().unwrap();
        sender.join().unwrap();
        assert!(received == text && fds.len() == 1);
        assert!(lines.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn half_a_line_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"\"half").unwrap();
        drop(theirs);
        assert_eq!(Lines::new(ours).receive::<String>().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
