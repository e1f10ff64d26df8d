//! Arguments of `explain`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;

use crate::api::{Carried, TcpFlag};

pub(super) const EXAMPLES: &str = "\
Examples:
  tapswitch explain --from web --to 192.0.2.9 --dport 443
  tapswitch explain --from web --to db --dport 5432
  tapswitch explain --from web --to example.net --dport 443 --probe
                          (really asks whether somebody listens there)
  tapswitch explain --from web --to 192.0.2.9 --size 9000 --df
  tapswitch explain --from web --pcap all.pcapng --packet 17

Nothing is sent, and nothing changes: the packet meets a copy of the switch as
it is at this moment. What comes next is what would happen to the real one.";

/// Which packet `explain` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ExplainArgs {
    /// The container that would send it, as `tapswitch ls` shows it [default: none, it must be named]
    #[arg(long, value_name = "NAME")]
    pub from: String,
    /// Where to: an address, a container's name, or a name that the host's resolver knows [default: none, it
    /// must be named unless there is --pcap]
    #[arg(long, value_name = "ADDR", required_unless_present = "pcap")]
    pub to: Option<String>,
    /// What it carries; icmp is an echo request [default: tcp if there is a --dport, else icmp]
    #[arg(long, value_name = "PROTO")]
    pub proto: Option<Carried>,
    /// Destination port [default: 80 for tcp, 53 for udp]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub dport: Option<u16>,
    /// Source port, or identifier of the echo request [default: 40000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub sport: Option<u16>,
    /// Source address [default: the container's]
    #[arg(long, value_name = "IP")]
    pub src: Option<Ipv4Addr>,
    /// Bytes of the IP packet, with its header [default: as small as is usual]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u16>,
    /// It must not be fragmented [default: only tcp must not]
    #[arg(long)]
    pub df: bool,
    /// Time to live [default: 64]
    #[arg(long, value_name = "N")]
    pub ttl: Option<u8>,
    /// Flags of tcp, with commas between them [default: syn]
    #[arg(long, value_name = "FLAGS", value_delimiter = ',')]
    pub tcp_flags: Vec<TcpFlag>,
    /// A packet of this pcap or pcapng file instead [default: the one that the options above describe]
    #[arg(long, value_name = "FILE", requires = "packet", conflicts_with_all = DESCRIBING)]
    pub pcap: Option<PathBuf>,
    /// Its number in the file, from 1 on as Wireshark counts [default: none, it must be named with --pcap]
    #[arg(long, value_name = "N", requires = "pcap", value_parser = clap::value_parser!(u64).range(1..))]
    pub packet: Option<u64>,
    /// If it would become a connection of the host, really open that and close it again, to see whether somebody
    /// listens [default: nothing is sent]
    #[arg(long)]
    pub probe: bool,
}

/// What describes a packet, which a file does already.
const DESCRIBING: [&str; 9] = ["to", "proto", "dport", "sport", "src", "size", "df", "ttl", "tcp_flags"];
