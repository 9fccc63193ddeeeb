//! One LDAP server: its connections, and what its answers mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_wire::Secret;
use ldap3::{LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry, SearchOptions};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{self, LdapScope, LdapUrl};
use crate::directory::Bar;
use crate::net::health::Health;

/// More entries than one are as bad as any number of them.
const ENTRIES_MAX: i32 = 2;

/// Result codes (RFC 4511, appendix A) that are told apart.
mod code {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub(super) const STRONGER_AUTH_REQUIRED: u32 = 8;
    pub(super) const REFERRAL: u32 = 10;
    pub(super) const CONFIDENTIALITY_REQUIRED: u32 = 13;
    pub(super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(super) const NO_SUCH_OBJECT: u32 = 32;
    pub(super) const INVALID_DN_SYNTAX: u32 = 34;
    pub(super) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(super) const INVALID_CREDENTIALS: u32 = 49;
    pub(super) const INSUFFICIENT_ACCESS: u32 = 50;
    pub(super) const UNWILLING_TO_PERFORM: u32 = 53;
}

/// As whom searches are made.
pub(super) struct Identity {
    pub(super) dn: String,
    pub(super) password: Secret,
}

/// A search for one user.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) base: String,
    pub(super) scope: LdapScope,
    pub(super) filter: String,
    pub(super) attributes: Vec<String>,
}

/// What a bind as the user gave.
pub(super) enum Bound {
    /// The password is right; with the entries, where they were to be read.
    Right(Option<Vec<SearchEntry>>),
    Refused(Refused),
}

/// Why a bind as the user is refused.
pub(super) enum Refused {
    Wrong,
    Barred(Bar),
}

/// Why a server gave no answer.
pub(super) enum Trouble {
    /// Another server, or this one a little later, may do better.
    Passing(String),
    /// We have too few connections to it, which says nothing of the server.
    Shortage(String),
    /// It answered, and no other would say otherwise: the configuration is wrong.
    Lasting(String),
}

/// See the module's documentation.
pub(super) struct Server {
    url: LdapUrl,
    starttls: bool,
    tls: Arc<ClientConfig>,
    identity: Arc<Option<Identity>>,
    timeout: Duration,
    pub(super) health: Health,
    /// The connection that all searches share.
    searching: tokio::sync::Mutex<Shared>,
    /// Connections that wait for the next bind: only one user at a time can be bound on each.
    idle: Mutex<Vec<ldap3::Ldap>>,
    binds: Semaphore,
}

/// See [`Server::searching`].
#[derive(Default)]
struct Shared {
    connection: Option<ldap3::Ldap>,
    /// When opening one failed last, and why: who waited for that attempt needs none of its own.
    failed: Option<(Instant, String)>,
}

impl Server {
    pub(super) fn new(
        url: &LdapUrl,
        settings: &config::Ldap,
        tls: &Arc<ClientConfig>,
        identity: &Arc<Option<Identity>>,
    ) -> Self {
        Self {
            url: url.clone(),
            starttls: settings.starts_tls(),
            tls: Arc::clone(tls),
            identity: Arc::clone(identity),
            timeout: settings.timeout,
            health: Health::default(),
            searching: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            binds: Semaphore::new(settings.connections as usize),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url.text
    }

    /// The entries that match, at most [`ENTRIES_MAX`].
    pub(super) async fn find(&self, search: &Search) -> Result<Vec<SearchEntry>, Trouble> {
        let (connection, is_new) = self.shared_connection().await?;
        let mut found = self.search_on(connection, search).await;
        // A connection that lay idle may have been dropped by the server, or by something between.
        if matches!(&found, Err(Failed::Connection(error)) if !is_new && !is_timeout(error)) {
            let (connection, _) = self.shared_connection().await?;
            found = self.search_on(connection, search).await;
        }
        if matches!(&found, Err(Failed::Connection(_))) {
            self.searching.lock().await.connection = None;
        }
        found.map_err(|failed| self.trouble(failed))
    }

    /// Whether `password` is that of the entry `dn`.
    pub(super) async fn bind(&self, dn: &str, password: &str, read: Option<&Search>) -> Result<Bound, Trouble> {
        // A bind without a password succeeds on many servers, as nobody (RFC 4513, section 5.1.2).
        if password.is_empty() || dn.is_empty() {
            return Ok(Bound::Refused(Refused::Wrong));
        }
        let permit = timeout(self.timeout, self.binds.acquire());
        let Ok(Ok(_permit)) = permit.await else {
            return Err(Trouble::Shortage("all connections for binds are busy: raise `connections`".into()));
        };
        let bound = match self.kept_connection() {
            Some(connection) => match self.bind_on(connection, dn, password, read).await {
                Err(Failed::Connection(error)) if !is_timeout(&error) => {
                    self.bind_on(self.connect().await?, dn, password, read).await
                }
                bound => bound,
            },
            None => self.bind_on(self.connect().await?, dn, password, read).await,
        };
        bound.map_err(|failed| self.trouble(failed))
    }

    /// A connection that waits for a bind, if one is still open.
    fn kept_connection(&self) -> Option<ldap3::Ldap> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find_map(|mut connection| (!connection.is_closed()).then_some(connection))
    }

