//! Packet uplinks read by an intake, both ways: nothing lost, and the end noticed.

use std::time::Duration;

use tapswitch_link::Port;
use tapswitch_link::intake::{Arrival, Backend, Intake};
use tapswitch_link::poller::Token;
use tapswitch_link::uplink::Mode;
use tapswitch_wire::{DropReason, ethertype};

use crate::uplink::{add_macvtap, greet, ip, open, partial, station, tap, tun};
use crate::world::{Container, GATEWAY, PORT, STEP, STEPS, Side, Skip};

tests! {
    epoll_reads_a_packet_socket_in_order,
    uring_reads_a_packet_socket_in_order,
    epoll_reads_a_macvtap_in_order,
    uring_reads_a_macvtap_in_order,
    epoll_reads_a_tun_in_order,
    uring_reads_a_tun_in_order,
    epoll_sees_a_packet_socket_down_up_and_gone,
    uring_sees_a_packet_socket_down_up_and_gone,
    epoll_sees_that_a_macvtap_is_gone,
    uring_sees_that_a_macvtap_is_gone,
    epoll_sees_that_a_tun_is_gone,
    uring_sees_that_a_tun_is_gone,
}

fn intake(backend: Backend) -> Result<Intake, Skip> {
    Intake::new(backend, 64).map_err(|e| Skip(format!("{backend} cannot be used here: {e}")))
}

