//! How connections to the outside begin and end, byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use socket2::SockRef;
use tapswitch_tests::{
    Container, Enter, INET, NOBODY, SILENT_PORT, Stopwatch, Switch, World, receive, send, serve_tcp,
};

const LIMIT: Duration = Duration::from_secs(20);
const SOME: u64 = 3 << 20;

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn connect(from: &Container, port: u16) -> TcpStream {
    let stream = from.inside(|| TcpStream::connect_timeout(&at(INET, port), LIMIT)).expect("connects");
    stream.set_read_timeout(Some(LIMIT)).and(stream.set_write_timeout(Some(LIMIT))).expect("timeouts");
    stream
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a lingering time");
}

#[test]
fn tr_1_connecting_to_a_closed_port_is_refused_at_once() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let watch = Stopwatch::start();
    let error = a.inside(|| TcpStream::connect_timeout(&at(INET, 1), LIMIT)).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(watch.elapsed() < Duration::from_secs(1), "took {:?}", watch.elapsed());
}

#[test]
fn tr_1_ni_6_connecting_to_an_absent_host_says_unreachable() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let error = a.inside(|| TcpStream::connect_timeout(&at(NOBODY, 80), LIMIT)).expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
}

#[test]
fn tr_1_connecting_to_a_silent_port_stays_silent() {
    let world = World::new();
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let silent = at(INET, SILENT_PORT);
    let error = a.inside(|| TcpStream::connect_timeout(&silent, Duration::from_secs(3))).expect_err("nothing answers");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn tr_3_the_client_may_stop_sending_and_still_receive() {
    let world = World::new();
    // Answers only after the client's end.
    let _server = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
        let got = receive(&mut stream)?;
        stream.write_all(&got.sha256)?;
        send(&mut stream, 2, SOME).map(drop)
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    let sent = send(&mut stream, 1, SOME).expect("sends");
    stream.shutdown(Shutdown::Write).expect("half closes");
    let mut digest = [0; 32];
    stream.read_exact(&mut digest).expect("the server answers");
    assert_eq!(digest, sent.sha256);
    let expected = send(&mut std::io::sink(), 2, SOME).expect("a sink takes all");
    assert_eq!(receive(&mut stream).expect("the rest arrives"), expected);
}

#[test]
fn tr_3_the_server_may_stop_sending_and_still_receive() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |mut stream| {
        send(&mut stream, 1, SOME)?;
        stream.shutdown(Shutdown::Write)?;
        tell.send(receive(&mut stream)?).map_err(std::io::Error::other)
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    let expected = send(&mut std::io::sink(), 1, SOME).expect("a sink takes all");
    assert_eq!(receive(&mut stream).expect("the server's half arrives"), expected);
    let sent = send(&mut stream, 2, SOME).expect("the other half still works");
    drop(stream);
    assert_eq!(told.recv_timeout(LIMIT).expect("the server got its end"), sent);
}

#[test]
fn tr_4_a_reset_by_the_client_is_a_reset_at_the_server() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |mut stream| {
        stream.write_all(b"x")?;
        tell.send(stream.read(&mut [0; 16]).map_err(|e| e.kind())).map_err(std::io::Error::other)
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    stream.read_exact(&mut [0]).expect("is connected through");
    reset(stream);
    assert_eq!(told.recv_timeout(LIMIT).expect("the server notices"), Err(ErrorKind::ConnectionReset));
}

#[test]
fn tr_4_a_reset_by_the_server_is_a_reset_at_the_client() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
        stream.read_exact(&mut [0])?;
        reset(stream);
        Ok(())
    });
    let switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    stream.write_all(b"x").expect("is connected through");
    let error = stream.read(&mut [0]).expect_err("the server resets");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn both_directions_carry_data_at_once() {
    let world = World::new();
    let _server = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
        let mut back = stream.try_clone()?;
        std::io::copy(&mut stream, &mut back)?;
        back.shutdown(Shutdown::Write)
    });
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    let mut back = stream.try_clone().expect("a stream has two ends");
    let receiver = std::thread::spawn(move || receive(&mut back));
    let sent = send(&mut stream, 7, 10 * SOME).expect("sends");
    stream.shutdown(Shutdown::Write).expect("half closes");
    assert_eq!(receiver.join().expect("no panic").expect("receives"), sent);
}

#[test]
fn tr_5_a_reader_that_pauses_gets_everything_in_the_end() {
    let world = World::new();
    let (tell, told) = mpsc::channel();
    let _server = serve_tcp(world.inet(), at(INET, 9000), move |mut stream| {
        tell.send(send(&mut stream, 3, 20 * SOME)?).map_err(std::io::Error::other)
    });
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let mut stream = connect(&a, 9000);
    // Long enough for the window to close and for the first probes.
    tapswitch_tests::holds_for("the connection stays", Duration::from_secs(3), || {
        stream.peek(&mut [0]).is_ok_and(|n| n == 1)
    });
    let received = receive(&mut stream).expect("the rest arrives");
    assert_eq!(told.recv_timeout(LIMIT).expect("the server sent all"), received);
}
