//! HTTP, names and bulk traffic from containers to the outside.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tapswitch_tests::{Cmd, Enter, GATEWAY, INET, Running, Stopwatch, Switch, World, needs, receive, send};

const START: Duration = Duration::from_secs(10);

/// A web server in `inet` with `file` (50 MB), `small`, and uploads under `/up/`.
pub(crate) fn web(world: &World) -> Running {
    let dir = world.dir().join("web");
    fs::create_dir_all(dir.join("html/up")).expect("a directory");
    let mut file = fs::File::create(dir.join("html/file")).expect("a file");
    send(&mut file, 50, 50 << 20).expect("50 MB fit on the disk");
    fs::write(dir.join("html/small"), "small\n").expect("a file");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    let configuration = format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {0}/pid;\nerror_log {0}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; {temporary} client_max_body_size 100m;\n\
         server {{ listen {INET}:80; root {0}/html; location /up/ {{ dav_methods PUT; }} }} }}\n",
        dir.display()
    );
    fs::write(dir.join("nginx.conf"), configuration).expect("a file");
    let server = world.server(&format!("nginx -c {0}/nginx.conf -p {0} -e {0}/error.log", dir.display()));
    world
        .inet()
        .cmd(&format!("curl -sf --retry 50 --retry-connrefused --retry-delay 0 -o /dev/null {}", url("small")))
        .limit(START)
        .ok();
    server
}

fn url(path: &str) -> String {
    format!("http://{INET}/{path}")
}

/// Panics unless both files hold the same.
pub(crate) fn same(one: &Path, other: &Path) {
    let digest = |path: &Path| {
        let mut file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        receive(&mut file).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert_eq!(digest(one), digest(other), "{} and {}", one.display(), other.display());
}

#[test]
fn curl_downloads_50_mb_intact() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = web(&world);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let copy = world.dir().join("copy");
    a.cmd(&format!("curl -sSf -o {} {}", copy.display(), url("file"))).limit(Duration::from_secs(60)).ok();
    same(&copy, &world.dir().join("web/html/file"));
}

#[test]
fn curl_uploads_20_mb_intact() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = web(&world);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let body = world.dir().join("body");
    let mut file = fs::File::create(&body).expect("a file");
    send(&mut file, 20, 20 << 20).and_then(|_| file.flush()).expect("20 MB fit on the disk");
    a.cmd(&format!("curl -sSf -T {} {}", body.display(), url("up/body"))).limit(Duration::from_secs(60)).ok();
    same(&world.dir().join("web/html/up/body"), &body);
}

#[test]
fn many_small_requests_succeed_one_after_the_other_and_at_once() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = web(&world);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    // `Connection: close` makes each request a connection of its own.
    let request = format!("curl -sSf --no-keepalive -H Connection:close {}?[1-200]", url("small"));
    assert_eq!(a.cmd(&request).limit(Duration::from_secs(60)).ok(), "small\n".repeat(200));
    let parallel =
        format!("curl -sSf -Z --parallel-immediate --parallel-max 20 -H Connection:close {}?[1-20]", url("small"));
    assert_eq!(a.cmd(&parallel).limit(Duration::from_secs(60)).ok(), "small\n".repeat(20));
}

#[test]
fn names_are_resolved_through_the_gateway() {
    needs!("dnsmasq", "busybox");
    let world = World::new();
    let _dns = name_server(&world);
    let switch = Switch::up_with_capture(&world, &format!("--dns {INET}:53"));
    let a = switch.join("a", "");
    let answer = a.cmd(&format!("busybox nslookup web.test {GATEWAY}")).ok();
    assert!(answer.contains(INET), "{answer}");
    a.cmd(&format!("busybox nslookup absent.test {GATEWAY}")).fails().says("NXDOMAIN");
}

/// A name server in `inet` that knows `web.test`, and that there is nothing else.
pub(crate) fn name_server(world: &World) -> Running {
    let mut server = world.server(&format!(
        "dnsmasq --no-daemon --no-resolv --no-hosts --pid-file \
         --conf-file=/dev/null --bind-interfaces --listen-address={INET} --local=/test/ --host-record=web.test,{INET}"
    ));
    server.until_says("started", START);
    server
}

#[test]
fn iperf3_runs_both_ways_with_several_streams() {
    needs!("iperf3");
    let world = World::new();
    let mut server = world.server(&format!("iperf3 --server --bind {INET} --forceflush"));
    server.until_says("listening", START);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    for way in ["", "--reverse", "--parallel 4", "--parallel 4 --reverse"] {
        a.cmd(&format!("iperf3 --client {INET} --time 1 {way}")).ok();
    }
}

#[test]
fn a_finished_download_leaves_no_flow() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = web(&world);
    let mut switch = Switch::up_with_capture(&world, "");
    let a = switch.join("a", "");
    a.cmd(&format!("curl -sSf {}", url("small"))).ok();
    let pid = switch.daemon().pid();
    let tcp = || switch.rows("show flows").into_iter().filter(|flow| flow["proto"] == "tcp");
    // Whoever ends first remembers the connection for a moment, but holds no socket for it.
    tapswitch_tests::eventually("the connection is over", START, || {
        tcp().all(|flow| flow["state"] == "time-wait").then_some(())
    });
    let sockets = Cmd::new(["sh", "-c", &format!("ls -l /proc/{pid}/fd | grep -c socket:")]).run().stdout;
    let sockets: u32 = sockets.trim().parse().expect("a number");
    assert!(sockets < 10, "{sockets} sockets are open");
    tapswitch_tests::eventually("the connection is forgotten", 3 * START, || (tcp().count() == 0).then_some(()));
}

#[test]
fn a_download_of_a_slow_reader_does_not_hold_up_others() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = web(&world);
    let switch = Switch::up(&world, "");
    let (slow, quick) = (switch.join("slow", ""), switch.join("quick", ""));
    let _reading = slow
        .cmd(&format!("curl -s --limit-rate 20k -o /dev/null {}", url("file")))
        .spawn(&world.dir().join("slow.log"));
    tapswitch_tests::eventually("the slow download runs", START, || {
        (!switch.rows("show flows").is_empty()).then_some(())
    });
    let watch = Stopwatch::start();
    quick.cmd(&format!("curl -sSf -o /dev/null {}", url("file"))).ok();
    assert!(watch.elapsed() < Duration::from_secs(20), "took {:?}", watch.elapsed());
}
