//! A hundred thousand frames: what was asked for is what happens, within four standard deviations.

use std::collections::HashSet;

use tapswitch_wire::Instant;

use crate::world::{World, ms, us};

const FRAMES: u32 = 100_000;
const SEEDS: [u64; 3] = [0, 1, 0xdead_beef_0bad_cafe];

/// That a number of hits is what so many trials of this probability give.
#[track_caller]
fn assert_share(what: &str, hits: u64, trials: u64, chance: f64) {
    let (mean, sigma) = (trials as f64 * chance, (trials as f64 * chance * (1.0 - chance)).sqrt());
    assert!(
        (hits as f64 - mean).abs() <= 4.0 * sigma,
        "{what}: {hits} of {trials}, expected {mean} +- {}",
        4.0 * sigma
    );
}

#[test]
fn one_percent_loss_loses_one_percent() {
    for seed in SEEDS {
        for (text, chance) in [("1%", 0.01), ("50%", 0.5), ("0.01%", 0.0001), ("99.9%", 0.999)] {
            let world = World::run(&format!("loss {text}"), seed, FRAMES, us(10), 60);
            assert_share(text, world.outcome.lost, FRAMES.into(), chance);
            assert_eq!(world.arrivals.len() as u64 + world.outcome.lost, u64::from(FRAMES));
        }
    }
}

#[test]
fn loss_of_everything_and_of_nothing_is_exact() {
    assert_eq!(World::run("loss 100%", 1, FRAMES, us(1), 60).arrivals.len(), 0);
    assert_eq!(World::run("delay 1ms loss 0%", 1, FRAMES, us(1), 60).arrivals.len(), FRAMES as usize);
}

#[test]
fn duplicates_are_equal_to_their_frames_and_as_many_as_asked_for() {
    for seed in SEEDS {
        let world = World::run("duplicate 0.5% delay 3ms 2ms", seed, FRAMES, us(10), 60);
        let twice = world.arrivals.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        assert_eq!(twice, world.outcome.duplicated, "each copy arrives right behind its frame");
        assert_share("copies", twice, FRAMES.into(), 0.005);
    }
    let corrupted = World::run("duplicate 100% corrupt 100%", 1, 1000, us(10), 60);
    assert!(corrupted.arrivals.chunks(2).all(|pair| pair[0] == pair[1]), "a copy has the same wrong bit");
}

#[test]
fn a_corrupted_frame_differs_in_one_bit_which_may_be_any() {
    const LEN: usize = 100;
    for seed in SEEDS {
        let world = World::run("corrupt 10%", seed, FRAMES, us(10), LEN);
        let mut hits = [0u64; LEN * 8];
        for (number, arrival) in world.arrivals.iter().enumerate() {
            let right = crate::world::frame(number as u32, LEN);
            if arrival.bytes == right {
                continue;
            }
            let flipped = |at: usize| (arrival.bytes[at / 8] ^ right[at / 8]) >> (at % 8) & 1 == 1;
            let bits: Vec<usize> = (0..LEN * 8).filter(|at| flipped(*at)).collect();
            assert!(bits.len() <= 1, "frame {number} has {} wrong bits", bits.len());
            bits.iter().for_each(|at| hits[*at] += 1);
        }
        let total = hits.iter().sum();
        assert_eq!(total, world.outcome.corrupted);
        assert_share("corrupted", total, FRAMES.into(), 0.1);
        // About 12 hits a bit. By quarters of the frame the share is sharp, and no bit is left out.
        for quarter in hits.chunks(LEN * 8 / 4) {
            assert_share("of a quarter", quarter.iter().sum(), total, 0.25);
        }
        assert!(hits.iter().filter(|hits| **hits == 0).count() <= 2, "some bits are never flipped");
    }
}

#[test]
fn what_is_not_lost_is_impaired_as_often_as_without_loss() {
    for seed in SEEDS {
        let outcome =
            World::run("loss 50% duplicate 50% corrupt 50% delay 1ms reorder 50%", seed, FRAMES, us(10), 60).outcome;
        let left = outcome.frames - outcome.lost;
        for (what, hits) in
            [("copies", outcome.duplicated), ("corrupted", outcome.corrupted), ("reordered", outcome.reordered)]
        {
            assert_share(what, hits, left, 0.5);
        }
    }
}

#[test]
fn a_share_of_frames_overtakes() {
    for seed in SEEDS {
        let world = World::run("delay 5ms reorder 5%", seed, FRAMES, us(100), 60);
        let overtook = world.arrivals.iter().filter(|arrival| arrival.delay() == ms(0)).count() as u64;
        assert_eq!(overtook, world.outcome.reordered);
        assert_share("reordered", overtook, FRAMES.into(), 0.05);
    }
}

#[test]
fn with_a_gap_each_so_manyth_frame_overtakes() {
    let world = World::run("delay 5ms reorder 100% gap 5", 1, 1000, ms(10), 60);
    let numbers: Vec<u32> = world.arrivals.iter().filter(|it| it.delay() == ms(0)).map(|it| it.number).collect();
    assert_eq!(numbers, (4..1000).step_by(5).collect::<Vec<u32>>());
}

/// Mean and standard deviation of the delays in milliseconds, of frames too far apart to be in each other's way.
fn delays(impairment: &str, seed: u64) -> (f64, f64, Vec<f64>) {
    let world = World::run(impairment, seed, FRAMES, ms(100), 60);
    let delays: Vec<f64> = world.arrivals.iter().map(|arrival| arrival.delay().as_secs_f64() * 1e3).collect();
    let count = delays.len() as f64;
    let mean = delays.iter().sum::<f64>() / count;
    let variance = delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt(), delays)
}

