//! Numbers with units, read and written exactly: a decimal fraction of a unit is a whole number of the smallest one.

use std::fmt;
use std::str::FromStr;

/// A unit: its name and how many of the smallest one it is. A list of them goes from small to large by powers of ten.
pub(crate) type Unit = (&'static str, u64);

/// Reads a decimal number with one of these units. `what` describes what is expected, for the error.
pub(crate) fn parse(text: &str, units: &[Unit], what: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not {what}");
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, name) = text.split_at(digits);
    let unit = units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name)).ok_or_else(wrong)?.1;
    let (whole, fraction) = match number.split_once('.') {
        Some((_, fraction)) if fraction.is_empty() || fraction.len() > 12 => return Err(wrong()),
        Some(parts) => parts,
        None => (number, ""),
    };
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
    let scaled = (u128::from(whole) * scale + fraction) * u128::from(unit);
    if !scaled.is_multiple_of(scale) {
        let (smallest, count) = units[0];
        return Err(format!("'{text}' is finer than can be told apart: the step is {}", Number(1, smallest, count)));
    }
    u64::try_from(scaled / scale).map_err(|_| wrong())
}

/// Writes what [`parse`] reads, in the largest unit that is not larger than the value.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[Unit]) -> fmt::Result {
    let fitting = units.iter().rev().find(|(_, unit)| value >= *unit);
    let (name, unit) = *fitting.unwrap_or(&units[0]);
    write!(f, "{}", Number(value, name, unit))
}

/// A value in the smallest unit, the unit to write it in, and how many of the smallest that is.
struct Number(u64, &'static str, u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number(value, name, unit) = *self;
        write!(f, "{}", value / unit)?;
        if !value.is_multiple_of(unit) {
            let digits = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str(name)
    }
}

/// A probability, exact to a thousand-millionth. Written `0.5%`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);
    /// Always.
    pub const ALWAYS: Chance = Chance(1_000_000_000);
    const UNITS: [Unit; 1] = [("%", 10_000_000)];

    /// So many times in a thousand million; more than that many is [`Chance::ALWAYS`].
    pub const fn from_ppb(parts: u32) -> Chance {
        if parts > Self::ALWAYS.0 { Self::ALWAYS } else { Chance(parts) }
    }

    /// How many times in a thousand million.
    pub const fn ppb(self) -> u32 {
        self.0
    }

    /// Whether this roll of a die hits.
    pub(crate) fn hits(self, roll: u64) -> bool {
        below(roll, u64::from(Self::ALWAYS.0)) < u64::from(self.0)
    }
}

/// A number from 0 to `end` - 1, or 0 if that is empty, from a roll that may be any number.
pub(crate) fn below(roll: u64, end: u64) -> u64 {
    ((u128::from(roll) * u128::from(end)) >> 64) as u64
}

impl FromStr for Chance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let what = "a percentage from 0% to 100%, such as 0.5%";
        let parts = parse(text, &Self::UNITS, what)?;
        let parts = u32::try_from(parts).ok().filter(|parts| *parts <= Self::ALWAYS.0);
        parts.map(Chance).ok_or_else(|| format!("'{text}' is not {what}"))
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Number(u64::from(self.0), "%", Self::UNITS[0].1).fmt(f)
    }
}

/// Serializes types as the words that they are written in.
macro_rules! serde_as_words {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let words = <String as serde::Deserialize>::deserialize(deserializer)?;
                words.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_words;

serde_as_words!(Chance);
