//! Socket options, and calls that move many messages at once, that no safe library wraps as they are needed here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Messages that one call of [`send_many`] or [`receive_many`] moves at most.
pub const MESSAGES: usize = 32;

/// Sets where the next peek of a stream begins, behind the first byte that was not read (`SO_PEEK_OFF`, TCP since
/// Linux 6.9). A peek moves it forward, a read moves it back, each by what it handed out.
///
/// # Errors
/// What the kernel says; `EOPNOTSUPP` where TCP does not have it.
pub fn set_peek_offset(socket: BorrowedFd<'_>, offset: i32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset)
}

/// Says whether packets of a socket for IPv4 may be cut on their way: always, here and by routers, or never. In that case
/// the kernel refuses (`EMSGSIZE`) what is larger than the path's MTU, as far as it knows that (`IP_MTU_DISCOVER`).
///
/// # Errors
/// What the kernel says.
pub fn set_dont_fragment(socket: BorrowedFd<'_>, dont_fragment: bool) -> io::Result<()> {
    let value = if dont_fragment { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &value)
}

/// Sends messages in one system call: to whom, what, and with which control messages, laid out as cmsg(3) says. Nothing
/// is allocated. Returns how many were sent, from the first one on; more than [`MESSAGES`] are never sent at once.
///
/// # Errors
/// What the kernel says about the first message. An error of a later one ends the call, and is met when that is first.
pub fn send_many(socket: BorrowedFd<'_>, messages: &[(SocketAddr, &[u8], &[u8])]) -> io::Result<usize> {
    let count = messages.len().min(MESSAGES);
    let mut names = [const { MaybeUninit::<SockaddrStorage>::uninit() }; MESSAGES];
    let mut parts = [const { MaybeUninit::<IoSlice<'_>>::uninit() }; MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; MESSAGES];
    let places = names.iter_mut().zip(&mut parts).zip(&mut headers);
    for ((to, bytes, control), ((name, part), header)) in messages.iter().zip(places) {
        let name = name.write(SockaddrStorage::from(*to));
        let part = part.write(IoSlice::new(bytes));
        // SAFETY: zeroed: plain data and null pointers, which are valid values.
        let header = unsafe { &mut header.assume_init_mut().msg_hdr };
        header.msg_name = name.as_ptr().cast_mut().cast();
        header.msg_namelen = name.len();
        header.msg_iov = std::ptr::from_mut(part).cast();
        header.msg_iovlen = 1;
        if !control.is_empty() {
            header.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_controllen = control.len() as _;
        }
    }
    // SAFETY: the first `count` headers are initialized, and what they point to outlives the call: addresses and parts on
    // this stack, bytes and control messages lent by the caller, which the kernel only reads. An `IoSlice` has the layout
    // of an `iovec`.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count as _, libc::MSG_DONTWAIT as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives messages in one system call, without waiting: as many as `arrived` has places, [`MESSAGES`] at most. `bytes`
/// and `control` are cut into equal parts, one for each; a message that does not fit its part loses its end. Of each
/// one `arrived` tells the sender, the number of its bytes and that of its control messages. Nothing is allocated.
///
/// # Errors
/// What the kernel says about the first message: [`io::ErrorKind::WouldBlock`] if there is none.
pub fn receive_many(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    control: &mut [u8],
    arrived: &mut [(Option<SocketAddr>, usize, usize)],
) -> io::Result<usize> {
    let count = arrived.len().min(MESSAGES);
    if count == 0 {
        return Ok(0);
    }
    let (each, each_control) = ((bytes.len() / count).max(1), (control.len() / count).max(1));
    // Room for either family.
    let mut names = [const { MaybeUninit::<libc::sockaddr_in6>::zeroed() }; MESSAGES];
    let mut parts = [const { MaybeUninit::<IoSliceMut<'_>>::uninit() }; MESSAGES];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; MESSAGES];
    let places = names.iter_mut().zip(&mut parts).zip(&mut headers);
    let lent = bytes.chunks_exact_mut(each).zip(control.chunks_exact_mut(each_control));
    let mut ready = 0;
    for ((bytes, control), ((name, part), header)) in lent.zip(places).take(count) {
        let part = part.write(IoSliceMut::new(bytes));
        // SAFETY: zeroed: plain data and null pointers, which are valid values.
        let header = unsafe { &mut header.assume_init_mut().msg_hdr };
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as _;
        header.msg_iov = std::ptr::from_mut(part).cast();
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control.len() as _;
        ready += 1;
    }
    // SAFETY: the first `ready` headers are initialized, and each points to memory of its own that outlives the call: a
    // name on this stack, and parts of `bytes` and `control`, which are borrowed exclusively. An `IoSliceMut` has the
    // layout of an `iovec`.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            ready,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for ((place, name), header) in arrived.iter_mut().zip(&names).zip(&headers).take(got) {
        // SAFETY: initialized above, and the kernel has written to it what it received.
        let header = unsafe { header.assume_init_ref() };
        // SAFETY: the name was zeroed, and the kernel wrote `msg_namelen` bytes of it, which are an address.
        let from = unsafe { SockaddrStorage::from_raw(name.as_ptr().cast(), Some(header.msg_hdr.msg_namelen)) };
        let from = from.and_then(|from| match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
            (Some(from), _) => Some(SocketAddr::V4(SocketAddrV4::new(from.ip(), from.port()))),
            (_, Some(from)) => Some(SocketAddrV6::new(from.ip(), from.port(), from.flowinfo(), from.scope_id()).into()),
            _ => None,
        });
        #[allow(clippy::unnecessary_cast, reason = "musl has another type")]
        let control = header.msg_hdr.msg_controllen as usize;
        *place = (from, header.msg_len as usize, control);
    }
    Ok(got)
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

/// How many bytes the send buffer of a stream has room for (`SO_MEMINFO`). The kernel counts its own bookkeeping into the
/// buffer, which for small writes is about as much as their bytes; so half of what is free is counted as room.
///
/// # Errors
/// What the kernel says.
pub fn send_room(socket: BorrowedFd<'_>) -> io::Result<usize> {
    // Indices of `linux/sock_diag.h`.
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let mut info = [0u32; 9];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info`, for which any bytes are valid.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info[SNDBUF].saturating_sub(info[WMEM_QUEUED]) as usize / 2)
}
