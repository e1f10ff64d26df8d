//! Laws of the language and of the two steps.

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tapswitch_filter::{Filter, Seen, Tri};
use tapswitch_wire::{DropReason, FrameRef, Meta, PortId, Verdict};

use crate::frames::{Sample, frame};
use crate::model::{Case, case, expr, port_of};

/// Words that make an expression now and then.
fn word() -> impl Strategy<Value = String> {
    let words = "host net port portrange src dst ether ip ip6 arp tcp udp sctp icmp icmp6 proto broadcast multicast vlan \
                 less greater container drop reason flow and or not ( ) ! && || \\ \\and 10.0.0.1 10.0.0.0/8 10 fd00::1 \
                 fd00::/8 80 1-2 0x800 02:00:00:00:00:01 web tx-full 0 5 hots é 99999 & |";
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    prop_oneof![6 => select(words), 1 => "\\PC{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_filter_agrees_with_an_obvious_one_however_it_is_typed(
        expr in expr(), style in vec(any::<bool>(), 64), cases in vec(case(), 1..12),
    ) {
        let text = expr.text(&mut style.iter().copied().cycle());
        let filter = Filter::parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        // Whatever was typed, the canonical form is that of the plainest way to type it.
        let plain = expr.text(&mut std::iter::empty());
        prop_assert_eq!(&Filter::parse(&plain).unwrap(), &filter, "{} and {}", plain, text);
        let compiled = filter.resolve(port_of).unwrap();
        prop_assert_eq!(compiled.needs_outcome(), expr.needs_outcome());
        for case in &cases {
            let bytes = case.sample.bytes();
            let (frame, seen) = (frame(&bytes), Seen { port: case.port });
            let wanted = expr.wants(case);
            prop_assert_eq!(compiled.last(&frame, &seen, &case.outcome()), wanted, "{} {:?}", text, case);
            match compiled.first(&frame, &seen) {
                Tri::Later => prop_assert!(expr.needs_outcome(), "{} waits for nothing", text),
                first => prop_assert_eq!(first, Tri::from(wanted), "{} {:?}", text, case),
            }
        }
    }

    #[test]
    fn a_first_answer_stands_whatever_becomes_of_the_frame(
        expr in expr(), case in case(), others in vec(case(), 1..12),
    ) {
        let compiled = Filter::parse(&expr.text(&mut std::iter::empty())).unwrap().resolve(port_of).unwrap();
        let bytes = case.sample.bytes();
        let (frame, seen) = (frame(&bytes), Seen { port: case.port });
        let first = compiled.first(&frame, &seen);
        for other in &others {
            let last = compiled.last(&frame, &seen, &other.outcome());
            prop_assert!(first == Tri::Later || first == Tri::from(last));
        }
    }

    #[test]
    fn the_canonical_form_is_the_same_filter_and_its_own_canonical_form(words in vec(word(), 0..14)) {
        if let Ok(filter) = Filter::parse(&words.join(" ")) {
            let canonical = filter.to_string();
            prop_assert_eq!(Filter::parse(&canonical), Ok(filter));
            prop_assert_eq!(Filter::parse(&canonical).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn any_text_is_taken_or_refused_with_a_place_in_it(text in prop_oneof!["\\PC{0,80}", any::<String>()]) {
        check_refusal(&text)?;
    }

    #[test]
    fn any_words_are_taken_or_refused_with_a_place_in_them(words in vec(word(), 0..40), space in "[ \t\n]?") {
        check_refusal(&words.join(&space))?;
    }

    #[test]
    fn any_bytes_are_judged_by_any_filter(
        expr in expr(), mut bytes in vec(any::<u8>(), 14..120), kind in select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100]),
        typed in any::<bool>(), case in case(),
    ) {
        if typed {
            bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        }
        judge(&expr.text(&mut std::iter::empty()), &case, &bytes);
    }

    #[test]
    fn a_damaged_frame_is_judged_by_any_filter(
        expr in expr(), case in case(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        len in any::<prop::sample::Index>(),
    ) {
        let mut bytes = case.sample.bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(14 + len.index(bytes.len() - 13));
        judge(&expr.text(&mut std::iter::empty()), &case, &bytes);
    }
}

fn check_refusal(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = Filter::parse(text) {
        let shown = error.to_string();
        prop_assert_eq!(shown.lines().count().max(shown.split('\n').count()), 2, "{}", shown);
        prop_assert!(text.is_char_boundary(error.offset), "{}", shown);
        prop_assert!(!error.expected.is_empty());
        prop_assert!(shown.contains('^'));
    }
    Ok(())
}

/// Judges bytes of which nothing is known, where the steps must agree.
fn judge(text: &str, case: &Case, bytes: &[u8]) {
    let Ok(frame) = FrameRef::parse(Meta::PLAIN, bytes) else { return };
    let compiled = Filter::parse(text).unwrap().resolve(port_of).unwrap();
    let seen = Seen { port: case.port };
    let last = compiled.last(&frame, &seen, &case.outcome());
    let first = compiled.first(&frame, &seen);
    assert!(first == Tri::Later || first == Tri::from(last), "{text} {bytes:02x?}");
    let opposite = Filter::parse(&format!("not ({text})")).unwrap().resolve(port_of).unwrap();
    assert_eq!(opposite.last(&frame, &seen, &case.outcome()), !last, "{text} {bytes:02x?}");
}

#[test]
fn judging_a_frame_allocates_nothing() {
    let text = "host 10.0.0.1 and (port 22 or 443 or net fd00::/8 or ether host 02:00:00:00:00:09) or container web \
                and not (arp or reason tx-full) or flow 9 or vlan 5 or less 20 or ip6 proto 44";
    let filter = Filter::parse(text).unwrap().resolve(port_of).unwrap();
    let bytes = Sample::ip("10.0.0.1", "10.0.0.2", 6).bytes();
    let (frame, seen) = (frame(&bytes), Seen { port: PortId(9) });
    let out = [PortId(2)];
    let outcome = tapswitch_filter::Outcome { verdict: Verdict::Drop(DropReason::TxFull), flow: Some(1), out: &out };
    let counted = measure(|| {
        assert_eq!(filter.first(&frame, &seen), Tri::Later);
        assert!(!filter.last(&frame, &seen, &outcome));
    });
    assert_eq!(counted.count_total, 0);
}
