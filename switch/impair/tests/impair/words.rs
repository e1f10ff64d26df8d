//! What users write, and what they are told.

use std::time::Duration;

use tapswitch_impair::{Chance, Delay, Distribution, GilbertElliott, Impairment, Limit, Loss, Rate, Reorder};

use crate::world::words;

#[test]
fn all_words_at_once() {
    let text =
        "delay 20ms 5ms normal loss 1% duplicate 0.5% reorder 5% gap 4 corrupt 0.1% rate 10mbit ethernet limit 200";
    let expected = Impairment {
        delay: Some(Delay {
            mean: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            distribution: Distribution::Normal,
        }),
        loss: Some(Loss::Independent(Chance::from_ppb(10_000_000))),
        duplicate: Some(Chance::from_ppb(5_000_000)),
        reorder: Some(Reorder { chance: Chance::from_ppb(50_000_000), gap: 4 }),
        corrupt: Some(Chance::from_ppb(1_000_000)),
        rate: Some(Rate { bits: 10_000_000.try_into().unwrap(), ethernet: true }),
        limit: Some(Limit::Frames(200)),
    };
    assert_eq!(words(text), expected);
    assert_eq!(expected.to_string(), text);
}

#[test]
fn what_is_read_and_how_it_is_written_again() {
    for (read, written) in [
        ("", "none"),
        ("none", "none"),
        ("delay 1500us", "delay 1.5ms"),
        ("delay 0.25s 100US", "delay 250ms 100us"),
        ("delay 1s 1ms uniform", "delay 1s 1ms"),
        ("delay 1s 1ms distribution normal", "delay 1s 1ms normal"),
        ("delay 0ms", "delay 0ns"),
        ("loss random 100%", "loss 100%"),
        ("loss 0.0000001%", "loss 0.0000001%"),
        ("loss gemodel 1% 20%", "loss gemodel 1% 20%"),
        ("loss gemodel 1% 20% 100% 0%", "loss gemodel 1% 20%"),
        ("loss gemodel 1% 20% 90%", "loss gemodel 1% 20% 90%"),
        ("loss gemodel 1% 20% 100% 0.5%", "loss gemodel 1% 20% 100% 0.5%"),
        ("rate 1.5Gbit  delay 1ms", "delay 1ms rate 1.5gbit"),
        ("rate 1000kbit limit 64kb", "rate 1mbit limit 64kb"),
        ("rate 1bit limit 1500b", "rate 1bit limit 1.5kb"),
        ("delay 1ms reorder 5% gap 1", "delay 1ms reorder 5%"),
    ] {
        assert_eq!(words(read).to_string(), written);
        assert_eq!(words(written), words(read));
    }
    let bursts = GilbertElliott {
        to_bad: Chance::from_ppb(10_000_000),
        to_good: Chance::from_ppb(200_000_000),
        bad: Chance::ALWAYS,
        good: Chance::NEVER,
    };
    assert_eq!(words("loss gemodel 1% 20%").loss, Some(Loss::Bursts(bursts)));
}