#[test]
fn delay_without_jitter_is_exact() {
    assert!(delays("delay 20ms", 1).2.iter().all(|delay| *delay == 20.0));
}

#[test]
fn uniform_jitter_fills_its_range_evenly() {
    for seed in SEEDS {
        let (mean, sigma, delays) = delays("delay 20ms 5ms", seed);
        let expected = 5.0 / 3f64.sqrt();
        let error = expected / f64::from(FRAMES).sqrt();
        assert!((mean - 20.0).abs() < 4.0 * error, "mean {mean}");
        assert!((sigma - expected).abs() < 4.0 * error, "sigma {sigma}");
        assert!(delays.iter().all(|delay| (15.0..=25.0).contains(delay)));
        for tenth in 0..10 {
            let from = 15.0 + f64::from(tenth);
            let inside = delays.iter().filter(|delay| (from..from + 1.0).contains(*delay)).count();
            assert_share("of a tenth of the range", inside as u64, FRAMES.into(), 0.1);
        }
    }
}

#[test]
fn normal_jitter_is_a_bell() {
    for seed in SEEDS {
        let (mean, sigma, delays) = delays("delay 50ms 5ms normal", seed);
        let error = 5.0 / f64::from(FRAMES).sqrt();
        assert!((mean - 50.0).abs() < 4.0 * error, "mean {mean}");
        assert!((sigma - 5.0).abs() < 4.0 * error, "sigma {sigma}");
        // A sum of twelve even numbers has slightly broader shoulders than a true normal: not 0.6827 and 0.9545.
        for (sigmas, share) in [(1.0, 0.678_546), (2.0, 0.955_449)] {
            let inside = delays.iter().filter(|delay| (*delay - 50.0).abs() < 5.0 * sigmas).count();
            assert_share("within some sigma", inside as u64, FRAMES.into(), share);
        }
    }
}

#[test]
fn a_delay_never_becomes_negative() {
    let (_, _, delays) = delays("delay 1ms 5ms normal", 1);
    let (mut zero, mut late) = (0, 0);
    for delay in delays {
        if delay == 0.0 { zero += 1 } else { late += 1 }
    }
    // Below -0.2 sigma lie 42 % of a bell.
    assert!((41_000..43_500).contains(&zero), "{zero} at once, {late} later");
}

#[test]
fn bytes_go_out_at_the_rate() {
    for (rate, bits, charged) in [
        ("rate 10mbit", 10e6, 1514.0),
        ("rate 10mbit ethernet", 10e6, 1538.0),
        ("rate 64kbit", 64e3, 1514.0),
        ("rate 100gbit", 100e9, 1514.0),
        ("rate 3333333bit", 3_333_333.0, 1514.0),
    ] {
        let mut world = World::new(&format!("{rate} limit 100"), 1);
        let begin = world.now;
        for _ in 0..10_000 {
            // One more whenever there is room: always something waits.
            while world.link.under_way() < 50 {
                world.push(1514);
            }
            let next = world.link.deadline().unwrap() - world.now;
            world.advance(next);
        }
        let took = (world.arrivals.last().unwrap().due - begin).as_secs_f64();
        let found = world.arrivals.len() as f64 * charged * 8.0 / took;
        assert!((found / bits - 1.0).abs() < 0.01, "{rate}: {found} bit/s");
        assert_eq!(world.outcome.full, 0);
    }
}

#[test]
fn many_short_frames_lose_no_fraction_of_a_nanosecond() {
    // 60 bytes at 7 Gbit/s take 68.57 ns.
    let mut world = World::new("rate 7gbit limit 70000", 1);
    for _ in 0..70_000 {
        world.push(60);
    }
    world.drain();
    let took = world.arrivals.last().unwrap().due - Instant::from_secs(1);
    assert_eq!(took.as_nanos(), 70_000 * 60 * 8 / 7);
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_the_model_says() {
    for seed in SEEDS {
        let world = World::run("loss gemodel 1% 20%", seed, FRAMES, us(10), 60);
        let arrived: HashSet<u32> = world.numbers().into_iter().collect();
        let lost: Vec<bool> = (0..FRAMES).map(|number| !arrived.contains(&number)).collect();
        let bursts: Vec<usize> = lost.chunk_by(|a, b| a == b).filter(|run| run[0]).map(<[bool]>::len).collect();
        let count = bursts.len() as f64;
        // A geometric length with r = 0.2: mean 5, deviation sqrt(0.8) / 0.2.
        let mean = bursts.iter().sum::<usize>() as f64 / count;
        assert!((mean - 5.0).abs() < 4.0 * 0.8f64.sqrt() / 0.2 / count.sqrt(), "bursts of {mean}");
        // A cycle is 100 good frames and 5 bad ones.
        let cycles = f64::from(FRAMES) / 105.0;
        let sigma = (100f64.powi(2) + 20.0).sqrt() / 105.0 * cycles.sqrt();
        assert!((count - cycles).abs() < 4.0 * sigma, "{count} bursts, expected {cycles}");
        let longest = bursts.iter().max().unwrap();
        assert!((20..120).contains(longest), "longest burst {longest}");
    }
}

#[test]
fn both_states_of_the_burst_model_have_their_loss() {
    for seed in SEEDS {
        let world = World::run("loss gemodel 50% 50% 40% 10%", seed, FRAMES, us(10), 60);
        // The state changes with each second frame, so neighbours hardly depend on each other.
        assert_share("lost", world.outcome.lost, FRAMES.into(), 0.25);
    }
}
