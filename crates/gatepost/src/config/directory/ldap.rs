//! Directories of type ldap.

use std::borrow::Cow;
use std::time::Duration;

use super::{Abilities, AccountSource, DirectoryKind, Typed, check_connections};
use crate::config::problem::NamedFile;
use crate::config::reader::Table;
use crate::config::section::Written;
use crate::config::template::Template;
use crate::config::trust::Trust;
use crate::config::values::{Value, quoted, text};
use crate::config::{is_this_machine, split_port};
use toml::de::DeValue;

section! {
    pub(crate) struct Ldap: "directory", "[directory.NAME]  # type = \"ldap\"", "LDAP servers, Active Directory included. In the texts, %u is the whole name, %n its local part, %d its domain.", {
        includes_apart: &[Typed::SECTION],
    };
    urls: Vec<LdapUrl> = [], "The servers, all with the same content: asked in order, those that are down last.";
    tls: LdapTls = "starttls", "For ldap:// servers: none or starttls. ldaps:// is implicit TLS.";
    base: Option<Template>, "The entry below which users are searched.";
    scope: LdapScope = "subtree", "How far below: base, one or subtree.";
    filter: Option<Template>, "Which entry is the user's, such as (mail=%u). What is put in is escaped.";
    dn: Option<Template>, "The name of a user's entry, such as uid=%n,ou=people,dc=example,dc=org, instead of a search below `base`.";
    verify: LdapVerify = "bind", "How a password is checked: bind (log in as the user) or compare (with the hash in `fields.password`).";
    several: Several = "refuse", "What if several entries match: refuse the log-in, or take the first.";
    cleartext: bool = false, "With compare: take passwords that stand in the directory in clear.";
    timeout: Duration = "4s", "For connecting to a server, and for each answer.";
    connections: u32 = 8, "Connections at once to each server for checking passwords, from 1 to 1000. Searches share one more.";
    ..trust: Trust;
    [bind]: Option<LdapBind>;
    [fields]: LdapFields;
    => check;
}

section! {
    pub(crate) struct LdapBind: "bind", "[directory.NAME.bind]", "As whom users are searched. Left out: as nobody (an anonymous search).", {
        title: "Gatepost's own account there",
    };
    dn: String, "The account's name in the directory; for Active Directory also name@domain.";
    password_file: NamedFile, "The file whose first line is its password.";
}

section! {
    #[derive(Default)]
    pub(crate) struct LdapFields: "fields", "[directory.NAME.fields]", "The attributes that an account is read from. One that is not named is not asked for.", {
        title: "Attributes",
    };
    backend: Option<String>, "Where the mail is: the name of a [backend.…], or a host or host:port that `map.hosts` allows.";
    password: Option<String>, "The password's hash, for verify = \"compare\".";
    disabled: Option<String>, "Disables the account, unless its value is 0, false, no, n, off, active, enabled or nothing. userAccountControl is read by its flag.";
    held: Option<String>, "Has log-ins wait while the user is being moved, by the same rule.";
    services: Option<String>, "The only services that the account may use, a value each, such as imap.";
    networks: Option<String>, "The only networks it may log in from, a value each.";
    name: Option<String>, "The user's name, as the directory has it: it must be the one that was looked for. For directories that take other letters as equal.";
    login: Option<String>, "The name to log in with at the back end, where it is not the user's.";
    login_password: Option<String>, "The password for the back end, where it is not the user's own. Only used once the user's is checked.";
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

impl Value for LdapUrl {
    const EXPECTED: &'static str = "a URL such as \"ldap://ldap.example.org\" or \"ldaps://ldap.example.org:636\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        Self::parse(text(value)?)
    }

    fn show(&self) -> String {
        quoted(&self.text)
    }
}

