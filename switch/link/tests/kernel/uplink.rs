//! Packet uplinks: interfaces of the host, and what the kernel does with them.
//!
//! The *station* is a process in a namespace of its own, at the other end of a cable (veth) from our interface `up0`.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::makedev;
use nix::unistd::{Pid, geteuid};
use tapswitch_link::tap::{Offload, Tap};
use tapswitch_link::uplink::{self, About, Kind, Mode, Opened, TUN_PEER};
use tapswitch_link::{Buffer, LinkError, Port, Rx};
use tapswitch_wire::build::{self, Arp, Ip, Link};
use tapswitch_wire::{ChecksumState, DropReason, Gso, GsoKind, Mac, Meta, checksum, ethertype, protocol};

use crate::tap::set_iff;
use crate::world::{self, CONTAINER, Container, GATEWAY, NOBODY, PORT, STEP, STEPS, Side, Skip};

tests! {
    packet_socket_carries_frames_and_super_frames_whole_both_ways,
    macvtap_carries_frames_and_super_frames_whole_both_ways,
    macvtap_takes_tcp_super_frames_whole,
    macvtap_that_was_made_carries_frames_and_vanishes_with_its_descriptor,
    tun_carries_packets_as_ethernet_frames_and_super_frames_whole_both_ways,
    tun_without_offload_gets_segments_with_complete_checksums,
    tun_that_was_made_vanishes_with_its_descriptor,
    br_13_vlan_tag_that_the_kernel_took_out_is_put_back,
    br_13_nothing_that_is_sent_comes_back,
    packet_socket_takes_what_is_for_its_address_and_a_lan_takes_all,
    frame_above_the_mtu_is_refused_by_a_packet_socket,
    ordinary_user_opens_what_an_administrator_made,
    ordinary_user_without_a_right_is_told_the_ways,
    daemon_refuses_what_is_not_what_was_announced,
}

const SWITCH: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STATION: Mac = Mac::from_ipv4(CONTAINER);

pub(crate) fn ip(command: &str) -> Result<(), Skip> {
    let ran = Command::new("ip").args(command.split(' ')).output().map_err(|e| Skip(format!("no program ip: {e}")))?;
    assert!(ran.status.success(), "ip {command}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(())
}

/// A cable has a queue on each CPU, which frames from one process that moves between CPUs overtake each other in.
fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Our end of a cable, and the station at the other.
pub(crate) fn station() -> Result<Container, Skip> {
    world::enter()?;
    stay_on_one_cpu();
    let mut station = Container::start(false);
    ip(&format!("link add up0 type veth peer name eth0 address {STATION} netns {}", station.pid()))?;
    ip("link set up0 up")?;
    for command in [&format!("addr add {CONTAINER}/24 dev eth0"), "link set eth0 up"] {
        assert_eq!(station.ask(&format!("ip {command}")), "ok", "{command}");
    }
    Ok(station)
}

/// Device nodes can be made by the root of the machine only, not by that of a user namespace.
fn need_root() -> Result<(), Skip> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_root = geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    if is_root { Ok(()) } else { Err(Skip("device nodes can be made by root only".into())) }
}