    async fn bind_on(
        &self,
        mut connection: ldap3::Ldap,
        dn: &str,
        password: &str,
        read: Option<&Search>,
    ) -> Result<Bound, Failed> {
        let result = connection.with_timeout(self.timeout).simple_bind(dn, password).await?;
        let bound = match (refused(&result)?, read) {
            (Some(why), _) => Bound::Refused(why),
            (None, Some(search)) => Bound::Right(Some(self.search_on(connection.clone(), search).await?)),
            (None, None) => Bound::Right(None),
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(bound)
    }

    async fn search_on(&self, mut connection: ldap3::Ldap, search: &Search) -> Result<Vec<SearchEntry>, Failed> {
        let scope = match search.scope {
            LdapScope::Base => Scope::Base,
            LdapScope::One => Scope::OneLevel,
            LdapScope::Subtree => Scope::Subtree,
        };
        let asked = connection
            .with_timeout(self.timeout)
            .with_search_options(SearchOptions::new().sizelimit(ENTRIES_MAX))
            .search(&search.base, scope, &search.filter, &search.attributes);
        // The library's own time-out begins anew with each entry.
        let ldap3::SearchResult(found, result) = timeout(self.timeout, asked).await.map_err(LdapError::from)??;
        match result.rc {
            code::SUCCESS | code::SIZE_LIMIT_EXCEEDED => {}
            // With a base that names the user, this is how one that doesn't exist looks.
            code::NO_SUCH_OBJECT => return Ok(Vec::new()),
            _ => return Err(Failed::Answer(result)),
        }
        // References to other servers are not entries. They are not followed: nobody said to trust those.
        let entries = found.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
        Ok(entries.map(SearchEntry::construct).collect())
    }

    /// The connection for searches, opened if there is none; and whether it is new.
    async fn shared_connection(&self) -> Result<(ldap3::Ldap, bool), Trouble> {
        let asked = Instant::now();
        let mut shared = self.searching.lock().await;
        if let Some(connection) = &mut shared.connection
            && !connection.is_closed()
        {
            return Ok((connection.clone(), false));
        }
        if let Some((at, reason)) = &shared.failed
            && *at >= asked
        {
            return Err(Trouble::Passing(reason.clone()));
        }
        match self.connect_to_search().await {
            Ok(connection) => {
                *shared = Shared { connection: Some(connection.clone()), failed: None };
                Ok((connection, true))
            }
            Err(trouble) => {
                if let Trouble::Passing(reason) = &trouble {
                    *shared = Shared { connection: None, failed: Some((Instant::now(), reason.clone())) };
                }
                Err(trouble)
            }
        }
    }

    /// A new connection, logged in to search.
    async fn connect_to_search(&self) -> Result<ldap3::Ldap, Trouble> {
        let mut connection = self.connect().await?;
        let Some(Identity { dn, password }) = &*self.identity else { return Ok(connection) };
        let password = std::str::from_utf8(password.expose()).unwrap_or_default();
        let bind = connection.with_timeout(self.timeout).simple_bind(dn, password).await;
        let result = bind.map_err(|error| self.trouble(error.into()))?;
        match result.rc {
            code::SUCCESS => Ok(connection),
            code::INVALID_CREDENTIALS => Err(Trouble::Lasting(format!("it refuses the log-in of {dn:?} (`bind`)"))),
            _ => Err(self.trouble(Failed::Answer(result))),
        }
    }

    /// A new connection, under TLS where that is set: without it, nothing is sent.
    async fn connect(&self) -> Result<ldap3::Ldap, Trouble> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.timeout)
            .set_config(Arc::clone(&self.tls))
            .set_starttls(self.starttls && !self.url.is_tls);
        let opened = LdapConnAsync::with_settings(settings, &self.url.text).await;
        let (connection, handle) = opened.map_err(|error| Trouble::Passing(format!("can't connect: {error}")))?;
        // Its errors reach whoever waits for an answer on it.
        tokio::spawn(async move { connection.drive().await });
        Ok(handle)
    }

    fn trouble(&self, failed: Failed) -> Trouble {
        match failed {
            Failed::Connection(error) if is_timeout(&error) => {
                Trouble::Passing(format!("no answer within {}", humantime::format_duration(self.timeout)))
            }
            Failed::Connection(error @ LdapError::FilterParsing) => Trouble::Lasting(error.to_string()),
            Failed::Connection(error) => Trouble::Passing(format!("the connection broke: {error}")),
            Failed::Answer(result) => {
                let text = format!("it answers {} {:?}", result.rc, result.text);
                match result.rc {
                    code::REFERRAL => Trouble::Lasting("it refers to another server, which is never followed".into()),
                    code::STRONGER_AUTH_REQUIRED | code::CONFIDENTIALITY_REQUIRED => {
                        Trouble::Lasting(format!("{text}: it wants TLS, set tls = \"starttls\" or use ldaps://"))
                    }
                    code::INSUFFICIENT_ACCESS | code::INVALID_DN_SYNTAX | code::INAPPROPRIATE_AUTHENTICATION => {
                        Trouble::Lasting(text)
                    }
                    _ => Trouble::Passing(text),
                }
            }
        }
    }
}

