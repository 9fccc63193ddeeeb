//! A record: what happened, when, how grave it is, and its particulars.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::SystemTime;

use gatepost_wire::PROTOCOLS;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::format;
use crate::config::{self, Level};

/// One thing that happened.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    /// The service's name, or `server`, `directory` or `admin`.
    pub(super) service: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(Cow<'static, str>, Field)>,
    /// Written whatever the level.
    pub(super) is_followed: bool,
    /// The other Gatepost that it is from.
    pub(super) node: Option<String>,
    /// It goes to no other Gatepost.
    pub(super) stays_here: bool,
}

impl Record {
    pub(super) fn new(level: Level, service: &'static str, message: impl Into<String>) -> Self {
        let (time, fields) = (SystemTime::now(), Vec::new());
        Self {
            time,
            level,
            service,
            message: message.into(),
            fields,
            is_followed: false,
            node: None,
            stays_here: false,
        }
    }

    pub(crate) const fn level(&self) -> Level {
        self.level
    }

    /// The service that it is about; failed log-ins are written under a name of Dovecot's.
    pub(crate) fn about(&self) -> &'static str {
        let named = PROTOCOLS.iter().find(|protocol| protocol.login_name == self.service);
        named.map_or(self.service, |protocol| protocol.name)
    }

    /// It as one line of text, without its end.
    pub(crate) fn text(&self) -> String {
        format::text(self).trim_end().to_owned()
    }

    /// It as a JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        format::object(self).into()
    }
}

/// A field's value.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Field {
    Text(String),
    /// A name that a client gave: shown in `<>`, with what could break out of them escaped.
    Name(String),
    Number(
        #[serde(deserialize_with = "read_number")]
        #[schemars(range(max = 18_446_744_073_709_551_615_u64))]
        u64,
    ),
    Address(#[schemars(schema_with = "address_schema")] IpAddr),
}

fn read_number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    config::whole_number(&value)
        .ok_or_else(|| serde::de::Error::custom(format_args!("{value} is no whole number from 0")))
}

fn address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<IpAddr> for Field {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_log_in_is_about_its_service() {
        for protocol in PROTOCOLS {
            assert_eq!(Record::new(Level::Info, protocol.login_name, "").about(), protocol.name);
        }
        assert_eq!(Record::new(Level::Info, "server", "").about(), "server");
    }
}
