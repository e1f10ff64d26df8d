//! What holds for any impairment, any frames and any times.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tapswitch_impair::{Chance, Delay, Distribution, GilbertElliott, Impairment, Limit, Loss, Rate, Reorder};
use tapswitch_wire::Instant;

use crate::world::{World, frame, ms, us, words};

const ALL: &str =
    "delay 20ms 5ms normal loss gemodel 2% 30% duplicate 2% reorder 3% gap 2 corrupt 1% rate 15mbit limit 50";

#[test]
fn a_seed_repeats_everything_and_another_does_not() {
    let run = |seed| World::run(ALL, seed, 20_000, us(500), 1000);
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first.arrivals, again.arrivals);
    assert_eq!(first.outcome, again.outcome);
    assert_ne!(first.hash(), other.hash());
    assert!(first.outcome.lost > 0 && first.outcome.duplicated > 0 && first.outcome.corrupted > 0);
}

/// The same on any machine and in any version: who changes this number breaks the recorded runs of all users.
#[test]
fn a_seed_means_the_same_for_ever() {
    let world = World::run(ALL, 2026, 10_000, us(500), 1000);
    assert_eq!(world.hash(), 11_713_571_953_156_645_857, "{:?}", world.outcome);
}

/// What happened to the n-th frame: how often it arrived, when, with what bytes.
fn fates(world: &World) -> BTreeMap<u32, Vec<(Instant, Vec<u8>)>> {
    let mut fates = BTreeMap::<u32, Vec<_>>::new();
    for arrival in &world.arrivals {
        fates.entry(arrival.number).or_default().push((arrival.due, arrival.bytes.clone()));
    }
    fates
}

#[test]
fn changing_one_impairment_leaves_what_the_others_do() {
    let run = |words: &str| fates(&World::run(words, 99, 5_000, us(700), 200));
    // Loss takes frames away, and nothing else: with jitter, reordering, copies and a rate.
    let rest = "delay 20ms 5ms duplicate 5% reorder 3% rate 10mbit";
    let without = run(rest);
    for loss in ["loss 10%", "loss gemodel 3% 10%"] {
        let with = run(&format!("{rest} {loss}"));
        assert!(with.len() < without.len());
        assert!(with.iter().all(|(number, fate)| without[number] == *fate), "{loss} shifts other impairments");
    }
    // Duplication doubles, and nothing else.
    let doubled = run("delay 20ms 5ms loss 3% reorder 3% duplicate 9%");
    let single = run("delay 20ms 5ms loss 3% reorder 3%");
    assert!(doubled.keys().eq(single.keys()));
    assert!(doubled.iter().all(|(number, fate)| fate.iter().all(|arrival| *arrival == single[number][0])));
    assert!(doubled.values().any(|fate| fate.len() == 2));
    // Delay, reordering and corruption do not decide who is lost or doubled.
    let lost = run("loss 3% duplicate 5%");
    for other in ["delay 20ms 5ms normal", "delay 1ms reorder 30% gap 3", "rate 10mbit"] {
        let changed = run(&format!("loss 3% duplicate 5% {other}"));
        let times = |fates: &BTreeMap<u32, Vec<_>>| fates.iter().map(|(n, fate)| (*n, fate.len())).collect::<Vec<_>>();
        assert_eq!(times(&changed), times(&lost), "{other} shifts loss or duplication");
    }
    let times = |world: World| world.arrivals.iter().map(|arrival| arrival.due).collect::<Vec<_>>();
    let plain = times(World::run("delay 20ms 5ms", 99, 5_000, us(700), 200));
    assert_eq!(times(World::run("delay 20ms 5ms corrupt 20%", 99, 5_000, us(700), 200)), plain);
}

#[test]
fn heavy_jitter_alone_reorders_nothing() {
    for words in ["delay 20ms 20ms", "delay 10ms 50ms normal duplicate 10% loss 10%", "delay 5ms 5ms rate 1mbit"] {
        let world = World::run(words, 5, 20_000, us(300), 60);
        assert!(world.numbers().is_sorted(), "{words}");
        assert!(world.arrivals.is_sorted_by_key(|arrival| arrival.due), "{words}");
    }
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![Just(Chance::NEVER), Just(Chance::ALWAYS), (0..=1_000_000_000u32).prop_map(Chance::from_ppb)]
}

fn delay() -> impl Strategy<Value = Delay> {
    let distribution = prop_oneof![Just(Distribution::Uniform), Just(Distribution::Normal)];
    let time = || prop_oneof![4 => 0..100_000_000u64, 1 => 0..3_600_000_000_000u64].prop_map(Duration::from_nanos);
    (time(), time(), distribution).prop_map(|(mean, jitter, distribution)| {
        // Without jitter there is no distribution to speak of.
        if jitter.is_zero() { Delay::constant(mean) } else { Delay { mean, jitter, distribution } }
    })
}

