//! Where a test happens: namespaces of its own, containers in them, and what to ask a container to do.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknod};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};
use tapswitch_link::netns::{Interface, Target};
use tapswitch_link::poller::{Poller, Token};
use tapswitch_link::tap::Tap;
use tapswitch_link::{Buffer, LinkError, Port, Rx};
use tapswitch_wire::{Mac, Meta};

/// Why a test cannot run here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

pub(crate) type Test = fn() -> Result<(), Skip>;

pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The port on which each container listens.
pub(crate) const PORT: u16 = 7000;
/// How long to wait for something that must happen, in steps of [`STEP`].
pub(crate) const STEPS: usize = 100;
pub(crate) const STEP: Duration = Duration::from_millis(100);
/// The ordinary user.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) fn die_with_parent() {
    prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
}

/// Goes into new network and mount namespaces, and a user namespace if not root.
pub(crate) fn enter() -> Result<(), Skip> {
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let (uid, gid) = (geteuid(), nix::unistd::getegid());
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|e| Skip(format!("this user may not make namespaces: {e}")))?;
    if !uid.is_root() {
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
        fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    open_tun().map(drop)
}

pub(crate) fn open_tun() -> Result<File, Skip> {
    let open = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    open.map_err(|e| Skip(format!("/dev/net/tun cannot be opened: {e}")))
}

/// Becomes an ordinary user who may open /dev/net/tun, as on most distributions.
pub(crate) fn become_ordinary_user() -> Result<(), Skip> {
    if !geteuid().is_root() {
        return Ok(());
    }
    enter()?;
    open_tun_to_all()?;
    drop_rights()
}