/// Reads until `wanted` gives something.
fn until<T>(intake: &mut Intake, mut wanted: impl FnMut(Arrival<'_>) -> Option<T>) -> T {
    let mut quiet = 0;
    while quiet < STEPS {
        intake.poll(Some(STEP)).unwrap();
        quiet += 1;
        while let Some((token, arrival)) = intake.take() {
            quiet = 0;
            assert_eq!(token, Token(5));
            if let Some(found) = wanted(arrival) {
                return found;
            }
        }
    }
    panic!("what was waited for did not come: {intake:?}");
}

/// 400 datagrams that say their number.
fn in_order(intake: &mut Intake) {
    let mut next = 0;
    until(intake, |arrival| {
        let Arrival::Frame(_, frame) = arrival else { panic!("{arrival:?}") };
        if frame[12..14] != ethertype::IPV4.to_be_bytes() {
            return None;
        }
        assert_eq!(std::str::from_utf8(&frame[42..]).unwrap().parse(), Ok(next));
        next += 1;
        (next == 400).then_some(())
    });
}

fn read_from_station(backend: Backend, iface: &str, mut station: Container) -> Result<(), Skip> {
    let mut side = Side::new(tap(open(iface, Mode::Nat)));
    greet(&mut station, &mut side);
    let tap = side.tap.share();
    drop(side);
    let hold = tap.share();
    let mut intake = intake(backend)?;
    intake.add(Token(5), tap).unwrap();
    assert_eq!(intake.add(Token(5), hold.share()).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    station.tell("volley 400");
    in_order(&mut intake);
    intake.remove(Token(5));
    for _ in 0..STEPS {
        intake.poll(Some(Duration::ZERO)).unwrap();
        assert!(intake.take().is_none());
    }
    assert!(!hold.is_shared(), "the device is kept open");
    Ok(())
}

fn epoll_reads_a_packet_socket_in_order() -> Result<(), Skip> {
    read_from_station(Backend::Epoll, "up0", station()?)
}

fn uring_reads_a_packet_socket_in_order() -> Result<(), Skip> {
    read_from_station(Backend::Uring, "up0", station()?)
}

fn macvtap_in_order(backend: Backend) -> Result<(), Skip> {
    let station = station()?;
    add_macvtap(0o600)?;
    read_from_station(backend, "mvt0", station)
}

fn epoll_reads_a_macvtap_in_order() -> Result<(), Skip> {
    macvtap_in_order(Backend::Epoll)
}

fn uring_reads_a_macvtap_in_order() -> Result<(), Skip> {
    macvtap_in_order(Backend::Uring)
}

fn tun_in_order(backend: Backend) -> Result<(), Skip> {
    let (socket, opened) = tun()?;
    let mut intake = intake(backend)?;
    intake.add(Token(5), tap(opened)).unwrap();
    for number in 0..400 {
        socket.send_to(number.to_string().as_bytes(), (GATEWAY, PORT)).unwrap();
    }
    in_order(&mut intake);
    Ok(())
}

fn epoll_reads_a_tun_in_order() -> Result<(), Skip> {
    tun_in_order(Backend::Epoll)
}

fn uring_reads_a_tun_in_order() -> Result<(), Skip> {
    tun_in_order(Backend::Uring)
}

/// That a port is gone is said once, soon, and without spinning before or after.
fn gone(intake: &mut Intake) {
    let mut turns = 0;
    loop {
        intake.poll(Some(STEP)).unwrap();
        turns += 1;
        assert!(turns < 30, "nobody said that it is gone, or {turns} turns did not wait: {intake:?}");
        let Some((_, arrival)) = intake.take() else { continue };
        assert_eq!(arrival, Arrival::Gone);
        break;
    }
    intake.poll(Some(Duration::ZERO)).unwrap();
    assert!(intake.take().is_none() && !intake.is_busy(), "said twice, or it spins");
}

fn packet_socket_down_up_and_gone(backend: Backend) -> Result<(), Skip> {
    let mut station = station()?;
    let mut side = Side::new(tap(open("up0", Mode::Nat)));
    greet(&mut station, &mut side);
    let mut hold = side.tap.share();
    let mut intake = intake(backend)?;
    intake.add(Token(5), side.tap.share()).unwrap();
    drop(side);
    ip("link set up0 down")?;
    let (meta, frame) = partial(100);
    for _ in 0..3 {
        assert_eq!(hold.tx(&meta, &frame), Err(DropReason::PortDown));
        intake.poll(Some(Duration::from_millis(1))).unwrap();
        assert!(intake.take().is_none(), "down is neither gone nor a frame");
    }
    assert!(!intake.is_busy() && !hold.is_gone());
    ip("link set up0 up")?;
    station.tell("volley 400");
    in_order(&mut intake);
    assert_eq!(station.answer(), "400");
    ip("link delete up0")?;
    gone(&mut intake);
    assert_eq!(hold.tx(&meta, &frame), Err(DropReason::PortDown));
    Ok(())
}

fn epoll_sees_a_packet_socket_down_up_and_gone() -> Result<(), Skip> {
    packet_socket_down_up_and_gone(Backend::Epoll)
}

fn uring_sees_a_packet_socket_down_up_and_gone() -> Result<(), Skip> {
    packet_socket_down_up_and_gone(Backend::Uring)
}

fn macvtap_gone(backend: Backend) -> Result<(), Skip> {
    let mut station = station()?;
    add_macvtap(0o600)?;
    let mut side = Side::new(tap(open("mvt0", Mode::Nat)));
    greet(&mut station, &mut side);
    let mut intake = intake(backend)?;
    intake.add(Token(5), side.tap.share()).unwrap();
    let mut hold = side.tap.share();
    drop(side);
    ip("link delete mvt0")?;
    gone(&mut intake);
    assert!(hold.is_gone());
    // The kernel takes what is written, and loses it.
    let (meta, frame) = partial(100);
    assert_eq!(hold.tx(&meta, &frame), Ok(()));
    intake.remove(Token(5));
    intake.poll(Some(Duration::ZERO)).unwrap();
    assert!(intake.take().is_none());
    Ok(())
}

fn epoll_sees_that_a_macvtap_is_gone() -> Result<(), Skip> {
    macvtap_gone(Backend::Epoll)
}

fn uring_sees_that_a_macvtap_is_gone() -> Result<(), Skip> {
    macvtap_gone(Backend::Uring)
}

fn tun_gone(backend: Backend) -> Result<(), Skip> {
    let (_socket, opened) = tun()?;
    let tap = tap(opened);
    let mut hold = tap.share();
    let mut intake = intake(backend)?;
    intake.add(Token(5), tap).unwrap();
    ip("link set tun0 down")?;
    let (meta, frame) = partial(100);
    assert_eq!(hold.tx(&meta, &frame), Err(DropReason::PortDown));
    assert!(!hold.is_gone());
    ip("link delete tun0")?;
    until(&mut intake, |arrival| (arrival == Arrival::Gone).then_some(()));
    assert!(hold.is_gone());
    assert_eq!(hold.tx(&meta, &frame), Err(DropReason::PortDown));
    Ok(())
}

fn epoll_sees_that_a_tun_is_gone() -> Result<(), Skip> {
    tun_gone(Backend::Epoll)
}

fn uring_sees_that_a_tun_is_gone() -> Result<(), Skip> {
    tun_gone(Backend::Uring)
}
