//! `capture`: frames as they pass, in a file for Wireshark, each with what became of it.
//!
//! The daemon only tells; the file is this process's, with the rights of whoever asked, and a slow disk delays nobody
//! else. A packet is in the file as soon as it was told, so that the file is whole at any time, and a program at the
//! other end of a pipe sees it at once.

mod comment;
mod output;
mod record;

use std::future;
use std::io::{self, IsTerminal};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::output::Output;
use self::record::Record;
use super::connect;
use super::trace::expression;
use crate::api::{TraceLine, TraceRequest};
use crate::args::{CaptureArgs, Global};
use crate::error::Error;
use crate::output::print_json;

/// Frames a second, if nobody says how many.
const RATE: u32 = 10_000;

pub(super) fn execute(global: &Global, args: &CaptureArgs) -> Result<(), Error> {
    let path = (args.write.as_os_str() != "-").then_some(args.write.as_path());
    if path.is_none() && args.files.is_some() {
        return Err(Error::Usage("--files needs files, and -w - writes to stdout: name one with -w FILE".into()));
    }
    if path.is_none() && io::stdout().is_terminal() {
        let text = "a terminal cannot show packets: name a file with -w FILE, or append | wireshark -k -i -";
        return Err(Error::Usage(text.into()));
    }
    let rate = Some(args.rate.unwrap_or(RATE));
    let wanted = TraceRequest { filter: filter(args), network: args.network.clone(), bytes: true, rate };
    // A filter that is wrong empties no file.
    let watching = connect(global)?.watch(&wanted)?;
    let output = Output::create(path, args.size, args.files, args.snaplen)?;
    let mut session = Session { output, quiet: global.json, limit: args.count, packets: 0, missed: 0, gap: 0 };
    let ready = if global.json { None } else { Some(format!("capturing into {}", session.output.place())) };
    let ended = watching.until(end(args.seconds, ready), |line, _| session.take(line));
    session.conclude(path.is_some())?;
    ended
}

/// What the daemon is asked for: the words of the filter, and those that stand for `--port`.
fn filter(args: &CaptureArgs) -> Option<String> {
    let words = expression(&args.filter);
    // Behind a backslash, whatever it is called is a name.
    let Some(port) = args.port.as_ref().map(|name| format!("container \\{name}")) else { return words };
    Some(words.map_or_else(|| port.clone(), |words| format!("({words}) and {port}")))
}

/// Until somebody asks to stop, or the time is over.
async fn end(seconds: Option<u64>, ready: Option<String>) -> Result<(), Error> {
    let failed = |error| Error::failed(format!("cannot wait for signals: {error}; try again"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    if let Some(ready) = ready {
        eprintln!("{ready}");
    }
    let over = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = over => {}
    }
    Ok(())
}

/// A capture under way.
struct Session {
    output: Output,
    /// Nothing is said on stderr but errors.
    quiet: bool,
    /// Packets after which it ends.
    limit: Option<u64>,
    packets: u64,
    /// Frames that were wanted too and not told, in all.
    missed: u64,
    /// Those since the last packet.
    gap: u64,
}

/// What a capture says with `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    packets: u64,
    missed: u64,
    /// What can be read now, oldest first.
    files: &'a [String],
}

impl Session {
    /// Takes what the daemon tells. Says whether there is room and need for more.
    fn take(&mut self, line: TraceLine) -> Result<bool, Error> {
        match line {
            TraceLine::Missed { missed } => {
                self.missed += missed;
                self.gap += missed;
                if !self.quiet {
                    eprintln!(
                        "({missed} more frames were wanted and are not recorded; narrow the filter, or raise --rate)"
                    );
                }
            }
            TraceLine::Frame(view) => {
                if !self.output.put(&Record::of(&view, self.gap)?)? {
                    return Ok(false);
                }
                self.packets += 1;
                self.gap = 0;
            }
        }
        Ok(self.limit.is_none_or(|limit| self.packets < limit))
    }

    /// Says what there is now.
    fn conclude(&self, has_files: bool) -> Result<(), Error> {
        let Session { packets, missed, .. } = *self;
        let files = self.output.files();
        match (self.quiet, has_files) {
            (true, true) => return print_json(&Summary { packets, missed, files: &files }),
            (true, false) => {}
            (false, _) => {
                let lost = if missed == 0 { String::new() } else { format!(", {missed} more were missed") };
                let noun = if packets == 1 { "packet" } else { "packets" };
                eprintln!("{packets} {noun} in {}{lost}", files.join(", "));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_narrows_whatever_the_filter_says() {
        let wanted = |port: Option<&str>, words: &[&str]| {
            let filter = words.iter().map(ToString::to_string).collect();
            super::filter(&CaptureArgs { filter, port: port.map(str::to_owned), ..CaptureArgs::default() })
        };
        assert_eq!(wanted(None, &[]), None);
        assert_eq!(wanted(None, &["tcp", "port", "80"]).as_deref(), Some("tcp port 80"));
        assert_eq!(wanted(Some("not"), &[]).as_deref(), Some("container \\not"));
        let both = wanted(Some("web"), &["arp", "or", "icmp"]).unwrap();
        assert_eq!(both, "(arp or icmp) and container \\web");
        for text in ["container \\not", &both] {
            tapswitch_filter::Filter::parse(text).unwrap();
        }
    }
}
