//! A container of our own: a child process in namespaces of its own, with an interface on a network.
//!
//! # How it is made
//!
//! Entering namespaces takes a process of one thread, and this one may run a whole switch. So the child is this same
//! program, started again with a hidden verb ([`VERB`]). Its standard input is one end of a socket pair, over which the
//! two exchange lines of JSON, some with a descriptor beside them:
//!
//! | parent | child |
//! |---|---|
//! | starts it | asks the kernel to be killed when the parent ends |
//! | [`Plan`], with the container's real standard input | enters new namespaces, makes the interface |
//! | | [`Made::Tap`] with the TAP, or [`Made::Failed`] with the reason |
//! | hands the TAP to the switch; "go" | becomes the waiting half of `tapswitch_link::process::spawn_init` |
//!
//! If the socket ends at any point before "go", so does the child. Afterwards the kernel kills each process with the
//! one before it, so nothing is left behind, however this process ends. The kernel takes "this process" to be the
//! *thread* that started the child: it must be one that lives as long as the container shall, in practice the main
//! thread.
//!
//! The child's exit status is the command's, 128 + n if signal n ended it, 127 if there is no such command, 126 if it
//! cannot be executed, and [`FAILED`] if a process could not be made.

mod child;
mod lines;

use std::ffi::OsString;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tapswitch_link::netns::Interface;
use tapswitch_wire::Mac;

use crate::api::AttachOffer;
use crate::error::Error;
use lines::{Lines, NONE};

pub(crate) use child::main;

/// The hidden verb of the child.
pub(crate) const VERB: &str = "__container";
/// Exit status if tapswitch itself failed (as `docker run` has it).
pub(crate) const FAILED: u8 = 125;

/// How long the child may take for namespaces and an interface; they are ready within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the container shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Its host name.
    pub hostname: String,
    /// The text of its /etc/resolv.conf; the host's file if absent.
    pub resolv_conf: Option<String>,
    /// Its interface.
    pub interface: InterfacePlan,
    /// The command and its arguments.
    pub argv: Vec<OsString>,
}

/// [`Interface`] as it travels to the child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterfacePlan {
    name: String,
    mac: Mac,
    mtu: u16,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    offload: bool,
    queues: usize,
}

impl InterfacePlan {
    /// The interface that the daemon offers. Without an address it has no route either: a DHCP client sets both.
    pub(crate) fn new(offer: &AttachOffer, name: &str, offload: bool) -> InterfacePlan {
        InterfacePlan {
            name: name.to_owned(),
            mac: offer.mac,
            mtu: offer.mtu,
            address: offer.ip.map(|ip| (ip, offer.subnet.prefix_len())),
            gateway: offer.ip.and(offer.gateway),
            offload,
            queues: offer.queues,
        }
    }
}

impl From<InterfacePlan> for Interface {
    fn from(plan: InterfacePlan) -> Interface {
        let InterfacePlan { name, mac, mtu, address, gateway, offload, queues } = plan;
        Interface { name, mac, mtu, address, gateway, offload, queues }
    }
}

/// The first thing that the child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    /// The process that it must not outlive.
    parent: u32,
    plan: Plan,
}

/// What came of the plan.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Made {
    /// The interface is there, and the queues of its TAP come with this line.
    Tap,
    /// It is not, and this is why.
    Failed(String),
}

/// The command may start.
#[derive(Debug, Serialize, Deserialize)]
struct Go;

/// Whose signals from the terminal the container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Ours: Ctrl-C reaches it.
    Ours,
    /// Its own, in the background.
    Own,
}

/// A container. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Container {
    child: Child,
    lines: Lines,
}