/// As root, in its own mount namespace: /sys of this network namespace, and a macvtap with its node, `mode`d.
pub(crate) fn add_macvtap(mode: u32) -> Result<(), Skip> {
    need_root()?;
    ip(&format!("link add link up0 name mvt0 address {SWITCH} type macvtap mode bridge"))?;
    ip("link set mvt0 up")?;
    mount(Some("test"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
    let index = std::fs::read_to_string("/sys/class/net/mvt0/ifindex").unwrap().trim().to_owned();
    let number = std::fs::read_to_string(format!("/sys/class/net/mvt0/tap{index}/dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    // Other namespaces' nodes stand in /dev, perhaps under this very name.
    mount(Some("test"), "/dev", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    world::make_node("/dev/null", makedev(1, 3), 0o666)?;
    std::fs::create_dir("/dev/net").unwrap();
    world::make_node("/dev/net/tun", makedev(10, 200), 0o666)?;
    let node = format!("/dev/tap{index}");
    world::make_node(&node, makedev(major.parse().unwrap(), minor.parse().unwrap()), mode)?;
    std::os::unix::fs::chown(node, Some(NOBODY), None).unwrap();
    Ok(())
}

pub(crate) fn open(iface: &str, mode: Mode) -> Opened {
    uplink::open(iface, Some(SWITCH), mode, None).unwrap()
}

pub(crate) fn tap(opened: Opened) -> Tap {
    let kind = opened.about.kind;
    let tap = opened.into_tap().unwrap();
    assert_eq!(tap.kind(), kind);
    tap
}

/// Tells the station where the gateway is, and hears from it.
pub(crate) fn greet(station: &mut Container, side: &mut Side) -> (Meta, Vec<u8>) {
    station.tell("send hello");
    let (_, request) = side.frame(ethertype::ARP);
    assert_eq!(request[6..12], STATION.0);
    let mut reply = Vec::new();
    let arp = Arp { operation: 2, sha: SWITCH, spa: GATEWAY, tha: STATION, tpa: CONTAINER };
    build::arp(&mut reply, Link { src: SWITCH, dst: STATION }, arp);
    side.tap.tx(&Meta::PLAIN, &reply).unwrap();
    let datagram = side.frame(ethertype::IPV4);
    assert!(datagram.1.ends_with(b"hello"));
    assert_eq!(station.answer(), "Ok(5)");
    datagram
}

/// A datagram to the station with a partial checksum.
pub(crate) fn partial(payload: usize) -> (Meta, Vec<u8>) {
    let mut frame = Vec::new();
    let ip = Ip { src: GATEWAY.into(), dst: CONTAINER.into(), ttl: 64, tos: 0, id: 0 };
    build::udp(&mut frame, Link { src: SWITCH, dst: STATION }, ip, PORT, PORT, &vec![b'y'; payload]);
    let sum = checksum::pseudo_header(ip.src, ip.dst, protocol::UDP, (8 + payload) as u32);
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    (Meta { checksum: ChecksumState::Partial { start: 34, offset: 6 }, gso: None }, frame)
}

/// The same, to be cut into segments of `size` bytes.
fn super_frame(payload: usize, size: u16) -> (Meta, Vec<u8>) {
    let (meta, frame) = partial(payload);
    (Meta { gso: Some(Gso { kind: GsoKind::Udp, size, ecn: false }), ..meta }, frame)
}

fn thirty_and_a_half() -> String {
    let mut sizes = vec![1000; 30];
    sizes.push(500);
    format!("{sizes:?}")
}

fn both_ways(station: &mut Container, side: &mut Side) -> Result<(), Skip> {
    let (meta, _) = greet(station, side);
    assert_eq!(meta.checksum, ChecksumState::Partial { start: 34, offset: 6 }, "left to us by the station's kernel");
    if side.tap.granted() != Offload::TsoUso {
        return Err(Skip("this kernel has no UDP segmentation offload here (Linux 6.2)".into()));
    }
    assert_eq!(station.ask("burst 1000 30000"), "Ok(30000)");
    let (meta, frame) = side.frame(ethertype::IPV4);
    let whole = (Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false }), 30_042);
    // Linux 6.18 forgets that a macvtap's reader takes UDP whole (tap.c, set_offload). TCP is another matter.
    let is_cut = side.tap.kind() == Kind::Macvtap && frame.len() == 1042;
    assert!(is_cut || (meta.gso, frame.len()) == whole, "{meta:?}");
    for _ in 1..if is_cut { 30 } else { 1 } {
        assert_eq!(side.frame(ethertype::IPV4).1.len(), 1042);
    }
    let (meta, frame) = partial(700);
    side.tap.tx(&meta, &frame).unwrap();
    assert_eq!(station.ask("count 1"), "[700]");
    let (meta, frame) = super_frame(30_500, 1000);
    side.tap.share().tx(&meta, &frame).unwrap();
    assert_eq!(station.ask("count 31"), thirty_and_a_half());
    Ok(())
}

fn packet_socket_carries_frames_and_super_frames_whole_both_ways() -> Result<(), Skip> {
    let mut station = station()?;
    let opened = open("up0", Mode::Nat);
    let about = About { kind: Kind::Packet, mac: SWITCH, mtu: 1500, name: "up0".into() };
    assert_eq!(opened.about, about);
    let told = serde_json::to_string(&opened.about).unwrap();
    assert_eq!(serde_json::from_str::<About>(&told).unwrap(), about);
    both_ways(&mut station, &mut Side::new(tap(opened)))
}

fn macvtap_carries_frames_and_super_frames_whole_both_ways() -> Result<(), Skip> {
    let mut station = station()?;
    add_macvtap(0o600)?;
    let opened = uplink::open("mvt0", None, Mode::Nat, None).unwrap();
    assert_eq!((opened.about.kind, opened.about.mac), (Kind::Macvtap, SWITCH));
    both_ways(&mut station, &mut Side::new(tap(opened)))?;
    let error = uplink::open("mvt0", Some(STATION), Mode::Nat, None).unwrap_err().to_string();
    assert!(error.contains(&format!("its MAC address is {SWITCH}")) && error.contains("ip link set mvt0"), "{error}");
    // Only its administrator's node is missing now: root finds the device all the same.
    mount(Some("test"), "/dev", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    drop(open("mvt0", Mode::Nat));
    Ok(())
}

fn macvtap_takes_tcp_super_frames_whole() -> Result<(), Skip> {
    let (_, mut there) = ends()?;
    add_macvtap(0o600)?;
    let mut side = Side::new(tap(open("mvt0", Mode::Nat)));
    let mut frame = Vec::new();
    let ip = Ip { src: CONTAINER.into(), dst: GATEWAY.into(), ttl: 64, tos: 0, id: 0 };
    let tcp = build::Tcp { src_port: 1, dst_port: 2, seq: 3, ack: 4, flags: 0x10, window: 500, options: &[] };
    let mut meta = build::tcp(&mut frame, Link { src: STATION, dst: SWITCH }, ip, tcp, 50_000);
    frame.resize(frame.len() + 50_000, 7);
    meta.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1460, ecn: false });
    there.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut side), (meta, frame));
    Ok(())
}

