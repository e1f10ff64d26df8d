//! TAPs in other namespaces.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tapswitch_link::netns::{Interface, Target, create_here, open_in, set_address};
use tapswitch_link::pass::in_child;
use tapswitch_link::tap::{self, Tap, TapSpec};
use tapswitch_link::{LinkError, Port};
use tapswitch_wire::{DropReason, Meta};

use crate::world::{self, Container, Side, Skip};

tests! {
    kernel_keeps_the_namespace_where_a_tun_descriptor_was_opened_and_not_where_its_device_is,
    kernel_deletes_a_moved_tap_with_its_namespace_and_the_port_is_gone,
    interface_has_mac_mtu_address_route_and_is_up,
    interface_without_an_address_is_up_for_dhcp,
    address_of_a_lease_is_set_later,
    gateway_outside_the_subnet_is_reached_on_link,
    taken_name_is_an_error_that_suggests_another_and_changes_nothing,
    further_interface_leaves_the_default_route_alone,
    create_here_comes_back_also_when_it_fails,
    ordinary_user_opens_an_offload_tap_in_a_container_of_his_own,
    ordinary_user_may_not_enter_what_is_root_s_and_is_told_so,
    dead_process_is_told_from_a_missing_right,
    named_namespace_is_found_where_ip_netns_keeps_it,
    in_child_brings_descriptor_or_text_and_leaves_no_zombie,
}

fn open(container: &Container, interface: &Interface) -> Result<Tap, LinkError> {
    Tap::from_fd(open_in(&container.target().resolve()?, interface)?.remove(0))
}

fn has_ended(tap: &Tap, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(tap.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::from(milliseconds)).unwrap();
    fds[0].revents().unwrap().contains(PollFlags::POLLERR)
}

fn kernel_keeps_the_namespace_where_a_tun_descriptor_was_opened_and_not_where_its_device_is() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let moved = open(&container, &world::interface(true)).unwrap();
    let net = File::open(format!("/proc/{}/ns/net", container.pid())).unwrap();
    let opened_inside = in_child(|| {
        setns(&net, CloneFlags::CLONE_NEWNET).unwrap();
        Ok([tap::open(&TapSpec { name: "inside".into(), offload: true })?.into_fd().unwrap()].into())
    });
    let opened_inside = Tap::from_fd(opened_inside.unwrap().remove(0)).unwrap();
    drop(net);
    container.kill();
    // Nobody lives in the namespace any more, and yet it stays, with both devices, for this one descriptor's sake.
    assert!(!has_ended(&moved, 500));
    assert!(!has_ended(&opened_inside, 0));
    drop(opened_inside);
    assert!(has_ended(&moved, 10_000));
    Ok(())
}

fn kernel_deletes_a_moved_tap_with_its_namespace_and_the_port_is_gone() -> Result<(), Skip> {
    world::enter()?;
    for offload in [true, false] {
        let mut container = Container::start(false);
        let mut side = Side::new(open(&container, &world::interface(offload)).unwrap());
        container.kill();
        side.wait_until_gone();
        assert_eq!(side.tap.tx(&Meta::PLAIN, &[0; 60]), Err(DropReason::PortDown));
    }
    Ok(())
}

fn interface_has_mac_mtu_address_route_and_is_up() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let _tap = open(&container, &world::interface(true)).unwrap();
    let interfaces = container.ask("interfaces");
    for wanted in ["eth0 up 02:42:0a:09:00:02", "eth0 up 10.9.0.2", "lo up 127.0.0.1"] {
        assert!(interfaces.to_lowercase().contains(wanted), "{wanted} is missing: {interfaces}");
    }
    assert_eq!(container.ask("mtu"), "Ok(1400)");
    // The default route: destination and mask zero, gateway 10.9.0.1 in the kernel's byte order.
    let route = format!("eth0\t00000000\t{:08X}", u32::from_ne_bytes([10, 9, 0, 1]));
    let routes = container.ask("routes");
    assert!(routes.contains(&route), "{routes}");
    Ok(())
}

