//! The tests, and what their figures mean.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

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
}

impl Test {
    pub(crate) fn under_load(self) -> bool {
        matches!(self, Self::Tcp1Load | Self::TcpRrLoad | Self::UdpRrLoad)
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

    pub(crate) fn title(self) -> &'static str {
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
        }
    }

    /// Unit of the figure that is compared.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "Gbit/s",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad => "thousand/s",
            Self::UdpSmall | Self::UdpGso => "thousand/s",
            Self::Idle => "% of one CPU",
        }
    }

    /// Unit of the work that CPU time is divided by; millions are of answers, and of datagrams that were delivered.
    pub(crate) fn work_unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp1Reverse | Self::Tcp4 | Self::Tcp4Reverse | Self::Tcp1Load => "GiB",
            Self::TcpRr | Self::UdpRr | Self::TcpRrLoad | Self::UdpRrLoad => "million",
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
