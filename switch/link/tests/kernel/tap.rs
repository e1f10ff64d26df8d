//! TAP devices as such.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use tapswitch_link::netns::{create_here, open_in};
use tapswitch_link::tap::{self, Offload, Tap, TapSpec};
use tapswitch_link::{LinkError, Port, Rx};
use tapswitch_wire::build::{self, Arp, Ip, Link};
use tapswitch_wire::{
    ChecksumState, DropReason, Gso, GsoKind, Mac, Meta, Parsed, VNET_HEADER_LEN, checksum, ethertype, protocol,
};

use crate::world::{self, CONTAINER, Container, GATEWAY, PORT, Side, Skip};

tests! {
    from_fd_refuses_tun_packet_information_and_an_unused_node,
    from_fd_sets_the_header_size_and_makes_the_descriptor_non_blocking,
    device_that_is_open_elsewhere_is_an_error_that_says_so,
    kernel_hands_over_and_takes_udp_super_frames_whole,
    plain_tap_gets_segments_with_checksums_that_the_kernel_believes,
    abuse_2_20_kernel_refuses_lying_vnet_headers_and_the_port_goes_on,
    abuse_2_21_interface_down_up_and_deleted_is_seen_without_spinning,
    a_clone_writes_to_the_same_device,
}

const SWITCH: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A TUN or TAP device with just these flags.
pub(crate) fn set_iff(name: &str, flags: libc::c_int) -> Result<OwnedFd, Skip> {
    let file = world::open_tun()?;
    // SAFETY: struct ifreq is plain data; the kernel reads it during the call only.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &request)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    Ok(file.into())
}

fn from_fd_refuses_tun_packet_information_and_an_unused_node() -> Result<(), Skip> {
    world::enter()?;
    for (fd, says) in [
        (set_iff("tun0", libc::IFF_TUN | libc::IFF_NO_PI)?, "TUN device"),
        (set_iff("tap0", libc::IFF_TAP)?, "packet information"),
        (world::open_tun()?.into(), "without a device"),
    ] {
        let error = Tap::from_fd(fd).unwrap_err();
        assert!(matches!(error, LinkError::NotATap(_)) && error.to_string().contains(says), "{error}");
    }
    Ok(())
}

fn from_fd_sets_the_header_size_and_makes_the_descriptor_non_blocking() -> Result<(), Skip> {
    world::enter()?;
    let fd = set_iff("tap0", libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    let mut len: libc::c_int = 12;
    // SAFETY: the kernel reads one int.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &len) }, 0);
    let tap = Tap::from_fd(fd).unwrap();
    assert_eq!((tap.name(), tap.offload()), ("tap0", true));
    let fd = tap.into_fd().unwrap();
    // SAFETY: the kernel writes one int.
    assert_eq!(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETVNETHDRSZ as _, &mut len) }, 0);
    assert_eq!(len as usize, VNET_HEADER_LEN);
    let mut tap = Tap::from_fd(fd).unwrap();
    assert_eq!(tap.rx(&mut tapswitch_link::Buffer::new()), Rx::WouldBlock);
    let plain = Tap::from_fd(set_iff("tap1", libc::IFF_TAP | libc::IFF_NO_PI)?).unwrap();
    assert_eq!(plain.granted(), Offload::None);
    Ok(())
}

fn device_that_is_open_elsewhere_is_an_error_that_says_so() -> Result<(), Skip> {
    world::enter()?;
    for offload in [true, false] {
        let spec = TapSpec { name: "tap0".into(), offload };
        let tap = tap::open(&spec).unwrap();
        assert_eq!(tap.offload(), offload);
        let error = tap::open(&spec).unwrap_err();
        assert!(matches!(error, LinkError::TapBusy { .. }), "{error}");
    }
    Ok(())
}

/// A container on an open TAP that knows the gateway's MAC address.
fn connected(offload: bool) -> Result<(Container, Side), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let [fd] = world::one(open_in(&container.target().resolve().unwrap(), &world::interface(offload)));
    let mut side = Side::new(Tap::from_fd(fd).unwrap());
    assert_eq!(side.tap.offload(), offload);
    container.tell("send hello");
    let (_, request) = side.frame(ethertype::ARP);
    assert_eq!(request[6..12], Mac::from_ipv4(CONTAINER).0);
    assert_eq!(request[38..42], GATEWAY.octets());
    let mut reply = Vec::new();
    let link = Link { src: SWITCH, dst: Mac::from_ipv4(CONTAINER) };
    let tha = Mac::from_ipv4(CONTAINER);
    build::arp(&mut reply, link, Arp { operation: 2, sha: SWITCH, spa: GATEWAY, tha, tpa: CONTAINER });
    side.tap.tx(&Meta::PLAIN, &reply).unwrap();
    let (_, datagram) = side.frame(ethertype::IPV4);
    assert!(datagram.ends_with(b"hello"));
    assert_eq!(container.answer(), "Ok(5)");
    Ok((container, side))
}

