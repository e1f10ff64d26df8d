//! Readers that are slow or do not read: on either side, what is held is bounded and nothing is lost.

use smoltcp::socket::tcp::State;
use tapswitch_link::fault::Faults;
use tapswitch_wire::L4;

use crate::lan::seconds;
use crate::outside::{BUFFER, DEAF, MANUAL, SERVER, pattern};
use crate::relay_tcp::talk;
use crate::world::{Setup, Talk, World};

/// The engine's receive window (`nat/relay/src/tcp/mod.rs`).
const WINDOW: usize = 1 << 20;

#[test]
fn tr_5_a_container_that_does_not_read_closes_its_window_and_opens_it_again() {
    for loss in [0.0, 0.05] {
        for seed in 1..=3 {
            let faults = Faults { loss, ..Faults::default() };
            let mut world = World::new(Setup { stations: 1, faults, seed, ..Setup::default() });
            let data = pattern(300_000);
            let socket = world.station(1).connect((SERVER, MANUAL), 40_000, 8_192);
            let mut talk = Talk::new(1, socket, Vec::new(), false);
            world.run(seconds(60), |world| talk.state(world) == State::Established);
            talk.reads = false;
            world.outside().send(&data);
            world.outside().end();
            world.pass(seconds(120));
            assert_eq!(world.station(1).tcp(socket).recv_queue(), 8_192, "the window is full");
            assert_eq!(world.network.flow_count(), 1, "and the flow lives");
            // It reads a little now and then; the rest waits outside.
            talk.reads = true;
            world.run(seconds(3_000), |world| {
                talk.go_on(world);
                talk.heard_all(world)
            });
            assert!(talk.received == data, "{} bytes", talk.received.len());
        }
    }
}

#[test]
fn tr_5_windows_of_a_few_bytes_move_everything_in_the_end() {
    let mut world = World::one();
    let data = pattern(5_000);
    let socket = world.station(1).connect((SERVER, MANUAL), 40_000, 64);
    let mut talk = Talk::new(1, socket, Vec::new(), false);
    world.run(seconds(60), |world| talk.state(world) == State::Established);
    world.outside().send(&data);
    world.outside().end();
    world.run(seconds(3_000), |world| {
        talk.go_on(world);
        talk.heard_all(world)
    });
    assert!(talk.received == data);
}

/// Right edges of the windows that station 1 was offered, as numbers that do not wrap.
fn edges(world: &mut World) -> Vec<i64> {
    let (mut edges, mut first, mut shift) = (Vec::new(), None, 0);
    for frame in world.station(1).frames().filter(|frame| frame.parsed().l4 == L4::Tcp) {
        let header = frame.segment();
        let ack = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let window = i64::from(u16::from_be_bytes([header[14], header[15]]));
        if header[13] & 0x02 != 0 {
            shift = header[20..].windows(3).find(|option| option[..2] == [3, 3]).map_or(0, |option| option[2]);
            first = Some(ack);
            edges.push(window);
        } else if let Some(first) = first {
            edges.push(i64::from(ack.wrapping_sub(first)) + (window << shift));
        }
    }
    edges
}

#[test]
fn tr_5_a_host_that_does_not_read_is_sent_one_window_and_no_more() {
    for buffer in [65_535, 1 << 20] {
        // The second buffer makes the container offer window scaling.
        let mut world = World::one();
        let data = pattern(3 << 20);
        let socket = world.station(1).connect((SERVER, DEAF), 40_000, buffer);
        let mut talk = Talk::new(1, socket, data.clone(), true);
        let mut acknowledged = 0;
        for _ in 0..300 {
            world.pass(seconds(1));
            talk.go_on(&mut world);
            acknowledged = world.network.flows(world.now)[0].up_bytes;
        }
        assert!(acknowledged as usize >= BUFFER, "{acknowledged}");
        let edges = edges(&mut world);
        let last = *edges.last().expect("acknowledgements") as usize;
        assert!(last <= BUFFER + WINDOW, "the socket's buffer and one window: {last}");
        let mut highest = 0;
        for edge in edges {
            // RFC 7323 2.4: what the window's scale cannot express may seem to be taken back, and nothing more.
            assert!(edge > highest - 32, "the right edge goes back from {highest} to {edge}");
            highest = highest.max(edge);
        }
        // It begins to read: everything comes, in order.
        world.run(seconds(3_000), |world| {
            talk.go_on(world);
            world.outside().read(10_000);
            let stream = world.outside().stream();
            stream.saw_end && stream.taken.len() >= data.len()
        });
        assert!(world.outside().stream().taken == data);
    }
}

#[test]
fn tr_5_a_host_that_reads_slowly_gets_everything_on_a_bad_cable() {
    for seed in 1..=4 {
        let faults = Faults { loss: 0.05, ..Faults::default() };
        let mut world = World::new(Setup { stations: 1, faults, seed, ..Setup::default() });
        let data = pattern(1_500_000);
        let mut talk = talk(&mut world, (SERVER, DEAF), data.clone(), true);
        world.run(seconds(10_000), |world| {
            talk.go_on(world);
            if world.outside().streams.is_empty() {
                return false;
            }
            world.outside().read(3_000);
            world.outside().stream().taken.len() == data.len() && world.outside().stream().saw_end
        });
        assert!(world.outside().stream().taken == data, "seed {seed}");
    }
}
