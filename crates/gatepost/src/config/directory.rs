//! Directories as the configuration describes them: one section of settings for each type.

use std::path::Path;
use std::time::Duration;

use hyper::Uri;

use super::backend::read_trust;
use super::query::{Dialect, Query};
use super::reader::{Key, NamedFile, Place, Section, Table};
use super::settings as at;
use super::template::Template;
use super::values::{DirectoryType, HttpUrl, LdapTls, Several, SqlTls};
use super::{Trust, is_exposed, is_this_machine};

/// A source of accounts and places.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) name: String,
    pub(crate) kind: DirectoryKind,
}

#[derive(Debug, Clone)]
pub(crate) enum DirectoryKind {
    /// The embedded `SQLite` file.
    Sqlite {
        path: NamedFile,
    },
    /// Dovecot's passwd-file.
    PasswdFile {
        path: NamedFile,
    },
    /// Another database, or the administrator's own query.
    Sql(Box<Sql>),
    Ldap(Box<Ldap>),
    Http(Box<Http>),
    OAuth2(Box<OAuth2>),
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

impl Directory {
    /// Whether it judges tokens, rather than passwords.
    pub(crate) fn takes_tokens(&self) -> bool {
        matches!(self.kind, DirectoryKind::OAuth2(_))
    }

    /// Whether what it keeps of a password can be seen, rather than only asked about.
    pub(crate) fn keeps_hashes(&self) -> bool {
        match &self.kind {
            DirectoryKind::Sqlite { .. } | DirectoryKind::PasswdFile { .. } | DirectoryKind::Sql(_) => true,
            DirectoryKind::Ldap(ldap) => ldap.verify == LdapVerify::Compare,
            DirectoryKind::Http(_) | DirectoryKind::OAuth2(_) => false,
        }
    }

    /// Whether it can be asked about a user without a password.
    pub(crate) fn finds(&self) -> bool {
        match &self.kind {
            DirectoryKind::Sqlite { .. } | DirectoryKind::PasswdFile { .. } | DirectoryKind::Sql(_) => true,
            DirectoryKind::Ldap(_) => true,
            DirectoryKind::Http(http) => http.form == HttpForm::Json,
            DirectoryKind::OAuth2(_) => false,
        }
    }

    /// Whether it can tell a name that it doesn't know from a wrong password, so that the next may be asked.
    pub(crate) fn tells_unknown(&self) -> bool {
        match &self.kind {
            DirectoryKind::Ldap(ldap) => ldap.dn.is_none() || ldap.verify == LdapVerify::Compare,
            DirectoryKind::Http(http) => http.form == HttpForm::Json,
            _ => true,
        }
    }
}

/// A database that is asked with the administrator's own query.
#[derive(Debug, Clone)]
pub(crate) struct Sql {
    pub(crate) dialect: Dialect,
    pub(crate) url: String,
    /// The URL without what may be secret.
    pub(crate) shown: String,
    pub(crate) place: Place,
    pub(crate) password_file: Option<NamedFile>,
    pub(crate) query: Query,
    pub(crate) tls: bool,
    pub(crate) trust: Trust,
    /// At once.
    pub(crate) connections: u32,
    pub(crate) timeout: Duration,
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

/// An LDAP directory.
#[derive(Debug, Clone)]
pub(crate) struct Ldap {
    /// In the order in which they are asked.
    pub(crate) urls: Vec<LdapUrl>,
    /// STARTTLS on servers that are not reached by implicit TLS.
    pub(crate) starttls: bool,
    pub(crate) trust: Trust,
    /// Where searches begin; always there without `dn`.
    pub(crate) base: Option<Template>,
    pub(crate) scope: LdapScope,
    pub(crate) filter: Template,
    /// `filter` says something.
    pub(crate) is_filtered: bool,
    /// The user's own entry, where its name can be told without a search.
    pub(crate) dn: Option<Template>,
    /// As whom searches are made; `None`: as nobody.
    pub(crate) bind: Option<LdapBind>,
    pub(crate) verify: LdapVerify,
    pub(crate) fields: LdapFields,
    /// Of several entries the first is taken.
    pub(crate) first_match: bool,
    /// Passwords that stand in the directory in clear are compared too.
    pub(crate) cleartext: bool,
    /// For each operation on a server.
    pub(crate) timeout: Duration,
    /// Binds at once on each server.
    pub(crate) connections: u32,
}

/// Where an LDAP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LdapUrl {
    pub(crate) text: String,
    /// `ldaps`.
    pub(crate) is_tls: bool,
    /// On this machine.
    pub(crate) is_local: bool,
}

/// Under which entries a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LdapScope {
    Base,
    One,
    Subtree,
}