/// An operation that gave nothing to go by.
enum Failed {
    Connection(LdapError),
    /// The server refused it.
    Answer(LdapResult),
}

impl From<LdapError> for Failed {
    fn from(error: LdapError) -> Self {
        Self::Connection(error)
    }
}

fn is_timeout(error: &LdapError) -> bool {
    matches!(error, LdapError::Timeout { .. })
}

/// Why a user's bind is refused; `None`: the password is right.
fn refused(result: &LdapResult) -> Result<Option<Refused>, Failed> {
    Ok(Some(match result.rc {
        code::SUCCESS => return Ok(None),
        code::INVALID_CREDENTIALS => active_directory(&result.text).map_or(Refused::Wrong, Refused::Barred),
        // Nobody of that name, or nobody who has a password.
        code::NO_SUCH_OBJECT | code::INVALID_DN_SYNTAX | code::INAPPROPRIATE_AUTHENTICATION => Refused::Wrong,
        // 389 Directory Server: too many wrong passwords.
        code::CONSTRAINT_VIOLATION => Refused::Barred(Bar::Locked),
        // 389 Directory Server: "Account inactivated. Contact system administrator." Some versions say so before they
        // look at the password, so that it is told to nobody.
        code::UNWILLING_TO_PERFORM if result.text.contains("inactivated") => Refused::Barred(Bar::Locked),
        _ => return Err(Failed::Answer(result.clone())),
    }))
}

/// Active Directory says why it refuses a bind in its diagnostic text, such as `80090308: LdapErr:
/// DSID-0C090439, comment: AcceptSecurityContext error, data 533, v4563`. All of these but 775 come
/// only after the right password.
fn active_directory(text: &str) -> Option<Bar> {
    let (_, rest) = text.split_once(", data ")?;
    let number: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
    match number.as_str() {
        // Not at this hour, not from this workstation, disabled.
        "530" | "531" | "533" => Some(Bar::Disabled),
        // The password has expired, the account has, the password must be changed.
        "532" | "701" | "773" => Some(Bar::Expired),
        "775" => Some(Bar::Locked),
        // 525: no such user; 52e: wrong password.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_directorys_reasons() {
        let text = |data| {
            format!("80090308: LdapErr: DSID-0C090439, comment: AcceptSecurityContext error, data {data}, v4563")
        };
        assert_eq!(active_directory(&text("52e")), None);
        assert_eq!(active_directory(&text("525")), None);
        assert_eq!(active_directory(&text("533")), Some(Bar::Disabled));
        assert_eq!(active_directory(&text("532")), Some(Bar::Expired));
        assert_eq!(active_directory(&text("773")), Some(Bar::Expired));
        assert_eq!(active_directory(&text("775")), Some(Bar::Locked));
        assert_eq!(active_directory("invalid credentials"), None);
    }
}
