//! Why ports are not published: what was tried, who is in the way, and what to do.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::libc;

use super::doors::Trouble;
use super::holders;
use super::lan::Lan;
use crate::daemon::command::{Refusal, Reply};
use crate::publish::{Ports, Proto, Spec};

/// Why ports were not published.
#[derive(Debug)]
pub(super) enum Refused {
    /// The reason is known.
    Known(Refusal),
    /// Somebody on the host has a port: `text` ends where the name belongs.
    Held { text: String, advice: String, proto: Proto, at: SocketAddrV4 },
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused::Known(refusal)
    }
}

impl Refused {
    /// With the name of whoever is in the way. This may look at every process of the host.
    fn found_out(self) -> Refusal {
        match self {
            Refused::Known(refusal) => refusal,
            Refused::Held { text, advice, proto, at } => Refusal::Conflict(match holders::holder(proto, at) {
                Some(holder) => format!("{text} is in use by {holder}; {advice}"),
                None => format!("{text} is in use, and the system does not tell by whom; {advice}"),
            }),
        }
    }
}

/// Answers. What is still to be found out is left to another thread.
pub(super) fn answer<T: Send + 'static>(reply: Reply<Result<T, Refusal>>, result: Result<T, Refused>) {
    // Who asked may have gone away.
    match result {
        Ok(value) => drop(reply.send(Ok(value))),
        Err(Refused::Known(refusal)) => drop(reply.send(Err(refusal))),
        Err(held) => {
            let tell = move || drop(reply.send(Err(held.found_out())));
            if let Err(error) = std::thread::Builder::new().name("holders".into()).spawn(tell) {
                // The answer is lost with its closure, and who asked hears that there is none.
                tracing::warn!("cannot start a thread to see who has a port: {error}; raise the limit (ulimit -u)");
            }
        }
    }
}

/// Says what is wrong, on whose port, and what to do.
pub(super) fn refused(lan: &Lan, name: &str, spec: &Spec, is_kept: bool, trouble: Trouble) -> Refused {
    let (begin, advice) = if is_kept {
        let without = format!("end that, or let {name} do without: tapswitch unpublish {name} {spec}");
        (format!("cannot attach {name}, which publishes {spec}"), without)
    } else {
        (format!("cannot publish {spec} of {name}"), "choose another".to_owned())
    };
    let at = |port: u16| match (lan.plan.uplink.is_user(), spec.host) {
        (false, _) => format!("outside port {port}"),
        (true, None) => format!("port {port}/{} of this host", spec.proto),
        (true, Some(host)) => format!("port {port}/{} of {host}", spec.proto),
    };
    let count = spec.ports.count();
    Refused::Known(match trouble {
        Trouble::Published(port, holder) if holder == name => Refusal::Conflict(format!(
            "{begin}: {} is published for it already; see what it publishes with: tapswitch ls",
            at(port)
        )),
        Trouble::Published(port, holder) => {
            Refusal::Conflict(format!("{begin}: {} is published for {holder} already; {advice}", at(port)))
        }
        Trouble::InUse(port, holder) => {
            Refusal::Conflict(format!("{begin}: {} is in use by a flow of {holder}; {advice}", at(port)))
        }
        Trouble::BadRange => Refusal::Conflict(format!("{begin}: that is no range of ports; choose another")),
        Trouble::TooMany(share) => Refusal::Full(format!(
            "{begin}: each port is a socket, and {name} may have {share}, flows included; publish fewer, or raise the limit of \
             the daemon (ulimit -n)"
        )),
        Trouble::NoneFree if count == 1 => Refusal::Full(format!("{begin}: no free port was found; name one")),
        Trouble::NoneFree => {
            Refusal::Full(format!("{begin}: no {count} free ports in a row were found; name some, or publish fewer"))
        }
        Trouble::Host(port, error) => match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                let host = spec.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
                let text = format!("{begin}: {}", at(port));
                return Refused::Held { text, advice, proto: spec.proto, at: SocketAddrV4::new(host, port) };
            }
            Some(libc::EACCES) => Refusal::Invalid(privileged(&begin, spec, port)),
            Some(libc::EADDRNOTAVAIL) => Refusal::Invalid(format!(
                "{begin}: this host has no address {}; see those it has with `ip address`, or leave the address out for \
                 all of them",
                spec.host.unwrap_or(Ipv4Addr::UNSPECIFIED)
            )),
            Some(libc::EMFILE | libc::ENFILE) => Refusal::Full(format!(
                "{begin}: {} needs a descriptor, and no more are left; publish fewer, or raise the limit of the daemon \
                 (ulimit -n)",
                at(port)
            )),
            _ if error.kind() == io::ErrorKind::QuotaExceeded => Refusal::Full(format!(
                "{begin}: {} would be one socket more than {name} may have, flows included; publish fewer, or raise \
                 the limit of the daemon (ulimit -n)",
                at(port)
            )),
            _ => Refusal::Invalid(format!("{begin}: the host refuses {}: {error}", at(port))),
        },
    })
}

/// What to do about a port that is not everybody's.
fn privileged(begin: &str, spec: &Spec, port: u16) -> String {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let lowest: Option<u16> = std::fs::read_to_string(SETTING).ok().and_then(|text| text.trim().parse().ok());
    let lowest = lowest.filter(|lowest| *lowest > port).unwrap_or(1_024);
    // Privileged ports are low, so there is room above; if not, a free one is as good.
    let first = port.saturating_add(8_000);
    let others = first.checked_add(spec.ports.count() - 1).and_then(|last| Ports::new(first, last));
    let other = Spec { host_ports: others, ..*spec };
    format!(
        "{begin}: ports below {lowest} are for privileged processes only; publish another, as {other}, or open them to \
         everybody: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_have_a_port_hears_of_one_that_he_may_have() {
        let said = privileged("cannot publish 80:80/tcp of web", &"80:80".parse().unwrap(), 80);
        for part in ["net.ipv4.ip_unprivileged_port_start=80", "as 8080:80/tcp", "below 1024"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
