//! The daemon under test and the containers on it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use serde_json::Value;

use crate::SUBNET;
use crate::clock::eventually;
use crate::command::{Cmd, Running};
use crate::namespace::{Enter, Netns};
use crate::world::{Person, World};

/// How long the daemon may take until it answers.
const START: Duration = Duration::from_secs(10);
/// Environment variable with further options of `up`, for every test.
const DATAPATH: &str = "TAPSWITCH_TESTS_UP";
/// Lines of the daemon's log that a failed test prints.
const LOG_TAIL: usize = 60;

/// A running `tapswitch up`. Killed when it is dropped.
pub struct Switch<'w> {
    world: &'w World,
    daemon: Running,
    capture: Option<PathBuf>,
    /// They stay as long as the switch, so that its tables still know them when a failed test prints them.
    places: Mutex<Vec<Arc<Place>>>,
}

impl<'w> Switch<'w> {
    /// Starts the daemon with one network ([`SUBNET`]) and these options of `up`.
    pub fn up(world: &'w World, options: &str) -> Self {
        Self::start(world, &format!("--subnet {SUBNET} {options}"))
    }

    /// The same, with a capture of every frame that goes to a container.
    pub fn up_with_capture(world: &'w World, options: &str) -> Self {
        let capture = world.home().join("switch.pcapng");
        let mut switch = Self::up(world, &format!("{options} --capture {}", capture.display()));
        switch.capture = Some(capture);
        switch
    }

    /// Starts the daemon with exactly these arguments of `up`.
    pub fn start(world: &'w World, arguments: &str) -> Self {
        let leases = if arguments.contains("--leases") { "" } else { "--leases" };
        let dir = if leases.is_empty() { String::new() } else { world.home().join("leases").display().to_string() };
        // Another datapath for all tests, as `--workers 2 --io uring`. What a test asks for itself comes first.
        let datapath = std::env::var(DATAPATH).unwrap_or_default();
        let datapath = if arguments.contains("--workers") { "" } else { &datapath };
        let daemon = world
            .tapswitch(&format!("up {leases} {dir} {arguments} {datapath}"))
            .spawn(&world.dir().join("daemon.log"));
        let mut switch = Self { world, daemon, capture: None, places: Mutex::default() };
        eventually("the daemon is ready", START, || {
            assert!(switch.daemon.is_alive(), "the daemon ended:\n{}", switch.daemon.output());
            let ready = switch.daemon.output().contains("is ready");
            ready.then(|| world.tapswitch("show stats --json").ok())
        });
        switch
    }

    /// The daemon's process.
    pub fn daemon(&mut self) -> &mut Running {
        &mut self.daemon
    }

    /// The capture, if there is one.
    pub fn capture(&self) -> Option<&PathBuf> {
        self.capture.as_ref()
    }

    /// A client command: `cli("ls")`.
    pub fn cli(&self, line: &str) -> Cmd {
        self.world.tapswitch(line)
    }

