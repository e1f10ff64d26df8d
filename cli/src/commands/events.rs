//! `events`: what happens on the switch, as it happens.

use super::connect;
use super::trace::clock;
use crate::api::{EventLine, EventView};
use crate::args::{EventsArgs, Global};
use crate::error::Error;
use crate::output::{print, visible};

pub(super) fn execute(global: &Global, args: &EventsArgs) -> Result<(), Error> {
    connect(global)?.events(args.network.as_deref(), |line, raw| {
        match (&line, global.json) {
            (_, true) => print(&format!("{raw}\n"))?,
            (EventLine::Event(event), _) => print(&(visible(&told(event)) + "\n"))?,
            (EventLine::Missed { missed }, _) => {
                eprintln!("({missed} more events happened and are not shown: this reads too slowly)");
            }
        }
        Ok(true)
    })
}

/// An event in one line.
fn told(event: &EventView) -> String {
    let EventView { time_ns, kind, network, name, ip, mac, state, expires, published, reason, text } = event;
    let mut line = format!("{}  {:<9}  {network}/{}", clock(*time_ns), kind.name(), name.as_deref().unwrap_or("-"));
    let mut add = |word: String| {
        line.push_str("  ");
        line += &word;
    };
    ip.iter().for_each(|ip| add(ip.to_string()));
    mac.iter().for_each(|mac| add(mac.to_string()));
    state.iter().for_each(|state| add(state.clone()));
    expires.iter().for_each(|expires| add(format!("until {}", clock(expires.saturating_mul(1_000_000_000)))));
    published.iter().for_each(|published| add(published.to_string()));
    if let (Some(reason), Some(text)) = (reason, text) {
        add(format!("{reason}: {text}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EventKind;

    fn event(kind: EventKind) -> EventView {
        EventView {
            time_ns: 3_723_000_004_000,
            kind,
            network: "lab".into(),
            name: Some("web".into()),
            ip: None,
            mac: None,
            state: None,
            expires: None,
            published: Vec::new(),
            reason: None,
            text: None,
        }
    }

    #[test]
    fn an_event_is_one_line_that_says_what_belongs_to_its_kind() {
        let lease = EventView {
            ip: Some([10, 0, 0, 2].into()),
            mac: Some("02:42:0a:00:00:02".parse().unwrap()),
            state: Some("bound".into()),
            expires: Some(7_200),
            name: None,
            ..event(EventKind::Lease)
        };
        let expected = "01:02:03.000004  lease      lab/-  10.0.0.2  02:42:0a:00:00:02  bound  until 02:00:00.000000";
        assert_eq!(told(&lease), expected);
        let limit =
            EventView { reason: Some("flow-limit".into()), text: Some("Too many.".into()), ..event(EventKind::Limit) };
        assert_eq!(told(&limit), "01:02:03.000004  limit      lab/web  flow-limit: Too many.");
    }
}
