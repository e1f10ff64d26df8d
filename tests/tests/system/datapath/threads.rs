//! `--workers` and `--cpus`: what runs where, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use tapswitch_tests::{Cmd, Enter, GATEWAY, Switch, World, eventually, skip};

use crate::lan::transfer;

/// CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let list = allowed("/proc/self/status");
    let number = |text: &str| text.parse::<usize>().expect("a CPU's number");
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(part)..=number(part),
    };
    list.split(',').flat_map(range).collect()
}

/// `Cpus_allowed_list` of a process or thread.
fn allowed(status: &str) -> String {
    let text = fs::read_to_string(status).unwrap_or_else(|e| panic!("{status}: {e}"));
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("it is there");
    list.trim().to_owned()
}

/// The poll threads of a process: what each is called, and its directory.
pub(super) fn poll_threads(pid: u64) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    let tasks = tasks.map(|task| task.expect("a thread").path().display().to_string());
    let named = tasks.map(|task| (fs::read_to_string(format!("{task}/comm")).unwrap_or_default(), task));
    named.map(|(name, task)| (name.trim().to_owned(), task)).filter(|(name, _)| name.starts_with("poll")).collect()
}

/// The rows of `show stats`, checked for what was asked.
fn rows(switch: &Switch<'_>, io: &str, poll: &str) -> Vec<Value> {
    let stats = switch.json("show stats");
    let rows = stats["threads"].as_array().expect("a list of threads").clone();
    for (at, row) in rows.iter().enumerate() {
        assert_eq!((&row["thread"], &row["poll"]), (&at.into(), &poll.into()), "{row}");
        // Where io_uring is refused, all read by epoll.
        assert!(row["io"] == io || row["io"] == "epoll", "{row}");
        assert_eq!(row["io"], rows[0]["io"]);
    }
    rows
}

#[test]
fn each_poll_thread_stays_on_its_cpu_and_is_shown() {
    let usable = cpus();
    let [.., first, second] = usable[..] else { return skip("needs two CPUs") };
    let world = World::new();
    // In the order of the list, not of the numbers.
    let switch = Switch::up(&world, &format!("--workers 2 --cpus {second},{first} --io uring --poll sleep"));
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    transfer(&a, &b, 10 << 20);
    let threads = rows(&switch, "io_uring", "sleep");
    let field = |field: &str| -> Vec<u64> { threads.iter().filter_map(|row| row[field].as_u64()).collect() };
    assert_eq!(field("cpu"), [second as u64, first as u64]);
    assert_eq!(field("spin_us"), [0, 0]);
    assert_eq!(field("ports"), [1, 1], "ports are shared out");
    assert!(field("turns").iter().zip(field("sleeps")).all(|(turns, sleeps)| *turns >= sleeps && sleeps > 0));

    let pid = switch.json("show stats")["pid"].as_u64().expect("a process");
    let kept: Vec<_> = poll_threads(pid).values().map(|task| allowed(&format!("{task}/status"))).collect();
    assert_eq!(kept, [second.to_string(), first.to_string()]);

    let text = switch.cli("show stats").ok();
    let mut table = text.lines().skip_while(|line| !line.starts_with("THREAD"));
    let head: Vec<_> = table.next().expect("a table of threads").split_whitespace().collect();
    assert_eq!(head[..5], ["THREAD", "CPU", "IO", "POLL", "SPIN"]);
    for (at, cpu) in [second, first].iter().enumerate() {
        let row: Vec<_> = table.next().expect("a row for each").split_whitespace().collect();
        assert_eq!(row[..2], [at.to_string(), cpu.to_string()], "{text}");
        assert_eq!(row[3], "sleep", "{text}");
    }
}

#[test]
fn cpus_alone_say_how_many_threads_there_are_and_workers_alone_keep_none() {
    let world = World::new();
    let usable = cpus();
    let list = usable.iter().take(2).map(usize::to_string).collect::<Vec<_>>().join(",");
    let switch = Switch::up(&world, &format!("--cpus {list} --io epoll"));
    assert_eq!(rows(&switch, "epoll", "adaptive").len(), usable.len().min(2));
    drop(switch);
    // More threads than CPUs are allowed as long as none is kept on one.
    let switch = Switch::up(&world, "--workers 5 --poll busy --io epoll");
    let threads = rows(&switch, "epoll", "busy");
    assert_eq!(threads.len(), 5);
    assert!(threads.iter().all(|row| row["cpu"].is_null() && row["spin_us"].is_null()), "{threads:?}");
}

#[test]
fn wrong_thread_options_are_usage_errors_that_say_what_to_write() {
    let world = World::new();
    let cpu = cpus()[0];
    let more = format!("up --workers 2 --cpus {cpu}");
    let twice = format!("up --cpus {cpu},{cpu}");
    let wrong: [(&str, &[&str]); 10] = [
        (&more, &["2 poll threads", "--cpus names 1", "--workers"]),
        (&twice, &["twice"]),
        ("up --cpus 1023", &["CPU 1023", "does not exist", &cpu.to_string()]),
        ("up --cpus nonsense", &["nonsense", "0-3,8"]),
        ("up --cpus 3-1", &["3-1", "0-3,8"]),
        ("up --workers 0", &["--workers", "1"]),
        ("up --workers 65", &["--workers", "64"]),
        ("up --io nonsense", &["epoll", "uring"]),
        ("up --poll nonsense", &["adaptive", "busy", "sleep"]),
        ("up --spin long", &["--spin", "long"]),
    ];
    for (line, words) in wrong {
        let done = world.tapswitch(line).fails();
        assert_eq!(done.status.code(), Some(2), "{}", done.report());
        for word in words {
            done.says(word);
        }
        assert!(!done.stderr.contains("panicked"), "{}", done.report());
    }
    assert!(!world.socket().exists());
}

#[test]
fn a_journey_is_told_to_its_end_whichever_thread_reads_the_port() {
    let world = World::new();
    let switch = Switch::up(&world, "--workers 2 --io uring");
    let (a, b) = (switch.join("a", ""), switch.join("b", ""));
    for (from, other) in [(&a, &b), (&b, &a)] {
        let forwarded = format!("forwarded to {}", other.name());
        for (to, end) in [(other.ip(), forwarded.as_str()), (GATEWAY, "taken in by the gateway")] {
            // The addresses are known, so that what is told is the echo's way and nothing else's.
            from.cmd(&format!("ping -n -c 1 -W 5 {to}")).ok();
            let url = format!("http://localhost/v1/ports/{}/journey?proto=icmp", from.name());
            let asked =
                Cmd::new(["curl", "-sS", "-m", "10", "--unix-socket", &world.socket().display().to_string(), &url])
                    .spawn(&world.dir().join(format!("journey-{}-{to}", from.name())));
            let told = eventually("the journey is told", Duration::from_secs(10), || {
                from.cmd(&format!("ping -n -c 1 -W 5 {to}")).ok();
                serde_json::from_str::<Value>(&asked.output()).ok()
            });
            assert_eq!((&told["port"], &told["verdict"]), (&from.name().into(), &end.into()), "{told}");
            let stages: Vec<_> = told["steps"].as_array().expect("steps").iter().map(|step| &step["stage"]).collect();
            assert!(stages.iter().any(|stage| *stage == "lookup"), "{told}");
        }
    }
}
