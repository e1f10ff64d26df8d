//! Many flows at once, wanted or not: what they cost the host, and whom they keep from what.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tapswitch_tests::packet::{self, Segment, flag};
use tapswitch_tests::{
    Container, Enter, GATEWAY, INET, Running, SILENT_PORT, Service, Station, Stopwatch, Switch, World, echo_udp,
    eventually, holds_for, needs, receive, send, serve_tcp,
};

use super::{Held, LIMIT, SOON, at, connect, flows, patient, returns_to};
use crate::outside;

/// Idle flows, if the limit of open files allows.
const CROWD: usize = 10_000;
/// Containers that share them.
const CONTAINERS: usize = 4;
/// Resident bytes of the daemon that an idle flow may cost.
const PER_FLOW: u64 = 512;
/// What the daemon may keep of its memory after a flood: room in its tables, and what its allocator does not give back.
const AFTERMATH: u64 = 8 << 20;

/// Raises the limit of open files as far as anybody may, for this process and those that it starts. Returns it.
fn files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("anybody may go up to the hard limit");
    usize::try_from(hard).unwrap_or(usize::MAX)
}

/// A web server that waits for thousands of first requests. It begins to close idle connections long before it has as
/// many as it may.
fn patient_web(world: &World) -> Running {
    let dir = world.dir().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let configuration = format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections {}; }}\n\
         http {{ access_log off; {temporary} client_header_timeout 10m; keepalive_timeout 10m;\n\
         server {{ listen {INET}:80; return 204; }} }}\n",
        2 * CROWD
    );
    fs::write(world.dir().join("nginx.conf"), configuration).expect("a file");
    let server = world.server(&format!("nginx -c {dir}/nginx.conf -p {dir} -e {dir}/error.log"));
    eventually("the web server is there", SOON, || {
        world.gw().inside(|| TcpStream::connect_timeout(&at(INET, 80), SOON)).ok()
    });
    server
}

/// Ticks of the CPU that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The name in brackets may hold anything; user and system time are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let field = |at: usize| fields.split(' ').nth(at).and_then(|field| field.parse::<u64>().ok()).expect("a number");
    field(11) + field(12)
}

