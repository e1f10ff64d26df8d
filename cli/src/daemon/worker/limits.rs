//! How many flows the daemon's descriptors allow.
//!
//! Each flow of an uplink is a descriptor. The daemon takes as many as it may have, keeps some for itself (TAPs, control
//! connections, files), and shares the rest among its networks, so that running out is refused to one container with a
//! named drop and never hits the daemon's own work. How containers share is the relay's matter.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tapswitch_relay::Limits;
use tapswitch_switch::MAX_PORTS;

/// Descriptors that a poll thread has of its own, and then some.
const OF_A_THREAD: u64 = 8;

/// Raises the limit of open files as far as an ordinary user may, and divides it among `networks`.
pub(super) fn flows(networks: usize, queues: usize, threads: usize) -> Limits {
    let most = Limits::default();
    // One for each queue of each TAP of a full switch.
    let reserved = (MAX_PORTS * queues.max(1)) as u64 + OF_A_THREAD * threads as u64;
    let files = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        },
        Ok((soft, _)) => soft,
        Err(_) => return most,
    };
    let ports = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok().and_then(|range| part_of(&range));
    let most = Limits { ports: ports.unwrap_or(most.ports) / networks.max(1), ..most };
    share(files, reserved, networks, most)
}

/// Five eighths of a range of ports, written as the kernel does: the others are for everybody else on the host.
fn part_of(range: &str) -> Option<usize> {
    let mut ends = range.split_whitespace().map(|port| port.parse::<usize>().ok());
    let (first, last) = (ends.next()??, ends.next()??);
    Some((last.checked_sub(first)? + 1) * 5 / 8)
}

fn share(files: u64, reserved: u64, networks: usize, most: Limits) -> Limits {
    let for_flows = files.saturating_sub(reserved.min(files / 2));
    let each = usize::try_from(for_flows).unwrap_or(usize::MAX) / networks.max(1);
    let flows = each.clamp(1, most.flows);
    Limits { flows, flows_per_container: most.flows_per_container.min(flows), ports: most.ports }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVED: u64 = 512;

    #[test]
    fn lm_4_ephemeral_ports_are_left_to_the_host() {
        assert_eq!(part_of("32768\t60999\n"), Some(17_645));
        assert_eq!(part_of("60999 32768"), None);
        assert_eq!(part_of(""), None);
    }

    #[test]
    fn flows_never_take_the_descriptors_that_the_daemon_needs() {
        let most = Limits::default();
        assert_eq!(share(1 << 20, 512, 1, most), most);
        for (files, networks) in [(1024, 1), (1024, 3), (4096, 2), (64, 1), (0, 1)] {
            let limits = share(files, RESERVED, networks, most);
            let all = limits.flows as u64 * networks as u64;
            assert!(
                files < 2 || all + files.min(RESERVED.min(files / 2)) <= files,
                "{files} files, {networks} networks"
            );
            assert!(limits.flows_per_container <= limits.flows && limits.flows_per_container > 0);
        }
    }
}
