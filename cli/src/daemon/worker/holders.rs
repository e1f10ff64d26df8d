//! Who holds a port of the host, as far as the system tells.
//!
//! The kernel lists the sockets of a network namespace with their address, their user and their inode
//! (`/proc/net/tcp` and its siblings, proc_net(5)). Whose the inode is, only the descriptors of the processes say, and those
//! are shown to their own user and to a privileged one. Looking at all of them takes a while: it is nothing for a poll thread.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use crate::publish::Proto;

/// The tables are a thread's, because a thread may have a network namespace of its own.
const TABLES: &str = "/proc/thread-self/net";
/// State of a TCP socket that listens.
const LISTEN: u8 = 0x0a;

/// Who has a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// This process, for a flow of a container.
    Ourselves,
    /// Another process.
    Process {
        /// Its number.
        pid: u32,
        /// What it calls itself.
        name: String,
    },
    /// A process of this user, which the system does not show to us.
    User(u32),
    /// No process any more: the rest of a connection.
    Ended,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Ourselves => f.write_str("a flow of a container of this daemon"),
            Holder::Process { pid, name } => write!(f, "{name} (pid {pid})"),
            Holder::User(uid) => write!(f, "a process of user {uid}, which may not be seen from here"),
            Holder::Ended => f.write_str("a connection that has just ended"),
        }
    }
}

/// Who keeps us from binding here.
pub(super) fn holder(proto: Proto, at: SocketAddrV4) -> Option<Holder> {
    let (v4, v6) = match proto {
        Proto::Tcp => ("tcp", "tcp6"),
        Proto::Udp => ("udp", "udp6"),
    };
    let read = |table: &str| fs::read_to_string(Path::new(TABLES).join(table)).unwrap_or_default();
    let row = worst(rows(&read(v4)).chain(rows(&read(v6))), at)?;
    Some(match row.inode {
        0 => Holder::Ended,
        inode => process_of(inode).unwrap_or(Holder::User(row.uid)),
    })
}

/// A socket, as the kernel lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    local: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

impl Row {
    fn parse(line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, uid, _, inode, ..] = words[..] else { return None };
        let (ip, port) = local.split_once(':')?;
        Some(Row {
            local: SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?),
            state: u8::from_str_radix(state, 16).ok()?,
            uid: uid.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }

    /// Whether nobody else can bind here while this socket is there.
    fn is_in_the_way_of(&self, at: SocketAddrV4) -> bool {
        let ip = self.local.ip().to_canonical();
        let everywhere = ip.is_unspecified() || (at.ip().is_unspecified() && ip.is_ipv4());
        self.local.port() == at.port() && (everywhere || ip == IpAddr::V4(*at.ip()))
    }
}

/// The kernel's words are numbers of this machine's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut octets = [0; 16];
            for at in 0..4 {
                octets[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn rows(table: &str) -> impl Iterator<Item = Row> {
    table.lines().skip(1).filter_map(Row::parse)
}

/// Of all that are in the way, the one that will not go by itself.
fn worst(rows: impl Iterator<Item = Row>, at: SocketAddrV4) -> Option<Row> {
    rows.filter(|row| row.is_in_the_way_of(at)).max_by_key(|row| (row.state == LISTEN, row.inode != 0))
}

fn process_of(inode: u64) -> Option<Holder> {
    let link = format!("socket:[{inode}]");
    let has = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    };
    if has(Path::new("/proc/self")) {
        return Some(Holder::Ourselves);
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let name = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
        has(&process).then(|| Holder::Process { pid, name: name() })
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    const HEADER: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// A line of the kernel's table for this address and port, on a machine of any byte order.
    fn line(ip: &str, port: u16, state: u8, uid: u32, inode: u64) -> String {
        let octets = match ip.parse().unwrap() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = octets.chunks(4).map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())));
        let (local, none) = (words.collect::<String>(), "0".repeat(octets.len() * 2));
        format!(
            "   0: {local}:{port:04X} {none}:0000 {state:02X} 00000000:00000000 00:00000000 00000000 {uid:5}        0 \
             {inode} 1 0000000000000000 100 0 0 10 0\n"
        )
    }

    fn found(table: &str, at: &str) -> Option<u64> {
        worst(rows(table), at.parse().unwrap()).map(|row| row.inode)
    }

    #[test]
    fn whoever_is_in_the_way_is_found_by_address_and_port() {
        let table = [
            HEADER,
            &line("127.0.0.1", 8080, LISTEN, 33, 11),
            &line("0.0.0.0", 22, LISTEN, 0, 12),
            &line("192.0.2.7", 40_000, 1, 1000, 13),
            &line("::", 443, LISTEN, 0, 14),
            &line("::ffff:192.0.2.7", 25, LISTEN, 0, 15),
            &line("2001:db8::1", 9090, LISTEN, 0, 16),
        ]
        .concat();
        for (at, inode) in [
            ("127.0.0.1:8080", Some(11)),
            ("0.0.0.0:8080", Some(11)),
            ("192.0.2.7:8080", None),
            ("192.0.2.7:22", Some(12)),
            ("0.0.0.0:40000", Some(13)),
            ("127.0.0.1:443", Some(14)),
            ("192.0.2.7:25", Some(15)),
            ("192.0.2.8:25", None),
            ("0.0.0.0:9090", None),
            ("0.0.0.0:1", None),
        ] {
            assert_eq!(found(&table, at), inode, "{at}");
        }
    }

    #[test]
    fn a_listener_is_named_rather_than_a_connection_and_that_rather_than_what_is_left_of_one() {
        let (left, connection) = (line("10.0.0.1", 80, 6, 0, 0), line("10.0.0.1", 80, 1, 5, 7));
        let listener = line("10.0.0.1", 80, LISTEN, 5, 9);
        for (lines, inode) in [([&left, &connection, &listener], 9), ([&connection, &left, &left], 7)] {
            let table = format!("{HEADER}{}{}{}", lines[0], lines[1], lines[2]);
            assert_eq!(found(&table, "0.0.0.0:80"), Some(inode));
        }
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        for text in [
            "",
            "x",
            "  0: zz:0050 0:0 0A 0 0 0 0 0 1",
            "  0: 0100007F:0050 00000000:0000 0A",
            "0: 01:0050 0 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(Row::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn our_own_sockets_are_known_as_ours() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (proto, at) in [(Proto::Tcp, tcp.local_addr().unwrap()), (Proto::Udp, udp.local_addr().unwrap())] {
            let SocketAddr::V4(at) = at else { panic!("an IPv4 socket") };
            assert_eq!(holder(proto, at), Some(Holder::Ourselves), "{at}");
        }
    }
}