/// How a password is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LdapVerify {
    /// By logging in as the user.
    Bind,
    /// Against the hash in the entry.
    Compare,
}

/// The account that searches.
#[derive(Debug, Clone)]
pub(crate) struct LdapBind {
    pub(crate) dn: String,
    pub(crate) password_file: NamedFile,
}

/// Which attributes an account is read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct LdapFields {
    pub(crate) backend: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) disabled: Option<String>,
    pub(crate) held: Option<String>,
    pub(crate) services: Option<String>,
    pub(crate) networks: Option<String>,
    pub(crate) login: Option<String>,
    pub(crate) login_password: Option<String>,
    pub(crate) name: Option<String>,
}

/// The section with the settings of a directory, by the type that is written in its table.
pub(super) fn section_of(kind: Option<DirectoryType>) -> &'static Section {
    match kind {
        None => &at::directory::SECTION,
        Some(DirectoryType::Sql) => &at::directory_sql::SECTION,
        Some(DirectoryType::PasswdFile) => &at::directory_passwd_file::SECTION,
        Some(DirectoryType::Ldap) => &at::directory_ldap::SECTION,
        Some(DirectoryType::Http) => &at::directory_http::SECTION,
        Some(DirectoryType::OAuth2) => &at::directory_oauth2::SECTION,
    }
}

/// `None` only where a problem was recorded.
pub(super) fn read(name: &str, table: &Table<'_>) -> Option<Directory> {
    let kind = match table.require(&at::directory::TYPE)? {
        DirectoryType::Sql => read_sql(table)?,
        DirectoryType::PasswdFile => {
            DirectoryKind::PasswdFile { path: table.require_file(&at::directory_passwd_file::PATH)? }
        }
        DirectoryType::Ldap => DirectoryKind::Ldap(Box::new(read_ldap(table)?)),
        DirectoryType::Http => DirectoryKind::Http(Box::new(read_http(table)?)),
        DirectoryType::OAuth2 => DirectoryKind::OAuth2(Box::new(read_oauth2(table)?)),
    };
    Some(Directory { name: name.to_owned(), kind })
}

