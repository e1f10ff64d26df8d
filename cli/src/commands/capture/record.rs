//! A frame that was told of, as a packet of a file.

use std::time::Duration;

use tapswitch_wire::{ChecksumState, Meta, Parsed, checksum};

use super::comment::comment;
use crate::api::{OffloadView, TraceView};
use crate::error::Error;

/// A packet for a file.
#[derive(Debug)]
pub(super) struct Record {
    /// The interface: network and port.
    pub(super) port: String,
    /// Since 1970.
    pub(super) time: Duration,
    /// The frame, with a complete checksum.
    pub(super) bytes: Vec<u8>,
    /// What became of it.
    pub(super) comment: String,
}

impl Record {
    /// What is to be written of a frame. `gap` is how many frames before it are missing.
    pub(super) fn of(view: &TraceView, gap: u64) -> Result<Record, Error> {
        let bytes = view.bytes.as_deref().and_then(unhex);
        let mut bytes = bytes.ok_or_else(|| Error::failed("the daemon tells no bytes; is it of another version?"))?;
        if let Some(offload) = &view.offload {
            complete(offload, &mut bytes);
        }
        Ok(Record {
            port: format!("{}/{}", view.network, view.port),
            time: Duration::from_nanos(view.time_ns),
            bytes,
            comment: comment(view, gap),
        })
    }
}

/// Does what the sender left to do, but for cutting: a super-frame is one packet here, as it was in the switch, with
/// one checksum over all of it.
fn complete(offload: &OffloadView, bytes: &mut [u8]) {
    let end = Parsed::parse(bytes).map_or(bytes.len(), |parsed| parsed.end as usize);
    let (start, offset) = (offload.checksum_start, offload.checksum_offset);
    let mut meta = Meta { checksum: ChecksumState::Partial { start, offset }, gso: None };
    // Offsets outside the frame are for the reader of the file to see: it was dropped for them.
    let _ = checksum::complete(&mut meta, bytes, end);
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use tapswitch_wire::Mac;
    use tapswitch_wire::build::{self, Ip, Link, Tcp};

    use super::*;
    use crate::api::{ChangeView, StepView};

    /// A frame of `port` that was dropped, with these bytes.
    pub(crate) fn view(port: &str, bytes: &[u8]) -> TraceView {
        let step = |stage: &str, text: &str, changes| StepView {
            stage: stage.into(),
            kind: "decided".into(),
            text: text.into(),
            changes,
            at_ns: Some(1_250),
        };
        let change = ChangeView { field: "TTL".into(), before: "1".into(), after: "0".into() };
        TraceView {
            time_ns: 1_700_000_000_123_456_789,
            network: "lab".into(),
            port: port.into(),
            frame: "a frame".into(),
            length: bytes.len(),
            steps: vec![
                step("port", "came in by port 1: a frame", Vec::new()),
                step("gateway", "routed \x1b", vec![change]),
                step("verdict", "dropped", Vec::new()),
            ],
            verdict: "dropped, ttl-exceeded: The time to live ran out.".into(),
            outcome: "dropped".into(),
            reason: Some("ttl-exceeded".into()),
            to: Vec::new(),
            bytes: Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            offload: None,
        }
    }

    #[test]
    fn first_line_of_a_comment_is_how_it_ended_and_the_others_are_the_journey() {
        let record = Record::of(&view("web", &[0, 255]), 0).unwrap();
        assert_eq!((record.port.as_str(), &record.bytes[..]), ("lab/web", &[0, 255][..]));
        let expected =
            "dropped, ttl-exceeded: The time to live ran out.\n1.2 us  gateway: routed \\u{1b}\n    TTL: 1 -> 0";
        assert_eq!(record.comment, expected);
        let after = Record::of(&view("web", &[]), 7).unwrap().comment;
        assert!(after.contains("\n7 frames before this one"), "{after}");
    }

    #[test]
    fn checksum_that_the_sender_left_open_is_complete_also_of_a_super_frame_and_before_padding() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3));
        for (payload, segment, padding) in [(100, None, 0), (4000, Some(1000), 0), (1, None, 5)] {
            let mut frame = Vec::new();
            let tcp = Tcp { src_port: 80, dst_port: 9999, seq: 7, ack: 9, flags: 0x18, window: 500, options: &[] };
            let link = Link { src: Mac::from_ipv4(a), dst: Mac::from_ipv4(b) };
            let ip = Ip { src: a.into(), dst: b.into(), ttl: 64, tos: 0, id: 0 };
            let meta = build::tcp(&mut frame, link, ip, tcp, payload);
            frame.extend((0..payload).map(|byte| byte as u8));
            let end = frame.len();
            frame.extend(vec![0xee; padding]);
            let mut view = view("web", &frame);
            view.offload = OffloadView::of(&meta).map(|offload| OffloadView { segment, ..offload });
            assert!(view.offload.is_some());
            let record = Record::of(&view, 0).unwrap();
            let tcp = &record.bytes[34..end];
            let pseudo = checksum::pseudo_header(a.into(), b.into(), 6, tcp.len() as u32);
            assert_eq!(checksum::add(pseudo, checksum::sum(tcp)), 0xffff);
            assert_eq!(record.comment.contains("super-frame"), segment.is_some());
        }
    }

    #[test]
    fn nonsense_from_the_daemon_is_an_error_or_written_as_it_is() {
        for nonsense in [None, Some("0"), Some("0g"), Some("\u{e9}0")] {
            let view = TraceView { bytes: nonsense.map(str::to_owned), ..view("web", &[]) };
            assert!(Record::of(&view, 0).is_err(), "{nonsense:?}");
        }
        let offload = Some(OffloadView { checksum_start: 65_535, checksum_offset: 65_535, segment: None });
        let view = TraceView { offload, ..view("web", &[1, 2, 3]) };
        assert_eq!(Record::of(&view, 0).unwrap().bytes, [1, 2, 3]);
    }
}