    /// What a command says with `--json`.
    pub fn json(&self, line: &str) -> Value {
        let text = self.cli(line).arg("--json").ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{line} --json` is not JSON: {e}\n{text}"))
    }

    /// The rows of a listing: `rows("show leases")`.
    pub fn rows(&self, line: &str) -> Vec<Value> {
        match self.json(line) {
            Value::Array(rows) => rows,
            other => panic!("`{line} --json` is not a list: {other}"),
        }
    }

    /// The row of the port with this name.
    pub fn port(&self, name: &str) -> Option<Value> {
        self.rows("show ports").into_iter().find(|row| row["name"] == name)
    }

    /// Drops for this reason, at all ports.
    pub fn drops(&self, reason: &str) -> u64 {
        let rows = self.rows("show drops");
        rows.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["count"].as_u64()).sum()
    }

    /// Makes a container and attaches it under this name, with these options of `attach`.
    #[track_caller]
    pub fn join(&self, name: &str, options: &str) -> Container {
        let mut container = Container::new(self.world, name);
        container.attach(self, options);
        container
    }

    fn report(&mut self) {
        eprintln!("\n---- the switch at the failure ----");
        if self.daemon.is_alive() {
            for table in ["ports", "fdb", "arp", "leases", "flows", "drops"] {
                let done = self.cli(&format!("show {table} --json")).limit(Duration::from_secs(5)).run();
                eprintln!("{table}: {}{}", done.stdout.trim(), done.stderr.trim());
            }
        } else {
            eprintln!("the daemon does not run");
        }
        let log = self.daemon.output();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("log: {}", self.world.keep(&self.world.dir().join("daemon.log")));
        for line in &lines[lines.len().saturating_sub(LOG_TAIL)..] {
            eprintln!("  {line}");
        }
        if let Some(capture) = &self.capture {
            eprintln!("capture: {}", self.world.keep(capture));
        }
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
    }
}

/// A place on the switch: a namespace, and how it is attached. Goes with the last of it and its switch.
pub struct Container {
    name: String,
    ip: String,
    place: Arc<Place>,
}

enum Place {
    /// Root's containers are namespaces with a name.
    Named(Netns),
    /// A user's are held by a process of his in a user namespace of its own; entering takes both.
    Held { holder: Running, person: Vec<String> },
}

impl Container {
    /// A container that is not attached yet.
    pub fn new(world: &World, name: &str) -> Self {
        let place = match world.person() {
            Person::Root => Place::Named(world.netns()),
            Person::User => Place::Held { holder: world.holder(), person: world.person_prefix() },
        };
        Self { name: name.into(), ip: String::new(), place: Arc::new(place) }
    }

    /// A container that is joined to something else than a switch, at this address.
    pub(crate) fn plugged(world: &World, name: &str, ip: &str) -> Self {
        Self { ip: ip.into(), ..Self::new(world, name) }
    }

    /// Its name on the switch.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, as the switch gave it; empty if a DHCP client asks for it.
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// What `attach` calls it.
    pub fn target(&self) -> String {
        match &*self.place {
            Place::Named(netns) => netns.name().to_owned(),
            Place::Held { holder, .. } => holder.pid().to_string(),
        }
    }

    /// Attaches it, with these options of `attach`.
    #[track_caller]
    pub fn attach(&mut self, switch: &Switch<'_>, options: &str) {
        switch.cli(&format!("attach {} --name {} {options}", self.target(), self.name)).ok();
        switch.places.lock().expect("no panic while it is held").push(Arc::clone(&self.place));
        let port = switch.port(&self.name).unwrap_or_else(|| panic!("{} is attached but not listed", self.name));
        self.ip = port["ip"].as_str().unwrap_or_default().to_owned();
    }

    /// Ends it, the hard way: its last process is killed, its namespace goes.
    pub fn destroy(&self) {
        match &*self.place {
            Place::Named(netns) => netns.delete(),
            Place::Held { holder, .. } => holder.signal(Signal::SIGKILL),
        }
    }

    /// The names of its interfaces.
    pub fn interfaces(&self) -> Vec<String> {
        let links = self.cmd("ip -json link show").ok();
        let links: Vec<Value> = serde_json::from_str(&links).expect("ip speaks JSON");
        links.iter().filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect()
    }

    /// The IPv4 address of its interface, as its kernel has it.
    pub fn kernel_ip(&self) -> Option<String> {
        let addresses = self.cmd("ip -4 -json addr show dev eth0").ok();
        let addresses: Vec<Value> = serde_json::from_str(&addresses).expect("ip speaks JSON");
        let address = addresses.first()?["addr_info"].get(0)?;
        address["local"].as_str().map(str::to_owned)
    }
}

impl Enter for Container {
    fn netns_path(&self) -> PathBuf {
        match &*self.place {
            Place::Named(netns) => netns.netns_path(),
            Place::Held { holder, .. } => PathBuf::from(format!("/proc/{}/ns/net", holder.pid())),
        }
    }

    fn prefix(&self) -> Vec<String> {
        match &*self.place {
            Place::Named(netns) => netns.prefix(),
            Place::Held { holder, person } => {
                let enter = format!("nsenter --target {} --user --net --preserve-credentials --", holder.pid());
                person.iter().cloned().chain(enter.split_whitespace().map(str::to_owned)).collect()
            }
        }
    }
}
