//! Programs that make many connections and ask many questions, and count each one that fails.

use std::fs;
use std::time::Duration;

use tapswitch_tests::{Enter, GATEWAY, INET, Switch, World, eventually, needs};

use super::{Held, returns_to};
use crate::outside;

const ENOUGH: Duration = Duration::from_secs(60);

/// The number behind `label` in a program's report.
#[track_caller]
fn number(report: &str, label: &str) -> u64 {
    let line = report.lines().find_map(|line| line.trim_start().strip_prefix(label));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{label:?} is missing: {report}"))
}

#[test]
fn ab_gets_an_answer_to_each_of_2000_requests() {
    needs!("ab", "curl", "nginx");
    let world = World::new();
    let _web = outside::web(&world);
    let mut switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let before = Held::by(switch.daemon().pid());
    for kind in ["", "-k"] {
        let report = a.cmd(&format!("ab -q -n 2000 -c 50 {kind} http://{INET}/small")).limit(ENOUGH).ok();
        assert_eq!(number(&report, "Complete requests:"), 2000, "{report}");
        assert_eq!(number(&report, "Failed requests:"), 0, "{report}");
        assert!(!report.contains("Non-2xx"), "{report}");
    }
    let before = Held { rss: before.rss + (1 << 20), ..before };
    returns_to(&mut switch, before, ENOUGH);
}

#[test]
fn wrk_sees_no_error_on_50_busy_connections() {
    needs!("wrk", "curl", "nginx");
    let world = World::new();
    let _web = outside::web(&world);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let report = a.cmd(&format!("wrk -t1 -c50 -d2s http://{INET}/small")).limit(ENOUGH).ok();
    assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
    assert!(requests.is_some_and(|requests| requests > 1000), "{report}");
}

#[test]
fn curl_gets_500_answers_50_at_a_time() {
    needs!("curl", "nginx");
    let world = World::new();
    let _web = outside::web(&world);
    let switch = Switch::up(&world, "");
    let a = switch.join("a", "");
    let line =
        "curl -sSf -Z --parallel-immediate --parallel-max 50 -H Connection:close -w %{http_code}\\n -o /dev/null";
    let codes = a.cmd(&format!("{line} http://{INET}/small?[1-500]")).limit(ENOUGH).ok();
    assert_eq!(codes.lines().filter(|code| *code == "200").count(), 500, "{codes}");
}

#[test]
fn dnsperf_loses_none_of_10000_questions_and_their_sockets_go_soon() {
    needs!("dnsperf", "dnsmasq");
    let world = World::new();
    let _dns = outside::name_server(&world);
    let mut switch = Switch::up(&world, &format!("--dns {INET}:53"));
    let a = switch.join("a", "");
    let pid = switch.daemon().pid();
    let before = Held::by(pid);
    let questions = world.dir().join("questions");
    fs::write(&questions, "web.test A\n").expect("a file");
    // Each client of each round asks from a port of its own.
    let line = format!("dnsperf -s {GATEWAY} -d {} -c 100 -q 100 -n 2000", questions.display());
    for _ in 0..5 {
        let report = a.cmd(&line).limit(ENOUGH).ok();
        for (label, expected) in [("Queries sent:", 2000), ("Queries completed:", 2000), ("Queries lost:", 0)] {
            assert_eq!(number(&report, label), expected, "{report}");
        }
        assert!(report.contains("NOERROR 2000 (100.00%)"), "{report}");
    }
    // A question and its answer are over at once: nobody waits minutes for more.
    eventually("their descriptors are given back", Duration::from_secs(30), || {
        (Held::by(pid).files <= before.files).then_some(())
    });
}