fn interface_without_an_address_is_up_for_dhcp() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let interface = Interface { address: None, gateway: None, ..world::interface(true) };
    let _tap = open(&container, &interface).unwrap();
    let interfaces = container.ask("interfaces");
    assert!(interfaces.contains("eth0 up"), "{interfaces}");
    assert!(!interfaces.contains("10.9.0.2"), "{interfaces}");
    Ok(())
}

fn address_of_a_lease_is_set_later() -> Result<(), Skip> {
    world::enter()?;
    let interface = Interface { address: None, gateway: None, ..world::interface(true) };
    let _tap = create_here(&interface).unwrap();
    set_address("eth0", (world::CONTAINER, 24), Some(world::GATEWAY)).unwrap();
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("192.0.2.1:9").unwrap();
    assert_eq!(probe.local_addr().unwrap().ip(), world::CONTAINER, "the route to anywhere leads over eth0");
    let error = set_address("eth0", (world::CONTAINER, 24), None).unwrap_err().to_string();
    assert!(error.contains("10.9.0.2/24") && error.contains("not set yet"), "{error}");
    let error = set_address("eth7", (world::CONTAINER, 24), None).unwrap_err().to_string();
    assert!(error.contains("'eth7'"), "{error}");
    Ok(())
}

fn gateway_outside_the_subnet_is_reached_on_link() -> Result<(), Skip> {
    world::enter()?;
    let container = Container::start(false);
    let interface = Interface { address: Some((world::CONTAINER, 32)), ..world::interface(true) };
    open(&container, &interface).unwrap();
    Ok(())
}

fn taken_name_is_an_error_that_suggests_another_and_changes_nothing() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let _first = open(&container, &world::interface(true)).unwrap();
    let before = container.ask("interfaces");
    let error = open(&container, &world::interface(true)).unwrap_err().to_string();
    assert!(error.contains("'eth0' exists") && error.contains("--ifname"), "{error}");
    assert_eq!(container.ask("interfaces"), before);
    let second = Interface { name: "eth1".into(), address: None, gateway: None, ..world::interface(true) };
    let _second = open(&container, &second).unwrap();
    assert!(container.ask("interfaces").contains("eth1 up"));
    // What fails after the move leaves no half-made interface behind.
    let third = Interface { name: "eth2".into(), address: Some((world::CONTAINER, 40)), ..world::interface(true) };
    let error = open(&container, &third).unwrap_err().to_string();
    assert!(error.contains("10.9.0.2/40"), "{error}");
    assert!(!container.ask("interfaces").contains("eth2"));
    Ok(())
}

fn further_interface_leaves_the_default_route_alone() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let _first = open(&container, &world::interface(true)).unwrap();
    let (address, gateway) = (Ipv4Addr::new(10, 8, 0, 2), Ipv4Addr::new(10, 8, 0, 1));
    let second = Interface {
        name: "eth1".into(),
        address: Some((address, 24)),
        gateway: Some(gateway),
        ..world::interface(true)
    };
    let _second = open(&container, &second).unwrap();
    let routes = container.ask("routes");
    assert!(routes.contains("eth0\t00000000\t"), "{routes}");
    assert!(!routes.contains("eth1\t00000000\t"), "{routes}");
    Ok(())
}

fn create_here_comes_back_also_when_it_fails() -> Result<(), Skip> {
    world::enter()?;
    let namespace = || fs::metadata("/proc/self/ns/net").unwrap().ino();
    let here = namespace();
    let bad = Interface { address: Some((world::CONTAINER, 40)), ..world::interface(true) };
    let error = create_here(&bad).unwrap_err().to_string();
    assert!(error.contains("10.9.0.2/40"), "{error}");
    assert_eq!(namespace(), here);
    let tap = Tap::from_fd(create_here(&world::interface(true)).unwrap().remove(0)).unwrap();
    assert_eq!(namespace(), here);
    assert_eq!(tap.name(), "eth0");
    assert!(nix::net::if_::if_nametoindex("eth0").is_ok());
    drop(tap);
    assert!(nix::net::if_::if_nametoindex("eth0").is_err(), "the device ends with its descriptor");
    Ok(())
}