impl Container {
    /// Makes the namespaces and the interface, of whose TAP it returns the queues; the command waits for [`Container::go`].
    pub(crate) fn make(plan: Plan, stdin: BorrowedFd<'_>, group: Group) -> Result<(Container, Vec<OwnedFd>), Error> {
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair for a container"))?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed("wait for a container"))?;
        ours.set_write_timeout(Some(PATIENCE)).map_err(failed("wait for a container"))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tapswitch").arg(VERB).stdin(Stdio::from(OwnedFd::from(theirs)));
        if group == Group::Own {
            command.process_group(0);
        }
        let child = command.spawn().map_err(failed("start this program (/proc/self/exe) for a container"))?;
        // Its copies of the other end of the socket are closed with this.
        drop(command);
        let mut container = Container { child, lines: Lines::new(ours) };
        let order = Order { parent: std::process::id(), plan };
        container.lines.send(&order, &[stdin]).map_err(failed("tell a container what to be"))?;
        match container.lines.receive().map_err(failed("hear from a container"))? {
            Some((Made::Tap, tap)) if !tap.is_empty() => Ok((container, tap)),
            Some((Made::Failed(why), _)) => Err(Error::Failed(why)),
            Some((Made::Tap, _)) | None => Err(container.lost()),
        }
    }

    /// Lets the command start.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        self.lines.send(&Go, NONE).map_err(failed("start the container's command"))
    }

    /// Passes a signal on to the command.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended this moment; then there is nobody to tell.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The status to exit with, if the command has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<u8>, Error> {
        Ok(self.child.try_wait().map_err(failed("wait for a container"))?.map(status_of))
    }

    /// Waits for the command to end, and gives the status to exit with.
    pub(crate) fn wait(mut self) -> Result<u8, Error> {
        self.child.wait().map(status_of).map_err(failed("wait for a container"))
    }

    fn lost(&mut self) -> Error {
        // Whatever ended the socket ends the child too, or it has ended already.
        let how = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Error::failed(format!("a container ended before its interface was made ({how}); try again"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status that a shell would show.
fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn failed<E: Display>(tried: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::failed(format!("cannot {tried}: {error}; try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(ip: Option<Ipv4Addr>) -> AttachOffer {
        AttachOffer {
            network: "default".into(),
            name: "web".into(),
            mac: Mac([2, 0x42, 10, 0, 0, 2]),
            ip,
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: 1500,
            queues: 1,
        }
    }

    #[test]
    fn interface_has_address_and_route_or_neither() {
        let set = InterfacePlan::new(&offer(Some(Ipv4Addr::new(10, 0, 0, 2))), "eth0", true);
        assert_eq!(set.address, Some((Ipv4Addr::new(10, 0, 0, 2), 24)));
        assert_eq!(set.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        let unset = InterfacePlan::new(&offer(None), "eth0", true);
        assert_eq!((unset.address, unset.gateway), (None, None));
        let internal = AttachOffer { gateway: None, ..offer(Some(Ipv4Addr::new(10, 0, 0, 2))) };
        let internal = InterfacePlan::new(&internal, "eth0", true);
        assert_eq!((internal.address, internal.gateway), (set.address, None), "a network without a way out");
    }

    #[test]
    fn plan_travels_as_one_line_whatever_the_arguments_hold() {
        use std::os::unix::ffi::OsStringExt;
        let plan = Plan {
            hostname: "web".into(),
            resolv_conf: Some("nameserver 10.0.0.1\n".into()),
            interface: InterfacePlan::new(&offer(None), "eth0", false),
            argv: vec!["echo".into(), "a\nb".into(), OsString::from_vec(vec![0xff, 0xfe])],
        };
        let line = serde_json::to_string(&Order { parent: 1, plan: plan.clone() }).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap().plan, plan);
    }

    #[test]
    fn status_is_the_commands_or_tells_the_signal() {
        for (raw, status) in [(0, 0), (7 << 8, 7), (125 << 8, 125), (9, 137), (15, 143), (6 | 0x80, 134)] {
            assert_eq!(status_of(ExitStatus::from_raw(raw)), status, "wait status {raw:#x}");
        }
    }
}
