//! `tapswitch demo` on a bare machine.

use std::time::Duration;

use nix::sys::signal::Signal;
use tapswitch_tests::{Done, Enter, Netns, Person, World};

/// The host of a demo has nothing but its loopback interface.
struct Bare {
    world: World,
    host: Netns,
}

impl Bare {
    fn of(person: Person) -> Self {
        let world = World::of(person);
        let host = world.netns();
        world.allow_pings(&host);
        Self { world, host }
    }

    fn demo(&self) -> tapswitch_tests::Cmd {
        self.world.tapswitch_on(&self.host, "demo")
    }

    fn state(&self) -> String {
        let look = |line: &str| self.host.cmd(line).ok();
        [look("ip -o link show"), look("ip -o addr show"), look("ip route show table all"), look("nft list ruleset")]
            .concat()
    }
}

fn shows_everything(done: &Done) {
    assert!(done.status.success(), "{}", done.report());
    done.within(Duration::from_secs(10)).says("DHCP").says("ping").says("HTTP").says("200").says("journey");
}

fn runs(person: Person) {
    let bare = Bare::of(person);
    let before = bare.state();
    shows_everything(&bare.demo().run());
    assert_eq!(bare.state(), before);
    assert_eq!(processes(&bare.world), 0);
}

fn interrupted(person: Person) {
    let bare = Bare::of(person);
    let before = bare.state();
    let mut demo = bare.demo().spawn(&bare.world.dir().join("demo.log"));
    demo.until_says("DHCP", Duration::from_secs(10));
    demo.signal_group(Signal::SIGINT);
    let status = demo.wait(Duration::from_secs(10));
    assert!(!demo.output().contains("panicked"), "{status}: {}", demo.output());
    assert_eq!(bare.state(), before);
    tapswitch_tests::eventually("all processes are gone", Duration::from_secs(10), || {
        (processes(&bare.world) == 0).then_some(())
    });
}

/// Processes of the person's that use the program, zombies not counted.
fn processes(world: &World) -> usize {
    let home = format!("HOME={}", world.home().display());
    let environments = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let environments = environments.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|environment| environment.split(|byte| *byte == 0).any(|line| line == home.as_bytes())).count()
}

#[test]
fn the_demo_runs_as_root() {
    runs(Person::Root);
}

#[test]
fn the_demo_runs_as_an_ordinary_user() {
    runs(Person::User);
}

#[test]
fn an_interrupted_demo_leaves_nothing_of_roots() {
    interrupted(Person::Root);
}

#[test]
fn an_interrupted_demo_leaves_nothing_of_a_users() {
    interrupted(Person::User);
}
