//! Open vSwitch's datapath in user space: a database and a daemon of our own, in a namespace of their own.
//!
//! The system's service is not touched: every socket, log and file is in a private directory, and the directory that the
//! service uses is out of sight. Ports are of type `tap`: the daemon makes the TAP beside itself, and it is then moved
//! into the container; with userspace TSO it carries super-frames. (Its packet sockets on veth pairs do so too, but were
//! slower, and lose frames under TCP.) After the move the daemon cannot ask the kernel about the device, complains about
//! that in its log, and works.

use std::process::Command;

use crate::process::{Process, output};

use super::{INTERFACE, Peer, START, Site};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(super) fn build(site: Site) -> Result<Peer, String> {
    let dir = &site.dir;
    let middle = site.middle()?;
    let database = dir.join("conf.db");
    output("ovsdb-tool", Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
    let socket = dir.join("db.sock");
    let private = |command: &mut Command| {
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, dir);
        }
    };
    let vsctl = |args: &str| {
        let mut command = Command::new("ovs-vsctl");
        private(&mut command);
        command.arg(format!("--db=unix:{}", socket.display())).arg("--timeout=5").args(args.split_whitespace());
        output("ovs-vsctl", &mut command).map(drop)
    };

    let mut command = middle.command("ovsdb-server");
    private(&mut command);
    command.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
    let mut server =
        Process::start("ovsdb-server", command.arg(format!("--unixctl={}", dir.join("db.ctl").display())))?;
    server.until(|| socket.exists(), START)?;
    vsctl("--no-wait init")?;
    // Has to be there before the daemon reads it.
    vsctl(&format!("--no-wait set Open_vSwitch . other_config:userspace-tso-enable={}", site.offload))?;

    let mut command = middle.command("ovs-vswitchd");
    private(&mut command);
    command.arg(format!("unix:{}", socket.display())).arg(format!("--unixctl={}", dir.join("vs.ctl").display()));
    let mut daemon = Process::start("ovs-vswitchd", &mut command)?;
    daemon.until(|| dir.join("vs.ctl").exists(), START)?;
    vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=standalone")?;
    for (port, (end, _)) in ["t1", "t2"].into_iter().zip(site.ends()) {
        vsctl(&format!("add-port br0 {port} -- set interface {port} type=tap"))?;
        middle.ip(&format!("link set {port} netns {} name {INTERFACE}", end.name()))?;
    }
    site.configure()?;
    let version = output("ovs-vswitchd", Command::new("ovs-vswitchd").arg("--version"))?;
    let version = version.split_whitespace().last().unwrap_or_default().to_owned();
    let tso = if site.offload { "userspace TSO" } else { "no userspace TSO" };
    Ok(site.peer(format!("Open vSwitch {version}, datapath_type=netdev, {tso}, TAP ports"), vec![server, daemon]))
}
