//! Directories: who has an account, whether a password is right, and where the mail lives.
//!
//! A directory of [`Accounts`] that is given a name answers with an [`Entry`] ([`Accounts::find`]); given a password as well,
//! it also checks that ([`Accounts::authenticate`]), or leaves the comparing of its hash to `auth`. One of [`Tokens`] says
//! whose a token is. Adding one is a file here, opened in [`open_accounts`] or [`open_tokens`], and a file and a row for its
//! settings. What a back end is doesn't belong here.

mod fields;
mod http;
mod ldap;
pub(crate) mod measured;
mod oauth2;
pub(crate) mod passwd_file;
#[cfg(test)]
pub(crate) mod scripted;
mod sql;
pub(crate) mod sqlite;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use gatepost_wire::Secret;
use subtle::ConstantTimeEq as _;

use crate::config::{self, AccountSource, Names, Network, Problem, Tls, TokenCheck};
use crate::log::Logger;
use crate::net::stream::TlsFacts;
use crate::secret_file;

/// Whom a directory is asked about, and who wants to know.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    /// The name in full, as it is looked up everywhere.
    pub(crate) user: String,
    /// The service that the client wants.
    pub(crate) service: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) via: Via,
}

/// How a client came, for directories that want to know.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// A load balancer announced its address by the PROXY protocol.
    pub(crate) is_proxied: bool,
    pub(crate) tls: Option<TlsFacts>,
    /// The number of this log-in on its connection, the first being 1; 0 where mail is taken without one.
    pub(crate) attempt: u32,
}

impl Who {
    /// Somebody of whom nothing but the name is known.
    pub(crate) fn somebody(user: &str, service: &'static str) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let via = Via { local: nowhere, is_proxied: false, tls: None, attempt: 1 };
        Self { user: user.to_owned(), service, client: nowhere, via }
    }

    /// By what caches know answers about this user: directories may answer differently to different services.
    pub(crate) fn question(&self) -> String {
        format!("{} {}", self.service, self.user)
    }
}

/// An account as a directory knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the mail is.
    pub(crate) place: Option<Location>,
    /// What a password is compared with: `{SCHEME}hash`.
    pub(crate) password: Option<KeptSecret>,
    /// Log-ins are refused, once the password is right.
    pub(crate) barred: Option<Bar>,
    /// The only addresses it may log in from; empty: all.
    pub(crate) networks: Vec<Network>,
    /// The only services it may use; `None`: all.
    pub(crate) services: Option<Vec<String>>,
    /// The user's name as the directory has it; `None`: it isn't said. An account with another name than was looked for is
    /// nobody's.
    pub(crate) name: Option<String>,
    /// The user is being moved: log-ins wait.
    pub(crate) held: bool,
    /// The name at the back end, where it is another.
    pub(crate) login: Option<String>,
    /// The password at the back end, where it is not the user's own.
    pub(crate) login_password: Option<KeptSecret>,
}

/// Where an account's mail is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The name of a back end, or a host.
    pub(crate) name: String,
    /// The port, where the name is a host.
    pub(crate) port: Option<u16>,
}

impl Location {
    /// What stands in two fields: a port alone says nothing.
    fn of(name: Option<String>, port: Option<u16>) -> Option<Self> {
        name.map(|name| Self { name, port })
    }
}

impl From<&str> for Location {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), port: None }
    }
}

impl Entry {
    /// Whether it is the account of this user: a directory may take other letters as equal than those who read the name
    /// next.
    pub(crate) fn is_of(&self, user: &str, names: &Names) -> bool {
        self.name.as_ref().is_none_or(|name| names.canonical(name) == user)
    }

    /// The account as it may be remembered: without what a password is compared with, which is asked for each time.
    pub(crate) fn to_keep(&self) -> Self {
        Self { password: None, ..self.clone() }
    }

    /// Whether it may be used for this service.
    pub(crate) fn is_for(&self, service: &str) -> bool {
        self.services.as_ref().is_none_or(|services| services.iter().any(|name| name == service))
    }

    /// Why it can't be used by somebody who comes so, though the password is right.
    pub(crate) fn objection(&self, who: &Who) -> Option<Objection> {
        if let Some(bar) = self.barred {
            return Some(Objection::Barred(bar));
        }
        if !self.is_for(who.service) {
            return Some(Objection::Service);
        }
        (!self.admits(who.client.ip())).then_some(Objection::Address)
    }

    /// Whether it may be used from this address.
    fn admits(&self, client: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(client))
    }
}

