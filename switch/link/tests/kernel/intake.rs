//! The two ways of reading, on real devices: both give the same.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use tapswitch_link::Port;
use tapswitch_link::intake::{Arrival, Backend, Intake};
use tapswitch_link::netns::open_in;
use tapswitch_link::poller::{Poller, Token};
use tapswitch_link::tap::Tap;
use tapswitch_wire::build::{self, Arp, Link};
use tapswitch_wire::{Mac, Meta, ethertype};

use crate::world::{self, CONTAINER, Container, GATEWAY, STEP, STEPS, Skip};

tests! {
    epoll_gives_frames_whole_and_in_order,
    uring_gives_frames_whole_and_in_order,
    epoll_gives_frames_of_a_plain_tap,
    uring_gives_frames_of_a_plain_tap,
    epoll_takes_turns_and_loses_nothing,
    uring_takes_turns_and_loses_nothing_though_ports_share_buffers,
    epoll_forgets_a_removed_port_and_its_token_serves_the_next,
    uring_forgets_a_removed_port_and_its_token_serves_the_next,
    epoll_says_that_a_dead_containers_port_is_gone,
    uring_says_that_a_dead_containers_port_is_gone,
    epoll_waits_for_sockets_and_wakers_too,
    uring_waits_for_sockets_and_wakers_too,
}

const SWITCH: Mac = Mac([2, 0, 0, 0, 0, 1]);
const BUDGET: usize = 64;

fn intake(backend: Backend) -> Result<Intake, Skip> {
    Intake::new(backend, BUDGET).map_err(|e| Skip(format!("{backend} cannot be used here: {e}")))
}

/// A container whose neighbour table has the gateway, and its TAP.
fn connected(offload: bool) -> (Container, Tap) {
    let mut container = Container::start(false);
    let [fd] = world::one(open_in(&container.target().resolve().unwrap(), &world::interface(offload)));
    let mut tap = Tap::from_fd(fd).unwrap();
    let mut reply = Vec::new();
    let link = Link { src: SWITCH, dst: Mac::from_ipv4(CONTAINER) };
    let tha = Mac::from_ipv4(CONTAINER);
    container.tell("send hello");
    build::arp(&mut reply, link, Arp { operation: 2, sha: SWITCH, spa: GATEWAY, tha, tpa: CONTAINER });
    // A reply is taken once there is a question, which is soon.
    let asked = |tap: &mut Tap| world::Side::new(tap.share()).frame(ethertype::ARP);
    asked(&mut tap);
    tap.tx(&Meta::PLAIN, &reply).unwrap();
    world::Side::new(tap.share()).frame(ethertype::IPV4);
    assert_eq!(container.answer(), "Ok(5)");
    (container, tap)
}

