//! Which frames skip the delay.

use std::fmt;
use std::str::FromStr;

use crate::units::{Chance, serde_as_words};

/// Reordering: some frames skip the delay and so overtake. Written `5%` or `5% gap 4`, as `netem` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reorder {
    /// How likely a candidate is to overtake.
    pub chance: Chance,
    /// After a frame that overtook, so many frames less one are no candidates. 1 (and 0) makes each frame one; with 100%,
    /// exactly each `gap`-th frame overtakes.
    pub gap: u32,
}

impl Reorder {
    /// Whether the frame that rolled this overtakes. `since` counts the frames that did not, since the last that did.
    pub(crate) fn overtakes(&self, since: &mut u32, roll: u64) -> bool {
        let overtakes = since.saturating_add(1) >= self.gap && self.chance.hits(roll);
        *since = if overtakes { 0 } else { since.saturating_add(1) };
        overtakes
    }
}

impl FromStr for Reorder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (chance, gap) = match words[..] {
            [chance] => (chance, "1"),
            [chance, "gap", gap] => (chance, gap),
            _ => return Err(format!("'{text}' is not a reordering: write PERCENT [gap FRAMES], as 5% gap 4")),
        };
        let wrong = || format!("'{gap}' is not a gap: write a number of frames from 1, as 5% gap 4");
        let gap = gap.parse().ok().filter(|gap| *gap > 0).ok_or_else(wrong)?;
        Ok(Reorder { chance: chance.parse()?, gap })
    }
}

impl fmt::Display for Reorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chance.fmt(f)?;
        if self.gap > 1 { write!(f, " gap {}", self.gap) } else { Ok(()) }
    }
}

serde_as_words!(Reorder);
