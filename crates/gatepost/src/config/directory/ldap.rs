//! Directories of type ldap.

use std::path::PathBuf;
use std::time::Duration;

use super::{Abilities, DirectoryKind, Judges, any, more_than_nothing, read_trust, trust, within};
use crate::config::Trust;
use crate::config::reader::{NamedFile, Table};
use crate::config::settings::Child;
use crate::config::template::Template;
use crate::config::values::{LdapTls, Several};

section! { main, "directory", "[directory.NAME]  # type = \"ldap\"", "LDAP servers, Active Directory included. In the texts, %u is the whole name, %n its local part, %d its domain.", {
        tables: &[Child::Table(&bind::SECTION), Child::Table(&fields::SECTION)],
        includes: &[&any::SECTION, &trust::SECTION],
    };
    URLS: Vec<LdapUrl> = "urls", "The servers, all with the same content: asked in order, those that are down last.";
    STARTTLS: LdapTls = "tls" or "\"starttls\"", "For ldap:// servers: none or starttls. ldaps:// is implicit TLS.";
    BASE: Template = "base", "The entry below which users are searched.";
    SCOPE: LdapScope = "scope" or "\"subtree\"", "How far below: base, one or subtree.";
    FILTER: Template = "filter", "Which entry is the user's, such as (mail=%u). What is put in is escaped.";
    DN: Template = "dn", "The name of a user's entry, such as uid=%n,ou=people,dc=example,dc=org, instead of a search below `base`.";
    VERIFY: LdapVerify = "verify" or "\"bind\"", "How a password is checked: bind (log in as the user) or compare (with the hash in `fields.password`).";
    SEVERAL: Several = "several" or "\"refuse\"", "What if several entries match: refuse the log-in, or take the first.";
    CLEARTEXT: bool = "cleartext" or "false", "With compare: take passwords that stand in the directory in clear.";
    TIMEOUT: Duration = "timeout" or "\"4s\"", "For connecting to a server, and for each answer.";
    CONNECTIONS: u32 = "connections" or "8", "Connections at once to each server for checking passwords. Searches share one more.";
}

section! { bind, "bind", "[directory.NAME.bind]", "As whom users are searched. Left out: as nobody (an anonymous search).", {
        title: "Gatepost's own account there",
    };
    DN: String = "dn", "The account's name in the directory; for Active Directory also name@domain.";
    PASSWORD_FILE: PathBuf = "password_file", "The file whose first line is its password.";
}

section! { fields, "fields", "[directory.NAME.fields]", "The attributes that an account is read from. One that is not named is not asked for.", {
        title: "Attributes",
    };
    BACKEND: String = "backend", "Where the mail is: the name of a [backend.…], or a host or host:port that `map.hosts` allows.";
    PASSWORD: String = "password", "The password's hash, for verify = \"compare\".";
    DISABLED: String = "disabled", "Disables the account, unless its value is 0, false, no, off, active or enabled. userAccountControl is read by its flag.";
    HELD: String = "held", "Has log-ins wait while the user is being moved, by the same rule.";
    SERVICES: String = "services", "The only services that the account may use, a value each, such as imap.";
    NETWORKS: String = "networks", "The only networks it may log in from, a value each.";
    NAME: String = "name", "The user's name, as the directory has it: it must be the one that was looked for. For directories that take other letters as equal.";
    LOGIN: String = "login", "The name to log in with at the back end, where it is not the user's.";
    LOGIN_PASSWORD: String = "login_password", "The password for the back end, where it is not the user's own. Only used once the user's is checked.";
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

pub(super) fn read(table: &Table<'_>) -> Option<(DirectoryKind, Abilities)> {
    let ldap = read_ldap(table)?;
    let keeps_hashes = ldap.verify == LdapVerify::Compare;
    // A bind as a user who is not there fails as one with a wrong password does.
    let tells_unknown = ldap.dn.is_none() || keeps_hashes;
    let abilities = Abilities { judges: Judges::Passwords, keeps_hashes, finds: true, tells_unknown };
    Some((DirectoryKind::Ldap(Box::new(ldap)), abilities))
}

fn read_ldap(table: &Table<'_>) -> Option<Ldap> {
    use main as key;

    let urls = table.require(&key::URLS);
    if urls.as_ref().is_some_and(Vec::is_empty) {
        table.problem_with(&key::URLS, "names no server");
    }
    let starttls = table.get(&key::STARTTLS)? == LdapTls::StartTls;
    let trust = read_trust(table)?;
    let in_clear = |url: &&LdapUrl| !starttls && !url.is_tls && !url.is_local;
    if let Some(url) = urls.iter().flatten().find(in_clear) {
        table.warn_of(&key::STARTTLS, format_args!("none: passwords cross the network to {} in clear", url.text));
    }
    if !trust.verify && trust.pins.is_empty() && urls.iter().flatten().any(|url| starttls || url.is_tls) {
        table.warn_of(
            &trust::TLS_VERIFY,
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
    let fields = read_ldap_fields(&table.table(&fields::SECTION));
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
        bind: table.optional_table(&bind::SECTION).and_then(|bind| read_ldap_bind(&bind)),
        verify,
        fields,
        first_match: table.get(&key::SEVERAL)? == Several::First,
        cleartext: table.get(&key::CLEARTEXT)?,
        timeout,
        connections,
    })
}

fn read_ldap_bind(table: &Table<'_>) -> Option<LdapBind> {
    let dn = table.require(&bind::DN);
    let password_file = table.require_file(&bind::PASSWORD_FILE);
    Some(LdapBind { dn: dn?, password_file: password_file? })
}

fn read_ldap_fields(table: &Table<'_>) -> LdapFields {
    use fields as key;

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