/// In a world of root's: everybody may open /dev/net/tun.
pub(crate) fn open_tun_to_all() -> Result<(), Skip> {
    mount(Some("test"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    make_node("/mnt/tun", makedev(10, 200), 0o666)?;
    mount(Some("/mnt/tun"), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    Ok(())
}

/// A node of a character device.
pub(crate) fn make_node(path: &str, number: u64, mode: u32) -> Result<(), Skip> {
    let mode = Mode::from_bits_truncate(mode);
    mknod(path, SFlag::S_IFCHR, mode, number).map_err(|e| Skip(format!("no device node can be made here: {e}")))?;
    fchmodat(nix::fcntl::AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink).unwrap();
    Ok(())
}

/// Root becomes an ordinary user, in the same namespaces.
pub(crate) fn drop_rights() -> Result<(), Skip> {
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(NOBODY)).unwrap();
    setuid(Uid::from_raw(NOBODY)).unwrap();
    // Without this the process does not own its own files under /proc, as after a set-uid program.
    prctl::set_dumpable(true).unwrap();
    die_with_parent();
    open_tun().map(drop)
}

pub(crate) fn interface(offload: bool) -> Interface {
    Interface {
        name: "eth0".into(),
        mac: Mac::from_ipv4(CONTAINER),
        mtu: 1400,
        address: Some((CONTAINER, 24)),
        gateway: Some(GATEWAY),
        offload,
        queues: 1,
    }
}

/// The one descriptor of a device with one queue.
pub(crate) fn one(fds: Result<Vec<OwnedFd>, LinkError>) -> [OwnedFd; 1] {
    fds.unwrap().try_into().unwrap()
}

/// A process in a network namespace of its own, which does what it is asked.
pub(crate) struct Container {
    child: Child,
    /// Closed, it ends the container: for one that belongs to a user whom we can no longer kill.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Container {
    /// With `user`, it has a user namespace of its own too.
    pub(crate) fn start(user: bool) -> Container {
        let mut child = Command::new("/proc/self/exe")
            .args(if user { &["--container", "user"][..] } else { &["--container"] })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut container = Container { child, commands, answers };
        assert_eq!(container.answer(), "ready");
        container
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn target(&self) -> Target {
        Target::Pid(self.pid())
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands.as_ref().unwrap(), "{command}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.commands = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The container's side of [`Container`].
pub(crate) fn container(options: &[&str]) -> ExitCode {
    die_with_parent();
    if options == ["user"] {
        let uid = geteuid();
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["send", text] => println!("{:?}", socket.send_to(text.as_bytes(), (GATEWAY, PORT))),
            ["volley", count] => {
                let count: usize = count.parse().unwrap();
                let sent = (0..count).filter(|n| socket.send_to(n.to_string().as_bytes(), (GATEWAY, PORT)).is_ok());
                println!("{}", sent.count());
            }
            ["burst", segment, total] => {
                setsockopt(&socket, sockopt::UdpGsoSegment, &segment.parse().unwrap()).unwrap();
                let bytes = vec![b'x'; total.parse().unwrap()];
                println!("{:?}", socket.send_to(&bytes, (GATEWAY, PORT)).map_err(|e| e.to_string()));
                setsockopt(&socket, sockopt::UdpGsoSegment, &0).unwrap();
            }
            ["count", datagrams] => {
                let mut buffer = [0; 65_536];
                let sizes = (0..datagrams.parse().unwrap()).map_while(|_| socket.recv(&mut buffer).ok());
                println!("{:?}", sizes.collect::<Vec<_>>());
            }
            ["mtu"] => {
                let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                probe.connect((GATEWAY, PORT)).unwrap();
                println!("{:?}", nix::sys::socket::getsockopt(&probe, sockopt::IpMtu));
            }
            ["interfaces"] => {
                let all = nix::ifaddrs::getifaddrs().unwrap().map(|i| {
                    let up = i.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
                    let address = i.address.map(|a| a.to_string()).unwrap_or_default();
                    format!("{} {} {address}", i.interface_name, if up { "up" } else { "down" })
                });
                println!("{}", all.collect::<Vec<_>>().join(", "));
            }
            ["routes"] => println!("{}", fs::read_to_string("/proc/thread-self/net/route").unwrap().replace('\n', ";")),
            ["ip", ref arguments @ ..] => match Command::new("ip").args(arguments).output() {
                Ok(ran) if ran.status.success() => println!("ok"),
                Ok(ran) => println!("failed: {}", String::from_utf8_lossy(&ran.stderr).trim().replace('\n', ";")),
                Err(e) => println!("missing: {e}"),
            },
            _ => println!("what?"),
        }
    }
    ExitCode::SUCCESS
}

/// The switch's side of a TAP, polled as the loop does.
pub(crate) struct Side {
    pub(crate) tap: Tap,
    pub(crate) buffer: Buffer,
    poller: Poller,
}

impl Side {
    pub(crate) fn new(tap: Tap) -> Side {
        let mut poller = Poller::new(64).unwrap();
        poller.add(Token(0), &tap).unwrap();
        Side { tap, buffer: Buffer::new(), poller }
    }

    /// Reads until `wanted` gives something.
    pub(crate) fn until<T>(&mut self, mut wanted: impl FnMut(Rx, &[u8]) -> Option<T>) -> T {
        for _ in 0..STEPS {
            self.poller.poll(Some(STEP)).unwrap();
            while let Some(token) = self.poller.next_ready() {
                for _ in 0..self.poller.budget() {
                    let outcome = self.tap.rx(&mut self.buffer);
                    let len = if let Rx::Frame(_, len) = outcome { len } else { 0 };
                    if let Some(found) = wanted(outcome, self.buffer.frame(len)) {
                        return found;
                    }
                    if outcome == Rx::WouldBlock {
                        self.poller.park(token);
                        break;
                    }
                }
            }
        }
        panic!("what was waited for did not come");
    }

    /// The next frame of this EtherType.
    pub(crate) fn frame(&mut self, ethertype: u16) -> (Meta, Vec<u8>) {
        self.until(|outcome, frame| match outcome {
            Rx::Frame(meta, _) if frame[12..14] == ethertype.to_be_bytes() => Some((meta, frame.to_vec())),
            Rx::Frame(..) | Rx::WouldBlock => None,
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn wait_until_gone(&mut self) {
        self.until(|outcome, _| (outcome == Rx::Gone).then_some(()));
    }
}