/// Reads until `wanted` gives something.
fn until<T>(intake: &mut Intake, mut wanted: impl FnMut(Token, Arrival<'_>) -> Option<T>) -> T {
    let mut quiet = 0;
    while quiet < STEPS {
        intake.poll(Some(STEP)).unwrap();
        quiet += 1;
        while let Some((token, arrival)) = intake.take() {
            quiet = 0;
            if let Some(found) = wanted(token, arrival) {
                return found;
            }
        }
    }
    panic!("what was waited for did not come: {intake:?}");
}

/// The payload of a datagram in an IPv4 frame.
fn datagram<'a>(arrival: &'a Arrival<'_>) -> Option<&'a [u8]> {
    match arrival {
        Arrival::Frame(_, frame) if frame[12..14] == ethertype::IPV4.to_be_bytes() => Some(&frame[42..]),
        _ => None,
    }
}

fn number(arrival: &Arrival<'_>) -> Option<usize> {
    std::str::from_utf8(datagram(arrival)?).ok()?.parse().ok()
}

fn frames_whole_and_in_order(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let (mut container, tap) = connected(true);
    let mut intake = intake(backend)?;
    intake.add(Token(3), tap).unwrap();
    // More than there are buffers, and fewer than the device queues.
    container.tell("volley 500");
    let mut next = 0;
    until(&mut intake, |token, arrival| {
        let number = number(&arrival)?;
        assert_eq!((token, number), (Token(3), next));
        next += 1;
        (next == 500).then_some(())
    });
    assert_eq!(container.answer(), "500");
    container.tell("burst 1000 30000");
    let (meta, len) = until(&mut intake, |_, arrival| match arrival {
        Arrival::Frame(meta, frame) if frame.len() > 1000 => Some((meta, frame.len())),
        _ => None,
    });
    assert!(meta.gso.is_none() || len == 30_042, "{meta:?} {len}");
    Ok(())
}

fn epoll_gives_frames_whole_and_in_order() -> Result<(), Skip> {
    frames_whole_and_in_order(Backend::Epoll)
}

fn uring_gives_frames_whole_and_in_order() -> Result<(), Skip> {
    frames_whole_and_in_order(Backend::Uring)
}

fn frames_of_a_plain_tap(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let (mut container, tap) = connected(false);
    let mut intake = intake(backend)?;
    intake.add(Token(0), tap).unwrap();
    container.tell("burst 1000 3000");
    let mut datagrams = 0;
    until(&mut intake, |_, arrival| {
        let Arrival::Frame(meta, frame) = arrival else { panic!("{arrival:?}") };
        let is_ip = frame[12..14] == ethertype::IPV4.to_be_bytes();
        assert!(!is_ip || (meta, frame.len()) == (Meta::PLAIN, 1042));
        datagrams += usize::from(is_ip);
        (datagrams == 3).then_some(())
    });
    Ok(())
}

fn epoll_gives_frames_of_a_plain_tap() -> Result<(), Skip> {
    frames_of_a_plain_tap(Backend::Epoll)
}

fn uring_gives_frames_of_a_plain_tap() -> Result<(), Skip> {
    frames_of_a_plain_tap(Backend::Uring)
}

fn turns(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let mut intake = intake(backend)?;
    let mut containers: Vec<_> = (0..3)
        .map(|token| {
            let (container, tap) = connected(true);
            intake.add(Token(token), tap).unwrap();
            container
        })
        .collect();
    for container in &mut containers {
        container.tell("volley 400");
    }
    let mut next = [0; 3];
    until(&mut intake, |token, arrival| {
        let number = number(&arrival)?;
        assert_eq!(number, next[token.0], "of port {}", token.0);
        next[token.0] += 1;
        (next == [400; 3]).then_some(())
    });
    Ok(())
}

fn epoll_takes_turns_and_loses_nothing() -> Result<(), Skip> {
    turns(Backend::Epoll)
}

fn uring_takes_turns_and_loses_nothing_though_ports_share_buffers() -> Result<(), Skip> {
    turns(Backend::Uring)
}

fn removed_port(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let mut intake = intake(backend)?;
    let (mut first, tap) = connected(true);
    let hold = intake_hold(&mut intake, Token(0), tap);
    assert_eq!(intake.add(Token(0), connected(true).1).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let foreign = Token(Poller::FIRST_FOREIGN);
    assert_eq!(intake.add(foreign, connected(true).1).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    first.tell("volley 50");
    until(&mut intake, |_, arrival| number(&arrival));
    // Some of the first one's frames may have been read already.
    intake.remove(Token(0));
    intake.remove(Token(0));
    for _ in 0..STEPS {
        intake.poll(Some(Duration::ZERO)).unwrap();
        assert!(intake.take().is_none(), "a frame of the port that was removed");
    }
    assert!(!hold.is_shared(), "the device is kept open");
    let (mut second, tap) = connected(true);
    intake.add(Token(0), tap).unwrap();
    first.answer();
    first.tell("volley 50");
    first.answer();
    second.tell("send mine");
    until(&mut intake, |token, arrival| {
        assert_eq!((token, number(&arrival)), (Token(0), None), "a frame of the port that was removed");
        (datagram(&arrival)? == b"mine").then_some(())
    });
    Ok(())
}

fn epoll_forgets_a_removed_port_and_its_token_serves_the_next() -> Result<(), Skip> {
    removed_port(Backend::Epoll)
}

fn uring_forgets_a_removed_port_and_its_token_serves_the_next() -> Result<(), Skip> {
    removed_port(Backend::Uring)
}

fn dead_container(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let mut intake = intake(backend)?;
    let (mut container, tap) = connected(true);
    let hold = intake_hold(&mut intake, Token(7), tap);
    container.kill();
    until(&mut intake, |token, arrival| (arrival == Arrival::Gone).then(|| assert_eq!(token, Token(7))));
    intake.remove(Token(7));
    assert!(!hold.is_shared(), "the device is kept open");
    for _ in 0..3 {
        intake.poll(Some(Duration::ZERO)).unwrap();
        assert!(intake.take().is_none(), "it is said once");
    }
    Ok(())
}

/// Reads a port, and keeps a hold on its device.
fn intake_hold(intake: &mut Intake, token: Token, tap: Tap) -> Tap {
    let hold = tap.share();
    intake.add(token, tap).unwrap();
    hold
}

fn epoll_says_that_a_dead_containers_port_is_gone() -> Result<(), Skip> {
    dead_container(Backend::Epoll)
}

fn uring_says_that_a_dead_containers_port_is_gone() -> Result<(), Skip> {
    dead_container(Backend::Uring)
}

fn sockets_and_wakers(backend: Backend) -> Result<(), Skip> {
    world::enter()?;
    let mut intake = intake(backend)?;
    let (reader, mut writer) = UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let token = Token(Poller::FIRST_FOREIGN + 5);
    let fd = reader.as_raw_fd();
    intake.registry().register(&mut SourceFd(&fd), token, Interest::READABLE).unwrap();
    // Blocking for ever here, twice, would be the bug.
    for round in 0..2 {
        writer.write_all(b"x").unwrap();
        while !intake.events().iter().any(|event| event.token == token && event.readable) {
            intake.poll(None).unwrap();
        }
        intake.poll(Some(Duration::ZERO)).unwrap();
        assert!(intake.events().is_empty(), "round {round}: told twice");
    }
    intake.waker().wake().unwrap();
    intake.poll(None).unwrap();
    // Nothing is there, so this takes its time, and ends.
    intake.poll(Some(Duration::from_millis(20))).unwrap();
    assert!(intake.take().is_none() && intake.events().is_empty());
    Ok(())
}

fn epoll_waits_for_sockets_and_wakers_too() -> Result<(), Skip> {
    sockets_and_wakers(Backend::Epoll)
}

fn uring_waits_for_sockets_and_wakers_too() -> Result<(), Skip> {
    sockets_and_wakers(Backend::Uring)
}
