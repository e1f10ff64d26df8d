//! The network around the switch: a host, a router and the outside, and who runs what in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::eventually;
use crate::command::{Cmd, Running};
use crate::namespace::{Enter, Netns};
use crate::{HOST, INET, ROUTER, SILENT_PORT};

/// Set by `tests/run` in the private namespaces that it makes.
const PRIVATE: &str = "TAPSWITCH_TESTS_PRIVATE";
/// The program under test.
const BINARY: &str = "TAPSWITCH_BIN";
/// Where logs and captures of failed tests are kept.
const KEEP: &str = "TAPSWITCH_TESTS_KEEP";

/// An uid and gid without a name and without any right.
const NOBODY_ID: u32 = 65_533;
/// What an ordinary user calls himself where only one id exists.
const MAPPED_ID: u32 = 1000;

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Who runs the switch and its containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Person {
    /// The owner of all namespaces of the world.
    Root,
    /// An ordinary user: no capability, containers only in user namespaces of his own.
    User,
}

/// Whether this process is root of a machine, not of a user namespace with one id.
fn owns_all_ids() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("a process has an uid map");
    map.split_whitespace().nth(2).is_some_and(|count| count != "1")
}

/// A user namespace with one id that is not its root: whoever enters it and starts a program has no capability left.
fn single_user(dir: &Path) -> Running {
    let line = format!("unshare --user --map-user={MAPPED_ID} --map-group={MAPPED_ID} sh -c");
    let mut user = Cmd::new(line.split_whitespace()).arg("echo ready; exec sleep 600").spawn(&dir.join("user.log"));
    user.until_says("ready", Duration::from_secs(10));
    user
}

/// The namespaces around the switch, and a directory. All of it goes when it is dropped.
pub struct World {
    prefix: String,
    person: Person,
    /// Holds the user namespace in which a user without other ids has no capability.
    user: Option<Running>,
    dir: TempDir,
    containers: AtomicU32,
    gw: Netns,
    rt: Netns,
    inet: Netns,
}

impl World {
    /// A world in which root runs the switch.
    pub fn new() -> Self {
        Self::of(Person::Root)
    }

