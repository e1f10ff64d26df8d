//! Finding out what an interface is, and opening it as that.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_route::link::{InfoKind, LinkLayerType, MacVtapMode};
use nix::errno::Errno;
use nix::libc;
use tapswitch_wire::Mac;

use super::{About, Kind, Mode, Opened, macvtap};
use crate::LinkError;
use crate::packet::{self, Take};
use crate::rtnetlink::{Rtnetlink, Seen, index_of};
use crate::tap::{check_name, explain_device, open_device};

/// Opens an interface of the present network namespace as an uplink, with the rights of whoever calls. The module's text
/// says what is opened as what.
///
/// `mac` is the address that our router shall have there; without one it is made up from the interface's, always the
/// same. A macvtap's address was chosen when it was made. `prefer` asks for one kind where several are possible.
///
/// # Errors
/// [`LinkError`]: no such interface, one that cannot be this, no right to, or another process has it.
pub fn open(iface: &str, mac: Option<Mac>, mode: Mode, prefer: Option<Kind>) -> Result<Opened, LinkError> {
    check_name(iface)?;
    if let Some(mac) = mac.filter(|mac| !mac.is_station()) {
        return Err(unfit(iface, format!("{mac} is no single station's address"), "choose a unicast MAC address"));
    }
    let netlink = &mut Rtnetlink::open()
        .map_err(|e| LinkError::system("open a netlink socket", e, "see that no filter forbids it"))?;
    let Some(seen) = look(netlink, iface)? else {
        return match mode {
            Mode::Tun if prefer.is_none_or(|kind| kind == Kind::Tun) => make_tun(netlink, iface, mac),
            _ => Err(LinkError::NoSuchInterface { name: iface.into() }),
        };
    };
    let kind = choose(iface, &seen, mode, prefer)?;
    let made_up = made_up(iface, seen.mac);
    let mac = match (kind, mac, seen.mac) {
        (Kind::Macvtap, wanted, Some(is)) if is_macvtap(&seen) => {
            if wanted.is_some_and(|wanted| wanted != is) {
                let next = format!("leave the MAC address open, or: ip link set {iface} address {}", mac.unwrap_or(is));
                return Err(unfit(iface, format!("its MAC address is {is}"), &next));
            }
            is
        }
        (_, wanted, _) => wanted.unwrap_or(made_up),
    };
    let fd = match kind {
        Kind::Macvtap if is_macvtap(&seen) => macvtap::open(iface, seen.index, mac)?,
        Kind::Macvtap => macvtap::make(netlink, iface, seen.index, mac)?,
        Kind::Packet => {
            open_packet(iface, seen.index, if mode == Mode::Lan { Take::Everything } else { Take::For(mac) })?
        }
        Kind::Tap => open_existing(iface, libc::IFF_TAP)?,
        Kind::Tun => open_existing(iface, libc::IFF_TUN)?,
    };
    Ok(Opened { fd, about: About { kind, mac, mtu: seen.mtu, name: iface.into() } })
}

fn look(netlink: &mut Rtnetlink, iface: &str) -> Result<Option<Seen>, LinkError> {
    let doing = |e: io::Error| LinkError::system(format!("look at the interface '{iface}'"), e, "please report this");
    let Some(index) = index_of(iface).map_err(doing)? else { return Ok(None) };
    match netlink.look_at(index) {
        // Somebody removed it in between.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        seen => seen.map(Some).map_err(doing),
    }
}

fn is_macvtap(seen: &Seen) -> bool {
    seen.kind == Some(InfoKind::MacVtap)
}

/// As what the interface is to be opened.
fn choose(iface: &str, seen: &Seen, mode: Mode, prefer: Option<Kind>) -> Result<Kind, LinkError> {
    let is_ethernet = seen.layer == LinkLayerType::Ether;
    let possible: &[Kind] = match (&seen.kind, mode) {
        (Some(InfoKind::Tun), Mode::Tun) if is_ethernet => &[Kind::Tap],
        (Some(InfoKind::Tun), Mode::Tun) => &[Kind::Tun],
        (Some(InfoKind::Tun), _) if !is_ethernet => {
            return Err(unfit(iface, "it is a TUN device".into(), &format!("use the uplink tun:{iface}")));
        }
        (_, Mode::Tun) => {
            let next = format!(
                "make one: ip tuntap add dev NAME mode tun user USER, or use the uplink nat:{iface} or lan:{iface}"
            );
            return Err(unfit(iface, "it is no TUN or TAP device".into(), &next));
        }
        _ if !is_ethernet => {
            return Err(unfit(iface, "it is no Ethernet".into(), "use the uplink user, or another interface"));
        }
        (Some(InfoKind::Tun), _) => &[Kind::Tap, Kind::Packet],
        (Some(InfoKind::MacVtap), Mode::Lan) if seen.mode != Some(MacVtapMode::Passthrough) => {
            let next = "make it so: ip link add link IFACE name NAME type macvtap mode passthru, which takes IFACE for \
                        itself alone; or use the interface beneath it";
            return Err(unfit(iface, "a macvtap joins a LAN only in mode passthru".into(), next));
        }
        (Some(InfoKind::MacVtap), _) => &[Kind::Macvtap],
        (_, Mode::Nat) => &[Kind::Packet, Kind::Macvtap],
        (_, Mode::Lan) => &[Kind::Packet],
    };
    let wanted = prefer.unwrap_or(possible[0]);
    if possible.contains(&wanted) {
        return Ok(wanted);
    }
    let possible: Vec<String> = possible.iter().map(Kind::to_string).collect();
    Err(unfit(iface, format!("it cannot be opened as a {wanted}"), &format!("use a {}", possible.join(" or a "))))
}

