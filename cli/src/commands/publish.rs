//! `publish` and `unpublish`: ports of a container that can be reached from outside.

use std::net::Ipv4Addr;

use super::connect;
use crate::api::{Published, Spec};
use crate::args::Global;
use crate::error::Error;
use crate::output;

pub(super) fn publish(global: &Global, name: &str, specs: &[Spec]) -> Result<(), Error> {
    let published = connect(global)?.publish(name, specs)?;
    if global.json { output::print_json(&published) } else { output::print(&lines(name, &published)) }
}

pub(super) fn unpublish(global: &Global, name: &str, specs: &[Spec]) -> Result<(), Error> {
    let ended = connect(global)?.unpublish(name, specs)?;
    if global.json {
        return output::print_json(&ended);
    }
    output::print(&ended_lines(name, &ended))
}

/// What is published no longer. Of a container that never came, free ports were not even picked.
fn ended_lines(name: &str, ended: &[Published]) -> String {
    if ended.is_empty() {
        return format!("nothing of {name} was published yet, and it will not be\n");
    }
    ended.iter().map(|published| format!("{published} of {name} is published no longer\n")).collect()
}

/// One line for each range of published ports, in words.
pub(super) fn lines(name: &str, published: &[Published]) -> String {
    published.iter().map(|published| line(name, published)).collect()
}

fn line(name: &str, published: &Published) -> String {
    let Published { host, host_ports, ports, proto } = published;
    let host = if *host == Ipv4Addr::UNSPECIFIED { "every address".to_owned() } else { host.to_string() };
    let (from, to) = if ports.count() == 1 { ("port", "port") } else { ("ports", "ports") };
    format!("{proto} {from} {host_ports} of {host} -> {to} {ports} of {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Ports, Proto};

    #[test]
    fn who_can_reach_a_port_is_said_plainly() {
        let (host, one) = (Ipv4Addr::UNSPECIFIED, |port| Ports::one(port).unwrap());
        let web = Published { host, host_ports: one(8080), ports: one(80), proto: Proto::Tcp };
        assert_eq!(ended_lines("web", &[web]), "0.0.0.0:8080->80/tcp of web is published no longer\n");
        assert_eq!(ended_lines("web", &[]), "nothing of web was published yet, and it will not be\n");
        let range = |first| Ports::new(first, first + 9).unwrap();
        let host = Ipv4Addr::new(192, 0, 2, 2);
        let dns = Published { host, host_ports: range(5300), ports: range(50), proto: Proto::Udp };
        assert_eq!(
            lines("web", &[web, dns]),
            "tcp port 8080 of every address -> port 80 of web\n\
             udp ports 5300-5309 of 192.0.2.2 -> ports 50-59 of web\n"
        );
    }
}