fn macvtap_that_was_made_carries_frames_and_vanishes_with_its_descriptor() -> Result<(), Skip> {
    let mut station = station()?;
    need_root()?;
    let opened = uplink::open("up0", Some(SWITCH), Mode::Nat, Some(Kind::Macvtap)).unwrap();
    assert_eq!((opened.about.kind, opened.about.mac, &*opened.about.name), (Kind::Macvtap, SWITCH, "up0"));
    let mut side = Side::new(tap(opened));
    both_ways(&mut station, &mut side)?;
    drop(side);
    // As long as it stands, the interface cannot be had for itself alone.
    let command = ["link", "add", "link", "up0", "name", "alone", "type", "macvtap", "mode", "passthru"];
    let alone = || Command::new("ip").args(command).output().unwrap().status.success();
    let mut waited = (0..STEPS).map(|_| nix::poll::poll(&mut [], STEP.as_millis() as u16).unwrap());
    assert!(std::iter::once(0).chain(&mut waited).any(|_| alone()), "the macvtap stays");
    Ok(())
}

/// This namespace's own stack is the station, behind a TUN.
pub(crate) fn tun() -> Result<(UdpSocket, Opened), Skip> {
    world::enter()?;
    ip("tuntap add dev tun0 mode tun")?;
    let opened = tun_of(open("tun0", Mode::Tun))?;
    Ok(opened)
}