#[test]
fn an_error_says_what_was_given_and_what_was_expected() {
    for (text, error) in [
        ("delay", "delay: '' is not a delay: write MEAN [JITTER [uniform|normal]], as 20ms 5ms normal"),
        ("delay 20", "delay: '20' is not a time such as 20ms (units: us, ms, s)"),
        ("delay -1ms", "delay: '-1ms' is not a time such as 20ms (units: us, ms, s)"),
        ("delay 20ms 5ms 25%", "delay: '25%' is not a distribution of delays: write uniform or normal"),
        ("delay 20ms los 1%", "delay: 'los' is not a time such as 20ms (units: us, ms, s)"),
        ("delay 2000000s", "delay: '2000000s' is too long: a delay is an hour at most"),
        ("delay 1.0000000001s", "delay: '1.0000000001s' is finer than can be told apart: the step is 1ns"),
        ("loss 1", "loss: '1' is not a percentage from 0% to 100%, such as 0.5%"),
        ("loss 101%", "loss: '101%' is not a percentage from 0% to 100%, such as 0.5%"),
        (
            "loss 99999999999999999999%",
            "loss: '99999999999999999999%' is not a percentage from 0% to 100%, such as 0.5%",
        ),
        ("loss 0.00000001%", "loss: '0.00000001%' is finer than can be told apart: the step is 0.0000001%"),
        ("rate 10", "rate: '10' is not a rate such as 10mbit (units: bit, kbit, mbit, gbit, all per second)"),
        ("rate 10mbps", "rate: '10mbps' is not a rate such as 10mbit (units: bit, kbit, mbit, gbit, all per second)"),
        ("rate 0mbit", "rate: a rate of zero lets nothing through: write 'loss 100%', or 'rate none'"),
        (
            "rate 1mbit limit 0",
            "limit: '0' is not a limit: write a number of frames, as 1000, or of bytes, as 64kb (units: b, kb, mb)",
        ),
        ("delay 1ms reorder 5% gap 0", "reorder: '0' is not a gap: write a number of frames from 1, as 5% gap 4"),
        ("delay 1ms reorder 5% 50%", "reorder: '5% 50%' is not a reordering: write PERCENT [gap FRAMES], as 5% gap 4"),
        ("reorder 5%", "reorder without a delay: with nothing on its way there is nothing to overtake; give delay too"),
        ("limit 5", "limit without a rate: nothing ever waits; give rate too"),
        (
            "lag 20ms",
            "'lag' is no impairment: write none, or one or more of delay, loss, duplicate, reorder, corrupt, rate, limit",
        ),
        ("loss 1% loss 2%", "'loss' is given twice"),
    ] {
        assert_eq!(text.parse::<Impairment>(), Err(error.to_string()), "{text}");
    }
    let error = "loss state 1%".parse::<Impairment>().unwrap_err();
    assert!(error.starts_with("loss: 'state 1%' is not a loss: write PERCENT, as 1%, or gemodel P R"), "{error}");
}

#[test]
fn amending_changes_what_is_named_and_nothing_else() {
    let link = words("delay 20ms loss 1%");
    assert_eq!(link.amended("loss 5%"), Ok(words("delay 20ms loss 5%")));
    assert_eq!(link.amended("loss none rate 1mbit"), Ok(words("delay 20ms rate 1mbit")));
    assert_eq!(link.amended(""), Ok(link));
    assert_eq!(link.amended("none"), Ok(Impairment::NONE));
    assert!(words("delay 20ms reorder 5%").amended("delay none").is_err());
}

#[test]
fn a_topology_file_says_it_part_by_part() {
    let read = |json: &str| serde_json::from_str::<Impairment>(json).map_err(|error| error.to_string());
    let json = r#"{"delay":"20ms 5ms","loss":"gemodel 1% 20%","duplicate":"1%","rate":"1mbit","limit":100}"#;
    assert_eq!(read(json), Ok(words("delay 20ms 5ms loss gemodel 1% 20% duplicate 1% rate 1mbit limit 100")));
    assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
    assert_eq!(read("{}"), Ok(Impairment::NONE));
    assert_eq!(read(r#"{"rate":"1mbit","limit":"64kb"}"#), Ok(words("rate 1mbit limit 64kb")));
    assert!(read(r#"{"delay":"20"}"#).unwrap_err().starts_with("'20' is not a time such as 20ms"));
    assert!(read(r#"{"limit":5}"#).unwrap_err().starts_with("limit without a rate"));
    assert!(read(r#"{"lag":"5ms"}"#).unwrap_err().starts_with("unknown field `lag`"));
}

#[test]
fn what_has_no_effect_is_none() {
    for text in
        ["none", "loss 0%", "delay 0ms", "duplicate 0% corrupt 0%", "loss gemodel 0% 50%", "loss gemodel 5% 5% 0%"]
    {
        assert!(words(text).is_none(), "{text}");
    }
    for text in ["loss 0.1%", "delay 1us", "rate 100gbit", "delay 0ms 1ms", "loss gemodel 5% 5% 0% 1%"] {
        assert!(!words(text).is_none(), "{text}");
    }
}
