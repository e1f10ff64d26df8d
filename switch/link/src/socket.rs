//! Socket options that no safe library wraps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Sets where the next peek of a stream begins, behind the first byte that was not read (`SO_PEEK_OFF`, TCP since
/// Linux 6.9). A peek moves it forward, a read moves it back, each by what it handed out.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` where TCP does not have it.
pub fn set_peek_offset(socket: BorrowedFd<'_>, offset: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `offset`, which outlives the call; the descriptor is borrowed, so open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size_of_val(&offset) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
