//! Directories of type oauth2: providers of OAuth 2 tokens.

use std::time::Duration;

use hyper::Uri;

use super::{DirectoryKind, Typed};
use crate::config::problem::NamedFile;
use crate::config::reader::Table;
use crate::config::section::Written;
use crate::config::trust::{Trust, is_exposed};

section! {
    pub(crate) struct OAuth2: "directory", "[directory.NAME]  # type = \"oauth2\"", "A provider of OAuth 2 tokens, for the mechanisms OAUTHBEARER and XOAUTH2.", {
        includes_apart: &[Typed::SECTION],
    };
    issuer: Option<String>, "The provider's URL, as its tokens name it. Its keys are found from there.";
    introspection: Option<Uri>, "Where it is asked about each token (RFC 7662), instead of checking signatures.";
    audience: Vec<String> = [], "A token must be for one of these.";
    scope: Vec<String> = [], "A token must have all of these.";
    user_claim: String = "email", "The claim that holds the user's name.";
    close_sessions: bool = false, "End sessions when their token ends.";
    cache: Duration = "1m", "How long the answer to introspection is remembered, within the token's life.";
    timeout: Duration = "4s", "For an answer of the provider's, with connecting.";
    ..trust: Trust;
    [client]: Option<OAuth2Client>;
    => check;
}

section! {
    pub(crate) struct OAuth2Client: "client", "[directory.NAME.client]", "What identifies Gatepost to the provider when it asks about tokens.", {
        title: "What identifies Gatepost there",
    };
    id: String, "The client's id.";
    secret_file: NamedFile, "The file whose first line is its secret.";
}

impl OAuth2 {
    /// The issuer, and where its `OpenID` configuration is, from which its keys follow. Tokens must name it to the letter, so
    /// that it is kept as it is written.
    pub(crate) fn discovery(&self) -> Option<(&str, Uri)> {
        let issuer = self.issuer.as_deref()?;
        let url: Uri = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).parse().ok()?;
        (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some((issuer, url))
    }
}

/// How a token is found good.
#[derive(Debug, Clone)]
pub(crate) enum TokenCheck {
    /// Its provider is asked here.
    Introspection(Uri),
    /// It is signed by this provider, whose configuration is there.
    Signatures { issuer: String, configuration: Uri },
}

pub(super) fn read(table: &Table<'_>) -> Option<DirectoryKind> {
    let settings = OAuth2::read(table)?;
    let check = match (&settings.introspection, settings.discovery()) {
        (Some(url), _) => TokenCheck::Introspection(url.clone()),
        (None, Some((issuer, configuration))) => TokenCheck::Signatures { issuer: issuer.to_owned(), configuration },
        // That has been said.
        (None, None) => return None,
    };
    Some(DirectoryKind::Tokens { settings: Box::new(settings), check })
}

fn check(read: &OAuth2, table: &Table<'_>) {
    let OAuth2 { issuer, introspection, audience, .. } = read;
    if issuer.is_none() && introspection.is_none() {
        table.problem("needs `issuer`, whose keys sign the tokens, or `introspection`, where they are asked about");
    }
    match (issuer, read.discovery()) {
        (Some(issuer), None) => {
            let what = format_args!("expected a URL such as \"https://sso.example.org\", found {issuer:?}");
            table.problem_with(&OAuth2::issuer, what);
        }
        (_, Some((_, url))) if is_exposed(&url) => {
            table.problem_with(&OAuth2::issuer, "http: whoever is on the path could make tokens; use https");
        }
        _ => {}
    }
    if introspection.as_ref().is_some_and(is_exposed) {
        table.problem_with(&OAuth2::introspection, "http: whoever is on the path could read tokens; use https");
    }
    if audience.is_empty() && introspection.is_none() {
        table.problem("needs `audience`: without it, a token that the provider gave for anything would do");
    } else if audience.is_empty() {
        table.warn_of(&OAuth2::audience, "is not set: a token that the provider gave for anything will do");
    }
    table.more_than_nothing(&OAuth2::timeout, read.timeout);
}