/// Panics if an idle daemon uses the CPU.
fn rests(pid: u32) {
    let mut last = (ticks(pid), Stopwatch::start());
    eventually("the daemon comes to rest", LIMIT, || {
        let now = ticks(pid);
        if now > last.0 {
            last = (now, Stopwatch::start());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let before = ticks(pid);
    holds_for("the daemon rests", Duration::from_secs(3), || ticks(pid) <= before + 2);
}

#[test]
fn lm_4_ten_thousand_idle_flows_cost_little_memory_no_time_and_go_without_trace() {
    needs!("nginx");
    // The daemon keeps some descriptors for itself, and gives each of four containers a fourth of the others.
    let crowd = CROWD.min(files() / 2 / CONTAINERS * CONTAINERS);
    let world = World::new();
    let _web = patient_web(&world);
    let mut switch = Switch::up(&world, "");
    let pid = switch.daemon().pid();
    let containers: Vec<_> = (0..CONTAINERS).map(|n| switch.join(&format!("c{n}"), "")).collect();
    let fresh = Held::by(pid).files;
    // What the first connection of all needs is not the others' to pay.
    containers.iter().for_each(|container| drop(connect(container, 80)));
    eventually("the first ones are gone", LIMIT, || (flows(&switch) == 0).then_some(()));
    let before = Held { files: fresh, ..Held::by(pid) };

    let mut streams = Vec::with_capacity(crowd);
    for container in &containers {
        let open = |_| TcpStream::connect_timeout(&at(INET, 80), SOON).expect("connects");
        streams.extend(container.inside(|| (0..crowd / CONTAINERS).map(open).collect::<Vec<_>>()));
    }
    let full = Held::by(pid);
    let each = full.grown_since(before) / crowd as u64;
    println!("{crowd} flows: {each} bytes each, {} descriptors", full.files - before.files);
    rests(pid);
    for mut stream in streams.iter().step_by(crowd / 100) {
        patient(stream);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").expect("it still works");
        // All of it is read: otherwise closing would be a reset, which nobody repeats if it is lost.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it still works");
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
    }
    drop(streams);
    returns_to(&mut switch, Held { rss: full.rss, ..before }, LIMIT);
    assert!(each <= PER_FLOW, "{each} bytes for each of {crowd} flows: {before:?} became {full:?}");
    returns_to(&mut switch, before, SOON);
}

/// A second container, and what it does while the first one misbehaves.
struct Neighbour<'w> {
    place: Container,
    world: &'w World,
    resolves: bool,
    _servers: [Service; 2],
}

impl<'w> Neighbour<'w> {
    const DOWNLOAD: u64 = 8 << 20;

    fn new(world: &'w World, switch: &Switch<'_>, resolves: bool) -> Self {
        let echo = serve_tcp(world.inet(), at(INET, 9000), |mut stream| {
            let mut back = stream.try_clone()?;
            std::io::copy(&mut stream, &mut back).map(drop)
        });
        let bulk = serve_tcp(world.inet(), at(INET, 9001), |mut stream| send(&mut stream, 6, Self::DOWNLOAD).map(drop));
        Self { place: switch.join("neighbour", ""), world, resolves, _servers: [echo, bulk] }
    }

    /// It downloads, opens connections, and resolves names; and so can the host itself.
    fn works(&self) {
        let expected = send(&mut std::io::sink(), 6, Self::DOWNLOAD).expect("a sink takes all");
        assert_eq!(receive(&mut connect(&self.place, 9001)).expect("downloads"), expected);
        for _ in 0..10 {
            self.echoes(&self.place);
        }
        self.echoes(self.world.gw());
        if self.resolves {
            let answer = self.place.cmd(&format!("busybox nslookup web.test {GATEWAY}")).limit(SOON).ok();
            assert!(answer.contains(INET), "{answer}");
        }
    }

    fn echoes(&self, from: &impl Enter) {
        let mut stream = connect(from, 9000);
        let mut byte = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).expect("an echo");
    }
}

/// Panics if the daemon is close to its limit of descriptors.
fn within_its_limit(pid: u32) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process has limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("one of open files");
    let limit: usize = line.split_whitespace().nth(3).and_then(|limit| limit.parse().ok()).expect("a number");
    let files = Held::by(pid).files;
    assert!(files <= limit / 4 * 3, "{files} of {limit} descriptors are open");
}

/// Sends SYNs from all ports to one, for two seconds at least, while `meanwhile` runs. Returns how many it sent.
fn flood(from: &Container, port: u16, meanwhile: impl FnOnce()) -> u64 {
    let station = Station::beside(from, "eth0", from.ip(), GATEWAY);
    let stop = AtomicBool::new(false);
    let server = format!("{INET}:{port}").parse().expect("an address");
    thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let watch = Stopwatch::start();
            let mut count = 0_u64;
            while watch.elapsed() < Duration::from_secs(2) || !stop.load(Ordering::Relaxed) {
                // All ports of a container that are not system ports, in an order without a pattern.
                let source = 1024 + (count.wrapping_mul(48_271) % 64_512) as u16;
                let seq = (count as u32).wrapping_mul(0x9e37_79b9);
                let syn = Segment { flags: flag::SYN, seq, ack: 0, data: &[] };
                station.send(&packet::tcp(station.at(source), server, syn));
                count += 1;
            }
            count
        });
        // Also when this panics, the flood has to end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        stop.store(true, Ordering::Relaxed);
        let count = flooding.join().expect("no panic");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        count
    })
}

