//! `explain`: what would happen to a packet.

mod pcap;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::connect;
use crate::api::{Carried, Description, ExplainRequest, ExplainView, PacketRequest, StepView};
use crate::args::{ExplainArgs, Global};
use crate::client::Client;
use crate::error::Error;
use crate::output::{print, print_json, visible, wrapped};

/// No line is longer, but for words that are.
const WIDTH: usize = 100;
/// Where the text of a stage begins.
const INDENT: usize = 14;

pub(super) fn execute(global: &Global, args: &ExplainArgs) -> Result<(), Error> {
    let mut client = connect(global)?;
    let view = match (&args.pcap, &args.to) {
        (Some(file), _) => {
            let packet = PacketRequest::Frame(from_capture(file, args.packet.unwrap_or(1))?);
            ask(&mut client, args, packet)?
        }
        (None, Some(to)) => match resolve(&mut client, to)? {
            Resolved::At(ip, step) => {
                let mut view = ask(&mut client, args, PacketRequest::Described(describe(args, ip)))?;
                if let Some(step) = step {
                    view.steps.insert(0, step);
                }
                view
            }
            Resolved::Unknown(why) => unresolved(args, to, &why),
        },
        // The command line asks for one of them.
        (None, None) => {
            return Err(Error::Usage("say where the packet goes with --to, or name one with --pcap".into()));
        }
    };
    if global.json {
        return print_json(&view);
    }
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    print(&told(&view, colours))
}

fn ask(client: &mut Client, args: &ExplainArgs, packet: PacketRequest) -> Result<ExplainView, Error> {
    client.explain(&ExplainRequest { from: args.from.clone(), packet, probe: args.probe })
}

fn describe(args: &ExplainArgs, to: Ipv4Addr) -> Description {
    let usual = if args.dport.is_some() || !args.tcp_flags.is_empty() { Carried::Tcp } else { Carried::Icmp };
    Description {
        to,
        carries: args.proto.unwrap_or(usual),
        src: args.src,
        dport: args.dport,
        sport: args.sport,
        size: args.size,
        df: args.df,
        ttl: args.ttl,
        tcp_flags: args.tcp_flags.clone(),
    }
}

/// What a destination is.
enum Resolved {
    /// An address, and how it was found.
    At(Ipv4Addr, Option<StepView>),
    /// A name that leads nowhere, and why.
    Unknown(String),
}

/// An address as it stands, a container by its name, or what the host's resolver knows.
fn resolve(client: &mut Client, to: &str) -> Result<Resolved, Error> {
    match to.parse() {
        Ok(IpAddr::V4(ip)) => return Ok(Resolved::At(ip, None)),
        Ok(IpAddr::V6(ip)) => {
            return Err(Error::Usage(format!(
                "{ip} is an IPv6 address, and networks route IPv4; name an IPv4 address"
            )));
        }
        Err(_) => {}
    }
    let found = |text: String| {
        let kind = "looked-up".into();
        Some(StepView { stage: "name".into(), kind, text, changes: Vec::new(), at_ns: None })
    };
    if let Some(port) = client.ports(None)?.into_iter().find(|port| port.name == to) {
        return Ok(match port.ip {
            Some(ip) => Resolved::At(ip, found(format!("{to} is a container, which has {ip}"))),
            None => Resolved::Unknown(format!("{to} is a container, which has no address yet")),
        });
    }
    let v4 = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    Ok(match (to, 0).to_socket_addrs().map(|mut all| all.find_map(v4)) {
        Ok(Some(ip)) => Resolved::At(ip, found(format!("the host's resolver says that {to} is {ip}"))),
        Ok(None) => Resolved::Unknown(format!("{to} has IPv6 addresses only")),
        Err(error) => Resolved::Unknown(error.to_string()),
    })
}