    /// A world in which `person` runs the switch.
    pub fn of(person: Person) -> Self {
        assert!(
            std::env::var_os(PRIVATE).is_some(),
            "system tests run only inside namespaces of their own: use `tests/run system [FILTER]`"
        );
        let prefix = format!("ts-{}-{}-", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory has a mode");
        let netns = |name: &str| {
            let netns = Netns::new(format!("{prefix}{name}"));
            // Nothing here speaks IPv6, and addresses that come and go by themselves would blur comparisons.
            netns.cmd("sh -e").input("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6").ok();
            netns
        };
        let (gw, rt, inet) = (netns("gw"), netns("rt"), netns("inet"));
        let user = (person == Person::User && !owns_all_ids()).then(|| single_user(dir.path()));
        let world = Self { prefix, person, user, dir, containers: AtomicU32::new(0), gw, rt, inet };
        let home = world.home();
        fs::create_dir(&home).expect("a directory in ours");
        chown(&home, Some(world.person_id()), Some(world.person_id())).expect("root may give a directory away");
        world.wire();
        world.settle();
        world
    }

    /// Joins the three namespaces and gives them addresses, routes and rules.
    fn wire(&self) {
        let setup = |netns: &Netns, script: String| {
            netns.cmd("sh -e").input(script).ok();
        };
        let (gw, inet) = (self.gw.name(), self.inet.name());
        setup(
            &self.rt,
            format!(
                "ip link add lan type veth peer name up0 netns {gw}
                 ip link add wan type veth peer name eth0 netns {inet}
                 ip addr add {ROUTER}/24 dev lan
                 ip addr add 198.51.100.1/24 dev wan
                 ip link set lan up
                 ip link set wan up
                 echo 1 > /proc/sys/net/ipv4/ip_forward"
            ),
        );
        setup(
            &self.gw,
            format!(
                "ip addr add {HOST}/24 dev up0
                 ip link set up0 up
                 ip route add default via {ROUTER}
                 echo 0 > /proc/sys/net/ipv4/ip_forward"
            ),
        );
        self.allow_pings(&self.gw);
        setup(
            &self.inet,
            format!(
                "ip addr add {INET}/24 dev eth0
                 ip link set eth0 up
                 ip route add default via 198.51.100.1
                 nft -f - <<'RULES'
                 table inet silence {{
                     chain input {{
                         type filter hook input priority filter
                         tcp dport {SILENT_PORT} drop
                         udp dport {SILENT_PORT} drop
                     }}
                 }}\nRULES\n"
            ),
        );
    }

    /// Waits until every end of a cable is listed as up: packets pass before that, but comparisons would see a change.
    pub(crate) fn settle(&self) {
        for netns in [&self.gw, &self.rt, &self.inet] {
            eventually("the cables are noticed", Duration::from_secs(10), || {
                let links = netns.cmd("ip -brief link show type veth").ok();
                links.lines().all(|line| line.split_whitespace().nth(1) == Some("UP")).then_some(())
            });
        }
    }

    /// The host that the switch runs on.
    pub fn gw(&self) -> &Netns {
        &self.gw
    }

    /// The router between the host and the outside.
    pub fn rt(&self) -> &Netns {
        &self.rt
    }

    /// The outside.
    pub fn inet(&self) -> &Netns {
        &self.inet
    }

    /// Who runs the switch.
    pub fn person(&self) -> Person {
        self.person
    }

    /// A directory for whatever the test needs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A directory that belongs to the person who runs the switch.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The words before a command that make the person run it who runs the switch.
    pub(crate) fn person_prefix(&self) -> Vec<String> {
        let words = match (self.person, &self.user) {
            (Person::Root, _) => String::new(),
            (Person::User, None) => {
                format!("setpriv --reuid {NOBODY_ID} --regid {NOBODY_ID} --clear-groups --inh-caps=-all --")
            }
            (Person::User, Some(user)) => format!("nsenter --target {} --user --preserve-credentials --", user.pid()),
        };
        words.split_whitespace().map(str::to_owned).collect()
    }

    /// The id, as user and as group, in the world's own user namespace, of the person who runs the switch.
    pub fn person_id(&self) -> u32 {
        if self.person == Person::User && self.user.is_none() { NOBODY_ID } else { 0 }
    }

    /// Lets the person who runs the switch send pings from `host`, as distributions do.
    pub fn allow_pings(&self, host: &Netns) {
        let range = format!("echo 0 {} > /proc/sys/net/ipv4/ping_group_range", self.person_id());
        host.cmd("sh -e").input(range).ok();
    }

    /// A command on the host, run by the person who runs the switch.
    pub fn person_cmd(&self, line: &str) -> Cmd {
        self.cmd_on(&self.gw, line)
    }

    fn cmd_on(&self, host: &Netns, line: &str) -> Cmd {
        let home = self.home();
        Cmd::new(host.prefix().into_iter().chain(self.person_prefix()))
            .args(line.split_whitespace())
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env("XDG_STATE_HOME", home.join("state"))
            .env("TMPDIR", &home)
    }

    /// The program under test as a command on the host, run by the person who runs the switch: `tapswitch("ls --json")`.
    pub fn tapswitch(&self, line: &str) -> Cmd {
        self.tapswitch_on(&self.gw, line)
    }

    /// The same on another host.
    pub fn tapswitch_on(&self, host: &Netns, line: &str) -> Cmd {
        self.cmd_on(host, &format!("{} {line}", binary().display())).env("TAPSWITCH_SOCKET", self.socket())
    }

    /// The program under test as a command on the host, run by the host's administrator on the person's control socket.
    pub fn administrator(&self, line: &str) -> Cmd {
        self.gw.cmd(&format!("{} {line}", binary().display())).env("TAPSWITCH_SOCKET", self.socket())
    }

    /// The control socket that [`World::tapswitch`] uses.
    pub fn socket(&self) -> PathBuf {
        self.home().join("tapswitch.sock")
    }

    /// A new namespace with a name.
    pub fn netns(&self) -> Netns {
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        Netns::new(format!("{}c{number}", self.prefix))
    }

    /// A process of the person who runs the switch, in new user and network namespaces.
    pub(crate) fn holder(&self) -> Running {
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.dir().join(format!("holder-{number}.log"));
        let mut holder = self
            .person_cmd("unshare --user --map-root-user --net sh -c")
            .arg("ip link set lo up && echo ready && exec sleep 600")
            .spawn(&log);
        holder.until_says("ready", Duration::from_secs(10));
        holder
    }

    /// Starts a server in `inet`.
    pub fn server(&self, line: &str) -> Running {
        let name = line.split_whitespace().next().unwrap_or("server");
        self.inet.cmd(line).spawn(&self.dir().join(format!("{name}.log")))
    }

    /// Copies a file of a failed test to where it outlives the world. Returns its new name, or why it has none.
    pub(crate) fn keep(&self, file: &Path) -> String {
        let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
        let Some(dir) = std::env::var_os(KEEP).map(PathBuf::from) else { return "not kept".into() };
        let name = format!("{test}-{}", file.file_name().unwrap_or_default().to_string_lossy());
        fs::copy(file, dir.join(&name)).map_or_else(|e| format!("not kept: {e}"), |_| format!("kept as {name}"))
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os(BINARY).map(PathBuf::from).expect("TAPSWITCH_BIN names the program; tests/run sets it")
}
