//! Directories as the configuration describes them: a file for each type, with its settings and what they mean together.
//!
//! What a directory is asked, and how, doesn't belong here, but to the drivers.

mod http;
mod ldap;
mod oauth2;
mod passwd_file;
mod sql;

use std::path::PathBuf;
use std::time::Duration;

use super::Trust;
use super::reader::{Key, NamedFile, Section, Table};
use super::settings::Variant;
use super::values::Pin;
pub(crate) use http::{Http, HttpForm};
pub(crate) use ldap::{Ldap, LdapFields, LdapScope, LdapUrl, LdapVerify};
pub(crate) use oauth2::OAuth2;
pub(crate) use sql::Sql;

section! { any, "directory", "[directory.NAME]", "A directory of accounts and where their mail lives. What else stands in it follows from its type.";
    TYPE: DirectoryType = "type", "What kind of directory it is.";
}

section! { trust, "directory", "[directory.NAME]  # whose certificates are taken", "What types that are reached over TLS have in common.";
    TLS_VERIFY: bool = "tls_verify" or "true", "Check the server's certificate: chain, name and time.";
    CA: PathBuf = "ca", "Authorities to check it against, PEM. Default: the system's.";
    PINS: Vec<Pin> = "pin_sha256", "Certificates that are taken by their SHA-256 alone; any other is refused. Not for databases, whose drivers can't pin.";
}

/// A source of accounts and places.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) name: String,
    pub(crate) kind: DirectoryKind,
    pub(crate) abilities: Abilities,
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

impl Directory {
    /// Whether it judges tokens, rather than passwords.
    pub(crate) fn takes_tokens(&self) -> bool {
        self.abilities.judges == Judges::Tokens
    }
}

/// What a directory can do for others, as far as its settings say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    pub(crate) judges: Judges,
    /// What it keeps of a password can be seen, rather than only asked about.
    pub(crate) keeps_hashes: bool,
    /// It can be asked about a user without a password.
    pub(crate) finds: bool,
    /// It can tell a name that it doesn't know from a wrong password, so that the next directory may be asked.
    pub(crate) tells_unknown: bool,
}

/// What a directory says to be right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judges {
    Passwords,
    Tokens,
}

/// The directories of a file.
pub(super) struct Directories {
    /// All that stand in it, also those with a mistake.
    named: Vec<String>,
    pub(super) sound: Vec<Directory>,
}

impl Directories {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let tables = root.named_tables("directory", section_of);
        let sound = tables.iter().filter_map(|(name, table)| read(name, table)).collect();
        Self { named: root.names_of("directory"), sound }
    }

    /// The directory of this name; of one with a mistake nothing more can be said.
    pub(super) fn get(&self, name: &str) -> Option<&Directory> {
        self.sound.iter().find(|directory| directory.name == name)
    }

    /// Says of the names in a setting that no directory has.
    pub(super) fn check(&self, table: &Table<'_>, key: &Key<Vec<String>>, names: &[String]) {
        for name in names.iter().filter(|name| !self.named.contains(name)) {
            table.problem_with(key, format_args!("there is no [directory.{name}]"));
        }
    }
}

/// Declares the types: how each is written, and the file that reads it.
macro_rules! types {
    ($first:ident = $first_word:literal in $first_file:ident; $($type:ident = $word:literal in $file:ident;)+) => {
        types! { @ concat!($first_word $(, ", ", $word)+);
            $first = $first_word in $first_file; $($type = $word in $file;)+ }
    };
    (@ $expected:expr; $($type:ident = $word:literal in $file:ident;)+) => {
        /// What a directory is, as written.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum DirectoryType { $($type),+ }

        impl DirectoryType {
            const fn section(self) -> &'static Section {
                match self { $(Self::$type => &$file::main::SECTION,)+ }
            }
        }

        words!(DirectoryType, $expected, $($word => DirectoryType::$type),+);

        /// What may stand in the table of a directory, by its type.
        pub(super) static VARIANTS: &[Variant] = &[
            Variant { word: None, section: &any::SECTION },
            $(Variant { word: Some($word), section: DirectoryType::$type.section() },)+
        ];

        /// `None` only where a problem was recorded.
        fn read(name: &str, table: &Table<'_>) -> Option<Directory> {
            let (kind, abilities) = match table.require(&any::TYPE)? {
                $(DirectoryType::$type => $file::read(table)?,)+
            };
            Some(Directory { name: name.to_owned(), kind, abilities })
        }
    };
}

types! {
    Sql = "sql" in sql;
    PasswdFile = "passwd-file" in passwd_file;
    Ldap = "ldap" in ldap;
    Http = "http" in http;
    OAuth2 = "oauth2" in oauth2;
}

/// The section with the settings of a directory, by the type that is written in its table.
fn section_of(table: &Table<'_>) -> &'static Section {
    table.peek(&any::TYPE).map_or(&any::SECTION, DirectoryType::section)
}

/// Which certificates are taken of the servers of a directory.
fn read_trust(table: &Table<'_>) -> Option<Trust> {
    super::backend::read_trust(table, &trust::TLS_VERIFY, &trust::CA, &trust::PINS)
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