/// No packet is sent to a name.
fn unresolved(args: &ExplainArgs, to: &str, why: &str) -> ExplainView {
    let text = format!("{to} is not resolved: {why}");
    let step = StepView {
        stage: "name".into(),
        kind: "looked-up".into(),
        text: text.clone(),
        changes: Vec::new(),
        at_ns: None,
    };
    ExplainView {
        port: args.from.clone(),
        steps: vec![step],
        verdict: format!("never sent, name-not-resolved: {text}"),
        outcome: "unsent".into(),
        reason: Some("name-not-resolved".into()),
        causes: Some(
            "The name is misspelt or does not exist, the host's resolver cannot be reached, or no container of that name \
             is attached."
                .into(),
        ),
        remedy: Some(format!(
            "Ask the resolver on the host: `getent ahostsv4 {to}`. If it answers there and not in the container, see which \
             server /etc/resolv.conf names there, and explain the way to it: --proto udp --dport 53 --to that server."
        )),
        ..ExplainView::default()
    }
}

/// The bytes of a packet of a file, in hexadecimal.
fn from_capture(path: &Path, number: u64) -> Result<String, Error> {
    let shown = path.display();
    let file =
        File::open(path).map_err(|error| Error::failed(format!("cannot read {shown}: {error}; check --pcap")))?;
    let packet = pcap::packet(BufReader::new(file), number)
        .map_err(|why| Error::failed(format!("cannot take packet {number} from {shown}: {why}")))?;
    let mut hex = String::with_capacity(2 * packet.len());
    for byte in packet {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// An explanation, for people.
fn told(view: &ExplainView, colours: bool) -> String {
    let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() };
    let mut text = String::new();
    if !view.frame.is_empty() {
        text += &paint("1", &format!("{}/{} would send", view.network, visible(&view.port)));
        text.push('\n');
        text += &wrapped(&visible(&view.frame), WIDTH, "  ", "    ");
    }
    for step in view.steps.iter().filter(|step| step.stage != "verdict" && !says(step, view)) {
        text += &wrapped(&visible(&step.text), WIDTH, &format!("  {:<10}  ", step.stage), &" ".repeat(INDENT));
        for change in &step.changes {
            let line = format!("{}: {} -> {}", change.field, change.before, change.after);
            text += &wrapped(&visible(&line), WIDTH, &" ".repeat(INDENT + 2), &" ".repeat(INDENT + 4));
        }
    }
    let colour = if view.reason.is_some() { "31" } else { "32" };
    let verdict = wrapped(&visible(&view.verdict), WIDTH, "  = ", "    ");
    text += &paint(colour, verdict.trim_end());
    text.push('\n');
    for sent in &view.sent {
        let line = format!("{} would get {}", sent.to, sent.frame);
        text += &wrapped(&visible(&line), WIDTH, "  > ", "    ");
    }
    let help = [("causes", &view.causes), ("to do", &view.remedy)];
    let help = help.into_iter().filter_map(|(title, words)| Some((title, words.as_ref()?)));
    for (title, words) in help.chain(view.notes.iter().map(|note| ("note", note))) {
        text += &wrapped(&visible(words), WIDTH, &format!("  {title:<10}  "), &" ".repeat(INDENT));
    }
    text
}

/// Whether a step only says again which frame it is.
fn says(step: &StepView, view: &ExplainView) -> bool {
    !view.frame.is_empty() && step.text.contains(&view.frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_ends_with_the_reason_and_what_to_do() {
        let args = ExplainArgs { from: "web".into(), ..ExplainArgs::default() };
        let view = unresolved(&args, "db.invalid", "Name or service not known");
        let text = told(&view, false);
        assert!(text.contains("= never sent, name-not-resolved: db.invalid is not resolved"), "{text}");
        assert!(text.contains("  to do       Ask the resolver on the host"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let args = ExplainArgs::default();
        assert_eq!(describe(&args, Ipv4Addr::LOCALHOST).carries, Carried::Icmp);
        let args = ExplainArgs { dport: Some(443), ..args };
        assert_eq!(describe(&args, Ipv4Addr::LOCALHOST).carries, Carried::Tcp);
        let args = ExplainArgs { proto: Some(Carried::Udp), ..args };
        assert_eq!(describe(&args, Ipv4Addr::LOCALHOST).carries, Carried::Udp);
    }

    #[test]
    fn a_container_cannot_steer_the_terminal() {
        let view = ExplainView { frame: "f".into(), port: "a\x1b[2J".into(), ..ExplainView::default() };
        assert!(!told(&view, false).contains('\x1b'));
    }
}
