//! Arguments of `capture`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  tapswitch capture -w all.pcapng
  tapswitch capture -w web.pcapng --port web tcp port 443
  tapswitch capture -w lost.pcapng -c 100 drop
                          (what is dropped; each packet's comment says why)
  tapswitch capture -w day.pcapng --size 100mb --files 10
                          (day.pcapng, day.pcapng.1 to .9, and again)
  tapswitch capture -w - icmp | wireshark -k -i -
  tshark -r all.pcapng -T fields -e frame.number -e frame.comment

Each frame is written once, as it came in by its port, with its journey through
the switch as a comment: how it ended in the first line. SIGINT and SIGTERM end
the capture; a file is whole at any time.";

/// What `capture` records, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct CaptureArgs {
    /// Which frames, in the words of tcpdump (host, net, port, proto, ether, and, or, not), and: container NAME, drop,
    /// reason R [default: all]
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub filter: Vec<String>,
    /// The file, which only its owner may read, or - for stdout; one that is there is emptied [default: none, it must be
    /// given]
    #[arg(long, short, value_name = "FILE.pcapng")]
    pub write: PathBuf,
    /// Only of this network [default: all]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
    /// Only frames that come from this container or go to it; gateway and uplink are names too [default: all]
    #[arg(long, value_name = "NAME")]
    pub port: Option<String>,
    /// End after so many frames [default: never]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds [default: never]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// A file has at most so many bytes, as 10mb or 512kib; at its end the next file begins, or without --files the
    /// capture ends [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub size: Option<u64>,
    /// Write a ring of so many files, FILE, FILE.1 and so on; each can be read on its own [default: one file]
    #[arg(long, value_name = "N", requires = "size", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub files: Option<u16>,
    /// Write at most so many bytes of each frame [default: all]
    #[arg(long, short, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    pub snaplen: Option<u32>,
    /// At most so many frames a second; how many more there were is said [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
}

/// Reads a number of bytes: `1500`, `10mb` (ten million), `512kib`.
fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|next: char| !next.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err("a size is a number and b, kb, mb, gb, kib, mib or gib".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a size begins with a number, as 10mb".to_string())?;
    match number.checked_mul(unit) {
        None => Err("no file is that large".into()),
        Some(0) => Err("a file has more than no bytes".into()),
        Some(bytes) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;
    use crate::args::{Cli, Verb};

    fn parse(line: &str) -> Result<CaptureArgs, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.verb {
            Verb::Capture(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_and_the_words_of_a_filter_are_told_apart() {
        let args = parse(
            "tapswitch capture -w a.pcapng --port web --network lab -c 9 --seconds 3 --size 10mb --files 4 \
             --snaplen 96 --rate 50 icmp or tcp port 80",
        );
        let expected = CaptureArgs {
            filter: ["icmp", "or", "tcp", "port", "80"].map(String::from).into(),
            write: "a.pcapng".into(),
            network: Some("lab".into()),
            port: Some("web".into()),
            count: Some(9),
            seconds: Some(3),
            size: Some(10_000_000),
            files: Some(4),
            snaplen: Some(96),
            rate: Some(50),
        };
        assert_eq!(args.unwrap(), expected);
        assert_eq!(parse("tapswitch capture -w -").unwrap().write, PathBuf::from("-"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (line, kind) in [
            ("tapswitch capture icmp", ErrorKind::MissingRequiredArgument),
            ("tapswitch capture -w a --files 3", ErrorKind::MissingRequiredArgument),
            ("tapswitch capture -w a --size ten", ErrorKind::ValueValidation),
            ("tapswitch capture -w a --size 0", ErrorKind::ValueValidation),
            ("tapswitch capture -w a -c 0", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("1500", 1500), ("10mb", 10_000_000), ("1 GB", 1_000_000_000), ("512KiB", 512 << 10)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "mb", "-1", "1.5mb", "10 potatoes", "99999999999999gb", "0kb"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
