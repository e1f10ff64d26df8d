//! All that is wrong with a link, in words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Chance, Delay, Limit, Loss, Rate, Reorder};

/// What a link does to frames. The default does nothing.
///
/// Written as `tc` writes it for `netem`: `delay 20ms 5ms loss 1% duplicate 0.5% reorder 5% gap 4 corrupt 0.1% rate 10mbit
/// limit 1000`, in any order, or `none`. Serialized as a map of the same words: `{"delay": "20ms 5ms", "loss": "1%"}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Impairment {
    /// The time on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Which frames are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How many frames arrive twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// Which frames skip the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// How many frames arrive with one bit flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// How fast frames go out; `None` is without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How much waits for the rate; `None` is 1000 frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

impl Impairment {
    /// Nothing is wrong.
    pub const NONE: Impairment =
        Impairment { delay: None, loss: None, duplicate: None, reorder: None, corrupt: None, rate: None, limit: None };

    /// Whether frames pass as if this were not there.
    pub fn is_none(&self) -> bool {
        let never = |chance: Option<Chance>| chance.is_none_or(|chance| chance == Chance::NEVER);
        self.delay.is_none_or(|delay| delay.is_zero())
            && self.loss.is_none_or(|loss| loss.is_never())
            && never(self.duplicate)
            && never(self.corrupt)
            && self.rate.is_none()
    }

    /// What would be of no use, though each part is right.
    ///
    /// # Errors
    /// In words for the user: reordering without a delay, a limit without a rate.
    pub fn check(&self) -> Result<(), String> {
        if self.reorder.is_some() && self.delay.is_none_or(|delay| delay.is_zero()) {
            return Err(
                "reorder without a delay: with nothing on its way there is nothing to overtake; give delay too".into(),
            );
        }
        if self.limit.is_some() && self.rate.is_none() {
            return Err("limit without a rate: nothing ever waits; give rate too".into());
        }
        Ok(())
    }

    /// This impairment, changed by `words`: the parts they name are as they say, `none` behind a name takes a part
    /// away, and the others stay. `none` alone takes all away.
    ///
    /// # Errors
    /// In words for the user: an unknown name, one given twice, a value that is not what its name expects, and what
    /// [`Impairment::check`] says of the result.
    pub fn amended(&self, words: &str) -> Result<Impairment, String> {
        let mut result = *self;
        let words: Vec<&str> = words.split_whitespace().collect();
        if words == ["none"] {
            return Ok(Impairment::NONE);
        }
        if let Some(first) = words.first().filter(|word| !NAMES.contains(word)) {
            return Err(format!("'{first}' is no impairment: write none, or one or more of {}", NAMES.join(", ")));
        }
        for part in words.chunk_by(|_, next| !NAMES.contains(next)) {
            let [name, value @ ..] = part else { continue };
            if words.iter().filter(|word| *word == name).count() > 1 {
                return Err(format!("'{name}' is given twice"));
            }
            let value = value.join(" ");
            result.set(name, &value).map_err(|error| format!("{name}: {error}"))?;
        }
        result.check()?;
        Ok(result)
    }

    /// Sets the part of this name, one of [`NAMES`].
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        fn part<T: FromStr<Err = String>>(value: &str) -> Result<Option<T>, String> {
            if value == "none" { Ok(None) } else { value.parse().map(Some) }
        }
        match name {
            "delay" => self.delay = part(value)?,
            "loss" => self.loss = part(value)?,
            "duplicate" => self.duplicate = part(value)?,
            "reorder" => self.reorder = part(value)?,
            "corrupt" => self.corrupt = part(value)?,
            "rate" => self.rate = part(value)?,
            _ => self.limit = part(value)?,
        }
        Ok(())
    }
}

/// The names of the parts.
const NAMES: [&str; 7] = ["delay", "loss", "duplicate", "reorder", "corrupt", "rate", "limit"];

impl FromStr for Impairment {
    type Err = String;

    /// As [`Impairment::amended`], from nothing. No words at all are nothing.
    fn from_str(words: &str) -> Result<Self, Self::Err> {
        Impairment::NONE.amended(words)
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: [(&str, Option<&dyn fmt::Display>); NAMES.len()] = [
            ("delay", self.delay.as_ref().map(|part| part as _)),
            ("loss", self.loss.as_ref().map(|part| part as _)),
            ("duplicate", self.duplicate.as_ref().map(|part| part as _)),
            ("reorder", self.reorder.as_ref().map(|part| part as _)),
            ("corrupt", self.corrupt.as_ref().map(|part| part as _)),
            ("rate", self.rate.as_ref().map(|part| part as _)),
            ("limit", self.limit.as_ref().map(|part| part as _)),
        ];
        let mut between = "";
        for (name, part) in parts {
            if let Some(part) = part {
                write!(f, "{between}{name} {part}")?;
                between = " ";
            }
        }
        if between.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl Serialize for Impairment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Impairment::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Impairment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let impairment = Impairment::deserialize(deserializer)?;
        impairment.check().map_err(serde::de::Error::custom)?;
        Ok(impairment)
    }
}
