//! Directories of type http: responders that are asked over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::{Abilities, DirectoryKind, Judges, any, more_than_nothing, read_trust, trust, within};
use crate::config::reader::{NamedFile, Table};
use crate::config::settings::Child;
use crate::config::values::{HttpUrl, Pairs};
use crate::config::{Trust, is_exposed};

section! { main, "directory", "[directory.NAME]  # type = \"http\"", "A responder asked over HTTP with each log-in: nginx's auth_http protocol, or JSON.", {
        tables: &[Child::Table(&secret_header::SECTION)],
        includes: &[&any::SECTION, &trust::SECTION],
    };
    URL: HttpUrl = "url", "Where it is; http or https.";
    FORM: HttpForm = "form" or "\"nginx\"", "How it is spoken to: nginx (all in headers) or json.";
    HEADERS: Pairs = "headers", "Headers sent with each request, such as { X-Site = \"mail\" }.";
    CONNECTIONS: u32 = "connections" or "8", "Connections that are kept while nothing is asked.";
    TIMEOUT: Duration = "timeout" or "\"4s\"", "For an answer, with connecting.";
}

section! { secret_header, "secret_header", "[directory.NAME.secret_header]", "One more header, whose value is a secret.", {
        title: "A header of its own",
    };
    NAME: String = "name", "The header's name, such as X-Auth-Key.";
    FILE: PathBuf = "file", "The file whose first line is its value.";
}

/// A responder that is asked over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) url: Uri,
    pub(crate) form: HttpForm,
    /// Sent with each request.
    pub(crate) headers: Vec<(String, String)>,
    /// One more, whose value is a secret.
    pub(crate) secret_header: Option<(String, NamedFile)>,
    pub(crate) trust: Trust,
    /// That are kept while nothing is asked.
    pub(crate) connections: u32,
    pub(crate) timeout: Duration,
}

/// How a responder is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpForm {
    /// nginx's `auth_http`.
    Nginx,
    Json,
}

pub(super) fn read(table: &Table<'_>) -> Option<(DirectoryKind, Abilities)> {
    let http = read_http(table)?;
    let is_json = http.form == HttpForm::Json;
    // nginx's form wants a password with each question, and has one word for all that is wrong.
    let abilities =
        Abilities { judges: Judges::Passwords, keeps_hashes: false, finds: is_json, tells_unknown: is_json };
    Some((DirectoryKind::Http(Box::new(http)), abilities))
}

fn read_http(table: &Table<'_>) -> Option<Http> {
    use main as key;

    let url = table.require(&key::URL)?.0;
    let trust = read_trust(table)?;
    if is_exposed(&url) {
        let host = url.host().unwrap_or_default();
        table.warn_of(&key::URL, format_args!("http: passwords cross the network to {host} in clear"));
    }
    let secret = table.optional_table(&secret_header::SECTION).and_then(|secret| {
        let name = secret.require(&secret_header::NAME);
        let file = secret.require_file(&secret_header::FILE);
        Some((name?, file?))
    });
    Some(Http {
        url,
        form: table.get(&key::FORM)?,
        headers: table.get(&key::HEADERS).unwrap_or_default().0,
        secret_header: secret,
        trust,
        connections: within(table, &key::CONNECTIONS)?,
        timeout: more_than_nothing(table, &key::TIMEOUT)?,
    })
}
