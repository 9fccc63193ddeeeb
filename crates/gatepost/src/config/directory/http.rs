//! Directories of type http: responders that are asked over HTTP.

use std::time::Duration;

use hyper::Uri;

use super::{Abilities, AccountSource, DirectoryKind, Typed, check_connections};
use crate::config::problem::NamedFile;
use crate::config::reader::Table;
use crate::config::section::Written;
use crate::config::trust::{Trust, is_exposed};
use crate::config::values::Pairs;

section! {
    pub(crate) struct Http: "directory", "[directory.NAME]  # type = \"http\"", "A responder asked over HTTP with each log-in: nginx's auth_http protocol, or JSON.", {
        includes_apart: &[Typed::SECTION],
    };
    url: Uri, "Where it is; http or https.";
    form: HttpForm = "nginx", "How it is spoken to: nginx (all in headers) or json.";
    headers: Pairs = {}, "Headers sent with each request, such as { X-Site = \"mail\" }.";
    connections: u32 = 8, "Connections that are kept while nothing is asked, from 1 to 1000.";
    timeout: Duration = "4s", "For an answer, with connecting.";
    ..trust: Trust;
    [secret_header]: Option<SecretHeader>;
    => check;
}

section! {
    pub(crate) struct SecretHeader: "secret_header", "[directory.NAME.secret_header]", "One more header, whose value is a secret.", {
        title: "A header of its own",
    };
    name: String, "The header's name, such as X-Auth-Key.";
    file: NamedFile, "The file whose first line is its value.";
}

words! {
    /// How a responder is spoken to.
    pub(crate) enum HttpForm {
        /// nginx's `auth_http`.
        Nginx = "nginx",
        Json = "json",
    }
}

pub(super) fn read(table: &Table<'_>) -> Option<DirectoryKind> {
    let http = Http::read(table)?;
    let is_json = http.form == HttpForm::Json;
    // nginx's form wants a password with each question, and has one word for all that is wrong.
    let abilities = Abilities { keeps_hashes: false, finds: is_json, tells_unknown: is_json };
    Some(DirectoryKind::Accounts { source: AccountSource::Http(Box::new(http)), abilities })
}

fn check(read: &Http, table: &Table<'_>) {
    if is_exposed(&read.url) {
        let host = read.url.host().unwrap_or_default();
        table.warn_of(&Http::url, format_args!("http: passwords cross the network to {host} in clear"));
    }
    check_connections(table, &Http::connections, read.connections);
    table.more_than_nothing(&Http::timeout, read.timeout);
}
