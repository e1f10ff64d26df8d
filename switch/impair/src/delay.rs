//! How long a frame is on its way.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::units::{self, Unit, below, serde_as_words};

const UNITS: [Unit; 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
const LONGEST: Duration = Duration::from_secs(3600);

/// How the delays of single frames lie about the mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Distribution {
    /// Anything from mean - jitter to mean + jitter is equally likely.
    #[default]
    Uniform,
    /// A bell whose standard deviation is the jitter. It ends at six of them.
    Normal,
}

/// The time on the way. Written `20ms`, `20ms 5ms` or `20ms 5ms normal`, as `netem` does.
///
/// A delay that jitter would make negative is zero. Neither part is longer than an hour.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Delay {
    /// The mean. [`Link`](crate::Link) takes more than an hour for an hour.
    pub mean: Duration,
    /// How far single frames are off, as `distribution` says. More than an hour is taken for an hour.
    pub jitter: Duration,
    /// In what way they are.
    pub distribution: Distribution,
}

impl Delay {
    /// The same delay for each frame.
    pub const fn constant(mean: Duration) -> Delay {
        Delay { mean, jitter: Duration::ZERO, distribution: Distribution::Uniform }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.mean.is_zero() && self.jitter.is_zero()
    }

    /// The delay of a frame that rolled these.
    pub(crate) fn draw(&self, rolls: [u64; 3]) -> Duration {
        // At most an hour: 3.6e12 ns. Times the largest factor below (4e5) that is well within 63 bits.
        let nanos = |time: Duration| time.min(LONGEST).as_nanos() as i64;
        let (mean, jitter) = (nanos(self.mean), nanos(self.jitter));
        let off = match self.distribution {
            Distribution::Uniform => below(rolls[0], 2 * jitter as u64 + 1) as i64 - jitter,
            Distribution::Normal => jitter * deviation(rolls) / 65_536,
        };
        Duration::from_nanos((mean + off).max(0) as u64)
    }
}

/// A normal deviate in units of 1/65536 standard deviation: the sum of twelve even ones.
///
/// Twelve numbers from 0 to 65535 sum to 393210 in the mean, with a variance of 65536^2 - 1. Nothing but integers is
/// needed, so all machines agree, which they do not about logarithms.
fn deviation(rolls: [u64; 3]) -> i64 {
    let words = rolls.iter().flat_map(|roll| [roll & 0xffff, roll >> 16 & 0xffff, roll >> 32 & 0xffff, roll >> 48]);
    words.sum::<u64>() as i64 - 12 * 65_535 / 2
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = |text: &str| {
            let nanos = units::parse(text, &UNITS, "a time such as 20ms (units: us, ms, s)")?;
            let time = Duration::from_nanos(nanos);
            if time > LONGEST { Err(format!("'{text}' is too long: a delay is an hour at most")) } else { Ok(time) }
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (mean, jitter, distribution) = match words[..] {
            [mean] => return Ok(Delay::constant(time(mean)?)),
            [mean, jitter] => (mean, jitter, "uniform"),
            [mean, jitter, distribution] | [mean, jitter, "distribution", distribution] => (mean, jitter, distribution),
            _ => {
                return Err(format!(
                    "'{text}' is not a delay: write MEAN [JITTER [uniform|normal]], as 20ms 5ms normal"
                ));
            }
        };
        let (mean, jitter) = (time(mean)?, time(jitter)?);
        let distribution = match distribution {
            "uniform" => Distribution::Uniform,
            "normal" => Distribution::Normal,
            other => return Err(format!("'{other}' is not a distribution of delays: write uniform or normal")),
        };
        Ok(Delay { mean, jitter, distribution })
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = |time: Duration| time.min(LONGEST).as_nanos() as u64;
        units::write(f, nanos(self.mean), &UNITS)?;
        if !self.jitter.is_zero() {
            f.write_str(" ")?;
            units::write(f, nanos(self.jitter), &UNITS)?;
            if self.distribution == Distribution::Normal {
                f.write_str(" normal")?;
            }
        }
        Ok(())
    }
}

serde_as_words!(Delay);