impl LdapUrl {
    fn parse(text: &str) -> Option<Self> {
        let (is_tls, rest) = match text.split_once("://")? {
            ("ldap", rest) => (false, rest),
            ("ldaps", rest) => (true, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, _) = split_port(rest)?;
        // An IPv6 address stands in brackets in a URL, and nothing else does.
        let is_sound = host.contains(':') == rest.starts_with('[');
        is_sound.then(|| Self { text: text.to_owned(), is_tls, is_local: is_this_machine(host) })
    }
}

words! {
    /// TLS towards LDAP servers that have no implicit TLS.
    pub(crate) enum LdapTls {
        None = "none",
        StartTls = "starttls",
    }
}

words! {
    /// Under which entries a search looks.
    pub(crate) enum LdapScope {
        Base = "base",
        One = "one",
        Subtree = "subtree",
    }
}

words! {
    /// How a password is checked.
    pub(crate) enum LdapVerify {
        /// By logging in as the user.
        Bind = "bind",
        /// Against the hash in the entry.
        Compare = "compare",
    }
}

words! {
    /// What becomes of a search that finds several entries.
    pub(crate) enum Several {
        Refuse = "refuse",
        First = "first",
    }
}

impl Ldap {
    /// Whether servers that are not reached by implicit TLS are asked for STARTTLS.
    pub(crate) fn starts_tls(&self) -> bool {
        self.tls == LdapTls::StartTls
    }
}

pub(super) fn read(table: &Table<'_>) -> Option<DirectoryKind> {
    let ldap = Ldap::read(table)?;
    let keeps_hashes = ldap.verify == LdapVerify::Compare;
    // A bind as a user who is not there fails as one with a wrong password does.
    let tells_unknown = ldap.dn.is_none() || keeps_hashes;
    let abilities = Abilities { keeps_hashes, finds: true, tells_unknown };
    Some(DirectoryKind::Accounts { source: AccountSource::Ldap(Box::new(ldap)), abilities })
}

fn check(read: &Ldap, table: &Table<'_>) {
    check_servers(read, table);
    check_search(read, table);
    table.more_than_nothing(&Ldap::timeout, read.timeout);
    check_connections(table, &Ldap::connections, read.connections);
    if read.verify == LdapVerify::Compare && read.fields.password.is_none() {
        table.problem_with(&Ldap::verify, "compare needs `fields.password`, the attribute with the hash");
    }
}

fn check_servers(read: &Ldap, table: &Table<'_>) {
    if read.urls.is_empty() {
        table.problem("needs `urls`, where the servers are");
    }
    let in_clear = |url: &&LdapUrl| !read.starts_tls() && !url.is_tls && !url.is_local;
    if let Some(url) = read.urls.iter().find(in_clear) {
        table.warn_of(&Ldap::tls, format_args!("none: passwords cross the network to {} in clear", url.text));
    }
}

/// Whether the user's entry can be found, and only that.
fn check_search(read: &Ldap, table: &Table<'_>) {
    let Ldap { base, dn, filter, .. } = read;
    match (base, dn) {
        (None, None) => {
            table.problem("needs `base`, below which users are searched, or `dn`, the name of a user's entry");
        }
        (Some(_), Some(_)) => table.problem_with(&Ldap::dn, "says which entry it is, so that `base` has no use"),
        _ => {}
    }
    match (filter, dn) {
        (None, None) => table.problem("needs `filter`, such as \"(mail=%u)\""),
        (Some(filter), None) if !filter.names_the_user() => {
            let what = "has neither %u nor %n in it: it would find the same entries for everybody";
            table.problem_with(&Ldap::filter, what);
        }
        _ => {}
    }
    if let Some(dn) = dn.as_ref().filter(|dn| !dn.names_the_user()) {
        table.problem_with(&Ldap::dn, format_args!("{dn:?} is the same entry for everybody: use %u or %n"));
    }
    if let Some(filter) = filter {
        let example = filter.render("user@example.org", Cow::Borrowed).unwrap_or_default();
        if ldap3::parse_filter(&example).is_err() {
            let what = format_args!("is no LDAP filter (RFC 4515); for user@example.org it reads {example:?}");
            table.problem_with(&Ldap::filter, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, is_tls, is_local) in [
            ("ldap://ldap.example.org", false, false),
            ("ldap://ldap.example.org:1389/", false, false),
            ("ldaps://127.0.0.1:636", true, true),
            ("ldap://[::1]", false, true),
            ("ldaps://[2001:db8::1]:636", true, false),
        ] {
            let url = LdapUrl::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((url.text.as_str(), url.is_tls, url.is_local), (text, is_tls, is_local));
        }
        for bad in
            ["ldap.example.org", "http://a", "ldap://", "ldap://::1", "ldap://[10.0.0.1]", "ldap://a:0", "ldap://a b"]
        {
            assert!(LdapUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
