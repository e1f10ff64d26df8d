//! Socket options that no safe library wraps.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;

/// Sets where the next peek of a stream begins, behind the first byte that was not read (`SO_PEEK_OFF`, TCP since
/// Linux 6.9). A peek moves it forward, a read moves it back, each by what it handed out.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` where TCP does not have it.
pub fn set_peek_offset(socket: BorrowedFd<'_>, offset: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset)
}

/// What the kernel may read as plain bytes, pointers in it included.
pub(crate) trait Plain: Copy {}
impl Plain for libc::c_int {}
impl Plain for libc::packet_mreq {}
/// Only ever made with instructions that outlive the call.
impl Plain for libc::sock_fprog {}

pub(crate) fn set<T: Plain>(socket: impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the descriptor is borrowed, so open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An option that is a number.
pub(crate) fn get(socket: impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, for which any bytes are valid.
    let result =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// To what interface and protocol a packet socket is bound.
pub(crate) fn packet_name(socket: impl AsFd) -> io::Result<libc::sockaddr_ll> {
    let mut name = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut len = size_of_val(&name) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `name`.
    let result = unsafe { libc::getsockname(socket.as_fd().as_raw_fd(), name.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed and then partly written: plain data, for which any bytes are valid.
    Ok(unsafe { name.assume_init() })
}

pub(crate) fn bind_packet(socket: impl AsFd, name: &libc::sockaddr_ll) -> io::Result<()> {
    let len = size_of_val(name) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `name`, which outlives the call.
    let result = unsafe { libc::bind(socket.as_fd().as_raw_fd(), std::ptr::from_ref(name).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