fn unfit(iface: &str, why: String, next: &str) -> LinkError {
    LinkError::UnfitUplink { name: iface.into(), why, next: next.into() }
}

/// A locally administered address for the second station behind an interface: the same each time, so that a DHCP server
/// gives the same lease (FNV-1a of the interface's name and address).
fn made_up(iface: &str, theirs: Option<Mac>) -> Mac {
    let mac = theirs.unwrap_or(Mac::ZERO);
    let hash = iface
        .bytes()
        .chain(mac.0)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c, d, ..] = hash.to_be_bytes();
    Mac([0x02, 0x74, a, b, c, d])
}

fn open_packet(iface: &str, index: u32, take: Take) -> Result<OwnedFd, LinkError> {
    packet::open(index, take).map_err(|(tried, source)| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) if tried.starts_with("open") => {
            LinkError::UplinkDenied { name: iface.into(), tried: "open a packet socket on", source }
        }
        Some(Errno::ENODEV | Errno::ENXIO) => LinkError::NoSuchInterface { name: iface.into() },
        _ => LinkError::system(format!("{tried} '{iface}'"), source, "see that the interface is there and is Ethernet"),
    })
}

/// A TUN or TAP that somebody made before. Whoever made it says whether it has several queues, and the kernel takes no
/// other answer.
fn open_existing(iface: &str, kind: libc::c_int) -> Result<OwnedFd, LinkError> {
    let opened = match open_device(iface, kind)? {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => open_device(iface, kind | libc::IFF_MULTI_QUEUE)?,
        opened => opened,
    };
    opened.map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => LinkError::TunOwned { name: iface.into() },
        _ => explain_device(iface, e),
    })
}

/// A TUN that vanishes with its descriptor.
fn make_tun(netlink: &mut Rtnetlink, iface: &str, mac: Option<Mac>) -> Result<Opened, LinkError> {
    let fd = open_device(iface, libc::IFF_TUN)?.map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => LinkError::TunOwned { name: iface.into() },
        _ => explain_device(iface, e),
    })?;
    let Some(seen) = look(netlink, iface)? else { return Err(LinkError::NoSuchInterface { name: iface.into() }) };
    netlink
        .set_up(seen.index)
        .map_err(|e| LinkError::system(format!("set '{iface}' up"), e, "see that nobody removed it"))?;
    let mac = mac.unwrap_or_else(|| made_up(iface, None));
    Ok(Opened { fd, about: About { kind: Kind::Tun, mac, mtu: seen.mtu, name: iface.into() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(kind: Option<InfoKind>, layer: LinkLayerType, mode: Option<MacVtapMode>) -> Seen {
        Seen { index: 2, kind, layer, mac: Some(Mac([2, 0, 0, 0, 0, 1])), mtu: 1500, mode }
    }

    #[test]
    fn each_interface_is_opened_as_what_it_is() {
        use LinkLayerType::{Ether, None as NoLink};
        let tun = || Some(InfoKind::Tun);
        let macvtap = |mode| seen(Some(InfoKind::MacVtap), Ether, Some(mode));
        let (bridge, passthru) = (macvtap(MacVtapMode::Bridge), macvtap(MacVtapMode::Passthrough));
        let (card, veth) = (seen(None, Ether, None), seen(Some(InfoKind::Veth), Ether, None));
        for (seen, mode, prefer, kind) in [
            (&seen(tun(), NoLink, None), Mode::Tun, None, Kind::Tun),
            (&seen(tun(), Ether, None), Mode::Tun, None, Kind::Tap),
            (&seen(tun(), Ether, None), Mode::Lan, None, Kind::Tap),
            (&bridge, Mode::Nat, None, Kind::Macvtap),
            (&passthru, Mode::Lan, None, Kind::Macvtap),
            (&card, Mode::Nat, None, Kind::Packet),
            (&card, Mode::Nat, Some(Kind::Macvtap), Kind::Macvtap),
            (&veth, Mode::Lan, Some(Kind::Packet), Kind::Packet),
        ] {
            assert_eq!(choose("eth1", seen, mode, prefer).unwrap(), kind, "{mode:?} {prefer:?}");
        }
        for (seen, mode, prefer, says) in [
            (&seen(tun(), NoLink, None), Mode::Nat, None, "use the uplink tun:eth1"),
            (&card, Mode::Tun, None, "it is no TUN or TAP device"),
            (&seen(None, LinkLayerType::Loopback, None), Mode::Nat, None, "no Ethernet"),
            (&bridge, Mode::Lan, None, "mode passthru"),
            (&card, Mode::Lan, Some(Kind::Macvtap), "cannot be opened as a macvtap; use a packet socket"),
        ] {
            let error = choose("eth1", seen, mode, prefer).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("'eth1'"), "{error}");
        }
    }

    #[test]
    fn made_up_address_is_a_stations_and_stays_the_same_and_differs_by_interface() {
        let theirs = Some(Mac([0x52, 0x54, 0, 1, 2, 3]));
        let mac = made_up("eth1", theirs);
        assert!(mac.is_station() && mac.0[0] & 2 != 0);
        assert_eq!(mac, made_up("eth1", theirs));
        assert!(mac != made_up("eth2", theirs) && mac != made_up("eth1", None));
    }
}
