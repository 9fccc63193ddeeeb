//! Directories as the configuration describes them: a file for each type, with its settings and what they mean together.
//!
//! What a directory is asked, and how, doesn't belong here, but to the drivers.

mod http;
mod ldap;
mod oauth2;
mod passwd_file;
mod sql;

use super::problem::NamedFile;
use super::reader::Table;
use super::section::{Key, Section, Variant, Written};
use super::trust::Trust;
use super::values::Pin;
pub(crate) use http::{Http, HttpForm, SecretHeader};
pub(crate) use ldap::{Ldap, LdapFields, LdapScope, LdapUrl, LdapVerify, Several};
pub(crate) use oauth2::{OAuth2, OAuth2Client, TokenCheck};
pub(crate) use sql::{DatabaseTls, Sql};

section! {
    pub(super) struct Typed: "directory", "[directory.NAME]", "A directory: of accounts and where their mail lives, or of tokens. What else stands in it follows from its type.";
    kind as "type": DirectoryType, "What kind of directory it is.";
}

section! {
    pub(super) struct ServerTrust: "directory", "[directory.NAME]  # whose certificates are taken", "What types that are reached over TLS have in common.";
    tls_verify: bool = true, "Check the server's certificate: chain, name and time.";
    ca: Option<NamedFile>, "Authorities to check it against, PEM. Default: the system's.";
    pins as "pin_sha256": Vec<Pin> = [], "Certificates that are taken by their SHA-256 alone; any other is refused. Not for databases, whose drivers can't pin.";
}

/// Somebody who is asked about users, or about tokens.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) name: String,
    pub(crate) kind: DirectoryKind,
}

/// What a directory knows, and where that is kept.
#[derive(Debug, Clone)]
pub(crate) enum DirectoryKind {
    /// Users, their passwords, and where their mail is.
    Accounts { source: AccountSource, abilities: Abilities },
    /// Whose a token is.
    Tokens { settings: Box<OAuth2>, check: TokenCheck },
}

/// Where accounts are kept.
#[derive(Debug, Clone)]
pub(crate) enum AccountSource {
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
}

impl Directory {
    /// What it can do where it knows accounts; `None`: it knows tokens.
    pub(crate) fn abilities(&self) -> Option<Abilities> {
        match self.kind {
            DirectoryKind::Accounts { abilities, .. } => Some(abilities),
            DirectoryKind::Tokens { .. } => None,
        }
    }
}

/// What a directory of accounts can do for others, as far as its settings say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    /// What it keeps of a password can be seen, rather than only asked about.
    pub(crate) keeps_hashes: bool,
    /// It can be asked about a user without a password.
    pub(crate) finds: bool,
    /// It can tell a name that it doesn't know from a wrong password, so that the next directory may be asked.
    pub(crate) tells_unknown: bool,
}

/// The directories of a file.
pub(super) struct Directories {
    pub(super) sound: Vec<Directory>,
}

impl Directories {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let tables = root.named_tables("directory", section_of);
        Self { sound: tables.iter().filter_map(|(name, table)| read(name, table)).collect() }
    }

    /// The directory of this name; of one with a mistake nothing more can be said.
    pub(super) fn get(&self, name: &str) -> Option<&Directory> {
        self.sound.iter().find(|directory| directory.name == name)
    }
}

/// Says of the names in a setting that no directory has.
pub(super) fn check_directories(table: &Table<'_>, key: &Key<Vec<String>>, names: &[String]) {
    names.iter().for_each(|name| table.check_known(key, "directory", name));
}

/// Declares the types: how each is written, and the file that reads it.
macro_rules! types {
    ($($type:ident = $word:literal in $file:ident::$settings:ident;)+) => {
        words! {
            /// What a directory is, as written.
            pub(super) enum DirectoryType { $($type = $word,)+ }
        }

        impl DirectoryType {
            const fn section(self) -> &'static Section {
                match self { $(Self::$type => $file::$settings::SECTION,)+ }
            }
        }

        /// What may stand in the table of a directory, by its type.
        pub(super) static VARIANTS: &[Variant] = &[
            Variant { word: None, section: Typed::SECTION },
            $(Variant { word: Some($word), section: DirectoryType::$type.section() },)+
        ];

        /// `None` only where a problem was recorded.
        fn read(name: &str, table: &Table<'_>) -> Option<Directory> {
            let kind = match Typed::read(table)?.kind {
                $(DirectoryType::$type => $file::read(table)?,)+
            };
            Some(Directory { name: name.to_owned(), kind })
        }
    };
}

types! {
    Sql = "sql" in sql::SqlSettings;
    PasswdFile = "passwd-file" in passwd_file::PasswdFile;
    Ldap = "ldap" in ldap::Ldap;
    Http = "http" in http::Http;
    OAuth2 = "oauth2" in oauth2::OAuth2;
}

/// The section with the settings of a directory, by the type that is written in its table.
fn section_of(table: &Table<'_>) -> &'static Section {
    table.peek(&Typed::kind).map_or(Typed::SECTION, DirectoryType::section)
}

impl Written for Trust {
    const SECTION: &'static Section = ServerTrust::SECTION;

    fn read_over(table: &Table<'_>, over: &Table<'_>) -> Option<Self> {
        let ServerTrust { tls_verify: verify, ca, pins } = ServerTrust::read_over(table, over)?;
        let trust = Self::of(verify, ca, pins);
        if matches!(trust, Self::Unchecked) {
            let what =
                "false: certificates are not checked, so that anyone on the path can read what is asked, and answer it";
            table.warn_of(&ServerTrust::tls_verify, what);
        }
        Some(trust)
    }
}

fn check_connections(table: &Table<'_>, key: &Key<u32>, connections: u32) {
    if connections == 0 || connections > 1000 {
        table.problem_with(key, "is from 1 to 1000");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse_small;

    #[test]
    fn it_is_said_where_servers_are_believed_without_a_look() {
        let types = [
            "type = \"ldap\"\nurls = [\"ldaps://ldap.example\"]\nbase = \"dc=x\"\nfilter = \"(uid=%n)\"",
            "type = \"http\"\nurl = \"https://users.example\"",
            "type = \"oauth2\"\nissuer = \"https://sso.example\"\naudience = [\"mail\"]",
        ];
        let pin = format!("tls_verify = false\npin_sha256 = [\"{}\"]", "0".repeat(64));
        for settings in types {
            for (trust, is_said) in [("tls_verify = false", true), ("", false), (&*pin, false)] {
                let text = format!("[directory.d]\n{settings}\n{trust}");
                let draft = parse_small(&text);
                let warnings: Vec<_> = draft.warnings.iter().map(ToString::to_string).collect();
                let said = warnings.iter().any(|warning| warning.contains("directory.d.tls_verify: false"));
                assert_eq!(said, is_said, "{text}: {warnings:?}");
            }
        }
    }
}