fn tun_of(opened: Opened) -> Result<(UdpSocket, Opened), Skip> {
    ip(&format!("addr add {CONTAINER}/24 dev tun0"))?;
    ip("link set tun0 up")?;
    let socket = UdpSocket::bind((CONTAINER, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Ok((socket, opened))
}

fn tun_carries_packets_as_ethernet_frames_and_super_frames_whole_both_ways() -> Result<(), Skip> {
    let (socket, opened) = tun()?;
    assert_eq!((opened.about.kind, opened.about.mac), (Kind::Tun, SWITCH));
    let mut side = Side::new(tap(opened));
    socket.send_to(b"hello", (GATEWAY, PORT)).unwrap();
    let (meta, frame) = side.frame(ethertype::IPV4);
    assert_eq!((&frame[..6], &frame[6..12]), (&SWITCH.0[..], &TUN_PEER.0[..]));
    assert_eq!(meta.checksum, ChecksumState::Partial { start: 34, offset: 6 });
    assert!(frame.ends_with(b"hello") && frame.len() == 47);
    let v6 = UdpSocket::bind("[::]:0").unwrap();
    ip("addr add 2001:db8::2/64 dev tun0 nodad")?;
    v6.send_to(b"hello", "[2001:db8::1]:7000").unwrap();
    let (_, frame) = side.until(|outcome, frame| match outcome {
        Rx::Frame(meta, _) if frame.ends_with(b"hello") => Some((meta, frame.to_vec())),
        _ => None,
    });
    assert_eq!(frame[12..14], ethertype::IPV6.to_be_bytes());
    if side.tap.granted() != Offload::TsoUso {
        return Err(Skip("this kernel has no UDP segmentation offload here (Linux 6.2)".into()));
    }
    setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
    socket.send_to(&[b'x'; 30_000], (GATEWAY, PORT)).unwrap();
    let (meta, frame) = side.frame(ethertype::IPV4);
    assert_eq!((meta.gso, frame.len()), (Some(Gso { kind: GsoKind::Udp, size: 1000, ecn: false }), 30_042));
    let mut buffer = [0; 2000];
    for (payload, sizes) in [(700, &[700][..]), (1700, &[1000, 700])] {
        let (meta, mut frame) = if payload > 1000 { super_frame(payload, 1000) } else { partial(payload) };
        side.tap.tx(&meta, &frame).unwrap();
        for size in sizes {
            assert_eq!(socket.recv(&mut buffer).unwrap(), *size);
        }
        frame[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
        assert_eq!(side.tap.tx(&meta, &frame), Err(DropReason::UnknownEthertype));
    }
    assert!(matches!(Tap::from_fd(side.tap.into_fd().unwrap()), Err(LinkError::NotATap(_))));
    Ok(())
}

fn tun_without_offload_gets_segments_with_complete_checksums() -> Result<(), Skip> {
    world::enter()?;
    let fd = set_iff("tun0", libc::IFF_TUN | libc::IFF_NO_PI)?;
    let about = About { kind: Kind::Tun, mac: SWITCH, mtu: 1500, name: "tun0".into() };
    let (socket, opened) = tun_of(Opened { fd, about })?;
    let mut side = Side::new(tap(opened));
    assert!(!side.tap.offload());
    socket.send_to(b"hello", (GATEWAY, PORT)).unwrap();
    let (meta, frame) = side.frame(ethertype::IPV4);
    assert_eq!((meta, frame.len(), &frame[..6]), (Meta::PLAIN, 47, &SWITCH.0[..]));
    let (meta, frame) = super_frame(1700, 1000);
    side.tap.tx(&meta, &frame).unwrap();
    let mut buffer = [0; 2000];
    assert_eq!([(); 2].map(|()| socket.recv(&mut buffer).unwrap()), [1000, 700]);
    Ok(())
}

fn tun_that_was_made_vanishes_with_its_descriptor() -> Result<(), Skip> {
    world::enter()?;
    let opened = uplink::open("tun0", None, Mode::Tun, None).unwrap();
    let interface = || nix::net::if_::if_nametoindex("tun0").is_ok();
    assert!(opened.about.kind == Kind::Tun && interface());
    drop(opened);
    assert!(!interface());
    Ok(())
}

/// Both ends of a cable, `up0` and `lan0`, and a packet socket on each that takes everything.
fn ends() -> Result<(Side, Side), Skip> {
    world::enter()?;
    ip("link add up0 type veth peer name lan0")?;
    for end in ["up0", "lan0"] {
        // Silence, but for what the tests send.
        ip(&format!("link set {end} addrgenmode none"))?;
        ip(&format!("link set {end} up"))?;
    }
    let side = |iface| Side::new(tap(open(iface, Mode::Lan)));
    Ok((side("up0"), side("lan0")))
}

/// The next frame, of whatever kind.
fn next(side: &mut Side) -> (Meta, Vec<u8>) {
    side.until(|outcome, frame| match outcome {
        Rx::Frame(meta, _) => Some((meta, frame.to_vec())),
        Rx::WouldBlock => None,
        other => panic!("{other:?}"),
    })
}

fn tagged(frame: &[u8], tag: [u8; 4]) -> Vec<u8> {
    [&frame[..12], &tag, &frame[12..]].concat()
}

fn br_13_vlan_tag_that_the_kernel_took_out_is_put_back() -> Result<(), Skip> {
    let (mut here, mut there) = ends()?;
    for (tag, payload) in [([0x81, 0, 0x60, 7], 100), ([0x88, 0xa8, 0, 9], 100), ([0x81, 0, 0, 0], 1000)] {
        let (meta, frame) = partial(payload);
        let frame = tagged(&frame, tag);
        let meta = Meta { checksum: ChecksumState::Partial { start: 38, offset: 6 }, ..meta };
        here.tap.tx(&meta, &frame).unwrap();
        assert_eq!(next(&mut there), (meta, frame), "tag {tag:x?}");
    }
    // Of two tags the kernel takes the outer one out.
    let (_, frame) = partial(100);
    let frame = tagged(&tagged(&frame, [0x81, 0, 0, 5]), [0x88, 0xa8, 0, 9]);
    here.tap.tx(&Meta::PLAIN, &frame).unwrap();
    assert_eq!(next(&mut there), (Meta::PLAIN, frame));
    // A frame of the next port begins where it should.
    let (meta, frame) = partial(100);
    here.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut there), (meta, frame));
    if here.tap.granted() != Offload::TsoUso {
        return Err(Skip("this kernel has no UDP segmentation offload here (Linux 6.2)".into()));
    }
    let (meta, frame) = super_frame(30_000, 1000);
    let meta = Meta { checksum: ChecksumState::Partial { start: 38, offset: 6 }, ..meta };
    let frame = tagged(&frame, [0x81, 0, 0, 7]);
    here.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut there), (meta, frame));
    Ok(())
}

