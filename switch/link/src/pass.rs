//! Descriptors from one process to another, and the short-lived child that opens one where its parent may not go.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::{LinkError, sys};

/// The longest error text that the child can tell.
const TEXT_LEN: usize = 4096;
/// The most descriptors that the kernel lets one message bring (SCM_MAX_FD). There is room for all of them, since those
/// of a list that was cut short could not be found again to be closed.
const MAX_FDS: usize = 253;

/// The most descriptors that a message is taken for: the queues of one device.
pub const MAX_QUEUES: usize = 8;

/// Sends `bytes`, of which there must be at least one, and descriptors with them. Returns how many bytes were taken.
///
/// # Errors
/// What the kernel says. The process gets no signal if the other end is closed.
pub fn send_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[impl AsFd]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    send(socket, bytes, &[ControlMessage::ScmRights(&raw)])
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], control: &[ControlMessage<'_>]) -> io::Result<usize> {
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Receives bytes, and the descriptors that came with them. They are closed on exec. Zero bytes: the other end is closed.
///
/// Of a peer that sends more than [`MAX_QUEUES`], so many are taken and the others closed: it cannot fill our table.
///
/// # Errors
/// What the kernel says.
pub fn recv_fds(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            message => break message?,
        }
    };
    let mut taken = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            for fd in fds {
                // SAFETY: the kernel has just put this descriptor into our table, and nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                if taken.len() < MAX_QUEUES {
                    taken.push(fd);
                }
            }
        }
    }
    Ok((message.bytes, taken))
}

/// How many threads this process has.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Runs `open` in a child and returns the descriptors that it opened, of which there is at least one.
///
/// The child may enter namespaces that it cannot leave. It is waited for, whatever happens.
///
/// # Errors
/// [`LinkError::Threads`] if this process has several: a copy of one thread would find the others' locks taken for
/// ever. [`LinkError::Child`] with the text of the error of `open`.
pub fn in_child(open: impl FnOnce() -> Result<Vec<OwnedFd>, LinkError>) -> Result<Vec<OwnedFd>, LinkError> {
    let system = |what: &'static str| move |e: io::Error| LinkError::system(what, e, "free some and try again");
    let count =
        thread_count().map_err(|e| LinkError::system("read /proc/self/task", e, "see that /proc is mounted"))?;
    if count != 1 {
        return Err(LinkError::Threads { count });
    }
    // Messages keep their bounds, so text and descriptor arrive whole or not at all.
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| system("make a socket pair")(e.into()))?;
    // SAFETY: this process has one thread, so the child finds no lock taken; it never returns from this function.
    match unsafe { fork() }.map_err(|e| system("start a child process")(e.into()))? {
        ForkResult::Child => {
            drop(ours);
            answer(open, &theirs);
            sys::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut text = vec![0; TEXT_LEN];
            let received = recv_fds(ours.as_fd(), &mut text);
            drop(ours);
            let ended = reap(child);
            match received {
                Ok((_, fds)) if !fds.is_empty() => Ok(fds),
                Ok((len, _)) if len > 0 => Err(LinkError::Child(String::from_utf8_lossy(&text[..len]).into_owned())),
                Ok(_) => Err(LinkError::ChildLost(ended)),
                Err(e) => Err(system("hear from the child process")(e)),
            }
        }
    }
}

/// The child's part. A parent that is gone hears nothing, and the child ends all the same.
fn answer(open: impl FnOnce() -> Result<Vec<OwnedFd>, LinkError>, to: &OwnedFd) {
    // A panic must not unwind into the child's copy of the caller, which would then run twice.
    let sent = match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(fds)) => send_fds(to.as_fd(), b"+", &fds),
        Ok(Err(error)) => {
            let text = error.to_string();
            send(to.as_fd(), &text.as_bytes()[..text.len().min(TEXT_LEN)], &[])
        }
        Err(_) => return,
    };
    drop(sent);
}

/// Waits for the child and says how it ended.
fn reap(child: Pid) -> String {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, status)) => return format!("exit status {status}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => return format!("killed by {signal}"),
            Ok(_) => {}
            // Somebody has told the kernel to reap our children, so it did.
            Err(e) => return e.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn descriptor_arrives_with_its_bytes_and_is_closed_on_exec() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"written here").unwrap();
        assert_eq!(send_fds(a.as_fd(), b"hello", &[&file]).unwrap(), 5);
        let mut buffer = [0; 16];
        let (len, fds) = recv_fds(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
        let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        let (mut file, mut text) = (File::from(fd), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "written here");
    }

    #[test]
    fn bytes_without_a_descriptor_and_the_end_are_told_apart() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"x").unwrap();
        let mut buffer = [0; 4];
        assert!(matches!(recv_fds(b.as_fd(), &mut buffer), Ok((1, fds)) if fds.is_empty()));
        drop(a);
        assert!(matches!(recv_fds(b.as_fd(), &mut buffer), Ok((0, fds)) if fds.is_empty()));
        let null = File::open("/dev/null").unwrap();
        assert!(send_fds(b.as_fd(), b"x", &[&null]).is_err(), "a closed socket must be an error, not a signal");
    }

    #[test]
    fn more_descriptors_than_a_device_has_queues_do_not_stay_open() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut pipes = Vec::new();
        for _ in 0..10 {
            pipes.push(nix::unistd::pipe().unwrap());
        }
        let writers: Vec<RawFd> = pipes.iter().map(|(_, w)| w.as_raw_fd()).collect();
        send(a.as_fd(), b"x", &[ControlMessage::ScmRights(&writers)]).unwrap();
        let (_, kept) = recv_fds(b.as_fd(), &mut [0; 4]).unwrap();
        let readers: Vec<OwnedFd> = pipes.into_iter().map(|(reader, _)| reader).collect();
        assert_eq!(kept.len(), MAX_QUEUES);
        // Of those that are kept, the pipe has a writer still; of all the others the end shows.
        for (index, reader) in readers.iter().enumerate() {
            nix::fcntl::fcntl(reader, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
            let open = nix::unistd::read(reader, &mut [0; 1]) == Err(Errno::EAGAIN);
            assert_eq!(open, index < MAX_QUEUES, "pipe {index}");
        }
        drop(kept);
    }

    #[test]
    fn a_process_of_several_threads_is_refused() {
        crate::testing::with_a_second_thread(|| {
            let error = in_child(|| unreachable!("the child must not be made")).unwrap_err();
            assert!(matches!(error, LinkError::Threads { count } if count > 1), "{error}");
        });
    }
}
