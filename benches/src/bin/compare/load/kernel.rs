//! What the kernel counts in the network namespace that this process runs in.

use std::collections::BTreeMap;

/// Frames that interfaces other than the loopback did not send, and did not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InterfaceDrops {
    pub tx: u64,
    pub rx: u64,
}

pub(super) fn interface_drops() -> Result<InterfaceDrops, String> {
    read("/proc/self/net/dev").map(|text| parse_dev(&text))
}

/// Datagrams that reached UDP and no program: full buffers, bad checksums and the like (`InErrors`, which includes the
/// `RcvbufErrors`).
pub(super) fn udp_errors() -> Result<u64, String> {
    udp_errors_of("self")
}

/// Of the network namespace of the process `pid`.
pub(crate) fn udp_errors_of(pid: &str) -> Result<u64, String> {
    let text = read(&format!("/proc/{pid}/net/snmp"))?;
    parse_snmp(&text, "Udp").get("InErrors").copied().ok_or_else(|| "no InErrors of Udp in /proc/net/snmp".into())
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Of `/proc/net/dev`: per interface 8 columns of receiving, the fourth of which are drops, then as many of sending.
fn parse_dev(text: &str) -> InterfaceDrops {
    let mut sum = InterfaceDrops::default();
    for (name, columns) in text.lines().filter_map(|line| line.split_once(':')) {
        let columns: Vec<u64> = columns.split_whitespace().map_while(|column| column.parse().ok()).collect();
        if let (true, Some(rx), Some(tx)) = (name.trim() != "lo", columns.get(3), columns.get(11)) {
            sum.rx += rx;
            sum.tx += tx;
        }
    }
    sum
}

/// Of `/proc/net/snmp`: for each protocol a line of names, then one of values.
fn parse_snmp<'a>(text: &'a str, protocol: &str) -> BTreeMap<&'a str, u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name == protocol);
    let (Some((_, names)), Some((_, values))) = (lines.next(), lines.next()) else { return BTreeMap::new() };
    let values = values.split(' ').map(|value| value.parse().unwrap_or(0));
    names.split(' ').zip(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_drops_are_summed_without_the_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100      1    0    9    0     0          0         0      100       1    0    9    0     0       0          0\n  \
            eth0:     100      1    0    3    0     0          0         0      100       1    0    5    0     0       0          0\n  \
            eth1:     100      1    0    1    0     0          0         0      100       1    0    2    0     0       0          0\n";
        assert_eq!(parse_dev(text), InterfaceDrops { tx: 7, rx: 4 });
    }

    #[test]
    fn snmp_pairs_names_with_values() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\nUdp: InDatagrams NoPorts InErrors\nUdp: 12 3 4\nUdpLite: InErrors\nUdpLite: 9\n";
        assert_eq!(parse_snmp(text, "Udp").get("InErrors"), Some(&4));
        assert_eq!(parse_snmp(text, "Ip").get("DefaultTTL"), Some(&64));
        assert!(parse_snmp(text, "Tcp").is_empty());
    }
}
