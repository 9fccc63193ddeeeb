//! What requests of the API say, each piece read as its row in `endpoints` has it.

use std::collections::HashMap;

use gatepost_wire::Secret;
use serde_json::Value;

use super::gate::PASSWORD_BYTES_MAX;
use crate::admin::{Changes, LASTING_SECONDS_MAX, Whose, defaults};
use crate::config::{Change, Level, whole_number};

/// Something that a request says.
pub(super) struct Input {
    pub(super) name: &'static str,
    pub(super) at: At,
    pub(super) kind: Kind,
    pub(super) unsaid: Unsaid,
    pub(super) help: &'static str,
}

/// What is so where a request doesn't say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// The request is refused.
    Refused,
    Nothing,
    Number(u64),
    Truth(bool),
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Path,
    Query,
    /// A key of the JSON object that is the body.
    Body,
}

/// What it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number from 0.
    Seconds,
    Level,
    Truth,
    /// A text that becomes a hash before anybody sees it.
    Password,
    /// hour or day: whether it is day.
    Period,
    /// From 1 to 90, as a text.
    Days,
    /// A list of [`Change`](crate::config::Change).
    Changes,
}

/// What one input says.
pub(super) enum Said {
    Text(String),
    /// In clear, until its hash stands for it.
    Password(Secret),
    Number(u64),
    Truth(bool),
    Level(Level),
    Changes(Vec<Change>),
}

impl Kind {
    /// Reads what a request says; `None`: it is none of this kind.
    fn read(self, value: Value) -> Option<Said> {
        let text = |value: Value| match value {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        };
        match self {
            Self::Text => text(value).filter(|text| !text.contains(char::is_control)).map(Said::Text),
            Self::Password => {
                let password = text(value).filter(|text| text.len() <= PASSWORD_BYTES_MAX);
                password.map(|password| Said::Password(Secret::new(password.into_bytes())))
            }
            Self::Seconds => whole_number(&value).filter(|&seconds| seconds <= LASTING_SECONDS_MAX).map(Said::Number),
            Self::Level => text(value)?.parse().ok().map(Said::Level),
            Self::Truth => value.as_bool().map(Said::Truth),
            Self::Period => match value.as_str() {
                Some("day") => Some(Said::Truth(true)),
                Some("hour") => Some(Said::Truth(false)),
                _ => None,
            },
            Self::Days => {
                let days = text(value)?.parse().ok().filter(|days| (1..=defaults::REPORT_DAYS_MAX).contains(days));
                days.map(Said::Number)
            }
            Self::Changes => serde_json::from_value(value).ok().map(Said::Changes),
        }
    }

    /// What it may be, in words.
    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a text that is not empty and without control characters",
            Self::Truth => "true or false",
            Self::Password => "a text of at most 1,024 bytes",
            Self::Seconds => "a whole number of seconds",
            Self::Changes => "a list of changes, each with `table`, `key` and `value`",
            Self::Period => "hour or day",
            Self::Days => "a whole number from 1 to 90",
            Self::Level => "critical, error, warning, info or protocol",
        }
    }
}

/// What a request says, read. Each is taken out once.
#[derive(Default)]
pub(super) struct Inputs(HashMap<&'static str, Said>);

impl Inputs {
    /// Takes what a request says of one of them, or doesn't say; an error is for whoever asked.
    pub(super) fn take(&mut self, input: &Input, given: Option<Value>) -> Result<(), String> {
        let said = match (given, input.unsaid) {
            (Some(value), _) => {
                let said = input.kind.read(value);
                said.ok_or_else(|| format!("{}: expected {}", input.name, input.kind.expected()))?
            }
            (None, Unsaid::Refused) => return Err(format!("{} is missing: {}", input.name, input.help)),
            (None, Unsaid::Nothing) => return Ok(()),
            (None, Unsaid::Number(number)) => Said::Number(number),
            (None, Unsaid::Truth(is_so)) => Said::Truth(is_so),
        };
        self.0.insert(input.name, said);
        Ok(())
    }

    /// All that was said, for what must become something else before a command is made of it.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Said> {
        self.0.values_mut()
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let Said::Text(text) = self.0.remove(name)? else { return None };
        Some(text)
    }

    pub(super) fn truth(&mut self, name: &str) -> Option<bool> {
        let Said::Truth(is_so) = self.0.remove(name)? else { return None };
        Some(is_so)
    }

    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let Said::Number(number) = self.0.remove(name)? else { return None };
        Some(number)
    }

    pub(super) fn level(&mut self, name: &str) -> Option<Level> {
        let Said::Level(level) = self.0.remove(name)? else { return None };
        Some(level)
    }

    pub(super) fn changes(&mut self) -> Option<Changes> {
        let Said::Changes(changes) = self.0.remove("changes")? else { return None };
        Some(Changes { changes, digest: self.text("digest") })
    }

    pub(super) fn whose(&mut self) -> Whose {
        Whose {
            id: self.text("id"),
            user: self.text("user"),
            backend: self.text("backend"),
            service: self.text("service"),
            ..Whose::default()
        }
    }

    /// What was said and is taken by nobody, but for passwords: before a command is made of them they are hashes.
    #[cfg(test)]
    pub(super) fn unheard(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, said)| !matches!(said, Said::Password(_))).map(|(name, _)| *name).collect()
    }
}