fn ordinary_user_opens_an_offload_tap_in_a_container_of_his_own() -> Result<(), Skip> {
    world::become_ordinary_user()?;
    let mut container = Container::start(true);
    let mut side = Side::new(open(&container, &world::interface(true)).unwrap());
    assert!(side.tap.offload());
    assert!(container.ask("interfaces").contains("eth0 up 10.9.0.2"));
    container.kill();
    side.wait_until_gone();
    Ok(())
}

fn ordinary_user_may_not_enter_what_is_root_s_and_is_told_so() -> Result<(), Skip> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Skip("it takes root to have something that is root's".into()));
    }
    world::enter()?;
    let container = Container::start(false);
    let net = format!("/proc/{}/ns/net", container.pid());
    mount(Some("test"), "/media", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    File::create("/media/net").unwrap();
    mount(Some(net.as_str()), "/media/net", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    world::become_ordinary_user()?;
    let error = container.target().resolve().unwrap_err();
    assert!(matches!(error, LinkError::TargetDenied { .. }), "{error}");
    assert!(error.to_string().contains("another user"), "{error}");
    // The file may be opened, but entering takes more.
    let error = open_in(&Target::Path("/media/net".into()).resolve().unwrap(), &world::interface(true)).unwrap_err();
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
    Ok(())
}

fn dead_process_is_told_from_a_missing_right() -> Result<(), Skip> {
    world::enter()?;
    let mut zombie =
        std::process::Command::new("/proc/self/exe").arg("--list").stdout(io::pipe().unwrap().1).spawn().unwrap();
    let pid = zombie.id().cast_signed();
    let id = nix::sys::wait::Id::Pid(Pid::from_raw(pid));
    nix::sys::wait::waitid(id, nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT).unwrap();
    for state in ["zombie", "gone"] {
        let error = Target::Pid(pid).resolve().unwrap_err();
        assert!(matches!(error, LinkError::NoSuchProcess { .. }), "{state}: {error}");
        let _ = zombie.wait();
    }
    Ok(())
}

fn named_namespace_is_found_where_ip_netns_keeps_it() -> Result<(), Skip> {
    world::enter()?;
    let mut container = Container::start(false);
    let net = format!("/proc/{}/ns/net", container.pid());
    mount(Some("test"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir("/run/netns").unwrap();
    File::create("/run/netns/blue").unwrap();
    File::create("/run/netns/stale").unwrap();
    mount(Some(net.as_str()), "/run/netns/blue", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let blue: Target = "blue".parse().unwrap();
    let _tap = open_in(&blue.resolve().unwrap(), &world::interface(true)).unwrap();
    assert!(container.ask("interfaces").contains("eth0 up"));
    let stale: Target = "stale".parse().unwrap();
    let error = stale.resolve().unwrap_err();
    assert!(matches!(error, LinkError::NotANamespace { .. }), "{error}");
    Ok(())
}

fn in_child_brings_descriptor_or_text_and_leaves_no_zombie() -> Result<(), Skip> {
    let descriptor = in_child(|| Ok(vec![OwnedFd::from(File::open("/dev/null").unwrap())])).unwrap().remove(0);
    assert_eq!(nix::sys::stat::fstat(&descriptor).unwrap().st_rdev, nix::sys::stat::makedev(1, 3));
    let error = in_child(|| Err(LinkError::NoTunNode)).unwrap_err();
    assert_eq!(error.to_string(), LinkError::NoTunNode.to_string());
    let error = in_child(|| panic!("on purpose")).unwrap_err();
    assert!(matches!(error, LinkError::ChildLost(_)), "{error}");
    assert_eq!(waitpid(None, None), Err(Errno::ECHILD), "a child was left behind");
    Ok(())
}
