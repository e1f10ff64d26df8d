//! Containers of our own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Output, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tapswitch_link::netns::create_here;
use tapswitch_link::process::{Isolation, die_with_parent, enter_new_namespaces, spawn_init};

use crate::world::{self, Skip};

tests! {
    command_s_status_comes_back_as_a_shell_would_give_it,
    container_has_its_own_pids_names_and_resolver_and_the_host_keeps_its_own,
    container_of_an_ordinary_user_has_all_that_too,
    orphans_are_reaped_and_killed_with_the_container,
    term_is_forwarded_to_the_command,
    kernel_kills_the_whole_container_when_its_parent_is_killed,
    sys_shows_the_interfaces_of_the_container,
    host_without_a_resolv_conf_costs_a_warning_and_no_more,
}

/// What `run` would do, as a process of its own.
pub(crate) fn contained(command: &[&str]) -> ExitCode {
    die_with_parent(nix::unistd::getppid().as_raw().cast_unsigned()).unwrap();
    let isolation = Isolation { hostname: Some("inside".into()), resolv_conf: Some("nameserver 10.9.0.1\n".into()) };
    enter_new_namespaces(&isolation).unwrap();
    let _tap = create_here(&world::interface(true)).unwrap();
    ExitCode::from(spawn_init(command).unwrap() as u8)
}

fn start(command: &[&str]) -> Command {
    let mut start = Command::new("/proc/self/exe");
    start.arg("--contained").args(command).stdin(Stdio::null());
    start
}

fn shell(script: &str) -> Output {
    start(&["sh", "-c", script]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn command_s_status_comes_back_as_a_shell_would_give_it() -> Result<(), Skip> {
    world::enter()?;
    assert_eq!(shell("exit 7").status.code(), Some(7));
    assert_eq!(shell("kill -9 $$").status.code(), Some(137));
    let missing = start(&["no-such-command"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("cannot run 'no-such-command'"), "{missing:?}");
    assert_eq!(start(&["/etc"]).output().unwrap().status.code(), Some(126));
    Ok(())
}

fn container_has_its_own_pids_names_and_resolver_and_the_host_keeps_its_own() -> Result<(), Skip> {
    world::enter()?;
    check_isolation()
}

fn container_of_an_ordinary_user_has_all_that_too() -> Result<(), Skip> {
    world::become_ordinary_user()?;
    check_isolation()
}

fn check_isolation() -> Result<(), Skip> {
    let resolver = std::fs::read("/etc/resolv.conf").map_err(|e| Skip(format!("/etc/resolv.conf: {e}")))?;
    // Others may use these directories meanwhile; what would be ours is known by its name.
    let files = |directory: &str| {
        let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| ["resolv", "tapswitch"].iter().any(|ours| text(name.as_encoded_bytes()).contains(ours)))
            .count()
    };
    let before = (files("/tmp"), files("/mnt"));
    let script = "echo pid $$; hostname || cat /proc/sys/kernel/hostname; cat /etc/resolv.conf; \
        tr '\\0' ' ' < /proc/1/cmdline | cut -c1-40; cat /proc/net/route; cat /proc/sys/net/ipv4/ping_group_range; id -u; \
        grep -c tapswitch /proc/mounts; ls -d /tmp/resolv.conf; cat /proc/self/status | grep SigBlk";
    let output = shell(script);
    let said = text(&output.stdout);
    for wanted in ["pid 2\n", "inside\n", "nameserver 10.9.0.1\n", "--contained", "eth0\t00000000\t", "\n0\n"] {
        assert!(said.contains(wanted), "{wanted:?} is missing: {said}{}", text(&output.stderr));
    }
    assert!(said.contains("0\t0\n") || said.contains("0\t2147483647\n"), "ping: {said}");
    assert!(said.contains("SigBlk:\t0000000000000000"), "the command must not inherit blocked signals: {said}");
    assert!(!said.contains("/tmp/resolv.conf"), "{said}");
    assert_eq!(std::fs::read("/etc/resolv.conf").unwrap(), resolver);
    assert_eq!((files("/tmp"), files("/mnt")), before);
    Ok(())
}

/// A pipe whose reading end sees its end when all processes that inherited the other end are gone.
fn wait_for_all(reader: impl std::io::Read) -> String {
    let mut said = String::new();
    let mut reader = BufReader::new(reader);
    while reader.read_line(&mut said).unwrap() > 0 {}
    said
}

fn orphans_are_reaped_and_killed_with_the_container() -> Result<(), Skip> {
    world::enter()?;
    // One orphan ends by itself, one would stay for ever; the command itself ends at once.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = start(&["sh", "-c", "(true &) ; (sleep 1000 &) ; echo done"]).stdout(writer).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(wait_for_all(reader), "done\n");
    Ok(())
}

fn term_is_forwarded_to_the_command() -> Result<(), Skip> {
    world::enter()?;
    let (reader, writer) = std::io::pipe().unwrap();
    let script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = start(&["sh", "-c", script]).stdout(writer).spawn().unwrap();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(wait_for_all(reader), "got it\n");
    Ok(())
}

fn kernel_kills_the_whole_container_when_its_parent_is_killed() -> Result<(), Skip> {
    world::enter()?;
    let (reader, writer) = std::io::pipe().unwrap();
    let script = "trap '' TERM INT HUP; (sleep 1000 &); echo ready; sleep 1000";
    let mut child = start(&["sh", "-c", script]).stdout(writer).spawn().unwrap();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    // The pipe ends only when nobody holds it any more.
    assert_eq!(wait_for_all(reader), "");
    std::io::stdout().flush().unwrap();
    Ok(())
}

fn sys_shows_the_interfaces_of_the_container() -> Result<(), Skip> {
    world::enter()?;
    // A container that masks parts of its own /sys lets nobody inside mount another.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::MS_RDONLY, None::<&str>)
        .map_err(|e| Skip(format!("no sysfs can be mounted here: {e}")))?;
    let output = shell("ls /sys/class/net");
    assert_eq!(text(&output.stdout), "eth0\nlo\n", "{}", text(&output.stderr));
    Ok(())
}

fn host_without_a_resolv_conf_costs_a_warning_and_no_more() -> Result<(), Skip> {
    world::enter()?;
    mount(Some("empty"), "/etc", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    for dangling in [false, true] {
        if dangling {
            std::os::unix::fs::symlink("/no/such/file", "/etc/resolv.conf").unwrap();
        }
        let output = shell("echo runs");
        let warned = text(&output.stderr);
        assert_eq!(text(&output.stdout), "runs\n", "{warned}");
        assert!(warned.contains("/etc/resolv.conf") && warned.lines().count() == 1, "{warned}");
    }
    Ok(())
}
