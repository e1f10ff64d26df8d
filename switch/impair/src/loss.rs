//! Which frames are lost: each for itself, or in bursts.

use std::fmt;
use std::str::FromStr;

use crate::units::{Chance, serde_as_words};

/// Burst loss: a link with a good and a bad state, each with its own loss (Gilbert 1960, Elliott 1963).
///
/// With each frame the link may change its state, after that frame. With `bad` at 100% and `good` at 0%, bursts last
/// 1 / `to_good` frames in the mean, and `to_bad` / (`to_bad` + `to_good`) of all frames are lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GilbertElliott {
    /// From good to bad, per frame: `netem`'s p.
    pub to_bad: Chance,
    /// From bad to good, per frame: `netem`'s r.
    pub to_good: Chance,
    /// Loss in the bad state: `netem`'s 1-h.
    pub bad: Chance,
    /// Loss in the good state: `netem`'s 1-k.
    pub good: Chance,
}

/// Loss. Written `1%` or `gemodel P R [1-H [1-K]]`, as `netem` does: `gemodel 1% 20%`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Loss {
    /// Each frame with this probability.
    Independent(Chance),
    /// In bursts.
    Bursts(GilbertElliott),
}

impl Loss {
    pub(crate) fn is_never(&self) -> bool {
        match self {
            Loss::Independent(chance) => *chance == Chance::NEVER,
            Loss::Bursts(model) => {
                model.good == Chance::NEVER && (model.bad == Chance::NEVER || model.to_bad == Chance::NEVER)
            }
        }
    }
}

/// What the losses so far have to do with the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum State {
    #[default]
    Good,
    Bad,
}

impl State {
    /// Whether the frame that rolled these is lost; goes on to the state of the next.
    pub fn lose(&mut self, loss: Option<Loss>, rolls: [u64; 2]) -> bool {
        match loss {
            None => false,
            Some(Loss::Independent(chance)) => chance.hits(rolls[0]),
            Some(Loss::Bursts(model)) => {
                let (chance, leave, other) = match self {
                    State::Good => (model.good, model.to_bad, State::Bad),
                    State::Bad => (model.bad, model.to_good, State::Good),
                };
                if leave.hits(rolls[1]) {
                    *self = other;
                }
                chance.hits(rolls[0])
            }
        }
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (to_bad, to_good, bad, good) = match words[..] {
            [chance] | ["random", chance] => return Ok(Loss::Independent(chance.parse()?)),
            ["gemodel", to_bad, to_good] => (to_bad, to_good, "100%", "0%"),
            ["gemodel", to_bad, to_good, bad] => (to_bad, to_good, bad, "0%"),
            ["gemodel", to_bad, to_good, bad, good] => (to_bad, to_good, bad, good),
            _ => {
                return Err(format!(
                    "'{text}' is not a loss: write PERCENT, as 1%, or gemodel P R [1-H [1-K]], as gemodel 1% 20%: from \
                     good to bad, from bad to good, loss when bad, loss when good"
                ));
            }
        };
        let (to_bad, to_good) = (to_bad.parse()?, to_good.parse()?);
        Ok(Loss::Bursts(GilbertElliott { to_bad, to_good, bad: bad.parse()?, good: good.parse()? }))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Independent(chance) => chance.fmt(f),
            Loss::Bursts(GilbertElliott { to_bad, to_good, bad, good }) => {
                write!(f, "gemodel {to_bad} {to_good}")?;
                if (*bad, *good) != (Chance::ALWAYS, Chance::NEVER) {
                    write!(f, " {bad}")?;
                }
                if *good != Chance::NEVER {
                    write!(f, " {good}")?;
                }
                Ok(())
            }
        }
    }
}

serde_as_words!(Loss);