fn loss() -> impl Strategy<Value = Loss> {
    let bursts = (chance(), chance(), chance(), chance())
        .prop_map(|(to_bad, to_good, bad, good)| Loss::Bursts(GilbertElliott { to_bad, to_good, bad, good }));
    prop_oneof![chance().prop_map(Loss::Independent), bursts]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![(1..100u32).prop_map(Limit::Frames), (1..100_000u32).prop_map(Limit::Bytes)]
}

fn rate() -> impl Strategy<Value = Rate> {
    let bits = prop_oneof![1_000_000..1_000_000_000_000u64, 1..u64::MAX];
    (bits, any::<bool>()).prop_map(|(bits, ethernet)| Rate { bits: bits.try_into().unwrap(), ethernet })
}

fn impairment() -> impl Strategy<Value = Impairment> {
    let option = |chance: proptest::strategy::BoxedStrategy<Chance>| prop::option::of(chance);
    let reorder = (chance(), 1..5u32).prop_map(|(chance, gap)| Reorder { chance, gap });
    (
        prop::option::of(delay()),
        prop::option::of(loss()),
        option(chance().boxed()),
        prop::option::of(reorder),
        option(chance().boxed()),
        prop::option::of((rate(), prop::option::of(limit()))),
    )
        .prop_map(|(delay, loss, duplicate, reorder, corrupt, rate)| {
            let useful = delay.is_some_and(|delay| delay != Delay::default());
            let (rate, limit) = rate.unzip();
            Impairment {
                delay,
                loss,
                duplicate,
                reorder: reorder.filter(|_| useful),
                corrupt,
                rate,
                limit: limit.flatten(),
            }
        })
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Wait(Duration),
    Set(Impairment),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (18..2000usize).prop_map(Step::Push),
        1 => (18..65_000usize).prop_map(Step::Push),
        3 => (0..20_000_000u64).prop_map(|nanos| Step::Wait(Duration::from_nanos(nanos))),
        1 => impairment().prop_map(Step::Set),
    ]
}

proptest! {
    /// Nothing is lost that was not said to be lost; a deadline never lies; arrivals are in due order and never early.
    /// The loop of [`World::advance`] asserts the deadline law at each step.
    #[test]
    fn each_frame_arrives_or_is_named(
        first in impairment(),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new("none", seed);
        world.link.set(first, world.now);
        for step in &steps {
            match step {
                Step::Push(len) => { world.push(*len); }
                Step::Wait(time) => world.advance(*time),
                Step::Set(impairment) => world.link.set(*impairment, world.now),
            }
            let outcome = world.outcome;
            prop_assert_eq!(outcome.frames + outcome.duplicated, outcome.queued + outcome.lost + outcome.full + outcome.overrun);
            prop_assert_eq!(outcome.queued, (world.arrivals.len() + world.link.under_way()) as u64);
        }
        world.drain();
        prop_assert_eq!(world.outcome.queued, world.arrivals.len() as u64);
        prop_assert!(world.arrivals.is_sorted_by_key(|arrival| arrival.due));
        if world.outcome.corrupted == 0 {
            for arrival in &world.arrivals {
                prop_assert!(arrival.due >= arrival.sent);
                let Some(Step::Push(len)) =
                    steps.iter().filter(|step| matches!(step, Step::Push(_))).nth(arrival.number as usize)
                else { panic!("a frame that nobody sent") };
                prop_assert_eq!(&arrival.bytes, &frame(arrival.number, *len));
            }
        }
        prop_assert_eq!(world.link.under_way(), 0);
    }

    #[test]
    fn order_is_kept_by_all_but_reordering(
        mut impairment in impairment(),
        seed in any::<u64>(),
        waits in prop::collection::vec(0..3_000u64, 1..200),
    ) {
        (impairment.reorder, impairment.corrupt) = (None, None);
        let mut world = World::new("none", seed);
        world.link.set(impairment, world.now);
        for wait in waits {
            world.push(100);
            world.advance(us(wait));
        }
        world.drain();
        prop_assert!(world.numbers().is_sorted());
    }

    #[test]
    fn what_is_written_reads_as_the_same(impairment in impairment()) {
        prop_assert_eq!(words(&impairment.to_string()), impairment);
        let json = serde_json::to_string(&impairment).unwrap();
        prop_assert_eq!(serde_json::from_str::<Impairment>(&json).unwrap(), impairment);
    }

    #[test]
    fn no_words_make_it_panic(text in "\\PC{0,60}", numbers in "(delay|loss|rate|limit|reorder|corrupt) [0-9.]{0,40}[a-z%]{0,4}") {
        let _ = text.parse::<Impairment>();
        let _ = numbers.parse::<Impairment>();
    }
}

#[test]
fn time_that_runs_backwards_is_taken_for_standing_still() {
    let mut world = World::new("delay 5ms", 1);
    world.push(60);
    let before = Instant::from_millis(1);
    world.link.push(before, &tapswitch_wire::Meta::PLAIN, &frame(1, 60)).unwrap();
    assert!(world.link.pop(before + ms(900)).is_none());
    assert_eq!(world.link.deadline(), Some(Instant::from_secs(1) + ms(5)));
}
