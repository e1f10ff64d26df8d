//! Network namespaces, made and spoken to by `ip`, so that what happens can be repeated by hand.

use std::fmt::Display;
use std::process::Command;

use crate::process::output;

/// An ordinary user, and group: nobody's.
pub(crate) const USER: u32 = 65_533;

/// A network namespace. Unless it is removed it ends with the mount namespace that this program lives in.
#[derive(Clone, Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// A new one with its loopback up and `cc` as its congestion control.
    pub(crate) fn new(name: String, cc: &str) -> Result<Self, String> {
        let netns = Self { name };
        output("ip", Command::new("ip").args(["netns", "add", &netns.name]))?;
        netns.furnish(cc)?;
        Ok(netns)
    }

    /// That of the process `pid`, likewise, under a name of its own.
    pub(crate) fn of(name: String, pid: u32, cc: &str) -> Result<Self, String> {
        let netns = Self { name };
        output("ip", Command::new("ip").args(["netns", "attach", &netns.name, &pid.to_string()]))?;
        netns.furnish(cc)?;
        Ok(netns)
    }

    fn furnish(&self, cc: &str) -> Result<(), String> {
        self.ip("link set lo up")?;
        const KEY: &str = "net.ipv4.tcp_congestion_control";
        self.sysctl(KEY, cc)?;
        // sysctl may say nothing about a refusal.
        let inside = output("sysctl", self.command("sysctl").args(["-n", KEY]))?;
        if inside.trim() != cc {
            return Err(format!("the kernel refuses {cc} and keeps {}; try another --cc", inside.trim()));
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run in here. `ip` becomes the program, so that a signal to the child reaches it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// The same, run by [`USER`] without capabilities; the child is `program` here, too.
    pub(crate) fn command_of_user(&self, program: &str) -> Command {
        let mut command = self.command("setpriv");
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--inh-caps=-all"]);
        command.arg(program);
        command
    }

    /// Whether what is in here knows a way out.
    pub(crate) fn has_default_route(&self) -> bool {
        let mut command = Command::new("ip");
        let routes = output("ip route", command.args(["-n", &self.name, "route", "show", "default"]));
        routes.is_ok_and(|routes| !routes.trim().is_empty())
    }

    /// `ip -n NAME ARGS`.
    pub(crate) fn ip(&self, args: &str) -> Result<(), String> {
        output(&format!("ip {args}"), Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace()))
            .map(drop)
    }

    /// Sets a variable of the kernel that each namespace has for itself.
    pub(crate) fn sysctl(&self, key: &str, value: impl Display) -> Result<(), String> {
        output("sysctl", self.command("sysctl").args(["-qw", &format!("{key}={value}")])).map(drop)
    }

    /// Takes the name of one away: it ends with the last process in it.
    pub(crate) fn remove(name: &str) -> Result<(), String> {
        output("ip", Command::new("ip").args(["netns", "del", name])).map(drop)
    }

    /// Switches off what an interface in here does for its stack.
    pub(crate) fn no_offload(&self, interface: &str) -> Result<(), String> {
        // One by one: a feature that the driver has not, or that followed another one, is no failure.
        for feature in ["tso", "gso", "gro", "tx-udp-segmentation", "tx", "rx", "sg"] {
            let _ = output("ethtool", self.command("ethtool").args(["-K", interface, feature, "off"]));
        }
        let now = output("ethtool", self.command("ethtool").args(["-k", interface]))?;
        let wanted = ["tcp-segmentation-offload", "tx-udp-segmentation", "generic-receive-offload"];
        match wanted.into_iter().find(|feature| now.contains(&format!("{feature}: on"))) {
            Some(feature) => Err(format!("{feature} of {interface} in {} cannot be switched off", self.name)),
            None => Ok(()),
        }
    }
}
