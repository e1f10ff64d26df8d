//! The tests, and what their figures mean.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::world::World;

/// A test. Its name in JSON is the one on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Test {
    /// One stream
    Tcp1,
    /// One stream, the other way
    Tcp1Reverse,
    /// Four streams at once
    Tcp4,
    /// Four streams at once, the other way
    Tcp4Reverse,
    /// One byte there and back over TCP
    TcpRr,
    /// One byte there and back over UDP
    UdpRr,
    /// Datagrams of 18 bytes
    UdpSmall,
    /// Datagrams of 1400 bytes, sent with UDP_SEGMENT, received with UDP_GRO
    UdpGso,
    /// CPU time of the switch while the containers are quiet
    Idle,
    /// One stream, all CPUs kept busy by the containers
    Tcp1Load,
    /// One byte there and back over TCP, all CPUs kept busy by the containers
    TcpRrLoad,
    /// One byte there and back over UDP, all CPUs kept busy by the containers
    UdpRrLoad,
    /// With --nat: TCP connections one after the other, one byte there and back on each
    Connect,
    /// With --nat: memory of 100 000 UDP sessions
    Sessions100k,
    /// With --nat: memory of 1 000 000 UDP sessions
    Sessions1m,
}

impl Test {
    pub(crate) fn under_load(self) -> bool {
        matches!(self, Self::Tcp1Load | Self::TcpRrLoad | Self::UdpRrLoad)
    }

    /// Whether it can be measured in this world.
    pub(crate) fn is_of(self, world: World) -> bool {
        world == World::Nat || !self.needs_own_world()
    }

    /// Whether it is measured in a world that is built for this one measurement, with room for many sessions: what an
    /// earlier measurement left behind would falsify it.
    pub(crate) fn needs_own_world(self) -> bool {
        self == Self::Connect || self.sessions().is_some()
    }

    /// Sessions that are opened and held at once.
    pub(crate) fn sessions(self) -> Option<u32> {
        match self {
            Self::Sessions100k => Some(100_000),
            Self::Sessions1m => Some(1_000_000),
            _ => None,
        }
    }

    /// Whether it says something about a peer whose switch is the kernel.
    pub(crate) fn needs_switch_process(self) -> bool {
        self == Self::Idle
    }

    pub(crate) fn needs_iperf3(self) -> bool {
        matches!(self, Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load)
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn title(self, world: World) -> &'static str {
        match (self, world) {
            (Self::Tcp1, World::Nat) => return "TCP, 1 stream, up",
            (Self::Tcp1Reverse, World::Nat) => return "TCP, 1 stream, down",
            (Self::Tcp4, World::Nat) => return "TCP, 4 streams, up",
            (Self::Tcp4Reverse, World::Nat) => return "TCP, 4 streams, down",
            (Self::UdpSmall, World::Nat) => return "UDP, 18-byte datagrams up, delivered",
            (Self::UdpGso, World::Nat) => return "UDP GSO, 1400-byte datagrams up, delivered",
            _ => {}
        }
        match self {
            Self::Tcp1 => "TCP, 1 stream, a to b",
            Self::Tcp1Reverse => "TCP, 1 stream, b to a",
            Self::Tcp4 => "TCP, 4 streams, a to b",
            Self::Tcp4Reverse => "TCP, 4 streams, b to a",
            Self::TcpRr => "TCP request and response, 1 byte",
            Self::UdpRr => "UDP request and response, 1 byte",
            Self::UdpSmall => "UDP, 18-byte datagrams, delivered",
            Self::UdpGso => "UDP GSO, 1400-byte datagrams, delivered",
            Self::Idle => "Idle switch, CPU of its processes",
            Self::Tcp1Load => "TCP, 1 stream, containers keep all CPUs busy",
            Self::TcpRrLoad => "TCP request and response, containers keep all CPUs busy",
            Self::UdpRrLoad => "UDP request and response, containers keep all CPUs busy",
            Self::Connect => "New TCP connections, 1 byte there and back",
            Self::Sessions100k => "Memory of 100 000 UDP sessions",
            Self::Sessions1m => "Memory of 1 000 000 UDP sessions",
        }
    }

    /// Unit of the figure that is compared.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "Gbit/s",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad | Self::Connect => "thousand/s",
            Self::UdpSmall | Self::UdpGso => "thousand/s",
            Self::Idle => "% of one CPU",
            Self::Sessions100k | Self::Sessions1m => "bytes a session",
        }
    }

    /// Unit of the work that CPU time is divided by; millions are of answers, of datagrams that were delivered, of
    /// connections, and of sessions.
    pub(crate) fn work_unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "GiB",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad => "million",
            Self::Connect | Self::Sessions100k | Self::Sessions1m => "million",
            Self::UdpSmall | Self::UdpGso => "million",
            Self::Idle => "second",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_has_one_name() {
        for test in Test::value_variants() {
            assert_eq!(serde_json::to_string(test).expect("JSON"), format!("\"{}\"", test.name()));
        }
    }
}