/// Why an account can't be used though its password is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    Disabled,
    /// The account or its password has expired.
    Expired,
    /// Too many wrong passwords: said to nobody, since the right one may not have been among them.
    Locked,
}

/// Why an account can't be used in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    Barred(Bar),
    /// It is not for this service.
    Service,
    /// It may not be used from this address.
    Address,
}

/// What a directory keeps for a user that nobody is to see: it can't be printed, and is wiped behind its last reader.
#[derive(Debug, Clone)]
pub(crate) struct KeptSecret(Arc<Secret>);

impl KeptSecret {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Secret::new(bytes.into())))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    /// Its text, to be read where it is needed and nowhere kept; `None`: it is none.
    pub(crate) fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(self.0.expose()).ok()
    }
}

impl PartialEq for KeptSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose().ct_eq(other.0.expose()).into()
    }
}

impl Eq for KeptSecret {}

/// What a directory says of a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It doesn't know the name.
    Unknown,
    /// It keeps a hash, in the entry, to compare the password with.
    Compare(Entry),
    /// The password is right.
    Right(Entry),
    Wrong,
    /// As wrong, but not by chance: the text is for the administrator.
    Unfit(String),
    /// The password is right, or may be, but the account can't be used.
    Barred(Bar),
}

/// Whose a good token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) name: String,
    /// When a session that was begun with it must end.
    pub(crate) expires: Option<SystemTime>,
}

/// What a directory says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenVerdict {
    Good(Bearer),
    Wrong,
    /// As wrong, but not by chance: the text is for the administrator.
    Unfit(String),
}

/// A directory that can't answer. The text is for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An answer that may have to be waited for.
pub(crate) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A directory that knows users.
pub(crate) trait Accounts: Send + Sync {
    /// Whether it knows accounts by their whole names and nothing else, so that one it finds is no other's.
    fn is_exact(&self) -> bool {
        false
    }

    /// The account that it knows by this name; see [`Accounts::is_exact`].
    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>>;

    /// The account that it knows by this name, if `password`, which is not empty, is its.
    fn authenticate<'a>(&'a self, who: &'a Who, _password: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move { Ok(self.find(who).await?.map_or(Verdict::Unknown, Verdict::Compare)) })
    }

    /// Writes down which back end holds a user's mail; false: it can't be written to, or has no such user.
    fn set_place<'a>(&'a self, _user: &'a str, _place: &'a str) -> Answering<'a, bool> {
        Box::pin(async { Ok(false) })
    }

    /// Whether it failed a moment ago, so that what is remembered serves better than asking.
    fn is_down(&self) -> bool {
        false
    }
}

/// A directory that knows tokens.
pub(crate) trait Tokens: Send + Sync {
    /// Whose this token, which is not empty, is.
    fn check<'a>(&'a self, token: &'a Secret) -> Answering<'a, TokenVerdict>;

    /// Forgets what it remembers of answers; how many there were.
    fn forget(&self) -> usize;
}

/// Opens what knows tokens. What it reads on the way may be worth a warning.
pub(crate) fn open_tokens(
    settings: &config::OAuth2,
    check: &TokenCheck,
    tls: &Tls,
    warnings: &mut Vec<Problem>,
) -> Result<Arc<dyn Tokens>, Problem> {
    Ok(Arc::new(oauth2::OAuth2::open(settings, check, tls.min_version, warnings)?))
}

/// Opens what keeps accounts. What it reads on the way may be worth a warning.
pub(crate) fn open_accounts(
    source: &AccountSource,
    names: &Names,
    tls: &Tls,
    log: &Logger,
    warnings: &mut Vec<Problem>,
) -> Result<Arc<dyn Accounts>, Problem> {
    match source {
        AccountSource::Sqlite { path } => {
            warnings.extend(secret_file::exposure(path));
            let opened = sqlite::Sqlite::open(path).map_err(|fault| path.problem(fault))?;
            Ok(Arc::new(opened))
        }
        AccountSource::PasswdFile { path } => {
            warnings.extend(secret_file::exposure(path));
            let opened =
                passwd_file::PasswdFile::open(path, names.clone(), log).map_err(|fault| path.problem(fault))?;
            Ok(Arc::new(opened))
        }
        AccountSource::Sql(settings) => Ok(Arc::new(sql::Sql::open(settings, warnings)?)),
        AccountSource::Http(settings) => Ok(Arc::new(http::Http::open(settings, tls.min_version, warnings)?)),
        AccountSource::Ldap(settings) => Ok(Arc::new(ldap::Ldap::open(settings, tls.min_version, warnings)?)),
    }
}
