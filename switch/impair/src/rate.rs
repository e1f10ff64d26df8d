//! How fast frames go out, and how many wait for it.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{self, Unit, serde_as_words};

const BITS: [Unit; 5] =
    [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("tbit", 1_000_000_000_000)];
const BYTES: [Unit; 3] = [("b", 1), ("kb", 1_000), ("mb", 1_000_000)];

/// How fast the bits of frames go out. Written `10mbit`, or `10mbit ethernet`.
///
/// What counts is the frame from its Ethernet header to the end of its payload, as with `netem`. With `ethernet` each frame
/// also pays for what surrounds it on a real cable: padding to 60 bytes, and 24 bytes of preamble (8), frame check sequence
/// (4) and gap (12) (IEEE 802.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// Bits per second.
    pub bits: NonZeroU64,
    /// Whether a frame pays for preamble, padding, check sequence and gap.
    pub ethernet: bool,
}

impl Rate {
    /// How many bytes a frame of `len` bytes pays for.
    pub(crate) fn charge(&self, len: usize) -> usize {
        if self.ethernet { len.max(60) + 24 } else { len }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, ethernet) = match words[..] {
            [rate] => (rate, false),
            [rate, "ethernet"] => (rate, true),
            _ => return Err(format!("'{text}' is not a rate: write RATE [ethernet], as 10mbit")),
        };
        let bits = units::parse(rate, &BITS, "a rate such as 10mbit (units: bit, kbit, mbit, gbit, all per second)")?;
        let bits =
            NonZeroU64::new(bits).ok_or("a rate of zero lets nothing through: write 'loss 100%', or 'rate none'")?;
        Ok(Rate { bits, ethernet })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        units::write(f, self.bits.get(), &BITS)?;
        if self.ethernet { f.write_str(" ethernet") } else { Ok(()) }
    }
}

serde_as_words!(Rate);

/// How much may wait in front of the rate, the frame that is being sent included. Written `1000` (frames) or `64kb`
/// (kb is 1000 bytes here). An idle link always takes a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Limit {
    /// So many frames, whatever their length.
    Frames(u32),
    /// So many bytes, as the rate counts them.
    Bytes(u32),
}

impl Default for Limit {
    fn default() -> Self {
        Limit::Frames(1000)
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let what = "a limit: write a number of frames, as 1000, or of bytes, as 64kb (units: b, kb, mb)";
        let wrong = || format!("'{text}' is not {what}");
        let number = |value: u64| u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(wrong);
        match text.parse::<u64>() {
            Ok(frames) => Ok(Limit::Frames(number(frames)?)),
            Err(_) => Ok(Limit::Bytes(number(units::parse(text, &BYTES, what)?)?)),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Frames(frames) => frames.fmt(f),
            Limit::Bytes(bytes) => units::write(f, u64::from(*bytes), &BYTES),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::Frames(frames) => serializer.serialize_u32(*frames),
            Limit::Bytes(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of frames, as 1000, or of bytes, as \"64kb\"")]
        enum Either {
            Frames(NonZeroU32),
            Words(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Frames(frames) => Ok(Limit::Frames(frames.get())),
            Either::Words(words) => words.parse().map_err(serde::de::Error::custom),
        }
    }
}
