//! What sessions cost, wherever they are kept.

use crate::options::PeerKind;

use super::{Netns, Peer, Plan, kernel};
use crate::cpu;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of processes, their resident sets; of the kernel, the slab of conntrack entries.
    pub bytes: u64,
    /// Of the kernel, all slabs.
    pub slabs: Option<u64>,
    /// What is in those slabs that every TCP connection has parts in: [`OF_CONNECTIONS`].
    pub connections: Option<u64>,
}

/// Slabs of sockets, of their files, of what waits for them and of what tracks them. Names in the file system are left out,
/// though a socket has one, for other work on the machine changes their number most.
const OF_CONNECTIONS: [&str; 8] = [
    "TCP",
    "request_sock_TCP",
    "tw_sock_TCP",
    "sock_inode_cache",
    "filp",
    "eventpoll_epi",
    "eventpoll_pwq",
    "nf_conntrack",
];

impl Peer {
    /// Whether it is there for the tests of streams only.
    pub(crate) fn only_streams(&self) -> bool {
        let plan = self.way_out.as_ref().map(|way_out| &way_out.plan);
        matches!(plan, Some(Plan::Other(PeerKind::Pasta1500 | PeerKind::Slirp4netns1500)))
    }

    /// Whether it keeps sessions that can be counted and weighed: a relay keeps sockets, and a router nothing.
    pub(crate) fn tracks(&self) -> bool {
        let plan = self.way_out.as_ref().map(|way_out| &way_out.plan);
        matches!(plan, Some(Plan::Tapswitch(PeerKind::Nat, _) | Plan::Other(PeerKind::BridgeNft)))
    }

    /// Sessions that it has now.
    pub(crate) fn sessions(&self) -> Result<u64, String> {
        match &self.control {
            Some(control) => control.flows(),
            None => kernel::read(self.gateway()?, kernel::COUNT),
        }
    }

    /// Says why it could not hold so many sessions, if that is known.
    pub(crate) fn check_room(&self, sessions: u32) -> Result<(), String> {
        if self.in_user_space() {
            return Ok(());
        }
        let max = kernel::read(self.gateway()?, kernel::MAX)?;
        // Some room for what is not ours.
        let needed = u64::from(sessions) * 11 / 10;
        if max >= needed {
            return Ok(());
        }
        Err(format!(
            "this machine's kernel tracks at most {max} sessions; allow more with sysctl -w {}={needed}, and set it back \
             to {max} afterwards",
            kernel::MAX
        ))
    }

    pub(crate) fn held(&self) -> Result<Held, String> {
        match self.switch.first() {
            Some(daemon) => {
                let of = |pid: u32| {
                    let path = format!("/proc/{pid}/status");
                    resident(&read(&path)?).ok_or_else(|| format!("no VmRSS in {path}"))
                };
                let bytes = cpu::family(daemon.borrow().id()).into_iter().map(of).sum::<Result<_, String>>()?;
                let connections = if self.is_of_user() { Some(of_connections(&read("/proc/slabinfo")?)) } else { None };
                Ok(Held { bytes, slabs: None, connections })
            }
            None => {
                let text = read("/proc/slabinfo")?;
                let bytes = slab(&text, "nf_conntrack").ok_or("no nf_conntrack in /proc/slabinfo")?;
                let slabs = all_slabs(&read("/proc/meminfo")?).ok_or("no Slab in /proc/meminfo")?;
                Ok(Held { bytes, slabs: Some(slabs), connections: Some(of_connections(&text)) })
            }
        }
    }

    fn gateway(&self) -> Result<&Netns, String> {
        let way_out = self.way_out.as_ref().ok_or("it has no gateway")?;
        Ok(&way_out.gateway)
    }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Of `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    kibibytes(status, "VmRSS")
}

/// Of `/proc/meminfo`.
fn all_slabs(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "Slab")
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.split_once(':')).filter(|(found, _)| *found == name);
    let (_, value) = values.next()?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Bytes of the objects of one slab in `/proc/slabinfo`, those between allocation and next use included:
/// `name <active_objs> <num_objs> <objsize> ...`.
fn slab(slabinfo: &str, name: &str) -> Option<u64> {
    let line = slabinfo.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let mut columns = line.split_whitespace().skip(2).map_while(|column| column.parse::<u64>().ok());
    Some(columns.next()? * columns.next()?)
}

/// Bytes of the objects in use of [`OF_CONNECTIONS`]. A slab that has no name of its own is shared, and not counted.
fn of_connections(slabinfo: &str) -> u64 {
    let in_use = |line: &str| {
        let mut columns = line.split_whitespace();
        let _ours = columns.next().filter(|name| OF_CONNECTIONS.contains(name))?;
        let mut columns = columns.map_while(|column| column.parse::<u64>().ok());
        let (active, size) = (columns.next()?, columns.nth(1)?);
        Some(active * size)
    };
    slabinfo.lines().filter_map(in_use).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    8 kB\nRssAnon:\t 4 kB\n"), Some(8192));
        assert_eq!(all_slabs("MemTotal: 9 kB\nSlab:       3 kB\nSReclaimable: 1 kB\n"), Some(3072));
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs>\n\
            nf_conntrack_expect 1 2 208 19 1 : tunables 0 0 0 : slabdata 0 0 0\n\
            nf_conntrack        10 16 256 16 1 : tunables 0 0 0 : slabdata 1 1 0\n";
        assert_eq!(slab(slabinfo, "nf_conntrack"), Some(4096));
        assert_eq!(slab(slabinfo, "nf_conntrac"), None);
        let slabinfo = format!("{slabinfo}TCP 3 8 2368 13 8 : tunables 0 0 0\nTCPv6 5 5 2496 1 1\n");
        assert_eq!(of_connections(&slabinfo), 10 * 256 + 3 * 2368);
    }
}