fn br_13_nothing_that_is_sent_comes_back() -> Result<(), Skip> {
    let (mut here, mut there) = ends()?;
    let mut router = Side::new(tap(open("up0", Mode::Nat)));
    let mut buffer = Buffer::new();
    let (meta, mut frame) = partial(100);
    frame[..6].copy_from_slice(&Mac::BROADCAST.0);
    here.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut there), (meta, frame.clone()));
    // It has passed the interface, so whoever was to get a copy has one.
    assert_eq!(here.tap.rx(&mut buffer), Rx::WouldBlock);
    assert_eq!(router.tap.rx(&mut buffer), Rx::WouldBlock);
    // Thrown back by the LAN, it does come to a switch, and not to the router whose address it bears.
    there.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut here).1, frame);
    frame[6..12].copy_from_slice(&STATION.0);
    there.tap.tx(&meta, &frame).unwrap();
    assert_eq!(next(&mut router).1, frame);
    Ok(())
}

fn packet_socket_takes_what_is_for_its_address_and_a_lan_takes_all() -> Result<(), Skip> {
    let (mut lan, mut there) = ends()?;
    let mut router = Side::new(tap(open("up0", Mode::Nat)));
    let frames: Vec<_> = [STATION, SWITCH, Mac([2, 0, 0, 0, 0, 2]), Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 251])]
        .map(|dst| {
            let mut frame = Vec::new();
            let ip = Ip { src: CONTAINER.into(), dst: GATEWAY.into(), ttl: 64, tos: 0, id: 0 };
            build::udp(&mut frame, Link { src: STATION, dst }, ip, PORT, PORT, b"to whom?");
            frame
        })
        .into();
    for frame in &frames {
        there.tap.tx(&Meta::PLAIN, frame).unwrap();
    }
    for frame in &frames {
        assert_eq!(&next(&mut lan).1, frame);
    }
    for frame in [&frames[1], &frames[3], &frames[4]] {
        assert_eq!(&next(&mut router).1, frame);
    }
    Ok(())
}

fn frame_above_the_mtu_is_refused_by_a_packet_socket() -> Result<(), Skip> {
    let (mut here, _there) = ends()?;
    let (_, frame) = partial(1500);
    assert_eq!(here.tap.tx(&Meta::PLAIN, &frame), Err(DropReason::AboveMtu));
    assert_eq!(here.tap.tx(&Meta::PLAIN, &frame[..10]), Err(DropReason::TxFailed));
    Ok(())
}