fn read_sql(table: &Table<'_>) -> Option<DirectoryKind> {
    use at::directory_sql as key;

    let url = table.require(&key::URL)?;
    let query = table.get(&key::QUERY);
    let (dialect, rest) = match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() && query.is_none() => {
            return Some(DirectoryKind::Sqlite { path: table.named_file(&key::URL, Path::new(path)) });
        }
        Some(("sqlite", path)) if !path.is_empty() => (Dialect::Sqlite, path),
        Some(("postgres" | "postgresql", rest)) => (Dialect::Postgres, rest),
        Some(("mysql" | "mariadb", rest)) => (Dialect::MySql, rest),
        _ => {
            let expected = "sqlite:///path/to/file.db, postgres://user@host/database or mysql://user@host/database";
            table.problem_with(&key::URL, format_args!("expected {expected}"));
            return None;
        }
    };
    let Some(query) = query else {
        table.problem("needs `query`, which gives a user's account, such as \"SELECT password, backend FROM users WHERE name = :user\"");
        return None;
    };
    let query = match Query::parse(&query, dialect) {
        Ok(query) => query,
        Err(what) => {
            table.problem_with(&key::QUERY, what);
            return None;
        }
    };
    let (user, host, path) = authority(rest);
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    for option in options.split('&').filter(|option| dialect != Dialect::Sqlite && !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let elsewhere = name == "hostaddr" || (name == "host" && !value.starts_with('/') && !value.starts_with("%2F"));
        if elsewhere || name.starts_with("ssl") {
            table.problem_with(
                &key::URL,
                format_args!("has {name} behind the question mark: the host stands before it, and TLS is `tls`"),
            );
        }
    }
    if user.contains(':') {
        table.warn_of(&key::URL, "holds a password: `password_file` keeps it out of this file");
    }
    let is_here = dialect == Dialect::Sqlite || is_local(host);
    let tls = table.get_or(&key::TLS, if is_here { SqlTls::None } else { SqlTls::Required }) == SqlTls::Required;
    if !tls && !is_here {
        table.warn_of(&key::TLS, format_args!("none: what is asked of {host} crosses the network in clear"));
    }
    let trust = read_trust(table, &key::TLS_VERIFY, &key::CA, &key::PINS)?;
    if !trust.pins.is_empty() {
        table.problem_with(&key::PINS, "can't be used with databases: name the authority with `ca`");
    }
    let shown = match dialect {
        Dialect::Sqlite => url.clone(),
        Dialect::Postgres => format!("postgres://{host}{path}"),
        Dialect::MySql => format!("mysql://{host}{path}"),
    };
    let url = match dialect {
        // Relative to the configuration's folder, as every path.
        Dialect::Sqlite => format!("sqlite://{}", table.named_file(&key::URL, Path::new(rest)).display()),
        Dialect::Postgres | Dialect::MySql => url,
    };
    Some(DirectoryKind::Sql(Box::new(Sql {
        dialect,
        url,
        shown,
        place: table.place(),
        password_file: table.file(&key::PASSWORD_FILE),
        query,
        tls,
        trust,
        connections: within(table, &key::CONNECTIONS)?,
        timeout: more_than_nothing(table, &key::TIMEOUT)?,
    })))
}

/// Takes `user:password@host:port/path` apart: user and password, the host with its port, the path.
fn authority(rest: &str) -> (&str, &str, &str) {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let path = path.split('?').next().unwrap_or_default();
    (user, host, path)
}

/// Whether a host, perhaps with a port, is this machine; none at all means a socket on it.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.is_empty() || is_this_machine(name)
}

