//! Directories of type sql: the embedded file, and databases that are asked with the administrator's own query.

use std::path::Path;
use std::time::Duration;

use super::{Abilities, AccountSource, DirectoryKind, ServerTrust, Typed, check_connections};
use crate::config::problem::{NamedFile, Place};
use crate::config::query::{Dialect, Query};
use crate::config::reader::Table;
use crate::config::section::Written;
use crate::config::trust::Trust;
use crate::config::{is_this_machine, split_port};

section! {
    pub(super) struct SqlSettings: "directory", "[directory.NAME]  # type = \"sql\"", "A SQL database. sqlite:// without `query` is the embedded directory, kept with `gatepost user` or in the console; the settings below `url` are for all others.", {
        includes_apart: &[Typed::SECTION],
    };
    url: String, "sqlite:///path/to/file.db, postgres://user@host/database or mysql://user@host/database (MariaDB too).";
    query: Option<String>, "Gives a user's account in one row. Parameters: :user, :local, :domain, :service. Columns, each optional: name, backend, port, password, disabled, held, services, networks, login, login_password.";
    password_file: Option<NamedFile>, "The file whose first line is the database user's password.";
    tls: Option<SqlTls>, "none or required. Default: none on this machine, else required.";
    connections: u32 = 8, "Connections at once, from 1 to 1000.";
    timeout: Duration = "4s", "For a look-up, with connecting.";
    ..trust: Trust;
    => check;
}

words! {
    /// TLS towards a database, as written.
    pub(super) enum SqlTls {
        None = "none",
        Required = "required",
    }
}

/// TLS towards a database.
#[derive(Debug, Clone)]
pub(crate) enum DatabaseTls {
    None,
    /// Its certificate is checked against these authorities; `None`: the system's.
    Checked(Option<NamedFile>),
    /// Any certificate is taken.
    Unchecked,
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
    pub(crate) tls: DatabaseTls,
    /// At once.
    pub(crate) connections: u32,
    pub(crate) timeout: Duration,
}

pub(super) fn read(table: &Table<'_>) -> Option<DirectoryKind> {
    let abilities = Abilities { keeps_hashes: true, finds: true, tells_unknown: true };
    Some(DirectoryKind::Accounts { source: read_source(table)?, abilities })
}

fn check(read: &SqlSettings, table: &Table<'_>) {
    check_connections(table, &SqlSettings::connections, read.connections);
    table.more_than_nothing(&SqlSettings::timeout, read.timeout);
}

fn read_source(table: &Table<'_>) -> Option<AccountSource> {
    use SqlSettings as key;

    let SqlSettings { url, query, password_file, tls, connections, timeout, trust, .. } = SqlSettings::read(table)?;
    let (dialect, rest) = match url.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() && query.is_none() => {
            return Some(AccountSource::Sqlite { path: table.here(&key::url).named_file(Path::new(path)) });
        }
        Some(("sqlite", path)) if !path.is_empty() => (Dialect::Sqlite, path),
        Some(("postgres" | "postgresql", rest)) => (Dialect::Postgres, rest),
        Some(("mysql" | "mariadb", rest)) => (Dialect::MySql, rest),
        _ => {
            let expected = "sqlite:///path/to/file.db, postgres://user@host/database or mysql://user@host/database";
            table.problem_with(&key::url, format_args!("expected {expected}"));
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
            table.problem_with(&key::query, what);
            return None;
        }
    };
    let (user, host, path) = authority(rest);
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    for option in options.split('&').filter(|option| dialect != Dialect::Sqlite && !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let elsewhere = name == "hostaddr" || (name == "host" && !is_socket(value));
        if elsewhere || name.starts_with("ssl") {
            table.problem_with(
                &key::url,
                format_args!("has {name} behind the question mark: the host stands before it, and TLS is `tls`"),
            );
        }
    }
    if user.contains(':') || options.split('&').any(|option| option.starts_with("password=")) {
        table.warn_of(&key::url, "holds a password: `password_file` keeps it out of this file");
    }
    let is_here = is_local(dialect, host);
    let usual = if is_here { SqlTls::None } else { SqlTls::Required };
    let tls = table.or(&key::tls, tls, usual) == SqlTls::Required;
    if !tls && !is_here {
        table.warn_of(&key::tls, format_args!("none: what is asked of {host} crosses the network in clear"));
    }
    let tls = match trust {
        Trust::Pinned(_) => {
            table.problem_with(&ServerTrust::pins, "can't be used with databases: name the authority with `ca`");
            return None;
        }
        _ if !tls => DatabaseTls::None,
        Trust::By(ca) => DatabaseTls::Checked(ca),
        Trust::Unchecked => DatabaseTls::Unchecked,
    };
    let shown = match dialect {
        Dialect::Sqlite => url.clone(),
        Dialect::Postgres => format!("postgres://{host}{path}"),
        Dialect::MySql => format!("mysql://{host}{path}"),
    };
    let url = match dialect {
        // Relative to the configuration's folder, as every path.
        Dialect::Sqlite => format!("sqlite://{}", table.here(&key::url).named_file(Path::new(rest)).display()),
        Dialect::Postgres | Dialect::MySql => url,
    };
    Some(AccountSource::Sql(Box::new(Sql {
        dialect,
        url,
        shown,
        place: table.place(),
        password_file,
        query,
        tls,
        connections,
        timeout,
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
fn is_local(dialect: Dialect, host: &str) -> bool {
    let is_here = |host| split_port(host).is_some_and(|(name, _)| is_this_machine(name));
    match dialect {
        Dialect::Sqlite => true,
        _ if host.is_empty() || is_here(host.strip_suffix(':').unwrap_or(host)) => true,
        Dialect::Postgres => is_socket(host),
        Dialect::MySql => false,
    }
}

/// Whether a host is the path of a Unix socket's folder, which a URL can only have with its slashes encoded.
fn is_socket(host: &str) -> bool {
    host.starts_with('/') || host.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine() {
        for (dialect, host, expected) in [
            (Dialect::Postgres, "", true),
            (Dialect::Postgres, "localhost:5432", true),
            (Dialect::Postgres, "localhost:", true),
            (Dialect::Postgres, "[::1]:5432", true),
            (Dialect::Postgres, "%2fvar%2frun%2fpostgresql", true),
            (Dialect::MySql, "127.0.0.1", true),
            (Dialect::Postgres, "db.example.org", false),
            (Dialect::Postgres, "10.0.0.1:5432", false),
            // No socket there: the library takes it for a name.
            (Dialect::MySql, "%2Frun%2Fmysqld", false),
        ] {
            assert_eq!(is_local(dialect, host), expected, "{dialect:?} {host}");
        }
    }
}