/// A container floods `port`. Its own kernel takes back what it has not asked for, if anything answers.
fn flooded(port: u16, answers: bool) {
    files();
    let world = World::new();
    let _flooded = answers.then(|| serve_tcp(world.inet(), at(INET, 80), |_| Ok(())));
    let mut switch = Switch::up(&world, "");
    let pid = switch.daemon().pid();
    let a = switch.join("a", "");
    let neighbour = Neighbour::new(&world, &switch, false);
    neighbour.works();
    eventually("the first flows are gone", LIMIT, || (flows(&switch) == 0).then_some(()));
    let before = Held::by(pid);
    let sent = flood(&a, port, || {
        neighbour.works();
        within_its_limit(pid);
        neighbour.works();
        within_its_limit(pid);
    });
    assert!(sent > 5_000, "{sent} SYNs are no flood");
    neighbour.works();
    if port == SILENT_PORT {
        let drops = switch.rows("show drops");
        assert!(drops.iter().any(|row| row["name"] == "a"), "all of {sent} SYNs found room: {drops:?}");
        // The host waits minutes for an answer; what is gone needs none.
        switch.cli("detach a").ok();
    }
    let before = Held { rss: before.rss + AFTERMATH, ..before };
    returns_to(&mut switch, before, LIMIT);
    neighbour.works();
}

#[test]
fn lm_4_a_flood_of_syns_to_an_open_port_harms_nobody_else() {
    flooded(80, true);
}

#[test]
fn lm_4_a_flood_of_syns_to_a_closed_port_harms_nobody_else() {
    flooded(1, false);
}

#[test]
fn lm_4_a_flood_of_syns_that_nobody_answers_harms_nobody_else() {
    flooded(SILENT_PORT, false);
}

#[test]
fn lm_2_lm_4_a_burst_from_ten_thousand_ports_is_answered_or_refused_by_name_and_harms_nobody_else() {
    needs!("busybox", "dnsmasq");
    const PORTS: std::ops::Range<u16> = 10_000..20_000;
    files();
    let world = World::new();
    let _echo = echo_udp(world.inet(), at(INET, 123));
    let _dns = outside::name_server(&world);
    let mut switch = Switch::up(&world, &format!("--dns {INET}:53"));
    let pid = switch.daemon().pid();
    let a = switch.join("a", "");
    let neighbour = Neighbour::new(&world, &switch, true);
    let idle = Held::by(pid);
    let mut station = Station::take(&a, "eth0", a.ip(), GATEWAY);
    let server = format!("{INET}:123").parse().expect("an address");
    let refused = || {
        let rows = switch.rows("show drops");
        let mine = rows.iter().filter(|row| row["name"] == "a");
        mine.filter_map(|row| row["count"].as_u64()).sum::<u64>()
    };
    let before = refused();
    let mut answered = 0_u64;
    for (number, port) in PORTS.enumerate() {
        station.send(&packet::udp(station.at(port), server, &port.to_be_bytes()));
        if number % 50 == 49 {
            // As many at a time as every queue on the way takes. Who is refused gets no answer.
            let mut left = 50;
            while left > 0
                && let Some(seen) = station.find(Duration::from_millis(20), packet::Seen::is_udp)
            {
                assert_eq!((seen.src, seen.data), (server, seen.dst.port().to_be_bytes().to_vec()));
                answered += 1;
                left -= 1;
            }
        }
        if number % 5_000 == 4_999 {
            within_its_limit(pid);
            neighbour.works();
        }
    }
    while station.find(Duration::from_millis(100), packet::Seen::is_udp).is_some() {
        answered += 1;
    }
    let refused = refused() - before;
    println!("{answered} answered, {refused} refused, {} descriptors", Held::by(pid).files);
    assert!(answered > 0);
    assert_eq!(answered + refused, PORTS.len() as u64, "{:?}", switch.rows("show drops"));
    // The refusals last for minutes, but not for those who asked for little.
    let patient: UdpSocket = neighbour.place.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    patient.set_read_timeout(Some(SOON)).expect("a timeout");
    patient.send_to(b"what time is it?", server).expect("sends");
    patient.recv(&mut [0; 32]).expect("an answer");
    neighbour.works();
    // Its own flows last for minutes, unless it goes; the neighbour's few may stay.
    switch.cli("detach a").ok();
    eventually("what was the burst's is given back", LIMIT, || (Held::by(pid).files <= idle.files + 20).then_some(()));
}