fn read_http(table: &Table<'_>) -> Option<Http> {
    use at::directory_http as key;

    let url = table.require(&key::URL)?.0;
    let trust = read_trust(table, &key::TLS_VERIFY, &key::CA, &key::PINS)?;
    if is_exposed(&url) {
        let host = url.host().unwrap_or_default();
        table.warn_of(&key::URL, format_args!("http: passwords cross the network to {host} in clear"));
    }
    let secret = table.optional_table("secret_header", &at::http_secret_header::SECTION).and_then(|secret| {
        let name = secret.require(&at::http_secret_header::NAME);
        let file = secret.require_file(&at::http_secret_header::FILE);
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

fn read_oauth2(table: &Table<'_>) -> Option<OAuth2> {
    use at::directory_oauth2 as key;

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
    let client = table.optional_table("client", &at::oauth2_client::SECTION).and_then(|client| {
        let id = client.require(&at::oauth2_client::ID);
        let secret_file = client.require_file(&at::oauth2_client::SECRET_FILE);
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
        trust: read_trust(table, &key::TLS_VERIFY, &key::CA, &key::PINS)?,
        timeout: more_than_nothing(table, &key::TIMEOUT)?,
    })
}

fn within(table: &Table<'_>, key: &Key<u32>) -> Option<u32> {
    let connections = table.get(key)?;
    if connections == 0 || connections > 1000 {
        table.problem_with(key, "is from 1 to 1000");
    }
    Some(connections)
}

fn more_than_nothing(table: &Table<'_>, key: &Key<Duration>) -> Option<Duration> {
    let time = table.get(key)?;
    if time.is_zero() {
        table.problem_with(key, "is more than nothing");
    }
    Some(time)
}

fn read_ldap(table: &Table<'_>) -> Option<Ldap> {
    use at::directory_ldap as key;

    let urls = table.require(&key::URLS);
    if urls.as_ref().is_some_and(Vec::is_empty) {
        table.problem_with(&key::URLS, "names no server");
    }
    let starttls = table.get(&key::STARTTLS)? == LdapTls::StartTls;
    let trust = read_trust(table, &key::TLS_VERIFY, &key::CA, &key::PINS)?;
    let in_clear = |url: &&LdapUrl| !starttls && !url.is_tls && !url.is_local;
    if let Some(url) = urls.iter().flatten().find(in_clear) {
        table.warn_of(&key::STARTTLS, format_args!("none: passwords cross the network to {} in clear", url.text));
    }
    if !trust.verify && trust.pins.is_empty() && urls.iter().flatten().any(|url| starttls || url.is_tls) {
        table.warn_of(
            &key::TLS_VERIFY,
            "the servers' certificates are not checked: anyone on the path can read passwords",
        );
    }
    let base = table.get(&key::BASE);
    let dn = table.get(&key::DN);
    let filter = table.get(&key::FILTER);
    if base.is_none() && dn.is_none() {
        table.problem("needs `base`, below which users are searched, or `dn`, the name of a user's entry");
    }
    if let (Some(_), Some(_)) = (&base, &dn) {
        table.problem_with(&key::DN, "says which entry it is, so that `base` has no use");
    }
    match (&filter, &dn) {
        (None, None) => table.problem("needs `filter`, such as \"(mail=%u)\""),
        (Some(filter), None) if !filter.names_the_user() => {
            table.problem_with(
                &key::FILTER,
                "has neither %u nor %n in it: it would find the same entries for everybody",
            );
        }
        _ => {}
    }
    if let Some(dn) = dn.as_ref().filter(|dn| !dn.names_the_user()) {
        table.problem_with(&key::DN, format_args!("{dn:?} is the same entry for everybody: use %u or %n"));
    }
    let is_filtered = filter.is_some();
    // A user's entry that is known by its name needs no further condition.
    let filter = filter.or_else(|| Template::parse("(objectClass=*)"))?;
    let example = filter.render("user@example.org", std::borrow::Cow::Borrowed).unwrap_or_default();
    if ldap3::parse_filter(&example).is_err() {
        table.problem_with(
            &key::FILTER,
            format_args!("is no LDAP filter (RFC 4515); for user@example.org it reads {example:?}"),
        );
    }
    let timeout = more_than_nothing(table, &key::TIMEOUT)?;
    let connections = within(table, &key::CONNECTIONS)?;
    let verify = table.get(&key::VERIFY)?;
    let fields = read_ldap_fields(&table.table("fields", &at::ldap_fields::SECTION));
    if verify == LdapVerify::Compare && fields.password.is_none() {
        table.problem_with(&key::VERIFY, "compare needs `fields.password`, the attribute with the hash");
    }
    Some(Ldap {
        urls: urls?,
        starttls,
        trust,
        base,
        scope: table.get(&key::SCOPE)?,
        filter,
        is_filtered,
        dn,
        bind: table.optional_table("bind", &at::ldap_bind::SECTION).and_then(|bind| read_ldap_bind(&bind)),
        verify,
        fields,
        first_match: table.get(&key::SEVERAL)? == Several::First,
        cleartext: table.get(&key::CLEARTEXT)?,
        timeout,
        connections,
    })
}

fn read_ldap_bind(table: &Table<'_>) -> Option<LdapBind> {
    let dn = table.require(&at::ldap_bind::DN);
    let password_file = table.require_file(&at::ldap_bind::PASSWORD_FILE);
    Some(LdapBind { dn: dn?, password_file: password_file? })
}

fn read_ldap_fields(table: &Table<'_>) -> LdapFields {
    use at::ldap_fields as key;

    LdapFields {
        backend: table.get(&key::BACKEND),
        password: table.get(&key::PASSWORD),
        disabled: table.get(&key::DISABLED),
        held: table.get(&key::HELD),
        services: table.get(&key::SERVICES),
        networks: table.get(&key::NETWORKS),
        login: table.get(&key::LOGIN),
        login_password: table.get(&key::LOGIN_PASSWORD),
        name: table.get(&key::NAME),
    }
}
