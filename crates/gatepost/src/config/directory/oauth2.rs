//! Directories of type oauth2: providers of OAuth 2 tokens.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::{Abilities, DirectoryKind, Judges, any, more_than_nothing, read_trust, trust};
use crate::config::reader::{NamedFile, Table};
use crate::config::settings::Child;
use crate::config::values::HttpUrl;
use crate::config::{Trust, is_exposed};

section! { main, "directory", "[directory.NAME]  # type = \"oauth2\"", "A provider of OAuth 2 tokens, for the mechanisms OAUTHBEARER and XOAUTH2.", {
        tables: &[Child::Table(&client::SECTION)],
        includes: &[&any::SECTION, &trust::SECTION],
    };
    ISSUER: String = "issuer", "The provider's URL, as its tokens name it. Its keys are found from there.";
    INTROSPECTION: HttpUrl = "introspection", "Where it is asked about each token (RFC 7662), instead of checking signatures.";
    AUDIENCE: Vec<String> = "audience", "A token must be for one of these.";
    SCOPE: Vec<String> = "scope" or "[]", "A token must have all of these.";
    USER_CLAIM: String = "user_claim" or "\"email\"", "The claim that holds the user's name.";
    CLOSE_SESSIONS: bool = "close_sessions" or "false", "End sessions when their token ends.";
    CACHE: Duration = "cache" or "\"1m\"", "How long the answer to introspection is remembered, within the token's life.";
    TIMEOUT: Duration = "timeout" or "\"4s\"", "For an answer of the provider's, with connecting.";
}

section! { client, "client", "[directory.NAME.client]", "What identifies Gatepost to the provider when it asks about tokens.", {
        title: "What identifies Gatepost there",
    };
    ID: String = "id", "The client's id.";
    SECRET_FILE: PathBuf = "secret_file", "The file whose first line is its secret.";
}

/// A provider of OAuth 2 tokens.
#[derive(Debug, Clone)]
pub(crate) struct OAuth2 {
    /// As tokens name it.
    pub(crate) issuer: Option<String>,
    /// Where its `OpenID` configuration is, from which its keys follow.
    pub(crate) configuration: Option<Uri>,
    /// Where it is asked about tokens; `None`: signatures are checked.
    pub(crate) introspection: Option<Uri>,
    /// As whom it is asked.
    pub(crate) client: Option<OAuth2Client>,
    /// A token must be for one of these.
    pub(crate) audience: Vec<String>,
    /// A token must have all of these.
    pub(crate) scope: Vec<String>,
    pub(crate) user_claim: String,
    /// Sessions end with their token.
    pub(crate) close_sessions: bool,
    /// How long the provider's word on a token is remembered, within the token's life.
    pub(crate) cache: Duration,
    pub(crate) trust: Trust,
    pub(crate) timeout: Duration,
}

/// What identifies Gatepost to a provider.
#[derive(Debug, Clone)]
pub(crate) struct OAuth2Client {
    pub(crate) id: String,
    pub(crate) secret_file: NamedFile,
}

pub(super) fn read(table: &Table<'_>) -> Option<(DirectoryKind, Abilities)> {
    let kind = DirectoryKind::OAuth2(Box::new(read_oauth2(table)?));
    let abilities = Abilities { judges: Judges::Tokens, keeps_hashes: false, finds: false, tells_unknown: true };
    Some((kind, abilities))
}

fn read_oauth2(table: &Table<'_>) -> Option<OAuth2> {
    use main as key;

    let issuer = table.get(&key::ISSUER);
    let introspection = table.get(&key::INTROSPECTION).map(|HttpUrl(url)| url);
    if issuer.is_none() && introspection.is_none() {
        table.problem("needs `issuer`, whose keys sign the tokens, or `introspection`, where they are asked about");
    }
    // Tokens must name the issuer to the letter, so that it is kept as it is written.
    let configuration = issuer.as_ref().and_then(|issuer| {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).parse::<Uri>();
        let url = url.ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
        if url.is_none() {
            table.problem_with(
                &key::ISSUER,
                format_args!("expected a URL such as \"https://sso.example.org\", found {issuer:?}"),
            );
        }
        url
    });
    if configuration.as_ref().is_some_and(is_exposed) {
        table.problem_with(&key::ISSUER, "http: whoever is on the path could make tokens; use https");
    }
    if introspection.as_ref().is_some_and(is_exposed) {
        table.problem_with(&key::INTROSPECTION, "http: whoever is on the path could read tokens; use https");
    }
    let audience = table.get(&key::AUDIENCE).unwrap_or_default();
    if audience.is_empty() && introspection.is_none() {
        table.problem("needs `audience`: without it, a token that the provider gave for anything would do");
    } else if audience.is_empty() {
        table.warn_of(&key::AUDIENCE, "is not set: a token that the provider gave for anything will do");
    }
    let client = table.optional_table(&client::SECTION).and_then(|client| {
        let id = client.require(&client::ID);
        let secret_file = client.require_file(&client::SECRET_FILE);
        Some(OAuth2Client { id: id?, secret_file: secret_file? })
    });
    Some(OAuth2 {
        issuer,
        configuration,
        introspection,
        client,
        audience,
        scope: table.get(&key::SCOPE)?,
        user_claim: table.get(&key::USER_CLAIM)?,
        close_sessions: table.get(&key::CLOSE_SESSIONS)?,
        cache: table.get(&key::CACHE)?,
        trust: read_trust(table)?,
        timeout: more_than_nothing(table, &key::TIMEOUT)?,
    })
}