/// A datagram to the container that stands for segments of `size` bytes, with a partial checksum.
fn udp_super_frame(payload: usize, size: u16) -> (Meta, Vec<u8>) {
    let mut frame = Vec::new();
    let link = Link { src: SWITCH, dst: Mac::from_ipv4(CONTAINER) };
    let ip = Ip { src: GATEWAY.into(), dst: CONTAINER.into(), ttl: 64, tos: 0, id: 0 };
    build::udp(&mut frame, link, ip, PORT, PORT, &vec![b'y'; payload]);
    let sum = checksum::pseudo_header(ip.src, ip.dst, protocol::UDP, (8 + payload) as u32);
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    let checksum = ChecksumState::Partial { start: 34, offset: 6 };
    (Meta { checksum, gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }) }, frame)
}

fn kernel_hands_over_and_takes_udp_super_frames_whole() -> Result<(), Skip> {
    let (mut container, mut side) = connected(true)?;
    if side.tap.granted() != Offload::TsoUso {
        return Err(Skip("this kernel has no UDP segmentation offload for TAPs (Linux 6.2)".into()));
    }
    assert_eq!(container.ask("burst 1000 30000"), "Ok(30000)");
    let (meta, frame) = side.frame(ethertype::IPV4);
    assert_eq!(frame.len(), 30_042);
    assert_eq!(meta.gso, Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false }));
    assert_eq!(Parsed::parse(&frame).unwrap().l4_start, 34);
    let (meta, frame) = udp_super_frame(30_500, 1000);
    side.tap.tx(&meta, &frame).unwrap();
    let mut wanted = vec![1000; 30];
    wanted.push(500);
    assert_eq!(container.ask("count 31"), format!("{wanted:?}"));
    Ok(())
}

fn plain_tap_gets_segments_with_checksums_that_the_kernel_believes() -> Result<(), Skip> {
    let (mut container, mut side) = connected(false)?;
    assert_eq!(container.ask("burst 1000 3000"), "Ok(3000)");
    for _ in 0..3 {
        let (meta, frame) = side.frame(ethertype::IPV4);
        assert_eq!((meta, frame.len()), (Meta::PLAIN, 1042));
    }
    let (meta, frame) = udp_super_frame(2500, 1000);
    side.tap.tx(&meta, &frame).unwrap();
    assert_eq!(container.ask("count 3"), "[1000, 1000, 500]");
    Ok(())
}

fn abuse_2_20_kernel_refuses_lying_vnet_headers_and_the_port_goes_on() -> Result<(), Skip> {
    let (mut container, mut side) = connected(true)?;
    let (good, frame) = udp_super_frame(2000, 1000);
    let gso = |size| Some(Gso { kind: GsoKind::Udp, size, ecn: false });
    for (meta, frame) in [
        (Meta { gso: gso(0), ..good }, &frame[..]),
        (Meta { gso: Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false }), ..good }, &frame),
        (Meta { gso: gso(1000), checksum: ChecksumState::Complete }, &frame),
        (Meta { checksum: ChecksumState::Partial { start: 60_000, offset: 6 }, gso: None }, &frame),
        // 200 segments, where the kernel allows 128.
        (Meta { gso: gso(10), ..good }, &frame),
        (Meta::PLAIN, &[1, 2, 3]),
        (Meta::PLAIN, &[]),
    ] {
        assert_eq!(side.tap.tx(&meta, frame), Err(DropReason::TxFailed), "{meta:?}");
    }
    side.tap.tx(&good, &frame).unwrap();
    assert_eq!(container.ask("count 2"), "[1000, 1000]");
    Ok(())
}

fn abuse_2_21_interface_down_up_and_deleted_is_seen_without_spinning() -> Result<(), Skip> {
    let (mut container, mut side) = connected(true)?;
    let mut ip = |command: &str| match container.ask(&format!("ip {command}")) {
        answer if answer.starts_with("missing") => Err(Skip(format!("the program ip is {answer}"))),
        answer => {
            assert_eq!(answer, "ok", "{command}");
            Ok(())
        }
    };
    let (meta, frame) = udp_super_frame(2000, 1000);
    ip("link set eth0 down")?;
    assert_eq!(side.tap.tx(&meta, &frame), Err(DropReason::PortDown));
    side.until(|outcome, _| (outcome == Rx::WouldBlock).then_some(()));
    ip("link set eth0 name other mtu 68 txqueuelen 0")?;
    ip("link set other address 02:00:00:00:00:99 up")?;
    side.tap.tx(&meta, &frame).unwrap();
    ip("link delete other")?;
    side.wait_until_gone();
    assert_eq!(side.tap.tx(&meta, &frame), Err(DropReason::PortDown));
    let [fd] = world::one(open_in(&container.target().resolve().unwrap(), &world::interface(true)));
    assert_eq!(Tap::from_fd(fd).unwrap().name(), "eth0", "the name is free again");
    Ok(())
}

fn a_clone_writes_to_the_same_device() -> Result<(), Skip> {
    world::enter()?;
    let [fd] = world::one(create_here(&world::interface(true)));
    let tap = Tap::from_fd(fd).unwrap();
    let mut writer = tap.share();
    drop(tap);
    let (meta, frame) = udp_super_frame(2000, 1000);
    writer.tx(&meta, &frame).unwrap();
    Ok(())
}
