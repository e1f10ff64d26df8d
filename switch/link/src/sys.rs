//! The ioctls that no library wraps. Each function is safe: whatever descriptor it is given, the kernel checks.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::libc::{self, c_int, c_uint};

mod raw {
    use nix::libc::{c_int, c_uint, ifreq, sock_fprog};

    // TUNSETIFF is declared with an int but takes a struct ifreq (linux/if_tun.h).
    nix::ioctl_write_ptr_bad!(tun_set_iff, nix::request_code_write!(b'T', 202, size_of::<c_int>()), ifreq);
    nix::ioctl_read_bad!(tun_get_iff, nix::request_code_read!(b'T', 210, size_of::<c_uint>()), ifreq);
    nix::ioctl_write_int_bad!(tun_set_offload, nix::request_code_write!(b'T', 208, size_of::<c_uint>()));
    nix::ioctl_read!(tun_get_vnet_hdr_sz, b'T', 215, c_int);
    nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, c_int);
    nix::ioctl_write_ptr!(tun_set_sndbuf, b'T', 212, c_int);
    nix::ioctl_write_ptr!(tun_attach_filter, b'T', 213, sock_fprog);
    nix::ioctl_read!(tun_get_filter, b'T', 219, sock_fprog);
    // Declared with a struct sock_fprog, which is not looked at.
    nix::ioctl_write_ptr!(tun_detach_filter, b'T', 214, sock_fprog);
    nix::ioctl_read_bad!(get_hardware_address, nix::libc::SIOCGIFHWADDR, ifreq);
    nix::ioctl_none!(ns_get_userns, 0xb7, 1);
    nix::ioctl_none!(ns_get_nstype, 0xb7, 3);
}

/// Name and flags of an interface, as the TUN ioctls exchange them.
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) flags: c_int,
}

/// Makes `fd`, an open /dev/net/tun, the device of this name. The name must be checked before.
pub(crate) fn tun_set_iff(fd: impl AsFd, name: &str, flags: c_int) -> io::Result<()> {
    let mut request = empty_request();
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request is a whole, initialised struct ifreq that outlives the call; the name ends in a zero.
    unsafe { raw::tun_set_iff(fd.as_fd().as_raw_fd(), &request) }?;
    Ok(())
}

/// What device `fd` is. ENOTTY if it is none, EBADFD if its device is gone or was never chosen.
pub(crate) fn tun_get_iff(fd: impl AsFd) -> io::Result<Interface> {
    let mut request = empty_request();
    // SAFETY: the kernel writes at most one struct ifreq into the one that is lent to it.
    unsafe { raw::tun_get_iff(fd.as_fd().as_raw_fd(), &mut request) }?;
    let bytes = request.ifr_name.iter().map(|b| *b as u8).take_while(|b| *b != 0).collect::<Vec<_>>();
    // SAFETY: the request was zeroed and then filled with flags by the kernel; any bits are a valid c_short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // IFF_NO_PI and its neighbours reach bit 15 of a signed short.
    Ok(Interface { name: String::from_utf8_lossy(&bytes).into_owned(), flags: c_int::from(flags as u16) })
}

/// Has the device a socket filter on its reading side?
pub(crate) fn tun_has_filter(fd: impl AsFd) -> io::Result<bool> {
    let mut program = libc::sock_fprog { len: 0, filter: ptr::null_mut() };
    // SAFETY: the kernel writes one struct sock_fprog; the pointer in it is some process's and is never followed.
    unsafe { raw::tun_get_filter(fd.as_fd().as_raw_fd(), &mut program) }?;
    Ok(program.len > 0)
}

/// Runs `look` while a filter that lets everything pass is on the device's reading side.
pub(crate) fn tun_with_filter<T>(fd: impl AsFd, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let raw_fd = fd.as_fd().as_raw_fd();
    let mut pass = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &mut pass };
    // SAFETY: the program points at one instruction, which the kernel copies during the call.
    unsafe { raw::tun_attach_filter(raw_fd, &program) }?;
    let seen = look();
    // SAFETY: as above; the kernel does not look at the argument.
    unsafe { raw::tun_detach_filter(raw_fd, &program) }?;
    seen
}

fn empty_request() -> libc::ifreq {
    // SAFETY: struct ifreq is plain data, for which all zeros is a valid value.
    unsafe { mem::zeroed() }
}

/// What the container's kernel may leave undone: bits TUN_F_*.
pub(crate) fn tun_set_offload(fd: impl AsFd, bits: c_uint) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { raw::tun_set_offload(fd.as_fd().as_raw_fd(), bits as c_int) }?;
    Ok(())
}

/// Bytes of the virtio-net header in front of each frame.
pub(crate) fn tun_vnet_header_len(fd: impl AsFd) -> io::Result<usize> {
    let mut len = 0;
    // SAFETY: the kernel writes one int into the one that is lent to it.
    unsafe { raw::tun_get_vnet_hdr_sz(fd.as_fd().as_raw_fd(), &mut len) }?;
    Ok(len as usize)
}

/// Chooses the length of the virtio-net header.
pub(crate) fn tun_set_vnet_header_len(fd: impl AsFd, len: usize) -> io::Result<()> {
    let len = len as c_int;
    // SAFETY: the kernel reads one int, which outlives the call.
    unsafe { raw::tun_set_vnet_hdr_sz(fd.as_fd().as_raw_fd(), &len) }?;
    Ok(())
}

/// The MAC address of the interface behind the device.
pub(crate) fn tun_hardware_address(fd: impl AsFd) -> io::Result<[u8; 6]> {
    let mut request = empty_request();
    // SAFETY: the kernel writes at most one struct ifreq into the one that is lent to it.
    unsafe { raw::get_hardware_address(fd.as_fd().as_raw_fd(), &mut request) }?;
    // SAFETY: the request was zeroed and then filled with an address by the kernel; any bytes are a valid one.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let mut bytes = [0; 6];
    for (to, from) in bytes.iter_mut().zip(address) {
        *to = from as u8;
    }
    Ok(bytes)
}

/// Chooses how many bytes may be on their way out of the device before a write must wait.
pub(crate) fn tun_set_send_buffer(fd: impl AsFd, len: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which outlives the call.
    unsafe { raw::tun_set_sndbuf(fd.as_fd().as_raw_fd(), &len) }?;
    Ok(())
}

/// The user namespace that owns the namespace `fd`.
pub(crate) fn owning_user_namespace(fd: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the ioctl takes no argument.
    let raw = unsafe { raw::ns_get_userns(fd.as_fd().as_raw_fd()) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Which kind of namespace `fd` is: one of CLONE_NEW*. ENOTTY if it is none.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: the ioctl takes no argument.
    Ok(unsafe { raw::ns_get_nstype(fd.as_raw_fd()) }?)
}

/// Ends this process at once: no destructor, no buffer of the parent's is flushed a second time.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(status) }
}
