//! How a record looks: one line of text, or one JSON object.
//!
//! The text of a failed log-in follows Dovecot's, so that the filters that administrators already run
//! against guessing find the address in it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Field, Record};
use crate::config::Level;

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical => "Critical",
        Level::Error => "Error",
        Level::Warning => "Warning",
        Level::Info => "Info",
        Level::Protocol => "Protocol",
    }
}

/// A record as one line of text.
pub(super) fn text(record: &Record) -> String {
    format!("{} gatepost {}", humantime::format_rfc3339_millis(record.time), body(record))
}

/// The same without the time and the program.
pub(super) fn body(record: &Record) -> String {
    let mut line = format!("{}: {}: ", record.service, level_name(record.level));
    if let Some(node) = &record.node {
        // In front of what the other one says: nothing there can look like a record of our own.
        let _ = write!(line, "node=<{}>: ", Escaped(node));
    }
    let _ = write!(line, "{}", OneLine(&record.message));
    for (n, (key, field)) in record.fields.iter().enumerate() {
        let separator = if n == 0 { ": " } else { ", " };
        let _ = match field {
            Field::Text(text) if text.contains([' ', ',', '=', '"']) => {
                write!(line, "{separator}{key}=\"{}\"", OneLine(&text.replace('"', "'")))
            }
            Field::Text(text) => write!(line, "{separator}{key}={}", OneLine(text)),
            Field::Name(name) => write!(line, "{separator}{key}=<{}>", Escaped(name)),
            Field::Number(number) => write!(line, "{separator}{key}={number}"),
            Field::Address(address) => write!(line, "{separator}{key}={address}"),
        };
    }
    line.push('\n');
    line
}

/// A field in the journal's form; names there are capitals.
pub(super) fn journal_field(key: &str, value: &str) -> String {
    format!("GATEPOST_{}={value}\n", key.to_ascii_uppercase())
}

/// A record as one line of JSON.
pub(super) fn json(record: &Record) -> String {
    let mut line = Value::Object(object(record)).to_string();
    line.push('\n');
    line
}

pub(super) fn object(record: &Record) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("time".into(), humantime::format_rfc3339_millis(record.time).to_string().into());
    object.insert("level".into(), record.level.name().into());
    object.insert("service".into(), record.service.into());
    object.insert("message".into(), record.message.as_str().into());
    if let Some(node) = &record.node {
        object.insert("node".into(), node.as_str().into());
    }
    for (key, field) in &record.fields {
        let value = match field {
            Field::Text(text) | Field::Name(text) => Value::from(text.as_str()),
            Field::Number(number) => json!(number),
            Field::Address(address) => Value::from(address.to_string()),
        };
        object.insert(key.to_string(), value);
    }
    object
}

/// Text with control characters, line ends and escapes among them, made visible.
struct OneLine<'a>(&'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| if is_unsafe(c) { escape(c, f) } else { f.write_char(c) })
    }
}

/// As [`OneLine`], and nothing in it can end the `<>` it stands in or look like a further field.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marks = ['<', '>', '"', '\'', ',', ' ', '\\'];
        self.0.chars().try_for_each(|c| if is_unsafe(c) || marks.contains(&c) { escape(c, f) } else { f.write_char(c) })
    }
}

/// Control characters, and those that make text on a terminal run backwards.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(c: char, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    write!(f, "\\u{{{:x}}}", c as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: &str) -> Record {
        Record {
            time: std::time::UNIX_EPOCH,
            level: Level::Info,
            service: "imap-login",
            message: "Aborted login (auth failed, 1 attempts in 0 secs)".into(),
            fields: vec![
                ("user".into(), Field::Name(user.into())),
                ("method".into(), "PLAIN".into()),
                ("rip".into(), Field::Address([192, 0, 2, 7].into())),
            ],
            is_followed: false,
            node: None,
            stays_here: false,
        }
    }

    #[test]
    fn a_failed_log_in_reads_like_dovecots() {
        assert_eq!(
            text(&record("kim")),
            "1970-01-01T00:00:00.000Z gatepost imap-login: Info: Aborted login (auth failed, 1 attempts in 0 secs): \
             user=<kim>, method=PLAIN, rip=192.0.2.7\n"
        );
    }

    #[test]
    fn a_name_stays_in_its_place_and_line() {
        let line = text(&record("x>, rip=10.0.0.1\r\n\u{1b}[2J\u{202e}<script>"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains(['\u{1b}', '\r', '\u{202e}']));
        assert_eq!(line.matches(", rip=").count(), 1);
        let parsed: Value = serde_json::from_str(&json(&record("a\"\r\nb"))).expect("JSON");
        assert_eq!(parsed["user"], "a\"\r\nb");
    }
}