fn ordinary_user_opens_what_an_administrator_made() -> Result<(), Skip> {
    let mut station = station()?;
    add_macvtap(0o600)?;
    ip(&format!("tuntap add dev tap0 mode tap user {NOBODY}"))?;
    ip(&format!("tuntap add dev tun0 mode tun user {NOBODY} multi_queue"))?;
    world::drop_rights()?;
    both_ways(&mut station, &mut Side::new(tap(open("mvt0", Mode::Nat))))?;
    let opened = open("tun0", Mode::Tun);
    assert_eq!((opened.about.kind, tap(opened).granted()), (Kind::Tun, Offload::TsoUso));
    let opened = open("tap0", Mode::Nat);
    assert_eq!(opened.about.kind, Kind::Tap);
    let error = uplink::open("tap0", None, Mode::Nat, None).unwrap_err();
    assert!(matches!(error, LinkError::TapBusy { .. }), "{error}");
    drop(tap(opened));
    Ok(())
}

fn ordinary_user_without_a_right_is_told_the_ways() -> Result<(), Skip> {
    let _station = station()?;
    add_macvtap(0o600)?;
    ip("tuntap add dev tun0 mode tun user 12345")?;
    let node = std::fs::read_dir("/dev").unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_str().unwrap().starts_with("/dev/tap").then_some(path)
    });
    std::os::unix::fs::chown(node.unwrap(), Some(0), None).unwrap();
    world::drop_rights()?;
    for (iface, mode, prefer, says) in [
        ("up0", Mode::Nat, None, ["packet socket on 'up0'", "CAP_NET_RAW", "ip link add link up0", "chown USER"]),
        ("up0", Mode::Nat, Some(Kind::Macvtap), ["macvtap on 'up0'", "CAP_NET_RAW", "ip link add link up0", "chown"]),
        ("mvt0", Mode::Nat, None, ["/dev/tap", "'mvt0'", "Permission denied", "chown USER /dev/tap"]),
        ("tun0", Mode::Tun, None, ["'tun0'", "permission denied", "CAP_NET_ADMIN", "mode tun user USER"]),
        ("tun1", Mode::Tun, None, ["'tun1'", "permission denied", "CAP_NET_ADMIN", "ip tuntap add dev tun1"]),
        ("eth7", Mode::Lan, None, ["no interface", "'eth7'", "namespace", "ip link"]),
        ("mvt0", Mode::Lan, None, ["'mvt0' cannot be", "joins a LAN only in mode passthru", "ip link add", "beneath"]),
        ("up0", Mode::Tun, None, ["'up0' cannot be", "no TUN or TAP", "ip tuntap add", "nat:up0"]),
        ("lo", Mode::Nat, None, ["'lo'", "cannot name", "something else", "choose"]),
    ] {
        let error = uplink::open(iface, None, mode, prefer).unwrap_err().to_string();
        assert!(says.iter().all(|part| error.contains(part)), "{error}\nlacks one of {says:?}");
    }
    Ok(())
}

fn daemon_refuses_what_is_not_what_was_announced() -> Result<(), Skip> {
    let _ends = ends()?;
    ip("tuntap add dev tun0 mode tun")?;
    let tun = || open("tun0", Mode::Tun);
    let packet = || open("up0", Mode::Nat);
    for (opened, kind, says) in [
        (tun as fn() -> Opened, Kind::Tap, "it is a TUN device"),
        (tun, Kind::Macvtap, "it is a TUN device"),
        (tun, Kind::Packet, "it is no socket"),
        (packet, Kind::Tun, "it is no TUN or TAP device"),
        (packet, Kind::Tap, "it is no TUN or TAP device"),
    ] {
        let mut opened = opened();
        opened.about.kind = kind;
        let error = opened.into_tap().unwrap_err();
        assert!(matches!(error, LinkError::NotATap(_)) && error.to_string().contains(says), "{error}");
    }
    ip("tuntap add dev tap0 mode tap")?;
    let mut opened = open("tap0", Mode::Tun);
    opened.about.kind = Kind::Macvtap;
    let error = opened.into_tap().unwrap_err().to_string();
    assert!(error.contains("it is a TAP where a macvtap was announced"), "{error}");
    // A socket whose interface has gone meanwhile.
    let opened = packet();
    ip("link delete up0")?;
    let error = opened.into_tap().unwrap_err().to_string();
    assert!(error.contains("its interface is gone"), "{error}");
    Ok(())
}
