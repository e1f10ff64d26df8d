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
    /// With --rootless: datagrams of 18 bytes from outside, to a container that asked for them
    UdpDown,
    /// CPU time of the switch while the containers are quiet
    Idle,
    /// One stream, all CPUs kept busy by the containers
    Tcp1Load,
    /// One byte there and back over TCP, all CPUs kept busy by the containers
    TcpRrLoad,
    /// One byte there and back over UDP, all CPUs kept busy by the containers
    UdpRrLoad,
    /// With --nat or --rootless: TCP connections one after the other, one byte there and back on each
    Connect,
    /// With --nat: memory of 100 000 UDP sessions
    Sessions100k,
    /// With --nat: memory of 1 000 000 UDP sessions
    Sessions1m,
    /// With --rootless: memory of idle TCP connections, as many as --flows says
    FlowMemory,
    /// With --rootless: CPU time of the relay while it holds as many
    FlowIdle,
    /// With --rootless: from the start of the program to the first connection from the container
    Startup,
    /// With --rootless: one stream from outside, through a published port
    PublishIn,
    /// With --rootless: one stream to the outside, on a connection through a published port
    PublishOut,
}

impl Test {
    pub(crate) fn under_load(self) -> bool {
        matches!(self, Self::Tcp1Load | Self::TcpRrLoad | Self::UdpRrLoad)
    }

    /// Whether it can be measured in this world.
    pub(crate) fn is_of(self, world: World) -> bool {
        match world {
            World::Switch => !self.needs_own_world() && !self.is_of_the_rootless(),
            World::Nat => !self.is_of_the_rootless(),
            World::Rootless => !self.under_load() && self.sessions().is_none() && self != Self::UdpGso,
        }
    }

    fn is_of_the_rootless(self) -> bool {
        matches!(
            self,
            Self::UdpDown | Self::FlowMemory | Self::FlowIdle | Self::Startup | Self::PublishIn | Self::PublishOut
        )
    }

    /// Whether what it measures hangs on the MTU.
    pub(crate) fn is_of_streams(self) -> bool {
        self.needs_iperf3()
    }

    /// Whether the smaller figure is the better one.
    pub(crate) fn less_is_better(self) -> bool {
        matches!(self.unit(), "% of one CPU" | "bytes a session" | "bytes a connection" | "ms")
    }

    /// Whether it is measured in a world that is built for this one measurement, with room for many sessions: what an
    /// earlier measurement left behind would falsify it.
    pub(crate) fn needs_own_world(self) -> bool {
        matches!(self, Self::Connect | Self::FlowMemory | Self::FlowIdle) || self.sessions().is_some()
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
        matches!(self, Self::Idle | Self::FlowIdle | Self::Startup)
    }

    pub(crate) fn needs_iperf3(self) -> bool {
        self.unit() == "Gbit/s"
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn title(self, world: World) -> &'static str {
        match self {
            Self::Tcp1 if world.is_way_out() => "TCP, 1 stream, up",
            Self::Tcp1Reverse if world.is_way_out() => "TCP, 1 stream, down",
            Self::Tcp4 if world.is_way_out() => "TCP, 4 streams, up",
            Self::Tcp4Reverse if world.is_way_out() => "TCP, 4 streams, down",
            Self::UdpSmall if world.is_way_out() => "UDP, 18-byte datagrams up, delivered",
            Self::UdpGso if world.is_way_out() => "UDP GSO, 1400-byte datagrams up, delivered",
            Self::Tcp1 => "TCP, 1 stream, a to b",
            Self::Tcp1Reverse => "TCP, 1 stream, b to a",
            Self::Tcp4 => "TCP, 4 streams, a to b",
            Self::Tcp4Reverse => "TCP, 4 streams, b to a",
            Self::TcpRr => "TCP request and response, 1 byte",
            Self::UdpRr => "UDP request and response, 1 byte",
            Self::UdpSmall => "UDP, 18-byte datagrams, delivered",
            Self::UdpGso => "UDP GSO, 1400-byte datagrams, delivered",
            Self::UdpDown => "UDP, 18-byte datagrams down, delivered",
            Self::Idle => "Idle switch, CPU of its processes",
            Self::Tcp1Load => "TCP, 1 stream, containers keep all CPUs busy",
            Self::TcpRrLoad => "TCP request and response, containers keep all CPUs busy",
            Self::UdpRrLoad => "UDP request and response, containers keep all CPUs busy",
            Self::Connect => "New TCP connections, 1 byte there and back",
            Self::Sessions100k => "Memory of 100 000 UDP sessions",
            Self::Sessions1m => "Memory of 1 000 000 UDP sessions",
            Self::FlowMemory => "Memory of idle TCP connections",
            Self::FlowIdle => "CPU of the relay's processes, with idle TCP connections",
            Self::Startup => "From the start of the program to the first connection",
            Self::PublishIn => "TCP, 1 stream from outside, through a published port",
            Self::PublishOut => "TCP, 1 stream to the outside, through a published port",
        }
    }

    /// Unit of the figure that is compared.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "Gbit/s",
            Self::PublishIn | Self::PublishOut => "Gbit/s",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad | Self::Connect => "thousand/s",
            Self::UdpSmall | Self::UdpGso | Self::UdpDown => "thousand/s",
            Self::Idle | Self::FlowIdle => "% of one CPU",
            Self::Sessions100k | Self::Sessions1m => "bytes a session",
            Self::FlowMemory => "bytes a connection",
            Self::Startup => "ms",
        }
    }

    /// Unit of the work that CPU time is divided by; millions are of answers, of datagrams that were delivered, of
    /// connections, and of sessions.
    pub(crate) fn work_unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "GiB",
            Self::PublishIn | Self::PublishOut => "GiB",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad => "million",
            Self::Connect | Self::Sessions100k | Self::Sessions1m | Self::FlowMemory => "million",
            Self::UdpSmall | Self::UdpGso | Self::UdpDown => "million",
            Self::Idle | Self::FlowIdle => "second",
            Self::Startup => "start",
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
